"""Waves of the ridge axis: `exp(i <w, kappa(b)>)` as a series in `exp(i omega_r b)`, with what the series misses.

A statistic of a layer's output is `y = a + kappa(b)`, `kappa(b) = shear (b - centre) + coefficient psi(b)`, so that
`E exp(i <w, y>) = sum_r C_r(w) E exp(i <w, a> + i omega_r b)`. The coefficients are those of the windowed wave, which
is of size one: for a piecewise linear psi they have a closed form, for an analytic psi they come from equal nodes.
What lies beyond the highest frequency is bounded by the least of two: by Parseval's identity and the noise of b; and by
how fast the coefficients fall, from the strip of psi or the jumps of its slope.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..activation import Activation
from ..types import Array, Complex, Float, Scalar
from .axis import CELLS, EDGE, Axis, Cells, log_geometric, log_mass_above, periodic
from .box import mirror
from .certified import PiecewiseLinear
from .characteristic import cis
from .projection import Projection


class Bend(eqx.Module):
    """`kappa_d(b) = shear_d (b - centre) + coefficient_d psi(b)`, `d = 1 .. D`."""

    shear: Float[Array, " D"]
    coefficient: Float[Array, " D"]
    centre: Scalar
    activation: Activation

    def __call__(self, b: Float[Array, "*s"]) -> Float[Array, "D *s"]:
        return jnp.multiply.outer(self.shear, b - self.centre) + jnp.multiply.outer(
            self.coefficient, self.activation(b)
        )

    @property
    def piecewise(self) -> bool:
        """Whether psi is piecewise linear: else it is analytic."""
        return self.activation.piecewise_linear

    def slopes(self, width: Float[Array, "*s"]) -> Float[Array, "D *s"]:
        """Bounds of `|kappa_d'|` at `b + i v`, `|v| <= width`; infinite where psi is not analytic."""
        own = jnp.abs(self.coefficient)
        steep = jnp.multiply.outer(own, jnp.where(self.piecewise, jnp.inf, self.activation.strip.slope(width)))
        none = jnp.expand_dims(own == 0, tuple(range(1, steep.ndim)))
        return jnp.where(none, 0, steep) + jnp.expand_dims(jnp.abs(self.shear), tuple(range(1, steep.ndim)))

    def steepest(self) -> Float[Array, " D"]:
        """Bounds of `|kappa_d'|` on the real axis."""
        return jnp.abs(self.shear) + jnp.abs(self.coefficient) * self.activation.strip.slope(
            jnp.zeros_like(self.centre)
        )

    def range(self, low: Scalar, high: Scalar) -> tuple[Float[Array, " D"], Float[Array, " D"]]:
        """The least and the most of `kappa_d` for b in an interval, or a little beyond."""
        least, most = self._ranges(low + (high - low) * jnp.linspace(0, 1, 129, dtype=low.dtype))
        return least.min(axis=1), most.max(axis=1)

    def cells(self, law: Projection, axis: Axis) -> list[Cells]:
        """Each `kappa_d` by cells of b, whose law and axis are given."""
        low, high = axis.inner
        ends = low + (high - low) * jnp.linspace(0, 1, CELLS + 1, dtype=low.dtype)
        above, below = log_mass_above(law, ends[:-1]), log_mass_above(mirror(law), -ends[1:])
        least, most = self._ranges(ends)
        mass = jnp.minimum(above, below)
        return [Cells(least[d], most[d], mass, axis.missed) for d in range(self.shear.size)]

    def _ranges(self, b: Float[Array, " P"]) -> tuple[Float[Array, "D C"], Float[Array, "D C"]]:
        # By Lipschitz' bound between neighbours.
        values, between = self(b), self.steepest()[:, None] * (b[1:] - b[:-1])[None]
        sums = values[:, 1:] + values[:, :-1]
        return (sums - between) / 2, (sums + between) / 2


def coefficients(axis: Axis, bend: Bend, frequency: Float[Array, "W D"]) -> tuple[Complex[Array, "W R"], Array, Array]:
    """`C_r(w)` of `exp(i omega_r (b - low))`, `r = -K .. K`; bounds of errors, `[W, 1]`, and rounding, `[W, R]`."""
    return _piecewise(axis, bend, frequency) if bend.piecewise else _analytic(axis, bend, frequency)


def frequencies(axis: Axis) -> Float[Array, " R"]:
    """`omega_-K .. omega_K`."""
    return jnp.concatenate([-axis.frequency[:0:-1], axis.frequency])


def _analytic(axis: Axis, bend: Bend, frequency):
    nodes = 4 * axis.order
    v = axis.nodes(nodes)
    phase = frequency @ bend(axis.low + axis.length * v)
    wave = periodic(cis(phase) * axis.window(v)[None], nodes, axis=1)
    spectrum = jnp.fft.fft(wave, axis=1) / nodes
    kept = jnp.concatenate([spectrum[:, nodes - axis.order :], spectrum[:, : axis.order + 1]], axis=1)
    apart = axis.step * (nodes - axis.order) * axis.strips
    alias = _least(axis, -apart - log_geometric(axis.step * nodes * axis.strips), _growth(axis, bend, frequency))
    largest = jnp.max(jnp.abs(phase), axis=1)
    rounding = jnp.finfo(v.dtype).eps / math.sqrt(nodes) * (8 + 2 * math.log2(nodes) + largest)
    alias, rounding = jax.lax.stop_gradient((alias[:, None], rounding[:, None]))
    return kept, alias, jnp.broadcast_to(rounding, kept.shape)


def _growth(axis: Axis, bend: Bend, frequency) -> Float[Array, "W rho"]:
    # log |exp(i <w, kappa(b + iv)>)| <= sum_d |w_d| |Im kappa_d|
    steep = bend.slopes(axis.strips)[None]
    size = jnp.abs(frequency)[:, :, None]
    return jnp.sum(jnp.where(size > 0, size * steep, 0), axis=1) * axis.strips[None]


def _least(axis: Axis, exponent: Float[Array, " rho"], log_sup: Float[Array, "W rho"]) -> Float[Array, " W"]:
    log = (exponent + axis.log_share)[None] + log_sup
    return 2 * jnp.exp(jnp.min(jnp.where(jnp.isnan(log), jnp.inf, log), axis=-1))


def _pieces(axis: Axis, bend: Bend, frequency):
    """Ends and slopes of the pieces of `<w, kappa(b)>`: places `[P]`, phases there `[W, P]`, slopes `[W, P + 1]`.

    Kinks outside of the inner box stand at its ends: the wave is another one where there is no mass, but of size one.
    """
    line = PiecewiseLinear.of(bend.activation, axis.low.dtype)
    places = jnp.clip(line.places, *axis.inner)
    psi_slopes = line.slope + jnp.concatenate([jnp.zeros(1, places.dtype), jnp.cumsum(line.jumps)])
    slopes = (frequency @ bend.shear)[:, None] + (frequency @ bend.coefficient)[:, None] * psi_slopes[None]
    return places, frequency @ bend(places), slopes


def _piecewise(axis: Axis, bend: Bend, frequency):
    places, phases, slopes = _pieces(axis, bend, frequency)
    omega = frequencies(axis)
    sigma, half_edge = axis.edge_width, EDGE * axis.length / 2
    start = phases[:, :, None] - (omega[None] * (places - axis.low)[:, None])[None]
    nu = slopes[:, :, None] - omega[None, None]
    before, after = places[0] - (axis.low + half_edge), axis.low + axis.length - half_edge - places[-1]
    total = cis(start[:, 0]) * _gaussian_end(-nu[:, 0], before, sigma)
    total = total + cis(start[:, -1]) * _gaussian_end(nu[:, -1], after, sigma)
    for i in range(places.size - 1):
        length = places[i + 1] - places[i]
        total = total + cis(start[:, i]) * _segment(nu[:, i + 1], length)
    largest = jnp.max(jnp.abs(phases), axis=1) + jnp.max(jnp.abs(slopes), axis=1) * axis.length
    # Relative to 1, not to the coefficient: of a segment at most 2 / |nu| remains.
    near = jnp.min(jnp.abs(nu), axis=1)
    size = jnp.minimum(1, (2 + places.size) / jnp.where(near > 0, near * axis.length, 1e-30))
    relative = 8 + largest[:, None] + (jnp.abs(omega) * axis.length)[None]
    rounding = jnp.finfo(axis.low.dtype).eps * size * relative
    return total / axis.length, jnp.zeros_like(rounding[:, :1]), jax.lax.stop_gradient(rounding)


def _segment(nu, length):
    """`int_0^length exp(i nu x) dx`."""
    half = nu * length / 2
    return length * jnp.sinc(half / jnp.pi) * cis(half)


def _gaussian_end(nu, length, sigma):
    """The same to an end that is Gaussian, of that mean and standard deviation."""
    u = (nu * sigma) ** 2 / 2
    small = u < 1e-3
    safe = jnp.where(small, 1, u)
    share = jnp.where(small, 1 - u / 2 + u**2 / 6 - u**3 / 24, -jnp.expm1(-safe) / safe)
    return _segment(nu, length) + cis(nu * length) * jax.lax.complex(jnp.zeros_like(nu), nu * sigma**2 / 2 * share)


# --------------------------------------------------------------------------------------------- what the series misses


class Missing(NamedTuple):
    """Bounds `[W]` of `sum_{|r| > K} |C_r(w)| d(omega_r)`: `full` for `d = exp(-s^2 omega^2 / 2)`, `half` of `s^2 / 2`.

    And `weighted` for the coefficients of `kappa_F(b) exp(i <w, kappa(b)>)`, with the full damping.
    """

    full: Float[Array, " W"]
    half: Float[Array, " W"]
    weighted: Float[Array, " W"]


class Damping(eqx.Module):
    """How small the noise makes `E exp(i <w, a> + i omega b)` at the first omega beyond the grid, of either sign.

    It is at most `exp(-q / 2)`, with a quadratic form q of `(w, omega)`, or with `q = noise^2 omega^2`, the noise of b
    given a. Fields, `[2, 2, W]` for these two and both signs: q there, from below, and `slope`, half of how fast it
    grows from there; both 0 where it falls.
    """

    q: Float[Array, "2 2 W"]
    slope: Float[Array, "2 2 W"]
    step: Scalar

    @classmethod
    def of(cls, axis: Axis, covariance: Float[Array, "E E"], frequency: Float[Array, "W D"]) -> "Damping":
        """With the Gaussian covariance of `(a, b)`; the axis has the noise of b given a."""
        own, cross, last = covariance[:-1, :-1], frequency @ covariance[:-1, -1], covariance[-1, -1]
        first = axis.step * (axis.order + 1)
        sizes = jnp.abs(frequency) @ jnp.sqrt(jnp.diagonal(own)) + first * jnp.sqrt(last)
        rounding = 64 * jnp.finfo(first.dtype).eps * sizes**2
        signed = jnp.stack([cross, -cross])
        q = jnp.einsum("wd,de,we->w", frequency, own, frequency) + last * first**2 - rounding
        q = q[None] + 2 * first * signed
        slope = signed + (last * first - rounding / first)[None]
        grows = (slope > 0) & (q > 0)
        least = jnp.full(q.shape, axis.noise**2 * first)
        both = jnp.stack([least * first, jnp.where(grows, q, 0)]), jnp.stack([least, jnp.where(grows, slope, 0)])
        return cls(*both, axis.step)

    def largest(self, share: float = 1.0) -> Float[Array, " W"]:
        """A bound of `exp(-share q / 2)` beyond the grid."""
        return jnp.exp(-share * jnp.min(jnp.max(self.q, axis=0), axis=0) / 2)

    def root_sum(self, share: float = 1.0) -> Float[Array, " W"]:
        """`(sum exp(-share q))^(1/2)` over all omega beyond the grid, from above."""
        each = jnp.exp(-share * self.q) / -jnp.expm1(-2 * share * self.slope * self.step)
        return jnp.sqrt(jnp.sum(jnp.min(each, axis=0), axis=0))


def missing(axis: Axis, bend: Bend, frequency: Float[Array, "W D"], weight: Bend, damping: Damping) -> Missing:
    """What the series of the waves miss; `weight` is `kappa_F`, one function, with the same psi."""
    least, most = weight.range(*axis.extended)
    largest = jnp.maximum(jnp.abs(least), jnp.abs(most))[0]
    plain, weighted = (_kinked if bend.piecewise else _smooth)(axis, bend, frequency, weight, largest)
    # Or by Parseval's identity: sum |C_r|^2 <= 1.02, as the wave times the window is hardly larger than 1.
    full, half = (jnp.fmin(plain * damping.largest(share), 1.01 * damping.root_sum(share)) for share in (1.0, 0.5))
    weighted = jnp.fmin(weighted * damping.largest(), 1.01 * largest * damping.root_sum())
    return Missing(full, half, weighted)


def _smooth(axis: Axis, bend: Bend, frequency, weight: Bend, largest):
    growth = _growth(axis, bend, frequency)
    first = axis.step * (axis.order + 1)
    exponent = -first * axis.strips - log_geometric(axis.step * axis.strips)
    plain = _least(axis, exponent, growth)
    far = largest + axis.strips * weight.slopes(axis.strips)[0]
    return plain, _least(axis, exponent + jnp.log(far), growth)


def _kinked(axis: Axis, bend: Bend, frequency, weight: Bend, largest):
    _, _, slopes = _pieces(axis, bend, frequency)
    jump = jnp.sum(jnp.abs(slopes[:, 1:] - slopes[:, :-1]), axis=1)
    nearest = axis.top - jnp.max(jnp.abs(slopes), axis=1)  # |nu| beyond the highest frequency, from below
    safe = jnp.where(nearest > 0, nearest, 1)
    # sum_{r > K} 1 / nu_r^2 <= 1 / (step nearest), for both signs; then the four ends of the window's two sides.
    kinks = 2 / (axis.length * axis.step * safe)
    sigma = axis.edge_width
    ends = 4 * jnp.exp(-((safe * sigma) ** 2) / 2) / (axis.length * safe)
    ends = ends / -jnp.expm1(-(sigma**2) * axis.step * safe)
    steepest = weight.steepest()[0]
    jumps = PiecewiseLinear.of(weight.activation, axis.low.dtype).jumps
    bent = jnp.abs(weight.coefficient[0]) * jnp.sum(jnp.abs(jumps))
    plain = kinks * jump + ends
    more = bent + largest * jump + 2 * steepest * jump / safe
    weighted = kinks * more + ends * (largest + 2 * steepest / safe + steepest * sigma * (1 + 2 * sigma * safe))
    return tuple(jnp.where(nearest > 0, one, jnp.inf) for one in (plain, weighted))

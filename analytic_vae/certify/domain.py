"""One axis of a certified expectation: its box, its window, and how fast coefficients fall on it."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..spectral.box import interval, mirror
from ..spectral.projected_law import Projection
from ..types import Array, Float, Scalar
from .tail_mass import RangeCells, log_mass_above, sixteenth

EDGE = 0.18  # of the box, per side, in which the window falls: here more than the engine's, as all of it is charged

LAYERS = 8  # in which the fall of the window is charged

RATES = np.geomspace(0.25, 256.0, 61)  # w_K rho, among which the best strip is chosen

WIDTHS = np.array([0.0, 1.0, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 9, 10])  # w_K eta, for the smoothing


class Domain(eqx.Module):
    """A box of one projection and what lies outside of it.

    Fields: `low`, `length` of the box; `noise`, the standard deviation given all other axes; `missed`, a bound of
    `E |1 - W(Y)|`; `reach`, of `(E |Y - centre|^16)^(1/16)`; `order`, the highest frequency index K.
    """

    low: Scalar
    length: Scalar
    noise: Scalar
    missed: Scalar
    reach: Scalar
    order: int = eqx.field(static=True)

    @classmethod
    def of(cls, law: Projection, noise: Scalar, order: int, bend: RangeCells | None = None) -> "Domain":
        """The axis of a law of one projection Y, or of `Y + h` with the cells of h; boxes carry no derivatives.

        Of `Y + h` the `reach` is that of Y alone.
        """
        law, noise, bend = jax.lax.stop_gradient((law, noise, bend))
        inner_low, inner_high = interval(law, -math.log(jnp.finfo(law.mean.dtype).eps))
        mirrored, elsewhere = mirror(law), 0.0
        if bend is not None:
            full = inner_low + bend.least.min(), inner_high + bend.most.max()
            inner_low, inner_high = bend.shorter(law, mirrored, *full)
            elsewhere = bend.elsewhere
        length = (inner_high - inner_low) / (1 - 2 * EDGE)
        # Per side: 1 - W is at most 1 beyond the inner box, and half of erfc(s (1 + 2 x)) at x edges inside of it.
        s, x = edge_steepness(order), np.arange(1, LAYERS + 1) / LAYERS
        lacks = jnp.asarray([1, *(math.erfc(s * (1 + 2 * (one - 1 / LAYERS))) / 2 for one in x)], length.dtype)
        depths = EDGE * length * jnp.asarray([0, *x], length.dtype)
        above = log_mass_above(law, inner_high - depths, bend)
        below = log_mass_above(mirrored, -inner_low - depths, None if bend is None else bend.mirrored)
        missed = lacks @ (jnp.exp(above) + jnp.exp(below)) + math.erfc(3 * s) + elsewhere
        low = inner_low - EDGE * length
        return cls(low, length, noise, missed, sixteenth(law, low + length / 2), order)

    @property
    def edge_width(self) -> Scalar:
        """Standard deviation of each end of the box, which is Gaussian: its step is an error function then."""
        return EDGE * self.length / (2 * math.sqrt(2) * edge_steepness(self.order))

    @property
    def inner(self) -> tuple[Scalar, Scalar]:
        """The part of the box where the window is 1."""
        edge = EDGE * self.length
        return self.low + edge, self.low + self.length - edge

    @property
    def centre(self) -> Scalar:
        """The middle of the box."""
        return self.low + self.length / 2

    @property
    def farthest(self) -> Scalar:
        """The largest `|y|` of the box."""
        return jnp.maximum(jnp.abs(self.low), jnp.abs(self.low + self.length))

    @property
    def step(self) -> Scalar:
        """`w_1`."""
        return 2 * jnp.pi / self.length

    @property
    def top(self) -> Scalar:
        """`w_K`."""
        return self.step * self.order

    @property
    def frequency(self) -> Float[Array, " K"]:
        """`w_0 .. w_K`."""
        return self.step * jnp.arange(self.order + 1, dtype=self.low.dtype)

    @property
    def extended(self) -> tuple[Scalar, Scalar]:
        """The box and once more its edges: beyond, the window is nothing."""
        edge = EDGE * self.length
        return self.low - edge, self.low + self.length + edge

    @property
    def strips(self) -> Float[Array, " rho"]:
        """The half-widths `rho` that are tried."""
        return jnp.asarray(RATES, self.low.dtype) / self.top

    def window(self, v: Float[Array, " Q"]) -> Float[Array, " Q"]:
        """`W` in box coordinates."""
        s = edge_steepness(self.order)
        erf = jax.scipy.special.erf
        return (1 + erf(s * (2 * v / EDGE - 1))) * (1 + erf(s * (2 * (1 - v) / EDGE - 1))) / 4

    def nodes(self, count: int) -> Float[Array, " Q"]:
        """Box coordinates of a rule of `count` equal nodes, and of as many beyond as the window needs."""
        beyond = math.ceil(EDGE * count)
        return jnp.arange(-beyond, count + beyond, dtype=self.low.dtype) / count

    def damping(self, index: Array | int, noise: Array | None = None) -> Array:
        """`exp(-noise^2 w_k^2 / 2)`; with the axis' own noise, the default, a bound of `|phi(w_k)|`."""
        noise = self.noise if noise is None else noise
        return jnp.exp(-((noise * self.step * index) ** 2) / 2)

    @property
    def log_share(self) -> Float[Array, " rho"]:
        """`log (1 / length) int |W(y + i rho)| dy` in the `strips`, by `|erfc(x + iv)| <= e^(v^2) erfc(x)`."""
        s = edge_steepness(self.order)
        shift = 2 * s / (EDGE * self.length) * self.strips
        return jnp.logaddexp(0.0, shift**2 + math.log(EDGE / (s * math.sqrt(math.pi))) + 0.02)

    def analytic_tail(self, sup: Float[Array, " rho"], noise: Array, order: int) -> Scalar:
        """Bound of `sum_{|k| > order} |c_k| exp(-noise^2 w_k^2 / 2)` of a function at most `sup` in the `strips`."""
        first = self.step * (order + 1)
        return self._least(-first * self.strips - log_geometric(self.step * self.strips), sup) * jnp.exp(
            -((noise * first) ** 2) / 2
        )

    def alias(self, sup: Float[Array, " rho"], nodes: int, order: int) -> Scalar:
        """Bound of the error of every coefficient up to `order` from a rule of that many equal nodes."""
        apart = self.step * (nodes - order) * self.strips
        return self._least(-apart - log_geometric(self.step * nodes * self.strips), sup)

    def _least(self, exponent: Float[Array, " rho"], sup: Float[Array, " rho"]) -> Scalar:
        # Twice, for both signs of k.
        log = exponent + self.log_share + jnp.log(jnp.maximum(sup, jnp.finfo(sup.dtype).tiny))
        return 2 * jnp.exp(jnp.min(jnp.where(jnp.isnan(log), jnp.inf, log)))

    def kink_tail(self, eta: Float[Array, " E"], noise: Array) -> Float[Array, " E"]:
        """`sum_{|k| > K} (1 / length) w_k^-2 F(eta w_k) exp(-noise^2 w_k^2 / 2)`: the tail of a unit jump of the slope.

        `F(x) = (1 + x^2 / 2) exp(-x^2 / 2)` smooths: its kernel has the moments of a point mass up to the third.
        """
        last = 8 * self.order
        w = self.step * jnp.arange(self.order + 1, last + 1, dtype=self.low.dtype)
        x = (eta[:, None] * w[None]) ** 2 / 2
        term = (1 + x) * jnp.exp(-x - ((noise * w) ** 2 / 2)[None]) / (w**2)[None] / self.length
        return 2 * (term.sum(axis=1) + term[:, -1] * last)  # sum_{k > n} k^-2 <= 1 / n


def edge_steepness(order: int) -> float:
    """Of the window's error function: that of `series.window`, but never as flat as it is for few frequencies."""
    return float(np.clip(np.pi * EDGE * order / 2, 6, 32)) ** 0.5


def periodic(values: Array, count: int, axis: int) -> Array:
    """Values at `Domain.nodes(count)` along an axis of an array as one period of their periodic continuation."""
    beyond = (values.shape[axis] - count) // 2
    before, inside, after = jnp.split(values, [beyond, beyond + count], axis=axis)
    start, middle, end = jnp.split(inside, [beyond, count - beyond], axis=axis)
    return jnp.concatenate([start + after, middle, end + before], axis=axis)


def smoothed_mass(axis: Domain, law: Projection, places: Float[Array, " P"], eta: Float[Array, " E"]) -> Array:
    """Bounds `[E, P]` of `E exp(-(Y - t)^2 / (4 eta^2))`, how much of the law is near a kink, for `eta w_K >= 1` or 0.

    Poisson's sum over the box's frequencies, where the Gaussian's own transform falls as `exp(-eta^2 w^2)`.
    """
    top = 4 * axis.order
    w = axis.step * jnp.arange(top + 1, dtype=axis.low.dtype)
    phi = jax.vmap(lambda one: _characteristic(law, one))(w)
    eta = eta[:, None]
    transform = eta * math.sqrt(4 * math.pi) / axis.length * jnp.exp(-((eta * w[None]) ** 2))
    wave = phi[None] * jnp.exp(-1j * w[None] * (places[:, None] - law.mean[0]))
    doubled = transform * jnp.where(w == 0, 1, 2)[None]
    value = jnp.einsum("ew,pw->ep", doubled, wave.real)
    beyond = 2 * transform[:, -1:] * top / jnp.maximum(1, 2 * (eta * w[-1]) ** 2)  # by an integral
    rounding = doubled @ (jnp.finfo(w.dtype).eps * (64 + 64 * axis.length * w))
    return jnp.clip(value + beyond + rounding[:, None], 0, 1)


def _characteristic(law: Projection, w: Scalar) -> Array:
    # less the phase of the mean
    features = jnp.sum(law.masses * jnp.exp(1j * w * law.atoms[0]), axis=1)
    return jnp.exp(-law.covariance[0, 0] * w**2 / 2) * jnp.prod(features)


def log_geometric(x: Array) -> Array:
    """`log (1 - e^-x)`."""
    return jnp.log(-jnp.expm1(-x))

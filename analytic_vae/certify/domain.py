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

# of the box, per side, in which the window falls: here more than the engine's, as all of it is charged (B15: a choice)
EDGE = 0.18

LAYERS = 8  # in which the fall of the window is charged (B16: a choice)

RATES = np.geomspace(0.25, 256.0, 61)  # w_K rho, among which the best strip is chosen (B19: a choice)

# w_K eta, for the smoothing of kinks (B23: a choice, but each 0 or from 1 to 10, which B25 needs)
WIDTHS = np.array([0.0, 1.0, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 9, 10])

FLATTEST, STEEPEST = 6, 32  # s^2 of the window's error function; at least 6, which B15 to B19 and B39 need

CROSSING = 0.02  # in the logarithm of a strip's share: for points that both ends of the window reach (B19)

SMOOTHING = 0.2  # at least phi(0) / 2 = 0.19947: what smoothing a unit kink by eta changes, in eta (B23)

# Coefficients come from so many times K nodes, and so many times K of them are looked at (B27, B57: choices).
NODES, KNOWN = 8, 3

KNOWN_KINKS = 8  # so many times K are the terms of a kink's tail that are summed one by one (B24: a choice)

KNOWN_MASS = 4  # so many times K are the frequencies of the mass near a kink (B25: a choice)


class Domain(eqx.Module):
    """A box of one projection and what lies outside of it.

    Fields: `low`, `length` of the box; `noise`, the standard deviation given all other axes; `missed`, a bound of
    `E |1 - W(Y)|` (B16) and of the copies of W (B17); `reach`, of `(E |Y - centre|^16)^(1/16)` (B13); `order`, the
    highest frequency index K.
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
        # B16. Per side: 1 - W is at most 1 beyond the inner box, and half of erfc(s (1 + 2 x)) at x edges inside of it.
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
    def frequency(self) -> Float[Array, " W"]:
        """`w_0 .. w_K`."""
        return self.step * jnp.arange(self.order + 1, dtype=self.low.dtype)

    @property
    def extended(self) -> tuple[Scalar, Scalar]:
        """The box and once more its edges: beyond, the window is below `erfc(3 s) / 2`, which is nothing (B15)."""
        edge = EDGE * self.length
        return self.low - edge, self.low + self.length + edge

    @property
    def strips(self) -> Float[Array, " rho"]:
        """The half-widths `rho` that are tried (B19)."""
        return jnp.asarray(RATES, self.low.dtype) / self.top

    def window(self, v: Float[Array, " Q"]) -> Float[Array, " Q"]:
        """`W` in box coordinates (B15)."""
        s = edge_steepness(self.order)
        erf = jax.scipy.special.erf
        return (1 + erf(s * (2 * v / EDGE - 1))) * (1 + erf(s * (2 * (1 - v) / EDGE - 1))) / 4

    def nodes(self, count: int) -> Float[Array, " Q"]:
        """Box coordinates of a rule of `count` equal nodes, and of as many beyond as the window needs."""
        beyond = math.ceil(EDGE * count)
        return jnp.arange(-beyond, count + beyond, dtype=self.low.dtype) / count

    def damping(self, index: Array | int, noise: Array | None = None) -> Array:
        """`exp(-noise^2 w_k^2 / 2)`; with the axis' own noise, the default, a bound of `|phi(w_k)|` (B22)."""
        noise = self.noise if noise is None else noise
        return jnp.exp(-((noise * self.step * index) ** 2) / 2)

    @property
    def log_share(self) -> Float[Array, " rho"]:
        """`log (1 / length) int |W(y + i rho)| dy` in the `strips`, by `|erfc(x + iv)| <= e^(v^2) erfc(x)` (B19)."""
        s = edge_steepness(self.order)
        shift = 2 * s / (EDGE * self.length) * self.strips
        share = jnp.logaddexp(0.0, shift**2 + math.log(EDGE / (s * math.sqrt(math.pi))) + CROSSING)
        # In wide strips the points that both ends of the window reach are more than CROSSING provides for.
        apart = 2 * (s * (1 - EDGE) / EDGE) ** 2
        both = 2 * shift**2 - apart + math.log(EDGE / (8 * s) * math.sqrt(math.pi / 2))
        return jnp.where(shift**2 <= apart - 3, share, jnp.logaddexp(share, both))

    def analytic_tail(self, sup: Float[Array, " rho"], noise: Array, order: int) -> Scalar:
        """Bound of `sum_{|k| > order} |c_k| exp(-noise^2 w_k^2 / 2)` for functions up to `sup` in the strips (B20)."""
        first = self.step * (order + 1)
        return self._least(-first * self.strips - log_geometric(self.step * self.strips), sup) * jnp.exp(
            -((noise * first) ** 2) / 2
        )

    def alias(self, sup: Float[Array, " rho"], nodes: int, order: int) -> Scalar:
        """Bound of the error of every coefficient up to `order` from a rule of that many equal nodes (B21)."""
        apart = self.step * (nodes - order) * self.strips
        return self._least(-apart - log_geometric(self.step * nodes * self.strips), sup)

    def _least(self, exponent: Float[Array, " rho"], sup: Float[Array, " rho"]) -> Scalar:
        """The least over the strips of B19; twice, for both signs of k."""
        log = exponent + self.log_share + jnp.log(jnp.maximum(sup, jnp.finfo(sup.dtype).tiny))
        return 2 * jnp.exp(jnp.min(jnp.where(jnp.isnan(log), jnp.inf, log)))

    def kink_tail(self, eta: Float[Array, " widths"], noise: Array) -> Float[Array, " widths"]:
        """The tail of a unit jump of the slope: `sum_{|k| > K} (1 / length) w_k^-2 F(eta w_k) exp(-noise^2 w_k^2 / 2)`.

        B24. `F(x) = (1 + x^2 / 2) exp(-x^2 / 2)` smooths: its kernel has a point mass' moments up to the third (B23).
        """
        last = KNOWN_KINKS * self.order
        w = self.step * jnp.arange(self.order + 1, last + 1, dtype=self.low.dtype)
        x = (eta[:, None] * w[None]) ** 2 / 2
        term = (1 + x) * jnp.exp(-x - ((noise * w) ** 2 / 2)[None]) / (w**2)[None] / self.length
        return 2 * (term.sum(axis=1) + term[:, -1] * last)  # B24: sum_{k > n} k^-2 <= 1 / n


def edge_steepness(order: int) -> float:
    """`s` of the window (B15): that of `fourier.window`, but never as flat as it is for few frequencies."""
    return float(np.clip(np.pi * EDGE * order / 2, FLATTEST, STEEPEST)) ** 0.5


def periodic(values: Array, count: int, axis: int) -> Array:
    """Values at `Domain.nodes(count)` along an axis of an array as one period of their periodic continuation."""
    beyond = (values.shape[axis] - count) // 2
    before, inside, after = jnp.split(values, [beyond, beyond + count], axis=axis)
    start, middle, end = jnp.split(inside, [beyond, count - beyond], axis=axis)
    return jnp.concatenate([start + after, middle, end + before], axis=axis)


def smoothed_mass(axis: Domain, law: Projection, places: Float[Array, " P"], eta: Float[Array, " widths"]) -> Array:
    """Bounds `[widths, P]` of `E exp(-(Y - t)^2 / (4 eta^2))`, how much of the law is near a kink (B25).

    Poisson's sum over the box's frequencies, where the Gaussian's own transform falls as `exp(-eta^2 w^2)`.
    """
    top = KNOWN_MASS * axis.order
    w = axis.step * jnp.arange(top + 1, dtype=axis.low.dtype)
    phi = jax.vmap(lambda one: _characteristic(law, one))(w)
    eta = eta[:, None]
    transform = eta * math.sqrt(4 * math.pi) / axis.length * jnp.exp(-((eta * w[None]) ** 2))
    wave = phi[None] * jnp.exp(-1j * w[None] * (places[:, None] - law.mean[0]))
    doubled = transform * jnp.where(w == 0, 1, 2)[None]
    value = jnp.einsum("ew,pw->ep", doubled, wave.real)
    beyond = 2 * transform[:, -1:] * top / jnp.maximum(1, 2 * (eta * w[-1]) ** 2)  # B25: by an integral
    rounding = doubled @ (jnp.finfo(w.dtype).eps * (64 + 64 * axis.length * w))  # B4
    return jnp.clip(value + beyond + rounding[:, None], 0, 1)


def _characteristic(law: Projection, w: Scalar) -> Array:
    """`phi(w)` less the phase of the mean."""
    features = jnp.sum(law.masses * jnp.exp(1j * w * law.atoms[0]), axis=1)
    return jnp.exp(-law.covariance[0, 0] * w**2 / 2) * jnp.prod(features)


def log_geometric(x: Array) -> Array:
    """`log (1 - e^-x)`."""
    return jnp.log(-jnp.expm1(-x))

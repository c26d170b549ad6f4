"""One axis of a certified expectation: its box, its window, and how fast coefficients fall on it.

A function `g` is multiplied by a window `W`, 1 on the inner part of a box and an error function at its ends, and made
periodic: `E g(Y) = E[g (1 - W)] + sum_k c_k phi(w_k)`, `w_k = 2 pi k / length`. What is left out is bounded:

- *outside*: `E |g| |1 - W|`, from Chernoff's bound with the exact log moment-generating function;
- *tail*: `sum_{|k| > K} |c_k| |phi(w_k)|`, `|phi| <= exp(-s^2 w^2 / 2)` with the noise `s` of the axis given others;
  a `g` that is analytic and at most M in the strip `|Im y| <= rho` has `|c_k| <= M e^(-w_k rho)` times the window's
  share; one with kinks falls as `w_k^-2` and is smoothed first if there is not noise enough (`WIDTHS`);
- *aliases* of a rule of N equal nodes: `sum_{|k| >= N - K} |c_k|`;
- *rounding*, as in the notes (independent roundings).
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..types import Array, Float, Scalar
from .box import floor, interval, spread
from .projection import Projection
from .series import MARGIN, widen

GROWTH = 16  # functions that grow: E |g| 1{outside} by Hoelder's inequality, from (E |Y|^16)^(1/16)
RATES = np.geomspace(0.25, 256.0, 61)  # w_K rho, among which the best strip is chosen
WIDTHS = np.array([0.0, 1.0, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 9, 10])  # w_K eta, for the smoothing


class Axis(eqx.Module):
    """A box of one projection and what lies outside of it.

    Fields: `low`, `length` of the box; `noise`, the standard deviation given all other axes; `missed`, a bound of
    `E |1 - W(Y)|`; `spread`, of `(E |Y - centre|^16)^(1/16)`; `order`, the highest frequency index K.
    """

    low: Scalar
    length: Scalar
    noise: Scalar
    missed: Scalar
    spread: Scalar
    order: int = eqx.field(static=True)

    @classmethod
    def of(cls, law: Projection, noise: Scalar, order: int) -> "Axis":
        """The axis of a law of one projection; boxes carry no derivatives."""
        law, noise = jax.lax.stop_gradient((law, noise))
        c = -math.log(jnp.finfo(law.mean.dtype).eps)
        inner_low, inner_high = interval(law, c)
        low, length = widen(inner_low, inner_high)
        s = edge_steepness(order)
        edge = MARGIN * length
        # Per side: 1 - W is at most 1 beyond the inner box, half of erfc(s) within an edge of it, then of erfc(3 s).
        beyond = log_mass_above(law, inner_high, inner_high - edge)
        below = log_mass_above(_mirror(law), -inner_low, -inner_low - edge)
        mass, near = jnp.exp(beyond[0]) + jnp.exp(below[0]), jnp.exp(beyond[1]) + jnp.exp(below[1])
        missed = mass + math.erfc(s) / 2 * near + math.erfc(3 * s)
        return cls(low, length, noise, missed, _sixteenth(law, low + length / 2), order)

    @property
    def centre(self) -> Scalar:
        """The middle of the box."""
        return self.low + self.length / 2

    @property
    def frequency(self) -> Float[Array, " K"]:
        """`w_0 .. w_K`."""
        return 2 * jnp.pi / self.length * jnp.arange(self.order + 1, dtype=self.low.dtype)

    @property
    def top(self) -> Scalar:
        """`w_K`."""
        return 2 * jnp.pi / self.length * self.order

    @property
    def extended(self) -> tuple[Scalar, Scalar]:
        """The box and once more its edges: beyond, the window is nothing."""
        edge = MARGIN * self.length
        return self.low - edge, self.low + self.length + edge

    @property
    def strips(self) -> Float[Array, " rho"]:
        """The half-widths `rho` that are tried."""
        return jnp.asarray(RATES, self.low.dtype) / self.top

    def window(self, v: Float[Array, " Q"]) -> Float[Array, " Q"]:
        """`W` in box coordinates."""
        s = edge_steepness(self.order)
        erf = jax.scipy.special.erf
        return (1 + erf(s * (2 * v / MARGIN - 1))) * (1 + erf(s * (2 * (1 - v) / MARGIN - 1))) / 4

    def log_window_share(self, rho: Array) -> Array:
        """Logarithm of a bound of `(1 / length) int |W(y + i rho)| dy`: `|erfc(x + iv)| <= e^(v^2) erfc(x)`."""
        s = edge_steepness(self.order)
        shift = 2 * s / (MARGIN * self.length) * rho
        return jnp.logaddexp(0.0, shift**2 + math.log(MARGIN / (s * math.sqrt(math.pi))) + 0.02)

    def damping(self, index: Array) -> Array:
        """`exp(-s^2 w_k^2 / 2)`, a bound of `|phi(w_k)|`."""
        return jnp.exp(-((self.noise * 2 * jnp.pi / self.length * index) ** 2) / 2)

    def analytic_tail(
        self, sup: Float[Array, "rho *out"], noise: Array | float = 0.0, order: int | None = None
    ) -> Float[Array, "*out"]:
        """Bound of `sum_{|k| > K} |c_k| exp(-noise^2 w_k^2 / 2)` of a function at most `sup` in each of the `strips`.

        K is `order`, that of the axis if not given.
        """
        w = 2 * jnp.pi / self.length * ((order or self.order) + 1)
        exponent = -w * self.strips - (noise * w) ** 2 / 2 - _log_geometric(2 * jnp.pi / self.length * self.strips)
        return self._least(exponent, sup) * 2

    def alias(self, sup: Float[Array, "rho *out"], nodes: int, order: int | None = None) -> Float[Array, "*out"]:
        """Bound of the error of every coefficient up to `order` from a rule of that many equal nodes."""
        step = 2 * jnp.pi / self.length
        exponent = -step * (nodes - (order or self.order)) * self.strips - _log_geometric(step * nodes * self.strips)
        return self._least(exponent, sup) * 2

    def _least(self, exponent: Float[Array, " rho"], sup: Float[Array, "rho *out"]) -> Float[Array, "*out"]:
        exponent = exponent + self.log_window_share(self.strips)
        log = exponent.reshape(-1, *[1] * (sup.ndim - 1)) + jnp.log(jnp.maximum(sup, jnp.finfo(sup.dtype).tiny))
        return jnp.exp(jnp.min(jnp.where(jnp.isnan(log), jnp.inf, log), axis=0))

    def kink_tail(self, power: int, eta: Float[Array, " E"], noise: Array) -> Float[Array, " E"]:
        """`sum_{|k| > K} (1 / L) w_k^-power F(eta w_k) exp(-noise^2 w_k^2 / 2)`: the tail of a unit jump.

        `F(x) = (1 + x^2 / 2) exp(-x^2 / 2)` smooths: its kernel has the moments of a point mass up to the third.
        """
        last = 8 * self.order
        k = jnp.arange(self.order + 1, last + 1, dtype=self.low.dtype)
        w = 2 * jnp.pi / self.length * k

        def term(w):
            x = (eta[:, None] * w[None]) ** 2 / 2
            return (1 + x) * jnp.exp(-x - ((noise * w) ** 2 / 2)[None]) / (w**power)[None] / self.length

        end = term(w[-1:])[:, 0] * last
        if power == 1:  # sum 1 / k does not converge: what damps it must
            x = (eta**2 + noise**2) * w[-1] ** 2 / 2
            end = end * jnp.maximum(1, 1 / jnp.maximum(x, jnp.finfo(x.dtype).tiny))
        return 2 * (term(w).sum(axis=-1) + end)


def edge_steepness(order: int) -> float:
    """Of the window's error function, as in `series.window`."""
    return float(np.clip(np.pi * MARGIN * order / 2, 6, 32)) ** 0.5


def log_mgf(law: Projection, theta: Float[Array, " T"]) -> Float[Array, " T"]:
    """`log E exp(theta (Y - mean))` for D = 1, exact; `mean` is that of the `Projection`."""
    exponent = theta[:, None, None] * law.atoms[0][None]
    features = jax.nn.logsumexp(exponent, axis=2, b=law.masses[None]).sum(axis=1)
    return features + law.covariance[0, 0] * theta**2 / 2


def log_mass_above(law: Projection, *heights: Scalar) -> list[Scalar]:
    """Bounds of `log P(Y > h)`, D = 1: Chernoff's, or by the noise beyond the end of the exact support."""
    deviation = spread(law)[0]
    theta = jnp.geomspace(0.02, 400.0, 72, dtype=deviation.dtype) / deviation
    mgf = log_mgf(law, theta)
    highest = law.mean[0] + jnp.max(jnp.where(law.masses > 0, law.atoms[0], -jnp.inf), axis=1).sum()
    noise = jnp.sqrt(law.covariance[0, 0])
    slack = 8 * jnp.finfo(deviation.dtype).eps * (jnp.abs(highest) + jnp.abs(law.atoms[0]).max(axis=1).sum())

    def above(h):
        chernoff = jnp.min(mgf - theta * (h - law.mean[0]))
        gap = h - highest - slack
        beyond = jnp.where(noise > 0, -((gap / jnp.where(noise > 0, noise, 1)) ** 2) / 2, -jnp.inf)
        return jnp.minimum(0, jnp.minimum(chernoff, jnp.where(gap > 0, beyond, 0)))

    return [above(h) for h in heights]


def smoothed_mass(axis: Axis, law: Projection, places: Float[Array, " P"], eta: Float[Array, " E"]) -> Array:
    """Bounds `[E, P]` of `E exp(-(Y - t)^2 / (4 eta^2))`: how much of the law is near a kink; 1 for `eta = 0`.

    Poisson's sum over the box's frequencies, where the Gaussian's own transform falls as `exp(-eta^2 w^2)`.
    """
    top = 4 * axis.order
    w = 2 * jnp.pi / axis.length * jnp.arange(top + 1, dtype=axis.low.dtype)
    phi = jax.vmap(lambda one: _characteristic(law, one))(w)
    eta = eta[:, None]
    transform = eta * math.sqrt(4 * math.pi) / axis.length * jnp.exp(-((eta * w[None]) ** 2))
    wave = phi[None] * jnp.exp(-1j * w[None] * (places[:, None] - law.mean[0]))
    transform_all = transform * jnp.where(w == 0, 1, 2)[None]
    value = jnp.einsum("ew,pw->ep", transform_all, wave.real)
    # the terms beyond, by an integral, and the rounding of all of them
    rest = 2 * transform[:, -1:] * top / jnp.maximum(1, 2 * (eta * w[-1]) ** 2)
    rounding = jnp.finfo(w.dtype).eps * (64 + 64 * axis.length * w)
    noise = jnp.sum(transform_all * rounding[None], axis=1, keepdims=True)
    return jnp.clip(value + rest + noise, 0, 1)


def _characteristic(law: Projection, w: Scalar) -> Array:
    features = jnp.sum(law.masses * jnp.exp(1j * w * law.atoms[0]), axis=1)
    return jnp.exp(-law.covariance[0, 0] * w**2 / 2) * jnp.prod(features)


def _log_geometric(x: Array) -> Array:
    """`log (1 - e^-x)`."""
    return jnp.log(-jnp.expm1(-x))


def _mirror(law: Projection) -> Projection:
    return Projection(-law.mean, -law.atoms, law.masses, law.covariance)


def _sixteenth(law: Projection, centre: Scalar) -> Scalar:
    # y^16 <= 16! cosh(theta y) / theta^16
    deviation = spread(law)[0]
    theta = jnp.geomspace(0.02, 40.0, 24, dtype=deviation.dtype) / deviation
    shifted = Projection(law.mean, law.atoms, law.masses, law.covariance)
    middle = law.total_mean[0] - law.mean[0]
    both = jnp.logaddexp(log_mgf(shifted, theta) - theta * middle, log_mgf(_mirror(shifted), theta) + theta * middle)
    root = jnp.min((math.lgamma(GROWTH + 1) + both) / GROWTH - jnp.log(theta))
    return jnp.exp(root) + jnp.abs(law.total_mean[0] - centre) + floor(jnp.abs(law.mean[0]))

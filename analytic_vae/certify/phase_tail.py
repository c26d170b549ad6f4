"""What the series of a wave of the ridge axis misses, bounded."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp

from ..types import Array, Float, Scalar
from .ball import DOUBT
from .domain import Domain, log_geometric
from .functions import PiecewiseLinear
from .phase_series import _growth, _least, _pieces, weight_in_strips
from .ridge_function import RidgeFunction

WHOLE = 1.01  # at least (sum |C_r|^2)^(1/2): the wave times the window is hardly larger than 1 (B49)


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
    grows from there; both 0 where it falls (B48).
    """

    q: Float[Array, "2 2 W"]
    slope: Float[Array, "2 2 W"]
    step: Scalar

    @classmethod
    def of(cls, axis: Domain, covariance: Float[Array, "D2 D2"], frequency: Float[Array, "W D"]) -> "Damping":
        """With the Gaussian covariance of `(a, b)`; the axis has the noise of b given a."""
        own, cross, last = covariance[:-1, :-1], frequency @ covariance[:-1, -1], covariance[-1, -1]
        first = axis.step * (axis.order + 1)
        sizes = jnp.abs(frequency) @ jnp.sqrt(jnp.diagonal(own)) + first * jnp.sqrt(last)
        rounding = DOUBT * jnp.finfo(first.dtype).eps * sizes**2
        signed = jnp.stack([cross, -cross])
        q = jnp.einsum("wd,de,we->w", frequency, own, frequency) + last * first**2 - rounding
        q = q[None] + 2 * first * signed
        slope = signed + (last * first - rounding / first)[None]
        grows = (slope > 0) & (q > 0)
        least = jnp.full(q.shape, axis.noise**2 * first)
        both = jnp.stack([least * first, jnp.where(grows, q, 0)]), jnp.stack([least, jnp.where(grows, slope, 0)])
        return cls(*both, axis.step)

    def largest(self, share: float = 1.0) -> Float[Array, " W"]:
        """A bound of `exp(-share q / 2)` beyond the grid (B48)."""
        return jnp.exp(-share * jnp.min(jnp.max(self.q, axis=0), axis=0) / 2)

    def root_sum(self, share: float = 1.0) -> Float[Array, " W"]:
        """`(sum exp(-share q))^(1/2)` over all omega beyond the grid, from above (B48)."""
        each = jnp.exp(-share * self.q) / -jnp.expm1(-2 * share * self.slope * self.step)
        return jnp.sqrt(jnp.sum(jnp.min(each, axis=0), axis=0))


def missing(
    axis: Domain, bend: RidgeFunction, frequency: Float[Array, "W D"], weight: RidgeFunction, damping: Damping
) -> Missing:
    """What the series of the waves miss; `weight` is `kappa_F`, one function, with the same psi (B49 to B51)."""
    largest = weight.largest(axis)[0]
    plain, weighted = (_kinked if bend.piecewise else _smooth)(axis, bend, frequency, weight, largest)
    # Or by Parseval's identity and Cauchy and Schwarz (B49).
    full, half = (jnp.fmin(plain * damping.largest(share), WHOLE * damping.root_sum(share)) for share in (1.0, 0.5))
    weighted = jnp.fmin(weighted * damping.largest(), WHOLE * largest * damping.root_sum())
    return Missing(full, half, weighted)


def _smooth(axis: Domain, bend: RidgeFunction, frequency, weight: RidgeFunction, largest):
    """Sums of sizes beyond the grid, without damping: of the waves, and of the weight times them (B50)."""
    growth = _growth(axis, bend, frequency)
    first = axis.step * (axis.order + 1)
    exponent = -first * axis.strips - log_geometric(axis.step * axis.strips)
    plain = _least(axis, exponent, growth)
    return plain, _least(axis, exponent + jnp.log(weight_in_strips(axis, weight, largest)), growth)


def _kinked(axis: Domain, bend: RidgeFunction, frequency, weight: RidgeFunction, largest):
    """The same, of waves with kinks (B51)."""
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

"""Expectations of products of two functions, each of one projection, with a bound of the error."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..spectral.characteristic import cis, gaussian_factor, product_over_features, ridge_table
from ..spectral.projected_law import Projection
from ..types import Array, Complex, Float, Scalar
from .ball import DOUBT, SIGMAS, Bounded, bounded
from .domain import Domain
from .factor import factor


class CharacteristicGrid(NamedTuple):
    """`phi(w, omega) exp(-i <., low>)` of a law of D projections at some `w: [W, D - 1]` and all of `omega: [O]`.

    `rounding: [W, O]` bounds its own rounding errors (B36), not those of the law (B5); `size` is that of the Gaussian
    part alone, which bounds all of it (B22).
    """

    phi: Complex[Array, "W O"]
    rounding: Float[Array, "W O"]
    size: Float[Array, "W O"]

    @classmethod
    def of(
        cls,
        law: Projection,
        low: Float[Array, " D"],
        frequency: Float[Array, "W C"],
        omega: Float[Array, " O"],
    ) -> "CharacteristicGrid":
        """The characteristic function."""
        mean, atoms, covariance = law.mean - low, law.atoms, law.covariance
        # Not the recurrence of `waves`: its rounding is larger than what is charged here (B36).
        left = jnp.moveaxis(cis(jnp.tensordot(frequency, atoms[:-1, :, 1:], axes=1)), 1, 0)
        features = product_over_features(law.masses[:, 0], left, ridge_table(omega, atoms[-1], law.masses))
        first = covariance[:-1, :-1], covariance[:-1, -1]
        gauss = gaussian_factor(frequency, omega, mean[:-1], mean[-1], *first, covariance[-1, -1])
        m, K = law.masses.shape
        spans = jnp.abs(atoms).max(axis=2).sum(axis=1) + jnp.abs(mean)
        deviation = jnp.sqrt(jnp.diagonal(covariance))
        over = jnp.abs(frequency)
        reach = (over @ spans[:-1])[:, None] + (jnp.abs(omega) * spans[-1])[None]
        quadratic = ((over @ deviation[:-1])[:, None] + (jnp.abs(omega) * deviation[-1])[None]) ** 2  # may cancel
        relative = reach + math.sqrt(m) * (2 * math.sqrt(K) + 6) + 2 * quadratic + 8  # B36
        size = jnp.abs(gauss)
        return cls(features * gauss, jnp.finfo(omega.dtype).eps * size * relative, size)


def product_expectation(law: Projection, scale: Float[Array, " D"], functions: list, order: int) -> Bounded:
    """`E[prod_d g_d(Y_d)]`, D = 1 or 2, of a `PiecewiseLinear`, `Analytic` or `OneOf` each (B33, B34).

    `scale`: sizes of what the projections were summed from, by which their rounding goes (B5).
    """
    alone = [law.alone(d) for d in range(len(functions))]
    axes = [Domain.of(one, _conditional(law.covariance, d), order) for d, one in enumerate(alone)]
    factors = [factor(axis, jax.lax.stop_gradient(one), g) for axis, one, g in zip(axes, alone, functions, strict=True)]
    low, omega = jnp.stack([axis.low for axis in axes]), axes[-1].frequency
    first = jnp.zeros((1, 0), omega.dtype)
    if len(axes) == 2:  # all frequencies of the first axis, half of the second's
        first = jnp.concatenate([-axes[0].frequency[:0:-1], axes[0].frequency])[:, None]
    grid = CharacteristicGrid.of(law, low, first, omega)
    b = factors[-1]
    twice = jnp.full(omega.shape, 2.0, omega.dtype).at[0].set(1.0)  # both signs of the half axis
    value, roundoff, aliasing = (b.coefficients * twice)[None], (b.roundoff * twice)[None], (b.aliasing * twice)[None]
    moved = b.slope * (scale[-1] + axes[-1].length)
    if len(functions) == 1:
        missed = b.outside + b.bias + b.tail  # B33
    else:
        a = factors[0]
        whole, whole_jitter = (
            jnp.concatenate([f(one[:0:-1]), one])[:, None]
            for f, one in ((jnp.conj, a.coefficients), (jnp.abs, a.roundoff))
        )
        aliasing = a.aliasing * (jnp.abs(value) + aliasing) + jnp.abs(whole) * aliasing
        roundoff = jnp.hypot(whole_jitter * jnp.abs(value), jnp.abs(whole) * roundoff)
        value = whole * value
        # B34: frequencies beyond either axis, or both; smoothing; what is outside of the boxes.
        size_a, size_b = (2 * jnp.sum(jnp.abs(f.coefficients) + f.aliasing) for f in factors)
        missed = a.tail * size_b + b.tail * size_a + a.half_tail * b.half_tail + a.bias * b.sup + b.bias * a.sup
        missed = missed + 2 * (axes[0].missed ** (3 / 4) + axes[1].missed ** (3 / 4)) * a.norm * b.norm
        moved = moved * a.norm + a.slope * (scale[0] + axes[0].length) * b.norm
    size, phi, eps = jnp.abs(value), jnp.abs(grid.phi), jnp.finfo(omega.dtype).eps
    missed = missed + jnp.sum(aliasing * phi) + 4 * eps * moved  # B5
    rounding = jnp.hypot(
        jnp.hypot(size * grid.rounding, roundoff * grid.size), eps * math.log2(size.size + 1) * size * phi
    )
    error = missed + SIGMAS * jnp.sqrt(jnp.sum(rounding**2))  # B2
    # A bound is not to be differentiated: its gradient is zero, never NaN.
    return bounded(jnp.sum((value * grid.phi).real), error)


def _conditional(covariance: Float[Array, "D D"], d: int) -> Scalar:
    """Standard deviation of one Gaussian of two given the other, from below: 0 if rounding leaves a doubt (B35)."""
    own = covariance[d, d]
    if covariance.shape[0] == 1:
        return jnp.sqrt(own)
    other, shared = covariance[1 - d, 1 - d], covariance[0, 1]
    rest = own - jnp.where(other > 0, shared**2 / jnp.where(other > 0, other, 1), 0)
    return jnp.sqrt(jnp.maximum(rest - DOUBT * jnp.finfo(own.dtype).eps * own, 0))

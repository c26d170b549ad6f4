"""Moments of an activation of one projection, `E psi^2` and `E a psi`, with bounds of their errors."""

import math

import jax
import jax.numpy as jnp

from ..model.activation import Activation
from ..spectral.projected_law import Projection
from ..types import Array, Float
from .ball import SIGMAS, Bounded, bounded
from .domain import Domain
from .factor import factor
from .functions import PiecewiseLinear, as_function
from .joint_law import LARGEST
from .phase_series import SMALL, coefficients, frequencies
from .product import CharacteristicGrid, product_expectation
from .ridge_function import RidgeFunction
from .tail_mass import sixteenth


def activation_square(law: Projection, scale: Float[Array, " 1"], activation: Activation, order: int) -> Bounded:
    """`E psi(b)^2` (B33; of pieces B39)."""
    if not activation.piecewise_linear:
        return product_expectation(law, scale, [as_function(activation, law.mean.dtype).squared()], order)
    return _square_of_pieces(law, scale, activation, order)


def activation_with(law: Projection, scale: Float[Array, " 2"], activation: Activation, order: int) -> Bounded:
    """`E a psi(b)` for the law of `(a, b)`: from the derivative of its characteristic function (B38)."""
    alone = [law.alone(d) for d in range(2)]
    axis = Domain.of(alone[1], jnp.sqrt(law.covariance[1, 1]), order)
    given = factor(axis, jax.lax.stop_gradient(alone[1]), as_function(activation, law.mean.dtype))
    zero = jnp.zeros(1, law.mean.dtype)
    low, omega = jnp.stack([zero[0], axis.low]), axis.frequency

    def phi(tau):
        """`E exp(i tau a + i omega b)` at one tau."""
        plane = CharacteristicGrid.of(law, low, tau[None, None], omega)
        return plane.phi[0], plane

    _, derivative, plane = jax.jvp(phi, (zero[0],), (jnp.ones_like(zero[0]),), has_aux=True)
    twice = jnp.full(omega.shape, 2.0, omega.dtype).at[0].set(1.0)
    product = given.coefficients * -1j * derivative * twice
    size, eps = jnp.abs(given.coefficients) * twice, jnp.finfo(omega.dtype).eps
    deviation, high = jnp.sqrt(law.covariance[0, 0]), sixteenth(alone[0], zero[0])
    # B37: |d phi / d tau| is at most span exp(-x^2 / 4), x the deviation of the Gaussian part of omega b.
    span = jnp.abs(law.atoms[0]).max(axis=1).sum() + jnp.abs(law.mean[0]) + 8 * deviation
    smaller, summed = jnp.sqrt(plane.size[0]), eps * math.log2(omega.size)  # B36
    rounding = size * (2 * plane.rounding[0] + (8 * eps + summed) * smaller)
    error = 2 * span * SIGMAS * jnp.sqrt(jnp.sum(rounding**2 + (twice * given.roundoff * smaller) ** 2))
    error = error + 2 * span * given.aliasing * twice @ smaller
    error = error + 4 * eps * (scale[0] * given.norm + high * given.slope * (scale[1] + axis.length))
    # B38: the tail (by B37), what smoothing changes (by Cauchy and Schwarz), what is outside of the box (by B14).
    error = error + high * (given.tail + given.bias_norm) + LARGEST * deviation * given.half_tail
    power = 7 / 8 if activation.regularity.growth is None else 3 / 4
    error = error + axis.missed**power * high * (2 * given.norm + given.sup)
    return bounded(jnp.sum(product.real), error)


def _square_of_pieces(law: Projection, scale, activation: Activation, order: int) -> Bounded:
    """`E psi^2` from the coefficients of `exp(i tau psi)`, in closed form: minus its second derivative (B39)."""
    last = 4 * order  # coefficients that are computed; those beyond the order for their sizes only (a choice)
    axis = Domain.of(law, jnp.sqrt(law.covariance[0, 0]), last)
    zero, one = jnp.zeros(1, law.mean.dtype), jnp.ones(1, law.mean.dtype)
    bend = RidgeFunction(zero, one, zero[0], activation)

    def series(tau):
        """The coefficients of `exp(i tau psi)`."""
        return coefficients(axis, bend, tau[None, None])[0][0]

    first = lambda tau: jax.jvp(series, (tau,), (one[0],))[1]  # noqa: E731
    square = -jax.jvp(first, (zero[0],), (one[0],))[1]
    omega = frequencies(axis)
    inside = jnp.abs(jnp.arange(-last, last + 1)) <= order
    plane = CharacteristicGrid.of(law, axis.low[None], jnp.zeros((1, 0), omega.dtype), jnp.where(inside, omega, 0))
    size, eps = jnp.abs(square), jnp.finfo(omega.dtype).eps
    most = bend.largest(axis)[0]  # B45
    falls = jnp.minimum(1, 4 / (SMALL + jnp.abs(omega) * axis.length))  # B4: coefficients fall as 1 / omega, or faster
    roundoff = eps * (8 + jnp.abs(omega) * axis.length) * falls * (most**2 + (bend.steepest()[0] * axis.length) ** 2)
    value = jnp.sum(jnp.where(inside, square * plane.phi[0], 0).real)
    summed = eps * math.log2(omega.size)
    rounding = jnp.hypot(size * (plane.rounding[0] + summed * plane.size[0]), roundoff * plane.size[0])
    error = SIGMAS * jnp.sqrt(jnp.sum(jnp.where(inside, rounding, 0) ** 2))
    error = error + jnp.sum(jnp.where(inside, 0, (size + roundoff) * jnp.exp(-((axis.noise * omega) ** 2) / 2)))
    norm = jnp.abs(activation(axis.centre)) + bend.steepest()[0] * axis.reach
    error = error + 8 * eps * norm * bend.steepest()[0] * (scale[0] + axis.length)
    # B39, beyond: jumps of the slope of psi^2 and of its second derivative, and the window's ends.
    line = PiecewiseLinear.of(activation, omega.dtype)
    slopes = line.slope + jnp.concatenate([zero, jnp.cumsum(line.jumps)])
    slope_jumps = 2 * jnp.sum(jnp.abs(activation(jnp.clip(line.places, *axis.inner)) * line.jumps))
    bends = 2 * jnp.sum(jnp.abs(slopes[1:] ** 2 - slopes[:-1] ** 2))
    kinks = 2 / (axis.length * axis.step * axis.top) * (slope_jumps + bends / (2 * axis.top))
    x = axis.edge_width * axis.top
    ends = 4 * jnp.exp(-(x**2) / 2) * (1 + x**2) ** 2 * most**2 / (axis.length * axis.top)
    ends = ends / -jnp.expm1(-x * axis.edge_width * axis.step)
    error = error + (kinks + ends) * axis.damping(last)
    return bounded(value, error + 4 * axis.missed ** (7 / 8) * norm**2)  # B14 and B45

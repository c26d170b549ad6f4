"""What an error bound must know of an activation off the real axis."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from ..types import Scalar


class Regularity(NamedTuple):
    """How large an activation is at complex arguments `b + i v`, `|v| <= width`: what a certified error is made of.

    Fields:
        sup: `(low, high, width) -> ` a bound of `|psi|` for `low <= b <= high`, infinity where psi is not analytic.
        slope: `width -> ` a bound of `|psi'|` for all real `b` and `|v| <= width`; with kinks, of every piece's slope.
        jumps: by how much the slope jumps at each kink. A psi with kinks must be continuous and linear between them.
    """

    sup: Callable[[Scalar, Scalar, Scalar], Scalar]
    slope: Callable[[Scalar], Scalar]
    jumps: tuple[float, ...] = ()


def _farthest(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    return jnp.maximum(jnp.abs(low), jnp.abs(high)) + width


def _within(width: Scalar, limit: float, value: Scalar) -> Scalar:
    return jnp.where(width < limit, value, jnp.inf)


def _safe(width: Scalar, limit: float) -> Scalar:
    return jnp.minimum(width, 0.999 * limit)


def _linear(largest_slope: float, jumps: tuple[float, ...]) -> Regularity:
    return Regularity(
        lambda low, high, width: largest_slope * _farthest(low, high, width),
        lambda width: largest_slope * jnp.ones_like(width),
        jumps,
    )


def _gelu_slope(width: Scalar) -> Scalar:
    return jnp.exp(width**2 / 2) * (1.25 + 0.4 * width)


def _sigmoid_sup(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    beyond = 1 / jnp.sin(jnp.clip(width, jnp.pi / 2, 0.999 * jnp.pi))
    return _within(width, 0.999 * jnp.pi, beyond)


def _sigmoid_slope(width: Scalar) -> Scalar:
    return _within(width, 0.999 * jnp.pi, 0.25 / jnp.cos(_safe(width, jnp.pi) / 2) ** 2)


def _tanh_sup(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    return _within(width, 0.499 * jnp.pi, jnp.maximum(1, jnp.tan(_safe(width, jnp.pi / 2))))


def _tanh_slope(width: Scalar) -> Scalar:
    return _within(width, 0.499 * jnp.pi, 1 / jnp.cos(_safe(width, jnp.pi / 2)) ** 2)


def _softplus_sup(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    # |log(1 + e^z)| <= |log |1 + e^z|| + pi, and |1 + e^z| is at most 2 e^max(b, 0), at least 1 or sin |v|.
    nearest = jnp.sin(jnp.clip(width, jnp.pi / 2, 0.999 * jnp.pi))
    return _within(width, 0.999 * jnp.pi, jnp.maximum(high, 0) + jnp.log(2.0) - jnp.log(nearest) + jnp.pi)

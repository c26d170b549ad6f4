"""What an error bound must know of an activation off the real axis (B7, B8)."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from ..types import Scalar

Bound = Callable[[Scalar, Scalar, Scalar], Scalar]

_TANH_SCALE, _CUBIC = (2 / jnp.pi) ** 0.5, 0.044715  # of the tanh approximation of gelu


class Regularity(NamedTuple):
    """How large an activation is at complex arguments: what a certified error is made of.

    Fields:
        sup: `(low, high, width) -> ` a bound of `|psi(b + i v)|` for `low <= b <= high`, `|v| <= width`, infinity where
            psi is not analytic.
        slope: the same of `|psi'|`, with kinks of every piece's; `(-inf, inf, 0)` asks for the real axis.
        jumps: by how much the slope jumps at each kink. A psi with kinks must be continuous and linear between them.
        growth: `(degree, slope)` of a psi that grows faster than linearly: a bound of the slope of its root of that
            degree (2) on the real axis.
    """

    sup: Bound
    slope: Bound
    jumps: tuple[float, ...] = ()
    growth: tuple[int, float] | None = None


def linear(largest_slope: float, jumps: tuple[float, ...], offset: float = 0.0) -> Regularity:
    """Of a piecewise linear function with `|psi(0)| <= offset`."""
    return Regularity(
        lambda low, high, width: offset + largest_slope * farthest(low, high, width),
        lambda low, high, width: largest_slope * jnp.ones_like(width),
        jumps,
    )


def scaled(regularity: Regularity, scale: float) -> Regularity:
    """Of `psi(scale b) / scale`."""
    return Regularity(
        lambda low, high, width: regularity.sup(scale * low, scale * high, scale * width) / scale,
        lambda low, high, width: regularity.slope(scale * low, scale * high, scale * width),
    )


def less_identity(regularity: Regularity) -> Regularity:
    """Of `psi(b) - b`."""
    return Regularity(_LessIdentity(regularity.sup), _LessOne(regularity.slope), regularity.jumps, regularity.growth)


class _LessIdentity(NamedTuple):
    sup: Bound

    def __call__(self, low: Scalar, high: Scalar, width: Scalar) -> Scalar:
        return self.sup(low, high, width) + farthest(low, high, width)


class _LessOne(NamedTuple):
    slope: Bound

    def __call__(self, low: Scalar, high: Scalar, width: Scalar) -> Scalar:
        return self.slope(low, high, width) + 1


def farthest(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    """A bound of `|b + i v|`."""
    return jnp.maximum(jnp.abs(low), jnp.abs(high)) + width


def _within(width: Scalar, limit: float, value: Scalar) -> Scalar:
    return jnp.where(width < limit, value, jnp.inf)


def _safe(width: Scalar, limit: float) -> Scalar:
    return jnp.minimum(width, 0.999 * limit)


def _real(width: Scalar, value: float, beyond: Scalar) -> Scalar:
    """The largest slope on the real axis, and a bound off it."""
    return jnp.where(width > 0, beyond, value)


def _gelu_sup(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    # |z Phi(z)| and |Phi(z) + z phi(z)|, with |Phi(b + iv)| <= e^(v^2 / 2) Phi(b)
    return jnp.exp(width**2 / 2) * farthest(low, high, width)


def _gelu_slope(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    return jnp.exp(width**2 / 2) * (1.25 + 0.4 * width)


def _sigmoid_sup(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    beyond = 1 / jnp.sin(jnp.clip(width, jnp.pi / 2, 0.999 * jnp.pi))
    return _within(width, 0.999 * jnp.pi, beyond)


def _sigmoid_slope(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    return _within(width, 0.999 * jnp.pi, 0.25 / jnp.cos(_safe(width, jnp.pi) / 2) ** 2)


def _tanh_sup(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    return _within(width, 0.499 * jnp.pi, jnp.maximum(1, jnp.tan(_safe(width, jnp.pi / 2))))


def _tanh_slope(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    return _within(width, 0.499 * jnp.pi, 1 / jnp.cos(_safe(width, jnp.pi / 2)) ** 2)


def _softplus_sup(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    # |log(1 + e^z)| <= |log |1 + e^z|| + pi, and |1 + e^z| is at most 2 e^max(b, 0), at least 1 or sin |v|.
    nearest = jnp.sin(jnp.clip(width, jnp.pi / 2, 0.999 * jnp.pi))
    return _within(width, 0.999 * jnp.pi, jnp.maximum(high, 0) + jnp.log(2.0) - jnp.log(nearest) + jnp.pi)


def _silu_sup(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    return farthest(low, high, width) * _sigmoid_sup(low, high, width)


def _silu_slope(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    # sigma + z sigma (1 - sigma), |sigma (1 - sigma)| = 1 / (2 (cosh b + cos v)), cosh b >= 1 + b^2 / 2
    least = 1 + jnp.cos(_safe(width, jnp.pi))
    beyond = _sigmoid_sup(low, high, width) + (2 * least) ** -0.5 / 2 + width / (2 * least)
    return _real(width, 1.1, beyond)


def _mish_nearest(width: Scalar) -> Scalar:
    """At most half of `|e^2z + 2 e^z + 2|`, whose zeros are at `|v| = 3 pi / 4`."""
    return jnp.sin(jnp.clip(3 * jnp.pi / 4 - width, 0.001, jnp.pi / 2))


def _mish_sup(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    # tanh(log(1 + E)) = 1 - 2 / (E^2 + 2 E + 2), E = e^z
    beyond = farthest(low, high, width) * (1 + 1 / _mish_nearest(width))
    return _within(width, 0.749 * jnp.pi, _real(width, farthest(low, high, 0 * width), beyond))


def _mish_slope(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    # The factor above has the derivative 4 E (E + 1) / (..)^2, |..| >= (|E|^2 + 2) (1 - max(cos(3 pi / 4 - v), 0))^1/2
    near = 1 - jnp.maximum(jnp.cos(3 * jnp.pi / 4 - _safe(width, 0.75 * jnp.pi)), 0)
    beyond = 1 + 1 / _mish_nearest(width) + (0.476 + 0.897 * width) / near
    return _within(width, 0.749 * jnp.pi, _real(width, 1.1, beyond))


def _tanh_gelu_turn(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    """A bound of `|Im u|`, `u = c (z + a z^3)`: poles lie at pi / 2, the nearer to the axis the larger b is."""
    most = farthest(low, high, 0 * width)
    turn = _TANH_SCALE * width * (1 + 3 * _CUBIC * jnp.where(width > 0, most, 0) ** 2)
    return jnp.where(width <= 0.5, turn, jnp.inf)


def _tanh_gelu_sup(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    turn = _tanh_gelu_turn(low, high, width)
    beyond = (1 + jnp.maximum(1, jnp.tan(_safe(turn, jnp.pi / 2)))) / 2
    return _within(turn, 0.499 * jnp.pi, farthest(low, high, width) * beyond)


def _tanh_gelu_slope(low: Scalar, high: Scalar, width: Scalar) -> Scalar:
    # |1 - tanh(u)^2| <= 1 / (cosh(Re u) cos(Im u))^2, and |z u'| / cosh(Re u)^2 <= 0.88 if |v| <= 1 / 2
    turn = _tanh_gelu_turn(low, high, width)
    safe = _safe(turn, jnp.pi / 2)
    beyond = (1 + jnp.maximum(1, jnp.tan(safe)) + 0.88 / jnp.cos(safe) ** 2) / 2
    return _within(turn, 0.499 * jnp.pi, _real(width, 1.13, beyond))


GELU = Regularity(_gelu_sup, _gelu_slope)
SIGMOID = Regularity(_sigmoid_sup, _sigmoid_slope)
TANH = Regularity(_tanh_sup, _tanh_slope)
SOFTPLUS = Regularity(_softplus_sup, _sigmoid_sup)
SILU = Regularity(_silu_sup, _silu_slope)
MISH = Regularity(_mish_sup, _mish_slope)
GELU_TANH = Regularity(_tanh_gelu_sup, _tanh_gelu_slope)
SQUARE = Regularity(
    lambda low, high, width: farthest(low, high, width) ** 2,
    lambda low, high, width: 2 * farthest(low, high, width),
    growth=(2, 1.0),
)

"""The functions whose expectations are certified: analytic, piecewise linear, or a choice of both."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from ..model.activation import Activation
from ..types import Array, Float, Scalar


class PiecewiseLinear(NamedTuple):
    """The continuous function `intercept + slope y + sum_i jumps_i relu(y - places_i)`; arrays `[k]` (B6)."""

    places: Float[Array, " k"]
    jumps: Float[Array, " k"]
    intercept: Scalar
    slope: Scalar

    @classmethod
    def of(cls, activation: Activation, dtype) -> "PiecewiseLinear":
        """A piecewise linear activation with the jumps of its `regularity`, or a linear one."""
        places = jnp.asarray(activation.kinks or (0.0,), dtype)
        left = places[0] - 1  # any two points left of all kinks give the line there
        slope = activation(left) - activation(left - 1)
        return cls(
            places, jnp.asarray(activation.regularity.jumps or (0.0,), dtype), activation(left) - slope * left, slope
        )


class Analytic(NamedTuple):
    """A function that is analytic near the real axis (B7).

    `sup(low, high, width)` bounds its size at `y + i v`, `low <= y <= high`, `|v| <= width`, by infinity where it is
    not analytic; `lipschitz` bounds the slope of its root of that `degree` on the real axis, and is 0 if `sup` bounds
    the function on all of that. `rounding(low, high)` is the rounding of its values there, in units in the last place,
    beyond that of `y` and twice the value's.
    """

    function: Callable[[Array], Array]
    sup: Callable[[Array, Array, Array], Array]
    lipschitz: Scalar
    degree: int = 1
    rounding: Callable[[Array, Array], Array] = lambda low, high: jnp.zeros_like(low)

    @classmethod
    def of(cls, activation: Activation, dtype) -> "Analytic":
        """An activation, bounded on the real axis if the bound of its size does not grow; else of bounded slope."""
        regularity = activation.regularity
        # B7. The root of the largest number, so that squares are still numbers; a bound that is the same up to the root
        # of that and up to that is taken for one on the whole axis.
        far = jnp.asarray(jnp.finfo(dtype).max ** 0.5, dtype)
        zero = jnp.zeros_like(far)
        bounded = regularity.sup(-far, far, zero) <= regularity.sup(-(far**0.5), far**0.5, zero)
        degree, steep = regularity.growth or (1, regularity.slope(-jnp.inf, jnp.inf, zero))
        return cls(activation, regularity.sup, jnp.where(bounded, zero, steep), degree)

    def squared(self) -> "Analytic":
        """The square of a function of degree 1 or 2: `|psi^2| = |psi|^2` (B7)."""
        return Analytic(
            lambda y: self.function(y) ** 2,
            lambda low, high, width: self.sup(low, high, width) ** 2,
            self.lipschitz,
            degree=2 * self.degree,
        )


class OneOf(NamedTuple):
    """The function of that number, which may be traced."""

    functions: "tuple[PiecewiseLinear | Analytic, ...]"
    chosen: Array


def as_function(activation: Activation, dtype) -> PiecewiseLinear | Analytic:
    """An activation as what it is."""
    return (PiecewiseLinear if activation.piecewise_linear else Analytic).of(activation, dtype)

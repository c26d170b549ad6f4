"""Numbers with a bound of their error; and arithmetic that carries such bounds along."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from .._repr import short_repr
from ..types import Array

HALF = math.sqrt(0.5)  # of a standard deviation: half of the variance

SAFETY = 1.01  # for the rounding of the bounds themselves (B3)

ROUNDING = 8  # units in the last place that a number is charged which is the outcome of a few sums and products (B4)

SIGMAS = 4  # independent roundings add up in squares; so many times the root of the sum is charged (B2)

DOUBT = 64  # units in the last place of a variance, which are doubted where it is a difference of two (B35)


class Bounded(eqx.Module):
    """A number and how wrong it may be: the exact one lies in `value +- error_bound` (B1).

    All is meant to be a proof but for roundings, which are taken to be independent (B2). The bound has no gradient.
    """

    __repr__ = short_repr

    value: Array
    error_bound: Array

    def __str__(self) -> str:
        if jnp.ndim(self.value) or isinstance(self.value, jax.core.Tracer):
            return repr(self)
        return f"{float(self.value):.12g} +- {float(self.error_bound):.1e}"

    @property
    def low(self) -> Array:
        """The least that the exact number can be."""
        return self.value - self.error_bound

    @property
    def high(self) -> Array:
        """The most that the exact number can be."""
        return self.value + self.error_bound


def bounded(value: Array, error: Array) -> Bounded:
    """With a little more for the rounding of the bound itself (B3); one that is not a number is infinite."""
    error = jax.lax.stop_gradient(SAFETY * error)
    return Bounded(value, jnp.where(jnp.isnan(error), jnp.inf, error))


class Ball(eqx.Module):
    """A number on the way to a bound: its value, the radius about it, and the size of what it was summed from.

    The exact one lies within `radius + 8 eps size` (B4, B72). Sums add radii and sizes. Products multiply sizes, with
    radius `|a| s + r |b| + r s` (B1), where `|a|` and `|b|` are those of the exact numbers. What cancels keeps the size
    of its parts so, and roundings are charged once for all that was summed and multiplied, by `bounded`. Plain arrays
    are exact numbers. `@`, `*`, `+`, `-` and `einsum` are as for arrays.
    """

    value: Array
    radius: Array
    size: Array

    __array_ufunc__ = None  # NumPy's arrays leave their operators to ours

    @classmethod
    def of(cls, number: "Ball | Bounded | Array", size: Array | None = None) -> "Ball":
        """A number with its bound, if it has one; `size` if what it was summed from is larger than it."""
        if isinstance(number, Ball):
            return number
        value = number.value if isinstance(number, Bounded) else jnp.asarray(number)
        radius = number.error_bound if isinstance(number, Bounded) else jnp.zeros_like(value)
        return cls(value, radius, jnp.abs(value) if size is None else size)

    def bounded(self) -> Bounded:
        """With the rounding of all that led here, and of the bound itself (B3, B4)."""
        return bounded(self.value, self.radius + ROUNDING * jnp.finfo(self.value.dtype).eps * self.size)

    @property
    def T(self) -> "Ball":
        """Transposed."""
        return self._each(jnp.transpose)

    def sum(self) -> "Ball":
        """Of all entries."""
        return self._each(jnp.sum)

    def __getitem__(self, index) -> "Ball":
        return self._each(lambda a: a[index])

    def __add__(self, other) -> "Ball":
        other = Ball.of(other)
        return Ball(self.value + other.value, self.radius + other.radius, self.size + other.size)

    def __neg__(self) -> "Ball":
        return Ball(-self.value, self.radius, self.size)

    def __sub__(self, other) -> "Ball":
        return self + -Ball.of(other)

    def __mul__(self, other) -> "Ball":
        return _product(_times, self, other)

    def __matmul__(self, other) -> "Ball":
        return _product(jnp.matmul, self, other)

    def __rmatmul__(self, other) -> "Ball":
        return _product(jnp.matmul, other, self)

    __radd__, __rmul__ = __add__, __mul__

    def _each(self, function: Callable[[Array], Array]) -> "Ball":
        return Ball(function(self.value), function(self.radius), function(self.size))


def einsum(subscripts: str, first: Ball | Array, second: Ball | Array) -> Ball:
    """`jnp.einsum` of two factors."""
    return _product(lambda a, b: jnp.einsum(subscripts, a, b), first, second)


def _product(multiply: Callable[[Array, Array], Array], first, second) -> Ball:
    """What is linear in each of two factors."""
    a, b = Ball.of(first), Ball.of(second)
    eps = ROUNDING * jnp.finfo(jnp.result_type(a.value, b.value)).eps
    radius = multiply(jnp.abs(a.value) + eps * a.size + a.radius, b.radius)
    radius = radius + multiply(a.radius, jnp.abs(b.value) + eps * b.size)
    return Ball(multiply(a.value, b.value), radius, multiply(a.size, b.size))


def _times(a: Array, b: Array) -> Array:
    """A factor of exactly 0 takes no part, however little is known of the other."""
    return jnp.where((a == 0) | (b == 0), 0, a * b)

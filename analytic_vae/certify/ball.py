"""Numbers with a bound of their error, and sums of them."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from ..types import Array, Float

HALF = math.sqrt(0.5)  # of a standard deviation: half of the variance

SAFETY = 1.01  # for the rounding of the bounds themselves (B3)

SIGMAS = 4  # independent roundings add up in squares; so many times the root of the sum is charged (B2)

DOUBT = 64  # units in the last place of a variance, which are doubted where it is a difference of two (B35)


class Bounded(eqx.Module):
    """A number and how wrong it may be: the exact one lies in `value +- error_bound` (B1).

    All is meant to be a proof but for roundings, which are taken to be independent (B2). The bound has no gradient.
    """

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


def weighted_sum(terms: Bounded, weights: Float[Array, " m"]) -> Bounded:
    """`sum_j weights_j terms_j` (B1), with the rounding of the sum (B4)."""
    rounding = 8 * jnp.finfo(weights.dtype).eps * jnp.abs(weights) @ jnp.abs(terms.value)
    return Bounded(terms.value @ weights, SAFETY * (terms.error_bound @ jnp.abs(weights) + rounding))


def added(*terms: Bounded) -> Bounded:
    """Their sum (B1), with its rounding (B4)."""
    eps = jnp.finfo(terms[0].value.dtype).eps
    error = sum(term.error_bound + 2 * eps * jnp.abs(term.value) for term in terms)
    return Bounded(sum(term.value for term in terms), error)

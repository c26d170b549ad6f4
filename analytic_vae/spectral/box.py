"""Where a projection lives: an interval that holds all but a mass epsilon, by Chernoff and by the exact support."""

import jax
import jax.numpy as jnp
import numpy as np

from ..model.matrices import diagonal
from ..types import Array, Float, Scalar
from .projected_law import Projection

THETAS = 24

BUFFER = 0.1  # of the support, beyond its end: where the law may end abruptly, the window must still be 1


def interval(law: Projection, log_inverse_mass: float) -> tuple[Scalar, Scalar]:
    """`(low, high)` with `P(Y < low) <= e^-c` and `P(Y > high) <= e^-c`, `c = log_inverse_mass`, for D = 1.

    Per side the tighter of two bounds: Chernoff's `(Lambda(theta) + c) / theta`, least over a grid of theta, with the
    exact log moment-generating function `Lambda`; and the end of the exact support plus `sqrt(2 c)` noise standard
    deviations. Not "k standard deviations": a Bernoulli(0.001) feature has most of its variance in rare values.
    """
    c, least = log_inverse_mass, floor(law)[0]
    mean, atoms, variance = law.mean[0], law.atoms[0], law.covariance[0, 0]
    deviation = jnp.sqrt(jnp.maximum(law.total_covariance[0, 0], least**2))
    there = jnp.where(law.masses > 0, jnp.zeros_like(law.masses), -jnp.inf)[None]
    # From far below to far above the optimum sqrt(2c)/deviation of a Gaussian: rare features need large thetas least.
    theta = jnp.asarray(np.geomspace(0.02, 20.0, THETAS) * (2 * c) ** 0.5, mean.dtype) / deviation
    sides = jnp.einsum("s,mk->smk", np.array([-1, 1], mean.dtype), atoms) + there
    exponent = jnp.tensordot(theta, sides, 0)
    largest = exponent.max(axis=3)
    sums = jnp.einsum("tsmk,mk->tsm", jnp.exp(exponent - largest[..., None]), law.masses)
    log_mgf = jnp.sum(jnp.log(sums) + largest, axis=2) + (variance * theta**2 / 2)[:, None]
    chernoff = jnp.min((log_mgf + c) / theta[:, None], axis=0)
    ends = jnp.sum(sides.max(axis=2), axis=1)
    noise = jnp.sqrt(jnp.maximum(2 * c * variance, least**2))
    support = ends + noise + BUFFER * ends.sum()
    low, high = jnp.maximum(jnp.minimum(chernoff, support), 0.05 * deviation)
    return mean - low, mean + high


def standard_deviation(law: Projection) -> Float[Array, " D"]:
    """Standard deviations, floored so that a constant projection still has a box of positive length."""
    return jnp.sqrt(jnp.maximum(diagonal(law.total_covariance), floor(law) ** 2))


def floor(law: Projection) -> Float[Array, " D"]:
    """The least standard deviations told from zero, or 1 where a projection is constant. Without a gradient."""
    least = rounding(law)
    return jnp.where(least > 0, least, 1)


def rounding(law: Projection) -> Float[Array, " D"]:
    """The least standard deviations told from zero, for sums of numbers of that size. Without a gradient.

    The mean does not count: laws are centred before anything else is done with them.
    """
    atoms, variance = jax.lax.stop_gradient((law.atoms, diagonal(law.covariance)))
    size = jnp.abs(atoms).max(axis=2).sum(axis=1) + jnp.sqrt(variance)
    return 4 * jnp.finfo(size.dtype).eps * size


def mirror(law: Projection) -> Projection:
    """The law of `-Y`."""
    return Projection(-law.mean, -law.atoms, law.masses, law.covariance)

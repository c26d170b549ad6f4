"""Where a projection lives: an interval that holds all but a mass epsilon, by Chernoff and by the exact support."""

import jax
import jax.numpy as jnp

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
    sides = jax.tree.map(lambda own, other: jnp.stack([own, other]), mirror(law), law)
    low, high = jax.vmap(lambda one: _upper(one, log_inverse_mass))(sides)
    return -low, high


def standard_deviation(law: Projection) -> Float[Array, " D"]:
    """Standard deviations, floored so that a constant projection still has a box of positive length."""
    return jnp.sqrt(jnp.maximum(jnp.diagonal(law.total_covariance), floor(law) ** 2))


def floor(law: Projection) -> Float[Array, " D"]:
    """The least standard deviations told from zero, or 1 where a projection is constant. Without a gradient."""
    least = rounding(law)
    return jnp.where(least > 0, least, 1)


def rounding(law: Projection) -> Float[Array, " D"]:
    """The least standard deviations told from zero, for sums of numbers of that size. Without a gradient.

    The mean does not count: laws are centred before anything else is done with them.
    """
    atoms, variance = jax.lax.stop_gradient((law.atoms, jnp.diagonal(law.covariance)))
    size = jnp.abs(atoms).max(axis=2).sum(axis=1) + jnp.sqrt(variance)
    return 4 * jnp.finfo(size.dtype).eps * size


def mirror(law: Projection) -> Projection:
    """The law of `-Y`."""
    return Projection(-law.mean, -law.atoms, law.masses, law.covariance)


def _upper(law: Projection, c: float) -> Scalar:
    deviation = standard_deviation(law)[0]
    mean, atoms, variance = law.mean[0], law.atoms[0], law.covariance[0, 0]
    # From far below to far above the optimum sqrt(2c)/deviation of a Gaussian: rare features need large thetas least.
    theta = jnp.geomspace(0.02, 20.0, THETAS, dtype=mean.dtype) * (2 * c) ** 0.5 / deviation
    exponent = theta[:, None, None] * atoms[None]
    mgf = jax.nn.logsumexp(exponent, axis=2, b=law.masses[None]).sum(axis=1) + variance * theta**2 / 2
    chernoff = jnp.min((mgf + c) / theta)
    reachable = jnp.where(law.masses > 0, atoms, -jnp.inf)
    highest = jnp.max(reachable, axis=1).sum()
    lowest = jnp.min(jnp.where(law.masses > 0, atoms, jnp.inf), axis=1).sum()
    noise = jnp.sqrt(jnp.maximum(2 * c * variance, floor(law)[0] ** 2))
    support = highest + noise + BUFFER * (highest - lowest)
    return mean + jnp.maximum(jnp.minimum(chernoff, support), 0.05 * deviation)

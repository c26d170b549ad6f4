"""Coordinates in which the loss is nearly round about an encoder: the Fisher metric of each feature's law.

For one feature, with all else fixed, the loss is a mean of KL divergences from `Q_j(. | y_j)` to the posterior, and the
Hessian of that at its minimum is the Fisher information of the encoder's parameters `theta_j`,

    F_j = E_x sum_k q_k(x) g_k g_k',   g_k = d log q_k(x) / d theta_j.

Readouts, statistics and base have very different scales in it, so plain L-BFGS spends its steps on learning them: on
the problems of `benchmarks/training.py` it needs ten times as many steps. Only the path of a fit depends on F, never
the loss, so F is estimated from a few thousand points. Natural gradient: S. Amari, Neural Computation 10 (1998) 251.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .encoder import AbstractEncoder
from .types import Array, Float

CHUNK = 128  # points whose derivatives are held together
DAMPING = 1e-3  # added to the diagonal of F, relative to its mean: scores have directions that no q feels


def fisher(encoder: AbstractEncoder, atoms: Float[Array, "m K"], points: Float[Array, "Q n"]) -> Float[Array, "m P P"]:
    """`F_j` over equally likely points of x2; the `P` parameters of a feature are its ravelled arrays.

    `Q` must be a multiple of `CHUNK`.
    """
    arrays, static = eqx.partition(encoder, eqx.is_inexact_array)
    chunks = points.reshape(-1, CHUNK, points.shape[1])

    def one_feature(given):
        theta, unravel = ravel_pytree(given[0])

        def log_masses(theta, x):
            feature = eqx.combine(unravel(theta), static)
            return feature.log_masses(feature.readout @ x, given[1])

        def add(total, chunk):
            log_q = jax.vmap(log_masses, (None, 0))(theta, chunk)
            derivative = jax.vmap(jax.jacrev(log_masses), (None, 0))(theta, chunk)
            rows = (jnp.exp(log_q / 2)[..., None] * derivative).reshape(-1, theta.size)
            return total + rows.T @ rows, None

        return jax.lax.scan(add, jnp.zeros((theta.size, theta.size), theta.dtype), chunks)[0] / points.shape[0]

    return jax.lax.map(one_feature, (arrays, atoms))


def directions(metric: Float[Array, "m P P"]) -> Float[Array, "m P P"]:
    """`L^-T` with `L L' = F + damping`: columns along which the metric is the identity."""
    size = metric.shape[-1]
    mean = jnp.trace(metric, axis1=1, axis2=2)[:, None, None] / size
    damping = DAMPING * mean + jnp.finfo(metric.dtype).tiny ** 0.5
    factor = jnp.linalg.cholesky(metric + damping * jnp.eye(size, dtype=metric.dtype)[None])
    return jnp.linalg.inv(factor).mT


def moved(encoder: AbstractEncoder, columns: Float[Array, "m P P"], step: Float[Array, "m P"]) -> AbstractEncoder:
    """The encoder with `theta_j + columns_j step_j`."""
    arrays, static = eqx.partition(encoder, eqx.is_inexact_array)

    def one_feature(arrays, columns, step):
        theta, unravel = ravel_pytree(arrays)
        return unravel(theta + columns @ step)

    return eqx.combine(jax.vmap(one_feature)(arrays, columns, step), static)

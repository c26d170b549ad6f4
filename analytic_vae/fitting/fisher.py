"""Coordinates in which the loss is nearly round about an encoder: the Fisher metric of each feature's law.

For one feature, with all else fixed, the loss is a mean of KL divergences from `Q_j(. | y_j)` to the posterior, and the
Hessian of that at its minimum is the Fisher information of the encoder's parameters `theta_j`,

    F_j = E sum_k q_k g_k g_k',   g_k = d log q_k(y_j) / d theta_j,   y_j = C_j x2.

Readouts, statistics and base have very different scales in it, and plain L-BFGS spends its steps on learning them. Only
the path of a fit depends on F, never the loss, so F need not be exact: the law of `y_j` is the engine's, on a coarse
grid, but x2 given y_j is taken for Gaussian. Natural gradient: S. Amari, Neural Computation 10 (1998) 251.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .._jit import exact_products
from ..model.encoder import AbstractEncoder
from ..model.feature_model import FeatureModel
from ..model.layer import AbstractLayer
from ..moments.layer_moments import LayerMoments
from ..moments.quadrature_rule import StatisticLaw
from ..moments.reading import Reading
from ..moments.statistic import Statistic
from ..spectral.resolution import Resolution
from ..types import Array, Float

COARSE = Resolution(16)

CHUNK = 128  # points whose derivatives are held together

DAMPING = 1e-3  # added to the diagonal of F, relative to its mean: scores have directions that no q feels


@exact_products
def fisher(
    source: FeatureModel, layer: AbstractLayer, atoms: Float[Array, "m2 K"], encoder: AbstractEncoder
) -> Float[Array, "m2 L L"]:
    """`F_j`, approximately; the `L` parameters of a feature are its ravelled arrays."""
    reading = Reading.of(source, layer, COARSE, COARSE.atoms)
    grid = reading.axis.law_grid(COARSE, encoder.statistics_read)
    mean, covariance = LayerMoments.of_ridge(reading.source, reading.form, reading.axis).output()
    arrays, static = eqx.partition(encoder, eqx.is_inexact_array)

    def one_feature(given):
        feature = eqx.combine(given[0], static)
        nodes = StatisticLaw.of(Statistic.of(reading, feature.readout), grid, COARSE).nodes
        weights = jnp.maximum(nodes.weights, 0)  # a coarse law has negative ones; a sharp feature may see only those
        gain, rest = _regression(feature.readout, covariance)
        points = mean[None] + (nodes.points - (feature.readout @ mean)[None]) @ gain.T
        return _metric(given[0], static, given[1], points, weights, rest)

    return jax.lax.map(one_feature, (arrays, atoms))


@exact_products
def directions(metric: Float[Array, "m L L"]) -> Float[Array, "m L L"]:
    """`V (D + damping)^-1/2` with `V D V' = F`: columns along which `F + damping` is the identity.

    Negative eigenvalues, which rounding leaves, count as zero.
    """
    # One by one: a batch waits for threads of the pool that it runs in itself, and on two devices of two cores, where
    # both do, for ever (jax 0.10.2).
    eigenvalues, vectors = jax.lax.map(jnp.linalg.eigh, metric)
    eigenvalues = jnp.maximum(eigenvalues, 0)
    damping = DAMPING * eigenvalues.mean(axis=1, keepdims=True) + jnp.finfo(metric.dtype).tiny
    return vectors / jnp.sqrt(eigenvalues + damping)[:, None]


@exact_products
def step_in_metric(
    encoder: AbstractEncoder, columns: Float[Array, "m L L"], step: Float[Array, "m L"]
) -> AbstractEncoder:
    """The encoder with `theta_j + columns_j step_j`."""
    arrays, static = eqx.partition(encoder, eqx.is_inexact_array)

    def one_feature(arrays, columns, step):
        theta, unravel = ravel_pytree(arrays)
        return unravel(theta + columns @ step)

    return eqx.combine(jax.vmap(one_feature)(arrays, columns, step), static)


def _regression(
    readout: Float[Array, "t n"], covariance: Float[Array, "n n"]
) -> tuple[Float[Array, "n t"], Float[Array, "n n"]]:
    """What `y = C x` says of x: the gain of the regression, and the covariance that is left."""
    cross = covariance @ readout.T
    known = readout @ cross
    ridge = jnp.finfo(known.dtype).eps * jnp.trace(known) + jnp.finfo(known.dtype).tiny
    gain = jnp.linalg.solve(known + ridge * jnp.eye(known.shape[0], dtype=known.dtype), cross.T).T
    return gain, covariance - gain @ cross.T


def _metric(arrays, static, atoms, points, weights, rest) -> Float[Array, "L L"]:
    """`F` of one feature over weighted points of x, about each of which x varies by `rest`."""
    theta, unravel = ravel_pytree(arrays)
    choose = jax.jacobian(lambda theta: unravel(theta).readout)(theta)  # [t, n, L], where the readout stands in theta

    def log_masses(theta, x, shift):
        feature = eqx.combine(unravel(theta), static)
        return feature.log_masses(feature.readout @ x + shift, atoms)

    def add(total, chunk):
        x, weight = chunk
        shift = jnp.zeros((x.shape[0], choose.shape[0]), x.dtype)
        log_q = jax.vmap(log_masses, (None, 0, 0))(theta, x, shift)
        by_theta, by_y = jax.vmap(jax.jacrev(log_masses, (0, 2)), (None, 0, 0))(theta, x, shift)
        mass = weight[:, None] * jnp.exp(log_q)
        metric = jnp.einsum("qk,qka,qkb->ab", mass, by_theta, by_theta)
        return (total[0] + metric, total[1] + jnp.einsum("qk,qkt,qks->ts", mass, by_y, by_y)), None

    t, size = choose.shape[0], theta.size
    padding = -len(weights) % CHUNK
    chunks = (
        jnp.pad(points, ((0, padding), (0, 0))).reshape(-1, CHUNK, points.shape[1]),
        jnp.pad(weights, (0, padding)).reshape(-1, CHUNK),
    )
    zeros = jnp.zeros((size, size), theta.dtype), jnp.zeros((t, t), theta.dtype)
    (metric, slope), _ = jax.lax.scan(add, zeros, chunks)
    return metric + jnp.einsum("ts,nl,tna,slb->ab", slope, rest, choose, choose)

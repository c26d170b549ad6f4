"""Latent features: the law of the statistics that each one's encoder reads, and functions of them.

What a decoder multiplies are the *codes* of a feature: its value `z_j` if it has a direction that its atoms scale, or
an indicator of each of its atoms but the first if it has a vector per atom. A code is a linear function of the
encoder's table `q_j(y): [K]`, `s_jr = sum_k code_jrk q_jk`; every covariance that the loss needs is one of codes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._sharding import sharded_map
from ..model.encoder import AbstractEncoder
from ..model.matrices import diagonal
from ..types import Array, Float
from .problem import Problem
from .quadrature_rule import StatisticLaw, Varying, band
from .reading import Reading
from .ridge_axis import RidgeGrid
from .statistic import Statistic
from .statistic_function import StatisticFunction


def codes(atoms: Float[Array, "m K"], vectors: bool) -> Float[Array, "m R K"]:
    """What the codes of each feature are on its atoms: their values, or indicators of all but the first."""
    if not vectors:
        return atoms[:, None]
    m, K = atoms.shape
    return jnp.broadcast_to(jnp.eye(K, dtype=atoms.dtype)[1:], (m, K - 1, K))


class Codes(NamedTuple):
    """The laws of `m2` features: their codes as `latents`, stacked `[m2 R]`, and expectations of their tables.

    Fields: `within: [m2, R, R]`, `E Cov(code(z_j) | y_j)`; `same: [m2, R, R]`, covariances of codes of one feature;
    `aggregate: [m2, K]`, `E q_j`; `entropy: [m2]`, `E[-sum_k q_jk log q_jk]`; `moment_error: [m2]`, as in `Nodes`;
    `band_error: [m2, V]`, `band` of the tables, entropies and variances.
    """

    latents: StatisticFunction
    within: Float[Array, "m2 R R"]
    same: Float[Array, "m2 R R"]
    aggregate: Float[Array, "m2 K"]
    entropy: Float[Array, " m2"]
    moment_error: Float[Array, " m2"]
    band_error: Float[Array, "m2 V"]

    @classmethod
    def of(
        cls, problem: Problem, reader: tuple[Reading, Reading, RidgeGrid], covariance: Float[Array, "n n"], batch: int
    ) -> "Codes":
        """Of the learnt features of a problem, `batch` at a time.

        `reader`: what encoders read, what pairs of them are to be computed with, and the grid for laws; `covariance` is
        that of what encoders read.
        """
        encoder, atoms, (reading, pairs, grid) = problem.learnt, problem.atoms[problem.carried :], reader
        arrays, rest = eqx.partition(encoder, eqx.is_array)
        static = _Static(rest, pairs.source is not reading.source, reading.whole is not reading.source)
        one_feature = partial(_one_feature, static=static)
        boxes = None if problem.plan is None else jax.lax.stop_gradient((problem.plan.low, problem.plan.length))
        given = arrays, atoms, codes(atoms, problem.vectors), boxes
        latents, *rest = sharded_map(one_feature, (reading, pairs, grid, covariance), given, problem.mesh, batch)
        if given[2].shape[1] > 1:
            latents = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), latents)
        return cls(latents, *rest)

    def with_exact_diagonal_blocks(self, covariance: Float[Array, "C C"]) -> Float[Array, "C C"]:
        """Covariances of all codes, with those of two codes of one feature replaced by what its own law says."""
        R = self.same.shape[1]
        if R == 1:
            return covariance
        own = block_diagonal(self.same)
        own = own + jnp.diag(diagonal(covariance) - diagonal(own))
        feature = jnp.arange(covariance.shape[0]) // R
        return jnp.where(feature[:, None] == feature[None], own, covariance)


class _Static(NamedTuple):
    """What is the same for all features: the encoder without its arrays, and whether laws have fewer atoms."""

    encoder: AbstractEncoder
    shorter: bool
    fewer: bool


def _one_feature(everywhere, arrays, atoms: Float[Array, " K"], code: Float[Array, "R K"], box, *, static):
    """The codes of one feature, and expectations of its tables."""
    reading, pairs, grid, covariance = everywhere
    shorter, fewer = static.shorter, static.fewer
    one = eqx.combine(arrays, static.encoder)
    scale = lambda y: _scale(lambda y: one.log_masses(y, atoms), y)  # noqa: E731
    statistic = Statistic.of(reading, one.readout, box=box, scale=scale)
    law = StatisticLaw.of(statistic, grid, reading.resolution)
    nodes = law.nodes
    K, R = code.shape[1], code.shape[0]

    def table(y):
        log_q = one.log_masses(y, atoms)
        q = jnp.exp(log_q)
        apart = code - (code @ q)[:, None]
        entropy = -jnp.sum(jnp.where(q > 0, q * log_q, 0))
        return jnp.concatenate([q, entropy[None], ((apart * q[None]) @ apart.T).ravel()])

    varying = Varying.of(statistic, nodes, table)
    expected = varying.base + nodes.weights @ varying.values
    s, s_derivative = varying.values[:, :K] @ code.T, code @ varying.derivative[:K]

    def make(values, base, derivative):
        latent = StatisticFunction.of(reading, law, values, (base, derivative), shorter=True)
        return latent.with_compressed_law(pairs, one.readout) if shorter else latent

    bases = code @ varying.base[:K]
    latents = make(s[:, 0], bases[0], s_derivative[0]) if R == 1 else jax.vmap(make)(s.T, bases, s_derivative)
    aggregate, entropy, within = expected[:K], expected[K], expected[K + 1 :].reshape(R, R)
    centred = s - (nodes.weights @ s)[None]
    same = (centred.T * nodes.weights[None]) @ centred
    moment_error = nodes.moment_error(statistic, one.readout @ covariance @ one.readout.T)
    band_error = band(law, varying.values, reading.whole if fewer else None)
    return latents, within, same, aggregate, entropy, moment_error, band_error


def _scale(log_masses: Callable[[Array], Array], y: Float[Array, " t"]) -> Float[Array, " t"]:
    """By how much each statistic may vary so that log masses move by a twentieth."""
    steepest = jnp.max(jnp.abs(jax.jacfwd(log_masses)(y)), axis=0)
    return jnp.where(steepest > 0, 0.05 / jnp.where(steepest > 0, steepest, 1), 1)


def block_diagonal(blocks: Float[Array, "m R R2"]) -> Float[Array, "C C2"]:
    """A matrix with these blocks on its diagonal."""
    m, R, S = blocks.shape
    return jnp.einsum("mk,mrs->mrks", np.eye(m, dtype=blocks.dtype), blocks).reshape(m * R, m * S)

"""Latent features: the law of the statistics that each one's encoder reads, and functions of them.

What a decoder multiplies are the *codes* of a feature: its value `z_j` if it has a direction that its atoms scale, or
an indicator of each of its atoms but the first if it has a vector per atom. A code is a linear function of the
encoder's table `q_j(y): [K]`, `s_jr = sum_k code_jrk q_jk`; every covariance that the loss needs is one of codes.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ..encoder import AbstractEncoder
from ..layer import RidgeForm
from ..model import FeatureModel
from ..parallel import spread
from ..types import Array, Float
from .expectation import statistic_nodes
from .latents import Latent
from .resolution import Resolution
from .ridge import RidgeAxis
from .spectrum import Spectrum
from .statistic import Statistic


def codes(atoms: Float[Array, "m K"], vectors: bool) -> Float[Array, "m R K"]:
    """What the codes of each feature are on its atoms: their values, or indicators of all but the first."""
    if not vectors:
        return atoms[:, None]
    m, K = atoms.shape
    return jnp.broadcast_to(jnp.eye(K, dtype=atoms.dtype)[1:], (m, K - 1, K))


class Features(NamedTuple):
    """The laws of `m2` features: their codes as `latents`, stacked `[m2 R]`, and expectations of their tables.

    Fields: `within: [m2, R, R]`, `E Cov(code(z_j) | y_j)`; `same: [m2, R, R]`, covariances of codes of one feature;
    `aggregate: [m2, K]`, `E q_j`; `entropy: [m2]`, `E[-sum_k q_jk log q_jk]`; `misfit: [m2]`, as in `Nodes`.
    """

    latents: Latent
    within: Float[Array, "m2 R R"]
    same: Float[Array, "m2 R R"]
    aggregate: Float[Array, "m2 K"]
    entropy: Float[Array, " m2"]
    misfit: Float[Array, " m2"]

    @classmethod
    def of(
        cls,
        source: FeatureModel,
        form: RidgeForm,
        axis: RidgeAxis,
        pairs: tuple[FeatureModel, RidgeAxis],
        covariance: Float[Array, "n n"],
        encoder: AbstractEncoder,
        atoms: Float[Array, "m2 K"],
        vectors: bool,
        resolution: Resolution,
        boxes: tuple[Array, Array] | None,
        batch: int,
        mesh: Mesh | None = None,
    ) -> "Features":
        """For an encoder that reads a map `form` of the source, whose values have that covariance.

        `pairs` are source and axis that pairs of them are to be computed with (`compressed_axis`).
        """
        grid = axis.law_grid(resolution, encoder.statistics_read)
        arrays, static = eqx.partition(encoder, eqx.is_array)

        @jax.checkpoint
        def one_feature(everywhere, arrays, one_atoms: Float[Array, " K"], code: Float[Array, "R K"], box):
            source, form, axis, pairs, grid, covariance = everywhere
            one = eqx.combine(arrays, static)
            statistic = Statistic.of(source, form, one.readout, axis, resolution, box=box)
            spectrum = Spectrum.of(statistic, grid, resolution)
            nodes = statistic_nodes(spectrum, resolution)
            log_q = jax.vmap(lambda y: one.log_masses(y, one_atoms))(nodes.points)
            q = jnp.exp(log_q)
            s = q @ code.T

            def make(values):
                latent = Latent.of(source, form, spectrum, nodes, resolution, values)
                return latent.for_pairs(pairs[0], form, one.readout, pairs[1], resolution) if shorter else latent

            if code.shape[0] == 1:
                latents = jax.tree.map(lambda leaf: leaf[None], make(s[:, 0]))
            else:
                latents = jax.vmap(make)(s.T)
            aggregate = nodes.weights @ q
            if vectors:
                within = jnp.diag(code @ aggregate) - (s.T * nodes.weights[None]) @ s
            else:
                within = (nodes.weights @ jnp.sum(q * (code - s) ** 2, axis=1))[None, None]
            centred = s - latents.mean[None]
            same = (centred.T * nodes.weights[None]) @ centred
            entropy = -nodes.weights @ jnp.sum(jnp.where(q > 0, q * log_q, 0), axis=1)
            misfit = nodes.misfit(statistic, one.readout @ covariance @ one.readout.T)
            return latents, within, same, aggregate, entropy, misfit

        shorter = pairs[0] is not source
        everywhere = source, form, axis, pairs, grid, covariance
        given = arrays, atoms, codes(atoms, vectors), boxes
        latents, *rest = spread(one_feature, everywhere, given, mesh, batch)
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), latents)
        return cls(flat, *rest)

    def with_same(self, covariance: Float[Array, "C C"]) -> Float[Array, "C C"]:
        """Covariances of all codes, with those of two codes of one feature replaced by what its own law says."""
        R = self.same.shape[1]
        if R == 1:
            return covariance
        own = block_diagonal(self.same) + jnp.diag(jnp.diagonal(covariance) - jnp.diagonal(block_diagonal(self.same)))
        feature = jnp.arange(covariance.shape[0]) // R
        return jnp.where(feature[:, None] == feature[None], own, covariance)


def block_diagonal(blocks: Float[Array, "m R S"]) -> Float[Array, "C E"]:
    """A matrix with these blocks on its diagonal."""
    m, R, S = blocks.shape
    return (jnp.eye(m, dtype=blocks.dtype)[:, None, :, None] * blocks[:, :, None]).reshape(m * R, m * S)

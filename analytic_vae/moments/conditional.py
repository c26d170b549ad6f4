"""How an expectation answers to the source: all states pinned, and every input."""

import equinox as eqx
import jax.numpy as jnp

from ..model.feature_model import FeatureModel
from ..spectral.projected_law import Projection
from ..types import Array, Float


class StateExpectations(eqx.Module):
    """How an expectation `E[F]` answers to the source, all at once.

    `states: [m, K]` is `E[1{z_j = a_jk} F]`, and `slope: [D]` is `E[dF / d(rows x)]`.
    """

    states: Float[Array, "m K"]
    slope: Float[Array, " D"]

    def with_input(self, source: FeatureModel, rows: Float[Array, "D n1"], value: Array) -> Float[Array, " n1"]:
        """`E[x F]`, where `E[F] = value`: no further grid axis is needed.

        `E[z F]` is a sum over the pinned states, and by Stein's identity `E[noise F] = S rows' E[dF]`.
        """
        features = jnp.einsum("nmk,mk->n", source.atom_vectors, self.states)
        return source.mean * value + features + source.covariance @ (rows.T @ self.slope)


def perturb_masses(law: Projection, masses_tilt: Float[Array, "m K"], shift: Float[Array, " D"]) -> Projection:
    """The law with (unnormalised) masses `p (1 + perturb_masses)` and a shifted mean."""
    return Projection(law.mean + shift, law.atoms, law.masses * (1 + masses_tilt), law.covariance)


def state_covariance(source: FeatureModel) -> Float[Array, "n1 m1 K1"]:
    """`Cov(x1, 1{z_l = a_lk})`."""
    masses, vectors = source.prior.masses, source.atom_vectors
    return masses[None] * (vectors - jnp.einsum("nmk,mk->nm", vectors, masses)[:, :, None])

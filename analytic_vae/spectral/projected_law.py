"""What the engine sees of a feature model: the joint law of a few linear projections."""

import equinox as eqx
import jax.numpy as jnp

from ..model.feature_model import FeatureModel
from ..types import Array, Complex, Float
from .characteristic import cis


class Projection(eqx.Module):
    """The law of `Y = G x`, `G: [D, n]`, of a feature model.

    Fields:
        mean: `[D]`, the mean of `Y`.
        atoms: `[D, m, K]`, what each feature adds to `Y` in each state, less what it adds in its first (so
            `atoms[:, :, 0]` is 0).
        masses: `[m, K]`.
        covariance: `[D, D]`, of the Gaussian part `G S G'`.

    Features of any kind (scaled directions, a vector per atom) look the same here, so nothing below this line of
    the engine depends on how a model writes its features.
    """

    mean: Float[Array, " D"]
    atoms: Float[Array, "D m K"]
    masses: Float[Array, "m K"]
    covariance: Float[Array, "D D"]

    @classmethod
    def of(cls, model: FeatureModel, matrix: Float[Array, "D n"], offset: Array | float = 0.0):
        """The law of `G x + offset` for a feature model."""
        masses = model.prior.masses
        atoms = jnp.tensordot(matrix, model.atom_vectors, axes=1)
        first = atoms[:, :, 0]
        mean = matrix @ model.mean + offset + first.sum(axis=1)
        factor = matrix @ model.noise if model.noise.ndim == 2 else matrix * jnp.atleast_2d(model.noise)
        return cls(mean, atoms - first[:, :, None], masses, factor @ factor.T)

    def transform(self, matrix: Float[Array, "D2 D"], offset: Array | float = 0.0) -> "Projection":
        """The law of `M Y + offset`."""
        return Projection(
            matrix @ self.mean + offset,
            jnp.tensordot(matrix, self.atoms, axes=1),
            self.masses,
            matrix @ self.covariance @ matrix.T,
        )

    def centred(self) -> "Projection":
        """The law of `Y - E Y`, without a look at the mean."""
        return Projection(-jnp.einsum("dmk,mk->d", self.atoms, self.masses), self.atoms, self.masses, self.covariance)

    def alone(self, d: int) -> "Projection":
        """The law of one of the projections."""
        one = slice(d, d + 1)
        return Projection(self.mean[one], self.atoms[one], self.masses, self.covariance[one, one])

    @property
    def total_covariance(self) -> Float[Array, "D D"]:
        """Covariance of `Y`, features and Gaussian part together."""
        residual = self.atoms - jnp.einsum("dmk,mk->dm", self.atoms, self.masses)[:, :, None]
        return jnp.einsum("dmk,emk->de", residual * self.masses[None], residual) + self.covariance

    @property
    def total_mean(self) -> Float[Array, " D"]:
        """Mean of `Y`."""
        return self.mean + jnp.einsum("dmk,mk->d", self.atoms, self.masses)


def characteristic(law: Projection, frequency: Float[Array, " D"]) -> Complex[Array, ""]:
    """`phi(w) = E exp(i <w, Y>)`, term by term: the formula that the faster paths must equal.

    `phi(w) = exp(i <w, mean> - w' S w / 2) prod_j sum_k p_jk exp(i <w, e_jk>)`.

    Source: Fact 3.3 and Lemma 3.4 of the paper, with no binning.
    """
    features = jnp.sum(law.masses * cis(jnp.tensordot(frequency, law.atoms, axes=1)), axis=1)
    gaussian = cis(frequency @ law.mean) * jnp.exp(-frequency @ law.covariance @ frequency / 2)
    return gaussian * jnp.prod(features)

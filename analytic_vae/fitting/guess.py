"""What a fit begins with: the source's own features pushed through the layer, and what is left of it."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from .._jit import always, compiled, exact_products
from ..model.feature_model import FeatureModel
from ..model.layer import AbstractLayer
from ..moments.layer_moments import LayerMoments
from ..moments.reading import Reading
from ..spectral.resolution import Resolution
from ..types import Array, Float

DEAD = 1e-9  # share of the features' variance below which a feature is not carried on


class Guess(NamedTuple):
    """A first guess at the features of `f(x1)` and what is needed to read them.

    `atoms`, `masses`: `[m2, K]`; `decoder: [n2, m2]`; `mean: [n2]`, `covariance: [n2, n2]` of `f(x1)`.
    """

    atoms: Float[Array, "m2 K"]
    masses: Float[Array, "m2 K"]
    decoder: Float[Array, "n2 m2"]
    mean: Float[Array, " n2"]
    covariance: Float[Array, "n2 n2"]


@exact_products
def pushed_features(
    source: FeatureModel, layer: AbstractLayer, features: int, atoms: Array | None, resolution: Resolution
) -> Guess:
    """The source's features as `f` sees them: direction `Cov(f, z_j) / Var(z_j)`, the same atoms and masses.

    The `features` that explain most of the output's variance are kept, in the source's order. If more are asked for
    than the source has alive (a share of the variance above 1e-9), the principal directions of what is left get the
    atoms of a Gaussian. `atoms: [m2, K]`, if given, replace the atoms (masses are then uniform).
    """
    mean, covariance, decoder, variance, masses = map(np.asarray, _regression(source, layer, resolution))
    own_atoms, dtype = np.asarray(source.prior.atoms), mean.dtype
    share = np.sum(decoder**2, axis=0) * variance
    order = np.argsort(-share, kind="stable")[:features]
    kept = np.sort(order[share[order] > DEAD * np.sum(share)])
    own_atoms, masses, decoder, variance = own_atoms[kept], masses[kept], decoder[:, kept], variance[kept]
    if features > kept.size:
        left = covariance - (decoder * variance[None]) @ decoder.T
        extra = features - kept.size
        values, vectors = np.linalg.eigh((left + left.T) / 2)
        order = np.arange(extra) % values.size
        directions = vectors[:, ::-1][:, order] * np.sqrt(np.maximum(values[::-1][order], 0))[None] * 0.7
        grid, mass = gaussian_atoms(own_atoms.shape[1], dtype)
        own_atoms = np.concatenate([own_atoms, np.broadcast_to(grid, (extra, grid.size))])
        masses = np.concatenate([masses, np.broadcast_to(mass, (extra, grid.size))])
        decoder = np.concatenate([decoder, directions], axis=1)
    if atoms is not None:
        own_atoms, masses = np.asarray(atoms), np.full(atoms.shape, 1 / atoms.shape[1])
    return Guess(*(jnp.asarray(part, dtype) for part in (own_atoms, masses, decoder, mean, covariance)))


def gaussian_atoms(count: int, dtype) -> tuple[Array, Array]:
    """Equally spaced atoms of mean 0 and variance 1 with Gaussian masses; two atoms are -1 and 1."""
    grid = np.linspace(-1, 1, count) * np.sqrt(2 * np.log(count) + 0.5) if count > 1 else np.zeros(1)
    mass = np.exp(-(grid**2) / 2)
    mass /= mass.sum()
    grid /= max(np.sqrt(mass @ grid**2), 1e-12)
    return jnp.asarray(grid, dtype), jnp.asarray(mass, dtype)


@partial(compiled, quick=always)
def _regression(source: FeatureModel, layer: AbstractLayer, resolution: Resolution) -> tuple[Array, ...]:
    """Mean and covariance of `f`, the directions of all features, their variances and masses."""
    prior, reading = source.prior, Reading.of(source, layer, resolution)
    form, moments = reading.form, LayerMoments.of_ridge(source, reading.form, reading.axis)
    mean, covariance = moments.output()
    variance, masses = prior.variance, prior.masses
    width = jnp.max(jnp.abs(prior.atoms - prior.mean[:, None]), axis=1)
    alive = variance > jnp.finfo(variance.dtype).eps * width**2
    vectors = source.atom_vectors - jnp.einsum("nmk,mk->nm", source.atom_vectors, masses)[:, :, None]
    weighted = masses * (prior.atoms - prior.mean[:, None])
    input_cross = jnp.einsum("nmk,mk->nm", vectors, weighted)
    psi_cross = jnp.sum((prior.atoms - prior.mean[:, None]) * moments.psi_states[0], axis=1)
    cross = form.linear @ input_cross + jnp.outer(form.output, psi_cross)
    direction = jnp.where(alive[None], cross / jnp.where(alive, variance, 1)[None], 0)
    return mean, covariance, direction, variance, masses

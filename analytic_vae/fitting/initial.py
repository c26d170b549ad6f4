"""Where a fit starts: the source's own features pushed through the layer, read by matched filters."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._jit import compiled, exact_products
from ..closed_form import best_decoder, residual_covariance
from ..expectations import expectations
from ..model.carried_encoder import CarriedEncoder
from ..model.encoder import AbstractEncoder, ExponentialEncoder, GaussianEncoder, NeuralEncoder, SoftmaxEncoder
from ..model.feature_model import FeatureModel
from ..model.layer import AbstractLayer, DenseLayer
from ..moments.layer_moments import LayerMoments
from ..moments.ridge_axis import RidgeAxis
from ..spectral.resolution import Resolution
from ..types import Array, Float, PRNGKeyArray

DEAD = 1e-9  # share of the features' variance below which a feature is not carried on

ASLEEP, AWAKE = 1e-4, 0.3  # standard deviations of log masses

ENCODERS = ("softmax", "softmax2", "gaussian", "gaussian2", "exponential", "neural")


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
    mean, covariance, decoder = _regression(source, layer, resolution)
    prior = source.prior
    share = jnp.sum(decoder**2, axis=0) * prior.variance
    order = np.argsort(-np.asarray(share), kind="stable")[:features]
    kept = np.sort(order[np.asarray(share)[order] > DEAD * np.sum(np.asarray(share))])
    own_atoms, masses, decoder = prior.atoms[kept], prior.masses[kept], decoder[:, kept]
    if features > kept.size:
        left = covariance - (decoder * prior.variance[kept][None]) @ decoder.T
        extra = features - kept.size
        values, vectors = jnp.linalg.eigh((left + left.T) / 2)
        order = np.arange(extra) % values.size
        directions = vectors[:, ::-1][:, order] * jnp.sqrt(jnp.maximum(values[::-1][order], 0))[None] * 0.7
        grid, mass = gaussian_atoms(prior.atoms.shape[1], prior.atoms.dtype)
        own_atoms = jnp.concatenate([own_atoms, jnp.broadcast_to(grid, (extra, grid.size))])
        masses = jnp.concatenate([masses, jnp.broadcast_to(mass, (extra, grid.size))])
        decoder = jnp.concatenate([decoder, directions], axis=1)
    if atoms is not None:
        own_atoms, masses = atoms, jnp.full_like(atoms, 1 / atoms.shape[1])
    return Guess(own_atoms, masses, decoder, mean, covariance)


def gaussian_atoms(count: int, dtype) -> tuple[Array, Array]:
    """Equally spaced atoms of mean 0 and variance 1 with Gaussian masses; two atoms are -1 and 1."""
    grid = np.linspace(-1, 1, count) * np.sqrt(2 * np.log(count) + 0.5) if count > 1 else np.zeros(1)
    mass = np.exp(-(grid**2) / 2)
    mass /= mass.sum()
    grid /= max(np.sqrt(mass @ grid**2), 1e-12)
    return jnp.asarray(grid, dtype), jnp.asarray(mass, dtype)


@exact_products
def extra_features(
    source: FeatureModel, layer: AbstractLayer, features: int, resolution: Resolution, moments
) -> tuple[CarriedEncoder, Float[Array, "m2 K"]]:
    """Carried features and, beside them, some that read x1, or f of a layer that is not dense; and all atoms.

    The new ones start along what the carried ones leave: the principal directions of the remainder of f, read through
    the mean slope of f.
    """
    dtype, (m1, K) = source.mean.dtype, source.prior.atoms.shape
    given = expectations.__wrapped__(
        source, layer, source.prior.atoms, CarriedEncoder(m1), resolution, None, None, True, moments
    )
    left = residual_covariance(given, best_decoder(given)[0])
    _, vectors = jnp.linalg.eigh((left + left.T) / 2)
    directions = vectors[:, ::-1][:, np.arange(features) % left.shape[0]].T
    if isinstance(layer, DenseLayer):
        form = given.layer.form
        slope = given.layer.units.slope * form.weight  # of the regression of each unit on the input
        directions = directions @ (form.linear + form.output @ slope)
        centre, spread = source.moments()
    else:
        centre, spread = given.layer.output()
    scale = jnp.sqrt(jnp.maximum(jnp.einsum("jn,nl,jl->j", directions, spread, directions), 1e-12))
    readout = directions / scale[:, None]
    atoms, mass = gaussian_atoms(K, dtype)
    atoms = jnp.broadcast_to(atoms, (features, K))
    base = jnp.log(mass)[None] - (readout @ centre)[:, None] * 2 * atoms
    encoder = SoftmaxEncoder(readout[:, None], 2 * atoms[:, None], base)
    return CarriedEncoder(m1, encoder), jnp.concatenate([source.prior.atoms, atoms])


@exact_products
def initial_encoder(kind: str, guess: Guess, *, key: PRNGKeyArray) -> AbstractEncoder:
    """The encoder of that kind that reads each feature of the guess as if all the rest of `f` were Gaussian.

    The evidence for `z_j = a` is then `a y - kappa a^2 / 2`, with the matched filter
    `y = B_j' Sigma_-j^-1 (f - mean_-j)` and `kappa = B_j' Sigma_-j^-1 B_j`; `Sigma_-j` and `mean_-j` are of `f`
    without feature j. Raises `ValueError` for an unknown kind.
    """
    if kind not in ENCODERS:
        raise ValueError(f"encoder: expected an encoder or one of {', '.join(ENCODERS)}, got {kind!r}.")
    readout, offset, kappa = _matched_filters(guess)
    atoms, log_masses = guess.atoms, jnp.log(jnp.maximum(guess.masses, 1e-12))
    base = log_masses + offset[:, None] * atoms - kappa[:, None] * atoms**2 / 2
    noise = jax.random.normal(key, readout.shape, readout.dtype)
    second = 0.1 * noise * jnp.linalg.norm(readout, axis=1, keepdims=True) / readout.shape[1] ** 0.5
    if kind == "softmax":
        return SoftmaxEncoder(readout[:, None], atoms[:, None], base)
    if kind == "softmax2":
        centred = atoms - atoms.mean(axis=1, keepdims=True)
        scaled = centred / jnp.max(jnp.abs(centred), axis=1, keepdims=True)
        return SoftmaxEncoder(jnp.stack([readout, second], 1), jnp.stack([atoms, scaled**2], 1), base)
    if kind == "exponential":
        return ExponentialEncoder(-readout[:, None], -offset)
    if kind == "neural":
        return NeuralEncoder.init(_standardised(readout, guess)[:, None], atoms.shape[1], key=key)
    variance = jnp.sum(guess.masses * (atoms - jnp.sum(guess.masses * atoms, 1, keepdims=True)) ** 2, axis=1)
    posterior = 1 / (kappa + 1 / jnp.maximum(variance, 1e-12))
    prior_mean = jnp.sum(guess.masses * atoms, axis=1)
    linear, constant = posterior[:, None] * readout, posterior * (offset + prior_mean / jnp.maximum(variance, 1e-12))
    log_scale = jnp.log(posterior) / 2
    if kind == "gaussian":
        return GaussianEncoder(linear[:, None], constant, log_scale)
    return GaussianEncoder(jnp.stack([linear, second * jnp.sqrt(posterior)[:, None]], 1), constant, log_scale)


@exact_products
def awakened(encoder: AbstractEncoder, guess: Guess, *, key: PRNGKeyArray) -> tuple[AbstractEncoder, list[int]]:
    """The encoder with a random readout for every feature that reads next to nothing, and which those are.

    The decoder of such a feature is zero at its best, and so is the slope of the loss in its readout: nothing would
    ever move it. The new readout moves log masses by `AWAKE`.
    """
    arrays, static = eqx.partition(encoder, eqx.is_array)

    def moves(arrays, atoms, readout):
        y = readout @ guess.mean
        slope = jax.jacfwd(lambda y: eqx.combine(arrays, static).log_masses(y, atoms))(y)
        return jnp.sqrt(jnp.max(jnp.einsum("kt,tn,nl,sl,ks->k", slope, readout, guess.covariance, readout, slope)))

    asleep = jax.vmap(moves)(arrays, guess.atoms, encoder.readout) < ASLEEP
    if not np.any(np.asarray(asleep)):
        return encoder, []
    drawn = jax.random.normal(key, encoder.readout.shape, encoder.readout.dtype)
    strength = jax.vmap(moves)(arrays, guess.atoms, drawn)
    drawn = AWAKE * drawn / jnp.where(strength > 0, strength, 1)[:, None, None]
    readout = jnp.where(asleep[:, None, None], drawn, encoder.readout)
    begun = eqx.tree_at(lambda one: one.readout, encoder, readout)
    return begun, [int(j) for j in np.flatnonzero(np.asarray(asleep))]


def perturbed(encoder: AbstractEncoder, scale: float, *, key: PRNGKeyArray) -> AbstractEncoder:
    """The encoder with every array moved by Gaussian noise of `scale` times the array's root mean square."""
    leaves, tree = jax.tree.flatten(eqx.filter(encoder, eqx.is_inexact_array))
    keys = jax.random.split(key, len(leaves))
    moved = [
        leaf + scale * jnp.sqrt(jnp.mean(leaf**2)) * jax.random.normal(k, leaf.shape, leaf.dtype)
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return eqx.combine(jax.tree.unflatten(tree, moved), encoder)


@compiled
def _regression(source: FeatureModel, layer: AbstractLayer, resolution: Resolution) -> tuple[Array, Array, Array]:
    form, prior = layer.form(), source.prior
    moments = LayerMoments.of(source, form, RidgeAxis.of(source, form, resolution))
    mean, covariance = moments.output()
    variance, masses = prior.variance, prior.masses
    width = jnp.max(jnp.abs(prior.atoms - prior.mean[:, None]), axis=1)
    alive = variance > jnp.finfo(variance.dtype).eps * width**2
    vectors = source.atom_vectors - jnp.einsum("nmk,mk->nm", source.atom_vectors, masses)[:, :, None]
    weighted = masses * (prior.atoms - prior.mean[:, None])
    input_cross = jnp.einsum("nmk,mk->nm", vectors, weighted)
    psi_cross = jnp.sum((prior.atoms - prior.mean[:, None]) * moments.psi_states, axis=1)
    cross = form.linear @ input_cross + jnp.outer(form.output, psi_cross)
    direction = jnp.where(alive[None], cross / jnp.where(alive, variance, 1)[None], 0)
    return mean, covariance, direction


def _matched_filters(guess: Guess) -> tuple[Float[Array, "m2 n2"], Float[Array, " m2"], Float[Array, " m2"]]:
    prior_mean = jnp.sum(guess.masses * guess.atoms, axis=1)
    variance = jnp.sum(guess.masses * (guess.atoms - prior_mean[:, None]) ** 2, axis=1)
    n = guess.mean.size
    floor = 1e-4 * jnp.trace(guess.covariance) / n * jnp.eye(n, dtype=guess.mean.dtype)

    def one(column, spread, centre):
        others = guess.covariance + floor - 0.98 * spread * jnp.outer(column, column)
        # Features and rest overlap only roughly: keep the matrix positive whatever the guess.
        values, vectors = jnp.linalg.eigh(others)
        readout = vectors @ ((vectors.T @ column) / jnp.maximum(values, 1e-2 * values.mean()))
        return readout, -readout @ (guess.mean - column * centre), readout @ column

    return jax.vmap(one)(guess.decoder.T, variance, prior_mean)


def _standardised(readout: Float[Array, "m2 n2"], guess: Guess) -> Float[Array, "m2 n2"]:
    spread = jnp.sqrt(jnp.maximum(jnp.einsum("jn,nl,jl->j", readout, guess.covariance, readout), 1e-12))
    return readout / spread[:, None]

"""Given the encoder, the best target has a closed form: prior, decoder with mean, noise; and so the profiled loss.

Setting the derivatives of the loss to zero one part at a time, with `s_j` and `v_j` the mean and variance of
`Q_j(. | y_j)` and `f = f(x1)`:

    prior     P2_j = E[Q_j(. | y_j)]
    decoder   B = Cov(f, s) (Cov(s) + diag E[v])^-1,   mean = E[f] - B E[s]
    noise     S = E[(f - mean - B z)(f - mean - B z)'], its diagonal, or its trace / n

With all three at their best the loss is `sum_j I(x2; z_j) + 1/2 log det(2 pi e S)`, a function of the encoder alone.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ._check import as_floating, is_concrete, require_choice, require_instance, require_shape
from ._jit import exact_products
from .accuracy import warns
from .elbo import Elbo, elbo_of
from .expectations import expectations
from .model.encoder import AbstractEncoder
from .model.feature_model import FeatureModel
from .model.layer import AbstractLayer
from .model.matrices import diagonal, lower_triangular
from .model.prior import Prior
from .moments.expected import Expectations
from .moments.plan import Plan
from .moments.units import DenseMoments
from .spectral.resolution import Resolution
from .types import Array, ArrayLike, Float

Noise = Literal["scalar", "diagonal", "full"]

NOISES: tuple[Noise, ...] = ("scalar", "diagonal", "full")


def best_prior(given: Expectations, atoms: Float[Array, "m2 K"]) -> Prior:
    """The aggregate posterior `P2_j = E[Q_j(. | y_j)]`, which makes `sum_j E KL(Q_j || P2_j)` least."""
    require_given(given)
    require_atoms(given, atoms)
    return _prior(given, atoms)


def _prior(given: Expectations, atoms: Float[Array, "m2 K"]) -> Prior:
    least = jnp.finfo(given.aggregate.dtype).eps ** 2
    masses = jnp.maximum(given.aggregate, least)
    return Prior(atoms, jnp.log(masses / masses.sum(axis=1, keepdims=True)))


@exact_products
def best_decoder(given: Expectations) -> tuple[Array, Float[Array, " n2"]]:
    """`B: [n2, m2]` and `mean: [n2]` of the least squared error `E |f - mean - B z|^2`.

    With a vector per atom `B: [n2, m2, K]`, centred by the aggregate, so that `mean` is that of `f`. A feature whose
    latent does not vary has no direction of its own: a relative ridge of the square root of the rounding makes it zero.
    """
    require_given(given)
    return _decoder(given)


def _decoder(given: Expectations) -> tuple[Array, Float[Array, " n2"]]:
    matrix, mean = _best_matrix(given)
    if not given.vectors:
        return matrix, mean
    m, K = given.aggregate.shape
    vectors = jnp.pad(matrix.reshape(-1, m, K - 1), ((0, 0), (0, 0), (1, 0)))
    middle = jnp.einsum("nmk,mk->nm", vectors, given.aggregate)
    return vectors - middle[:, :, None], mean + middle.sum(axis=1)


def _best_matrix(given: Expectations) -> tuple[Float[Array, "n2 C"], Float[Array, " n2"]]:
    """The same for the codes of `Expectations`."""
    latent, cross = _latent_covariance(given), given.output_latent
    ridge = 1e-2 * jnp.finfo(latent.dtype).eps ** 0.5 * jnp.trace(latent) / latent.shape[0]
    ridge = ridge + jnp.finfo(latent.dtype).tiny
    decoder = jnp.linalg.solve(latent + ridge * jnp.eye(latent.shape[0], dtype=latent.dtype), cross.T).T
    return decoder, given.layer.output()[0] - decoder @ given.latent_mean


@exact_products
def residual_covariance(given: Expectations, decoder: Array) -> Float[Array, "n2 n2"]:
    """`Cov(f - B z)`, with `z` drawn from the encoder."""
    require_given(given)
    require_decoder(given, decoder)
    return _residual(given, decoder)


def _residual(given: Expectations, decoder: Array) -> Float[Array, "n2 n2"]:
    if given.vectors:
        decoder = (decoder[:, :, 1:] - decoder[:, :, :1]).reshape(decoder.shape[0], -1)
    cross = given.output_latent @ decoder.T
    return given.layer.output()[1] - cross - cross.T + decoder @ _latent_covariance(given) @ decoder.T


@exact_products
def best_noise(given: Expectations, decoder: Array, noise: Noise, floor: ArrayLike = 1e-6) -> Array:
    """The noise of a `FeatureModel`: scalar std, `[n2]` stds, or `[n2, n2]` lower Cholesky factor of the residual.

    `floor` times the mean variance of `f` is added to every variance: a neuron that never varies (a dead unit) would
    otherwise have a noise of zero and a loss of minus infinity.
    """
    require_given(given)
    require_noise(noise)
    require_floor(floor)
    require_decoder(given, decoder)
    return _noise(given, decoder, noise, floor)


def _noise(given: Expectations, decoder: Array, noise: Noise, floor: ArrayLike) -> Array:
    residual = _residual(given, decoder)
    n = residual.shape[0]
    least = floor * jnp.trace(given.layer.output()[1]) / n + jnp.finfo(residual.dtype).tiny
    if noise == "scalar":
        return jnp.sqrt(jnp.trace(residual) / n + least)
    if noise == "diagonal":
        return jnp.sqrt(diagonal(residual) + least)
    return jnp.linalg.cholesky((residual + residual.T) / 2 + least * jnp.eye(n, dtype=residual.dtype))


@exact_products
def best_target(
    given: Expectations, atoms: Float[Array, "m2 K"], noise: Noise = "full", floor: ArrayLike = 1e-6
) -> FeatureModel:
    """The target of the least loss for the encoder behind `given`: prior, decoder, mean and noise at their best.

    Arguments:
        given: what `av.expectations` returns of source, layer, atoms and encoder.
        atoms: `[m2, K]`, those that `given` is of.
        noise: `"full"`, `"diagonal"` or `"scalar"`, as in `best_noise`.
        floor: the least noise variance, relative to the mean variance of a neuron; at least 0.

    Raises `ValueError` or `TypeError` that names the argument.
    """
    require_given(given)
    require_atoms(given, atoms)
    require_noise(noise)
    require_floor(floor)
    return target_of(given, atoms, noise, floor)


def target_of(given: Expectations, atoms: Float[Array, "m2 K"], noise: Noise, floor: ArrayLike) -> FeatureModel:
    """`best_target` of arguments that were checked before."""
    decoder, mean = _decoder(given)
    return FeatureModel(_prior(given, atoms), decoder, _noise(given, decoder, noise, floor), mean)


@exact_products
def carried_target(
    given: Expectations, prior: Prior, noise: Noise = "full", floor: ArrayLike = 1e-6
) -> tuple[FeatureModel, Array]:
    """The best target of carried features alone, and the smallest eigenvalue of what they leave of `Cov(f)`.

    With vectors per atom each is `E[f | z_l = a] - E f`, the first-order functional ANOVA (Hoeffding). With full noise
    its covariance is the exact remainder, so that mean and covariance of the model are those of f. Variances (full:
    eigenvalues) below `floor` times the mean variance of f are raised to it: exact zeros, or what a coarse resolution
    leaves of them.
    """
    decoder, mean = _main_effects(given)
    residual = _residual(given, decoder)
    values, vectors = jnp.linalg.eigh((residual + residual.T) / 2)
    least = floor * jnp.trace(given.layer.output()[1]) / mean.size + jnp.finfo(values.dtype).tiny
    if noise == "scalar":
        scale = jnp.sqrt(jnp.maximum(jnp.trace(residual) / mean.size, least))
    elif noise == "diagonal":
        scale = jnp.sqrt(jnp.maximum(diagonal(residual), least))
    else:
        scale = lower_triangular(vectors * jnp.sqrt(jnp.maximum(values, least))[None])
    return FeatureModel(prior, decoder, scale, mean), values[0]


def _main_effects(given: Expectations) -> tuple[Array, Float[Array, " n2"]]:
    """`best_decoder` of independent latents, one by one: no ridge, which would shrink those that hardly ever vary."""
    cross, masses, mean = given.output_latent, given.aggregate[None], given.layer.output()[0]
    if not given.vectors:
        variance = diagonal(_latent_covariance(given))[None]
        decoder = jnp.where(variance > 0, cross / jnp.where(variance > 0, variance, 1), 0)
        return decoder, mean - decoder @ given.latent_mean
    _, m, K = masses.shape
    others = cross.reshape(-1, m, K - 1)  # Cov(f, 1{z_l = a}) = p_a (E[f | z_l = a] - E f); over all atoms the sum is 0
    pinned = jnp.concatenate([-others.sum(axis=2, keepdims=True), others], axis=2)
    return jnp.where(masses > 0, pinned / jnp.where(masses > 0, masses, 1), 0), mean


@exact_products
def profiled(
    given: Expectations, atoms: Float[Array, "m2 K"], noise: Noise = "full", floor: ArrayLike = 1e-6
) -> tuple[Elbo, FeatureModel]:
    """The loss with the target at its best, `sum_j I(x2; z_j) + 1/2 log det(2 pi e S)`, and that target.

    The value is a bound for that very target, whatever the floor.
    """
    target = target_of(given, atoms, noise, floor)
    return elbo_of(given, target), target


def require_given(given: Expectations) -> None:
    """Raise `TypeError` unless `given` are expectations: arguments in another order are told by that."""
    require_instance("given", given, Expectations, "the Expectations that av.expectations returns")


def require_atoms(given: Expectations, atoms: ArrayLike) -> None:
    """Raise `ValueError` unless the atoms have the shape of those that `given` is of."""
    (atoms,) = as_floating(atoms=atoms)
    require_shape("atoms", atoms, given.aggregate.shape, "features, atoms, as in given")


def require_decoder(given: Expectations, decoder: ArrayLike) -> None:
    """Raise `ValueError` unless the decoder has a direction a feature or, as in `given`, a vector an atom."""
    (decoder,) = as_floating(decoder=decoder)
    neurons, shape = given.layer.form.linear.shape[:1], given.aggregate.shape
    wanted, axes = (shape, "features, atoms") if given.vectors else (shape[:1], "features")
    require_shape("decoder", decoder, neurons + wanted, f"neurons, {axes}, as in given")


def require_noise(noise: Noise) -> None:
    """Raise `ValueError` unless there is such a kind of noise."""
    require_choice("noise", noise, NOISES)


def require_floor(floor: ArrayLike) -> None:
    """Raise `ValueError` unless the floor is a number of at least 0 (inside jit, unless it may be one)."""
    (floor,) = as_floating(floor=floor)
    if floor.ndim or (is_concrete(floor) and not (np.isfinite(floor) and floor >= 0)):
        raise ValueError(f"floor: expected a number of at least 0, got {floor}.")


def _latent_covariance(given: Expectations) -> Float[Array, "m2 m2"]:
    return given.latent_covariance + given.latent_noise


@warns
def profiled_loss(
    source: FeatureModel,
    layer: AbstractLayer,
    atoms: Float[Array, "m2 K"],
    encoder: AbstractEncoder,
    resolution: Resolution | None = None,
    *,
    noise: Noise = "full",
    floor: float = 1e-6,
    plan: Plan | None = None,
    mesh: Mesh | None = None,
    vectors: bool = False,
    moments: DenseMoments | None = None,
) -> tuple[Elbo, FeatureModel]:
    """The loss with prior, decoder, mean and noise at their closed-form best for the encoder, and that target.

    A pure function: jit it, differentiate it in the encoder. Arguments, and what is raised, as in `fit` and `elbo`.

    >>> value, slope = jax.value_and_grad(lambda e: profiled_loss(source, layer, atoms, e)[0].loss)(encoder)
    """
    require_noise(noise)
    require_floor(floor)
    given = expectations.__wrapped__(source, layer, atoms, encoder, resolution, plan, mesh, vectors, moments)
    return profiled(given, atoms, noise, floor)

"""States split in two: how a model of independent features says that the rest is larger when more of them are active.

What the main effects of carried features leave of a layer is mostly what pairs of features do together. Its covariance
is exact in the noise of the model, but it is not noise: where few features are away from rest there is little of it,
where many are there is much. So every state but the likeliest of a feature becomes two of half its mass, `v + d` and
`v - d`, with `d` the direction in which the feature in that state, together with all others, moves the output most; and
the noise becomes smaller by the covariance of that. Mean and covariance of the model stay. No more is claimed: the two
are not told apart by any encoder, so the loss is that of the model before.

Sub-states have the same atom (what tells them apart is their vectors), and stand beside each other; the next layer
takes them for one state again, before its own split.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .layer import DenseLayer
from .model import FeatureModel, lower_triangular
from .precision import exact_products
from .prior import Prior
from .spectral.interactions import second_effects
from .spectral.units import DenseMoments, state_covariance
from .types import Array, Float

MOST = 0.95  # share of the noise in any direction that sub-states take over; the rest keeps it regular
RESOLVED = 1e-6  # of the largest: directions that the splits span, others are rounding


def states_of(prior: Prior) -> tuple[int, ...]:
    """The state that each atom is a case of: `0 1 1 2 2 ...` for features that were split, else every atom its own."""
    atoms = np.asarray(prior.atoms)
    K = atoms.shape[1]
    split = K > 1 and K % 2 == 1 and np.array_equal(atoms[:, 1::2], atoms[:, 2::2])
    return tuple((k + 1) // 2 for k in range(K)) if split else tuple(range(K))


def summed(values: Float[Array, "*s K"], states: tuple[int, ...]) -> Float[Array, "*s G"]:
    """Sums over the atoms of each state."""
    return values @ jax.nn.one_hot(jnp.asarray(states), max(states) + 1, dtype=values.dtype)


def merged(source: FeatureModel, states: tuple[int, ...]) -> FeatureModel:
    """The source with the mean vector of each state, and what its atoms differ by in the noise."""
    masses = source.prior.masses
    whole = summed(masses, states)
    vectors = summed(source.atom_vectors * masses[None], states) / whole[None]
    within = source.atom_vectors - vectors[:, :, jnp.asarray(states)]
    covariance = source.covariance + jnp.einsum("nmk,mk,lmk->nl", within, masses, within)
    values, axes = jnp.linalg.eigh(covariance)
    noise = lower_triangular(axes * jnp.sqrt(jnp.maximum(values, 0))[None])
    first = jnp.asarray([states.index(state) for state in range(max(states) + 1)])
    return FeatureModel(Prior(source.prior.atoms[:, first], jnp.log(whole)), vectors, noise, source.mean)


def merged_moments(moments: DenseMoments, states: tuple[int, ...]) -> DenseMoments:
    """The moments with states in place of atoms."""
    return eqx.tree_at(lambda one: one.psi_states, moments, summed(moments.psi_states, states))


@eqx.filter_jit
@exact_products
def with_substates(
    source: FeatureModel,
    layer: DenseLayer,
    moments: DenseMoments,
    target: FeatureModel,
    states: tuple[int, ...],
    mesh: Mesh | None = None,
) -> FeatureModel:
    """The target of carried features (states of the source, a vector each, full noise) with all but one of them split.

    `moments` are those of the source's atoms, `states` as `states_of` gives them.
    """
    masses = source.prior.masses
    whole = summed(masses, states)
    share = jnp.where(whole[:, jnp.asarray(states)] > 0, masses / whole[:, jnp.asarray(states)], 0)
    whiten = lambda a: jax.scipy.linalg.solve_triangular(target.noise, a, lower=True)  # noqa: E731
    second = _second_order(source, layer, moments, share, states, whiten, mesh)
    own = _between_atoms(source, moments, share, states, whiten)
    strength, axes = jnp.linalg.eigh(own + second)
    cover = jnp.einsum("mg,mgnl->nl", whole, own + second / 2)

    likeliest = jnp.argsort(-target.prior.masses, axis=1, stable=True)
    ordered = lambda a: jnp.take_along_axis(a, likeliest, axis=1)  # noqa: E731
    index = likeliest[:, 1:]
    each = jnp.take_along_axis(whole, index, axis=1)
    strongest = jnp.take_along_axis(axes[..., -1], index[:, :, None], axis=1)
    weight = jnp.sqrt(each * jnp.maximum(jnp.take_along_axis(strength[..., -1], index, axis=1), 0))
    spanned = (strongest * weight[:, :, None]).reshape(-1, target.neurons)
    moved = _covering(spanned.T, cover)
    noise = lower_triangular(target.noise @ _root(jnp.eye(target.neurons, dtype=moved.dtype) - moved @ moved.T))
    direction = (target.noise @ moved).reshape(target.neurons, *index.shape)
    direction = direction / jnp.sqrt(jnp.where(each > 0, each, 1))[None]

    doubled = lambda first, rest: jnp.concatenate([first, jnp.repeat(rest, 2, axis=-1)], axis=-1)  # noqa: E731
    vectors = jnp.take_along_axis(target.decoder, likeliest[None], axis=2)
    sign = jnp.tile(jnp.asarray([1.0, -1.0], direction.dtype), index.shape[1])
    decoder = doubled(vectors[:, :, :1], vectors[:, :, 1:])
    decoder = decoder.at[:, :, 1:].add(jnp.repeat(direction, 2, axis=-1) * sign[None, None])
    atoms, log_masses = ordered(target.prior.atoms), ordered(target.prior.log_masses)
    prior = Prior(doubled(atoms[:, :1], atoms[:, 1:]), doubled(log_masses[:, :1], log_masses[:, 1:] - jnp.log(2.0)))
    return FeatureModel(prior, decoder, noise, target.mean)


def _second_order(source, layer, moments, share, states, whiten, mesh) -> Float[Array, "m G n2 n2"]:
    """Of each state the covariance of its second-order effects with all other features, in units of the noise."""
    masses = source.prior.masses
    effects = jnp.tensordot(moments.form.output, second_effects(source, layer, moments, mesh), axes=1)
    n, (m, K) = effects.shape[0], masses.shape
    effects = whiten(effects.reshape(n, -1)).reshape(n, m, K, m * K)
    atoms = jnp.einsum("nmkx,x,lmkx->mnlk", effects, masses.ravel(), effects) * share[:, None, None]
    return jnp.moveaxis(summed(atoms, states), -1, 1)


def _between_atoms(source, moments, share, states, whiten) -> Float[Array, "m G n2 n2"]:
    """Of each state the covariance of the main effects of its atoms, in units of the noise."""
    masses, (m, K) = source.prior.masses, source.prior.masses.shape
    effects = moments.form.mapped(state_covariance(source).reshape(-1, m * K), moments.psi_states.reshape(-1, m * K))
    effects = whiten(effects).reshape(-1, m, K) / jnp.where(masses > 0, masses, 1)[None]
    middle = summed(effects * share[None], states)
    within = effects - middle[:, :, jnp.asarray(states)]
    return jnp.moveaxis(summed(jnp.einsum("nmk,lmk->mnlk", within, within) * share[:, None, None], states), -1, 1)


def _covering(columns: Float[Array, "n c"], cover: Float[Array, "n n"]) -> Float[Array, "n c"]:
    """Columns turned and scaled so that `U U'` is the cover, at most `MOST`, on what the given ones span."""
    values, axes = jnp.linalg.eigh(columns @ columns.T)
    there = values > RESOLVED * values[-1]
    inverse = jnp.where(there, 1 / jnp.sqrt(jnp.where(there, values, 1)), 0)
    values, principal = jnp.linalg.eigh((cover + cover.T) / 2)
    root = (principal * jnp.sqrt(jnp.clip(values, 0, MOST))[None]) @ principal.T
    return root @ (axes * inverse[None]) @ axes.T @ columns


def _root(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    values, axes = jnp.linalg.eigh((matrix + matrix.T) / 2)
    return axes * jnp.sqrt(jnp.maximum(values, 0))[None]

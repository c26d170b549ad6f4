"""States split in two: how a model of independent features says that the rest is larger when more of them are active.

What the main effects of carried features leave of a layer is mostly what pairs of features do together. Its covariance
is exact in the noise of the model, but it is not noise: where few features are away from rest there is little of it,
where many are there is much. So every state but the likeliest of a feature becomes two of half its mass, `v + d` and
`v - d`, and the noise `S` becomes `S - sum p d d'`. Mean and covariance of the model stay. No more is claimed: no
encoder tells the two apart, so the loss is that of the model before.

In units of the noise, `S = L L'`, the strongest direction `e` of a state is the first principal axis of what it does
together with all other features. Of these, weighted, the nearest orthonormal columns `E` are taken (their polar
factor), and `sqrt(p) d = L C^(1/2) E`, where `C` is the covariance of all second-order effects, at most `MOST`; and no
state gets more variance than its own effects have.

Sub-states have the same atom and mass (what tells them apart is their vectors), and stand beside each other; the next
layer takes them for one state again, before its own split. Features' states stand in another order than before: the
likeliest first.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._jit import compiled, exact_products
from ..model.dense_layer import DenseLayer
from ..model.feature_model import FeatureModel
from ..model.matrices import lower_triangular
from ..model.prior import Prior
from ..moments.conditional import state_covariance
from ..moments.second_order import second_effects
from ..moments.units import DenseMoments
from ..types import Array, Float

MOST = 0.95  # share of the noise in any direction that sub-states take over; the rest keeps it regular

RESOLVED = 1e-3  # of the largest singular value: weighted directions below are rounding


def states_of(prior: Prior) -> tuple[int, ...]:
    """The state that each atom is a case of: `0 1 1 2 2 ...` for features that were split, else every atom its own."""
    K = prior.atoms.shape[1]
    pairs = [(a[:, 1::2], a[:, 2::2]) for a in map(np.asarray, (prior.atoms, prior.logits))]
    split = K > 1 and K % 2 == 1 and all(np.array_equal(*pair) for pair in pairs)
    return tuple((k + 1) // 2 for k in range(K)) if split else tuple(range(K))


def summed(values: Float[Array, "*s K"], states: tuple[int, ...]) -> Float[Array, "*s K2"]:
    """Sums over the atoms of each state."""
    return values @ jax.nn.one_hot(jnp.asarray(states), max(states) + 1, dtype=values.dtype)


@exact_products
def merged(source: FeatureModel, states: tuple[int, ...]) -> FeatureModel:
    """The source with the mean vector of each state, and what its atoms differ by in the noise; itself if not split."""
    if len(set(states)) == len(states):
        return source
    masses = source.prior.masses
    whole = summed(masses, states)
    vectors = summed(source.atom_vectors * masses[None], states) / jnp.where(whole > 0, whole, 1)[None]
    within = source.atom_vectors - vectors[:, :, jnp.asarray(states)]
    covariance = source.covariance + jnp.einsum("nmk,mk,lmk->nl", within, masses, within)
    values, axes = jnp.linalg.eigh(covariance)
    noise = lower_triangular(axes * jnp.sqrt(jnp.maximum(values, 0))[None])
    first = jnp.asarray([states.index(state) for state in range(max(states) + 1)])
    return FeatureModel(Prior(source.prior.atoms[:, first], jnp.log(whole)), vectors, noise, source.mean)


@exact_products
def merged_moments(moments: DenseMoments, states: tuple[int, ...]) -> DenseMoments:
    """The moments with states in place of atoms (but for `units`, whose series are of no state)."""
    known = merged(moments.source, states), summed(moments.psi_states, states)
    return eqx.tree_at(lambda one: (one.source, one.psi_states), moments, known)


@compiled
@exact_products
def with_substates(
    source: FeatureModel,
    layer: DenseLayer,
    moments: DenseMoments,
    target: FeatureModel,
    states: tuple[int, ...],
    mesh: Mesh | None = None,
) -> FeatureModel:
    """The target of carried features with every state but the likeliest split in two.

    Arguments:
        source, layer, moments: with a state per atom or sub-states; `moments` are those of its atoms.
        target: of the states, `[n2, m, K2]`, with full noise that is not singular.
        states: the state of each atom, as `states_of` gives them.
        mesh: devices to share the units among.

    Returns a model with decoder `[n2, m, 2 K2 - 1]`, its mean and covariance those of the target.
    """
    masses = summed(source.prior.masses, states)
    effects, cover = _effects(source, layer, moments, target, states, mesh)
    moved = _moved(effects, cover, masses, order := jnp.argsort(-target.prior.masses, axis=1, stable=True))
    n, m = target.neurons, target.features
    noise = target.noise @ jnp.linalg.cholesky(jnp.eye(n, dtype=moved.dtype) - moved @ moved.T)
    split = jnp.take_along_axis(masses, order, axis=1)[:, 1:]
    direction = (target.noise @ moved).reshape(n, m, -1) / jnp.sqrt(jnp.where(split > 0, split, 1))[None]

    atoms, log_masses = (jnp.take_along_axis(a, order, 1) for a in (target.prior.atoms, target.prior.log_masses))
    log_masses = _doubled(log_masses).at[:, 1:].add(-jnp.log(2.0).astype(log_masses.dtype))
    decoder = _doubled(jnp.take_along_axis(target.decoder, order[None], axis=2))
    sign = jnp.tile(jnp.asarray([1.0, -1.0], direction.dtype), split.shape[1])
    decoder = decoder.at[:, :, 1:].add(jnp.repeat(direction, 2, axis=-1) * sign[None, None])
    return FeatureModel(Prior(_doubled(atoms), log_masses), decoder, noise, target.mean)


def _doubled(values: Float[Array, "*s K2"]) -> Float[Array, "*s K"]:
    """The first, and all others twice."""
    return jnp.concatenate([values[..., :1], jnp.repeat(values[..., 1:], 2, axis=-1)], axis=-1)


def _effects(source, layer, moments, target, states, mesh) -> tuple[Float[Array, "m K2 n2 n2"], Float[Array, "n2 n2"]]:
    """In units of the noise: the covariance of what each state does, and the part of the noise that they are.

    What the atoms of a state differ by in their main effects is the state's own; second-order effects belong to two.
    """
    masses = source.prior.masses
    whole = summed(masses, states)[:, jnp.asarray(states)]
    share = jnp.where(whole > 0, masses / jnp.where(whole > 0, whole, 1), 0)
    whiten = lambda a: jax.scipy.linalg.solve_triangular(target.noise, a, lower=True)  # noqa: E731
    own = _between_atoms(source, moments, share, states, whiten)
    second = _second_order(source, layer, moments, share, states, whiten, mesh)
    return own + second, jnp.einsum("mg,mgnl->nl", summed(masses, states), own + second / 2)


def _moved(effects, cover, masses, order) -> Float[Array, "n2 c"]:
    """`sqrt(p) d` of all states that are split, in units of the noise; `c = m (G - 1)`, features first."""
    strength, axes = jnp.linalg.eigh(effects)
    index = order[:, 1:]
    mass, largest = (jnp.take_along_axis(a, index, axis=1).ravel() for a in (masses, strength[..., -1]))
    total = jnp.take_along_axis(jnp.trace(effects, axis1=2, axis2=3), index, axis=1).ravel()
    strongest = jnp.take_along_axis(axes[..., -1], index[:, :, None], axis=1).reshape(mass.size, -1)
    # Of the noise no state can be more than all: where the noise was raised to a floor, effects are errors of theirs.
    weighted = strongest.T * jnp.sqrt(jnp.clip(mass * largest, 0, 2))[None]
    left, sizes, right = jnp.linalg.svd(weighted, full_matrices=False)
    values, principal = jnp.linalg.eigh((cover + cover.T) / 2)
    root = (principal * jnp.sqrt(jnp.clip(values, 0, MOST))[None]) @ principal.T
    moved = root @ (left * (sizes > RESOLVED * sizes[0])[None]) @ right
    length = jnp.linalg.norm(moved, axis=0)
    return moved * jnp.minimum(1, jnp.sqrt(mass * jnp.maximum(total, 0)) / jnp.where(length > 0, length, 1))[None]


def _second_order(source, layer, moments, share, states, whiten, mesh) -> Float[Array, "m K2 n2 n2"]:
    """Of each state the covariance of its second-order effects with all other features, in units of the noise."""
    masses = source.prior.masses
    effects = jnp.tensordot(moments.form.output, second_effects(source, layer, moments, mesh), axes=1)
    n, (m, K) = effects.shape[0], masses.shape
    effects = whiten(effects.reshape(n, -1)).reshape(n, m, K, m * K)
    atoms = jnp.einsum("nmkx,x,lmkx->mnlk", effects, masses.ravel(), effects) * share[:, None, None]
    return jnp.moveaxis(summed(atoms, states), -1, 1)


def _between_atoms(source, moments, share, states, whiten) -> Float[Array, "m K2 n2 n2"]:
    """Of each state the covariance of the main effects of its atoms, in units of the noise."""
    masses, (m, K) = source.prior.masses, source.prior.masses.shape
    effects = moments.form.mapped(state_covariance(source).reshape(-1, m * K), moments.psi_states.reshape(-1, m * K))
    effects = whiten(effects).reshape(-1, m, K) / jnp.where(masses > 0, masses, 1)[None]
    middle = summed(effects * share[None], states)
    within = effects - middle[:, :, jnp.asarray(states)]
    return jnp.moveaxis(summed(jnp.einsum("nmk,lmk->mnlk", within, within) * share[:, None, None], states), -1, 1)

"""Rare or large values beside ordinary ones: a source as a mixture over the states that stand far apart.

One box and one band cannot hold a value of 1000 beside spreads of 1. Given which cluster of its atoms a far-reaching
feature is in, the source is again a feature model, and an ordinary one:

    E g = sum_c w_c E[g | c]        Cov(g, h) = sum_c w_c (Cov(g, h | c) + (E[g | c] - E g)(E[h | c] - E h))

The clusters are static: they are looked for where the source is concrete, and hold inside of jit and grad.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._check import is_concrete
from ..types import Array, Float
from .feature_model import FeatureModel
from .host import HostModel

APART = 6.0  # times the spread of all that is smaller: from which on atoms are in clusters of their own

RARE, NEAR = 1e-6, 1.0  # an atom of less mass is apart from so many spreads on: boxes are not made to hold it

MOST = 16  # components


class Clusters(NamedTuple):
    """Features whose atoms fall into clusters, and for each of them the cluster of every atom. Hashable."""

    features: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Components of the mixture."""
        return int(np.prod([max(row) + 1 for row in self.labels], dtype=int))

    def components(self, source: FeatureModel) -> tuple[Float[Array, " c"], FeatureModel]:
        """Weights `[c]`, and the conditional sources with a leading axis: ordinary ones, in their own coordinates."""
        chosen = list(itertools.product(*[range(max(row) + 1) for row in self.labels]))
        inside = np.ones((len(chosen), *source.prior.atoms.shape), bool)
        for c, states in enumerate(chosen):
            for j, row, state in zip(self.features, self.labels, states, strict=True):
                inside[c, j] = np.array(row) == state
        # An atom that cannot be is replaced by the likeliest of the cluster, so that no large number stays.
        log_masses = jnp.where(inside, source.prior.log_masses[None], -jnp.inf)
        stand_in = jnp.where(inside, jnp.arange(inside.shape[2])[None, None], jnp.argmax(log_masses, 2)[..., None])
        weights = jax.nn.softmax(jax.nn.logsumexp(log_masses, axis=2).sum(axis=1))
        atoms = jnp.take_along_axis(jnp.broadcast_to(source.prior.atoms[None], inside.shape), stand_in, axis=2)
        decoder = source.decoder
        if decoder.ndim == 3:
            whole = jnp.broadcast_to(decoder[None], (len(chosen), *decoder.shape))
            decoder = jnp.take_along_axis(whole, stand_in[:, None], axis=3)

        def one(atoms, log_masses, decoder):
            parts = lambda m: (m.prior.atoms, m.prior.logits, m.decoder)  # noqa: E731
            return eqx.tree_at(parts, source, (atoms, log_masses, decoder))

        stacked = jax.vmap(one, in_axes=(0, 0, 0 if decoder.ndim == 4 else None))(atoms, log_masses, decoder)
        return weights, stacked


def clusters_of(source: FeatureModel) -> Clusters | None:
    """The clusters of a source; None if there are none, or if its numbers are not at hand.

    They are of the features whose atoms fall apart, of those that reach furthest or have a rare atom: neighbours are
    further from each other than `APART` times the spread of the noise and of all other features, a rare one than `NEAR`
    times. If that makes more than `MOST` components, of fewer features, the furthest.
    """
    if not all(map(is_concrete, jax.tree.leaves(source))):
        return None
    here = HostModel.of(source)
    masses, vectors, noise = here.masses, here.vectors, float(np.trace(here.covariance))
    centred = vectors - np.einsum("nmk,mk->nm", vectors, masses)[:, :, None]
    variances = np.einsum("nmk,mk->m", centred**2, masses)
    likeliest = np.take_along_axis(centred, masses.argmax(axis=1)[None, :, None], axis=2)
    reach = np.where(masses > 0, np.linalg.norm(centred - likeliest, axis=0), 0).max(axis=1)
    rare = np.any((masses > 0) & (masses < RARE), axis=1)
    order = np.argsort(-reach, kind="stable")
    chosen = order[(np.arange(order.size) < math.log2(MOST)) | rare[order]]
    while chosen.size:
        rest, rows = noise + variances.sum() - variances[chosen].sum(), []
        for j in chosen[::-1]:  # the smallest first: what varies within its clusters counts for the others
            rows.append(_labels(centred[:, j], masses[j], max(rest, 0) ** 0.5))
            rest += _within(centred[:, j], masses[j], np.array(rows[-1]))
        apart = np.array([max(row) > 0 for row in rows[::-1]])
        clusters = Clusters(tuple(map(int, chosen[::-1])), tuple(rows))
        if apart.all() and clusters.size <= MOST:
            return clusters
        # One that does not fall apart here does not among fewer either: there is more left beside it.
        chosen = chosen[:-1] if apart.all() else chosen[apart]
    return None


def _within(vectors: np.ndarray, masses: np.ndarray, labels: np.ndarray) -> float:
    """The variance that is left within clusters."""
    total = 0.0
    for label in range(labels.max() + 1):
        own = masses * (labels == label)
        if own.sum() > 0:
            total += float(own @ ((vectors - (vectors @ own / own.sum())[:, None]) ** 2).sum(axis=0))
    return total


def _labels(vectors: np.ndarray, masses: np.ndarray, spread: float) -> tuple[int, ...]:
    """Clusters of `vectors: [n, K]` of positive mass in which each has a neighbour that is not apart."""
    K = masses.size
    gap = np.where(np.minimum(masses[:, None], masses[None]) < RARE, NEAR, APART) * spread
    near = np.linalg.norm(vectors[:, :, None] - vectors[:, None], axis=0) <= gap
    labels = np.full(K, -1)
    for start in range(K):
        if labels[start] >= 0 or masses[start] == 0:
            continue
        members, last = {start}, set()
        while members != last:
            last = set(members)
            members = {k for k in range(K) if masses[k] > 0 and any(near[k, other] for other in last)}
        labels[list(members)] = labels.max() + 1
    return tuple(int(label) for label in np.maximum(labels, 0))


def over_components(function: Callable, components):
    """What the function gives for every component, stacked on a leading axis: one program, one after another."""
    arrays, static = eqx.partition(components, eqx.is_array)
    return jax.lax.map(lambda one: function(eqx.combine(one, static)), arrays)


def mean_of(weights: Float[Array, " c"], means: Float[Array, "c *s"]) -> Float[Array, "*s"]:
    """`sum_c w_c E[g | c]`."""
    return jnp.tensordot(weights, means, axes=1)


def covariance_of(
    weights: Float[Array, " c"], within: Float[Array, "c C C2"], left: Float[Array, "c C"], right: Float[Array, "c C2"]
) -> Float[Array, "C C2"]:
    """The covariance of two functions from those within the components, and from their means there."""
    apart = left - mean_of(weights, left)[None]
    others = right - mean_of(weights, right)[None]
    return mean_of(weights, within) + jnp.einsum("c,ca,cb->ab", weights, apart, others)

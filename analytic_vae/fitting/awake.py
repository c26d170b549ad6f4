"""Encoders that a fit may begin with as they are, and others nearby."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._jit import exact_products
from ..model.encoder import AbstractEncoder
from ..types import PRNGKeyArray
from .guess import Guess

ASLEEP, AWAKE = 1e-4, 0.3  # standard deviations of log masses


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

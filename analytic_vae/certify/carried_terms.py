"""What carried features add to the terms of the loss, with bounds of the errors, for any layer.

With `z2 = z1` all is algebra but for the means of the units with one feature of the source pinned.
"""

import jax.numpy as jnp
import numpy as np

from ..model.feature_model import FeatureModel
from ..moments.codes import block_diagonal
from ..moments.conditional import state_covariance
from ..spectral.resolution import Resolution
from ..types import Array, Float
from .ball import Ball, einsum
from .joint_law import source_sizes
from .output_terms import WhitenedOutput
from .terms import LossContribution
from .units import Units, state_order


def carried_terms(
    source: FeatureModel,
    code: Float[Array, "m R K"],
    log_masses: Float[Array, "m K"],
    parts: WhitenedOutput,
    units: Units,
    resolution: Resolution,
) -> LossContribution:
    """The terms of features that are the source's, with these codes and log masses in the target."""
    masses = source.prior.masses
    zero = jnp.zeros_like(source.mean[0])
    R1 = _rate(masses, source.prior.log_masses, log_masses)
    T2 = _with_codes(source, parts, units, code, resolution)
    return LossContribution(R1, Ball.of(zero), T2, _code_moments(masses, code, parts))


def _rate(masses, log_masses, target_log_masses) -> Ball:
    """`sum_l E -log P2(z_l)` (B69)."""
    possible = masses > 0
    own, theirs = (jnp.where(possible, log, 0) for log in (log_masses, target_log_masses))
    sizes = jnp.sum(masses * (jnp.abs(theirs) + 1) * (jnp.abs(own) + 1))
    unknown = jnp.where(jnp.isfinite(sizes), jnp.zeros_like(sizes), jnp.inf)
    return Ball(-jnp.sum(masses * theirs), unknown, sizes)


def _with_codes(source, parts: WhitenedOutput, units: Units, code, resolution: Resolution) -> Ball:
    """`T2 = -2 sum_C E <f, decoder_C> code_C(z)` (B70)."""
    owner = np.repeat(np.arange(code.shape[0]), code.shape[1])
    code, masses = code.reshape(-1, code.shape[2]), source.prior.masses
    sizes = (source_sizes(source)[:, None, None] + jnp.abs(source.atom_vectors)) * masses[None]
    states = state_covariance(source) + jnp.einsum("n,mk->nmk", source.moments()[0], masses)  # E 1{z_l = a} x
    along = parts.decoder.T @ parts.linear
    # Over codes of one feature: [C, K] each.
    value = einsum("cn,nck->ck", along, Ball.of(states, sizes)[:, owner])
    value = value + (parts.decoder.T @ parts.centre)[:, None] * masses[owner]
    if units.count:
        found = Ball.of(units.states(state_order(resolution)))
        value = value + einsum("ch,hck->ck", parts.decoder.T @ parts.output, found[:, owner])
    return -2 * (code * value).sum()


def _code_moments(masses, code: Float[Array, "m R K"], parts: WhitenedOutput) -> Ball:
    """`T3 = sum_CD <decoder_C, decoder_D> E code_C code_D` (B70)."""
    mean, size = (jnp.einsum("mrk,mk->mr", one, masses) for one in (code, jnp.abs(code)))
    centred = code - mean[:, :, None]
    own = jnp.einsum("mrk,mk,msk->mrs", centred, masses, centred)
    own_size = jnp.einsum("mrk,mk,msk->mrs", jnp.abs(code), masses, jnp.abs(code)) + size[:, :, None] * size[:, None]
    mean, covariance = Ball.of(mean.ravel(), size.ravel()), Ball.of(block_diagonal(own), block_diagonal(own_size))
    moments = covariance + mean[:, None] * mean[None]
    return (parts.decoder.T @ parts.decoder * moments).sum()

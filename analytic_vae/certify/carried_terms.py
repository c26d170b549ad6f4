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
from .ball import SAFETY, Bounded
from .joint_law import source_sizes
from .output_terms import ROUNDING, WhitenedOutput
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
    return LossContribution(R1, Bounded(zero, zero), T2, _code_moments(masses, code, parts))


def _rate(masses, log_masses, target_log_masses) -> Bounded:
    """`sum_l E -log P2(z_l)` (B69)."""
    possible = masses > 0
    own, theirs = (jnp.where(possible, log, 0) for log in (log_masses, target_log_masses))
    sizes = jnp.sum(masses * (jnp.abs(theirs) + 1) * (jnp.abs(own) + 1))
    error = ROUNDING * jnp.finfo(masses.dtype).eps * sizes
    return Bounded(-jnp.sum(masses * theirs), jnp.where(jnp.isfinite(sizes), error, jnp.inf))


def _with_codes(source, parts: WhitenedOutput, units: Units, code, resolution: Resolution) -> Bounded:
    """`T2 = -2 sum_C E <f, decoder_C> code_C(z)` (B70)."""
    eps, owner = ROUNDING * jnp.finfo(source.mean.dtype).eps, np.repeat(np.arange(code.shape[0]), code.shape[1])
    code = code.reshape(-1, code.shape[2])
    masses = source.prior.masses
    states = state_covariance(source) + jnp.einsum("n,mk->nmk", source.moments()[0], masses)  # E 1{z_l = a} x
    linear = jnp.einsum("nmk,on->omk", states, parts.linear) + jnp.einsum("o,mk->omk", parts.centre, masses)
    pinned = source_sizes(source)[:, None, None] + jnp.abs(source.atom_vectors)
    sizes = jnp.einsum("nmk,on->omk", pinned, parts.linear_size) + parts.centre_size[:, None, None]
    towards, towards_size = parts.decoder.T, parts.decoder_size.T
    # Over codes of one feature: [C, K] each.
    value = jnp.einsum("co,ock->ck", towards, linear[:, owner])
    error = eps * jnp.einsum("co,ock->ck", towards_size, (sizes * masses[None])[:, owner])
    if units.count:
        found = units.states(state_order(resolution))
        bent, bent_size = towards @ parts.output, towards_size @ parts.output_size
        value = value + jnp.einsum("ch,hck->ck", bent, found.value[:, owner])
        error = error + jnp.einsum("ch,hck->ck", jnp.abs(bent), found.error_bound[:, owner])
        error = error + eps * jnp.einsum("ch,hck->ck", bent_size, jnp.abs(found.value)[:, owner])
    error = jnp.sum(jnp.abs(code) * (error + eps * jnp.abs(value)))
    return Bounded(-2 * jnp.sum(code * value), 2 * SAFETY * error)


def _code_moments(masses, code: Float[Array, "m R K"], parts: WhitenedOutput) -> Bounded:
    """`T3 = sum_CD <decoder_C, decoder_D> E code_C code_D` (B70)."""

    def second(code):
        """Mean and covariance of the codes of independent features."""
        mean = jnp.einsum("mrk,mk->mr", code, masses)
        centred = code - mean[:, :, None]
        own = jnp.einsum("mrk,mk,msk->mrs", centred, masses, centred)
        return mean.ravel(), block_diagonal(own)

    mean, covariance = second(code)
    size, spread = second(jnp.abs(code))
    gram, gram_size = parts.decoder.T @ parts.decoder, parts.decoder_size.T @ parts.decoder_size
    sizes = jnp.abs(covariance) + jnp.abs(spread) + 2 * jnp.outer(size, size)
    error = ROUNDING * jnp.finfo(masses.dtype).eps * jnp.sum(gram_size * sizes)
    return Bounded(jnp.sum(gram * (covariance + jnp.outer(mean, mean))), error)

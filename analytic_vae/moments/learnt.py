"""The expectations of an encoder that reads statistics, and what they may lack."""

import equinox as eqx
import jax
import jax.numpy as jnp

from ..model.matrices import diagonal
from ..types import Array, Float, Scalar
from .budget import Batches
from .codes import Codes, block_diagonal
from .conditional import state_covariance
from .expected import Expectations
from .layer_moments import LayerMoments
from .problem import Problem
from .reading import Reading
from .ridge_axis import RidgeAxis
from .statistic_function import Covariances, latent_covariances
from .units import DenseMoments

LEAK = 0.02  # of a unit's spread, where a code leaves much to its series


def learnt(problem: Problem, reading: Reading, read: LayerMoments) -> tuple[Expectations, Float[Array, "C m1 K1"]]:
    """For the learnt features of a problem, and `E[1{z_l = a_lk} (s - E s)]`; `read` are the moments of what they read.

    Where the layer is as good as straight it is taken for a linear one: `psi` is then the linear part of it.
    """
    encoder, moments, resolution = problem.learnt, problem.moments, problem.resolution
    covariance = read.output_covariance(*read.of_output())
    batches = Batches.of(reading.source, problem.learnt_shape, reading.axis.linear, resolution, problem.mesh)
    taken, straight, slope = reading.straightened()
    pairs = taken.for_pairs()
    if pairs is taken:
        laws, grid = taken.axis.grids(resolution, encoder.statistics_read)
    else:
        laws, grid = taken.axis.law_grid(resolution, encoder.statistics_read), pairs.axis.pair_grid(resolution)
    features = Codes.of(problem, (taken, pairs, laws), covariance, batches.laws)
    latents, R = features.latents, features.same.shape[1]
    if not taken.axis.linear:
        psi_rest = jnp.where(straight, slope * latents.input_rest @ reading.form.direction, latents.psi_rest)
        latents = eqx.tree_at(lambda one: one.psi_rest, latents, psi_rest)
    readout = jnp.repeat(encoder.readout, R, axis=0)
    found = latent_covariances(taken.source, read, readout, latents, grid, batches.pairs, problem.mesh)
    gain = jnp.einsum("jt,jtn->jn", latents.slope, readout) @ taken.form.linear
    psi_latent, series_error_psi = found.psi_latent, jnp.zeros_like(found.psi_latent)
    if moments is not None:
        psi_latent = moments.with_latents(taken.source, latents, gain, grid, batches.pairs, problem.mesh)
        alike = _squared_correlation(moments.form.weight[:, None], encoder.readout, covariance)
        series_error_psi = _series_error_psi(moments, found, latents.remainder) * jnp.repeat(alike, R, axis=1)
    alike = _squared_correlation(encoder.readout, encoder.readout, covariance)
    of_units, of_layer = layer_errors(reading.axis, moments)
    expected = Expectations(
        layer=moments or read,
        latent_mean=latents.mean,
        latent_covariance=features.with_exact_diagonal_blocks(found.latent),
        latent_noise=block_diagonal(features.within),
        input_latent=found.input_latent,
        psi_latent=psi_latent,
        aggregate=features.aggregate,
        entropy=features.entropy,
        remainder=latents.remainder,
        moment_error=jnp.maximum(features.moment_error, jax.lax.stop_gradient(of_units)),
        band_error=jnp.maximum(features.band_error.max(axis=1), jax.lax.stop_gradient(of_layer)),
        series_error=_series_error(found, latents.remainder, alike, R),
        series_error_psi=series_error_psi,
        vectors=problem.vectors,
    )
    return expected, latents.states + jnp.einsum("cn,nmk->cmk", gain, state_covariance(reading.source))


def layer_errors(axis: RidgeAxis, moments: DenseMoments | None) -> tuple[Scalar, Scalar]:
    """What the layer's own law has wrong, and what it lacks."""
    return (axis.moment_error, axis.band_error) if moments is None else (moments.moment_error.max(), moments.overall)


def _series_error(
    found: Covariances, remainder: Float[Array, " C"], alike: Float[Array, "m m"], R: int
) -> Float[Array, "C C"]:
    """What series leave out of covariances of codes: what shorter ones change, and more where remainders are large.

    A sharp encoder leaves much to both series: `left_j left_k` times the squared correlation of the statistics, with
    `left = r min(1, 4 r / spread)` of remainders r. Codes of one feature are no pair.
    """
    left = _large(found, remainder)
    own = jnp.arange(len(left)) // R
    alike = jnp.repeat(jnp.repeat(alike, R, axis=0), R, axis=1)
    return jnp.where(own[:, None] == own[None], 0, found.change + jnp.outer(left, left) * alike)


def _series_error_psi(moments: DenseMoments, found: Covariances, remainder: Float[Array, " C"]) -> Float[Array, "h C"]:
    """The same of a unit and a code, but for the correlation: both remainders, and of a sharp code `LEAK` of the unit.

    `LEAK` because an exponential of what the unit reads is not one of what the encoder reads.
    """
    variance, own, remainder = jax.lax.stop_gradient((diagonal(moments.psi_covariance), moments.remainder, remainder))
    spread = jnp.sqrt(jnp.maximum(variance, 0))
    return jnp.outer(own, remainder) + LEAK * jnp.outer(spread, _large(found, remainder))


def _large(found: Covariances, remainder: Float[Array, " C"]) -> Float[Array, " C"]:
    """`r min(1, 4 r / spread)` of the remainders r of codes. Without derivatives."""
    variance, remainder = jax.lax.stop_gradient((diagonal(found.latent), remainder))
    share = 4 * remainder / jnp.sqrt(jnp.where(variance > 0, variance, jnp.inf))
    return remainder * jnp.minimum(share, 1)


def _squared_correlation(
    left: Float[Array, "h t n"], right: Float[Array, "m s n"], covariance: Float[Array, "n n"]
) -> Float[Array, "h m"]:
    """Squared correlations of two projections, one of each row, the largest of each pair. Without derivatives."""
    left, right, covariance = jax.lax.stop_gradient((left, right, covariance))
    spreads = lambda rows: jnp.sqrt(jnp.einsum("jtn,nl,jtl->jt", rows, covariance, rows))  # noqa: E731
    safe = lambda spread: jnp.where(spread > 0, spread, 1)  # noqa: E731
    together = jnp.einsum("jtn,nl,ksl->jkts", left, covariance, right)
    together = together / safe(spreads(left))[:, None, :, None] / safe(spreads(right))[None, :, None, :]
    return jnp.max(together**2, axis=(2, 3))

"""The expectations of features that are handed on, alone and with extra ones."""

import jax
import jax.numpy as jnp

from ..types import Array, Float, Scalar
from .codes import block_diagonal, codes
from .conditional import state_covariance
from .expected import Expectations
from .layer_moments import LayerMoments
from .problem import Problem


def carried(problem: Problem, moments: LayerMoments, errors: tuple[Scalar, Scalar]) -> Expectations:
    """The expectations of features that are handed on, `z2 = z1`: in closed form but for `Cov(psi, s)`."""
    source, (moment_error, band_error) = problem.source, errors
    masses, code = source.prior.masses, codes(problem.atoms[: problem.carried], problem.vectors)
    mean = jnp.einsum("mrk,mk->mr", code, masses)
    centred = code - mean[:, :, None]
    own = jnp.einsum("mrk,mk,msk->mrs", centred, masses, centred)
    none = jnp.zeros_like(masses[:, 0])
    with_states = lambda states: jnp.einsum("...mk,mrk->...mr", states, code)  # noqa: E731
    flat = lambda found: found.reshape(*found.shape[:-2], -1)  # noqa: E731
    covariance = block_diagonal(own)
    return Expectations(
        layer=moments,
        latent_mean=mean.ravel(),
        latent_covariance=covariance,
        latent_noise=jnp.zeros_like(covariance),
        input_latent=flat(with_states(state_covariance(source))),
        psi_latent=flat(with_states(moments.psi_states)),
        aggregate=masses,
        entropy=none,
        remainder=jnp.zeros_like(mean.ravel()),
        moment_error=none + jax.lax.stop_gradient(moment_error),
        band_error=none + jax.lax.stop_gradient(band_error),
        series_error=jnp.zeros_like(covariance),
        series_error_psi=jnp.zeros_like(flat(with_states(moments.psi_states))),
        vectors=problem.vectors,
    )


def with_extra(
    problem: Problem, one: Expectations, other: Expectations, states: Float[Array, "C m1 K1"]
) -> Expectations:
    """The expectations of carried features and, beside them, those of others."""
    code = codes(problem.atoms[: problem.carried], problem.vectors)
    cross = jnp.einsum("cmk,mrk->mrc", states, code).reshape(one.latent_mean.size, -1)
    none = jnp.zeros_like(cross)
    together = lambda name, axis=-1: jnp.concatenate([getattr(one, name), getattr(other, name)], axis=axis)  # noqa: E731
    return Expectations(
        layer=one.layer,
        latent_mean=together("latent_mean"),
        latent_covariance=jnp.block([[one.latent_covariance, cross], [cross.T, other.latent_covariance]]),
        latent_noise=jnp.block([[one.latent_noise, none], [none.T, other.latent_noise]]),
        input_latent=together("input_latent"),
        psi_latent=together("psi_latent"),
        aggregate=together("aggregate", 0),
        entropy=together("entropy"),
        remainder=together("remainder"),
        moment_error=together("moment_error"),
        band_error=together("band_error"),
        series_error=jnp.block([[one.series_error, none], [none.T, other.series_error]]),
        series_error_psi=together("series_error_psi"),
        vectors=problem.vectors,
    )

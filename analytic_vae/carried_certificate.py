"""The loss of carried features once more, for any layer, with a bound of every error.

With `z2 = z1` all but five kinds of expectations is algebra: means and second moments of the units, alone, in pairs and
with the input, and with one feature of the source pinned (`spectral/certified_units.py`).
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .bounded_terms import Certificate, weighted_sum
from .layer import AbstractLayer, DenseLayer
from .model import FeatureModel, code_decoder, whitening
from .precision import exact_products
from .spectral.certified import SAFETY, Bounded
from .spectral.certified_law import root_sizes, source_sizes
from .spectral.certified_units import Units, activations_of, alone_order, check_pairs, check_strip
from .spectral.features import block_diagonal, codes
from .spectral.resolution import Resolution
from .spectral.units import state_covariance
from .types import Array, Float

ROUNDING = 8  # units in the last place that a number is charged which is the outcome of a few sums and products


class Whitened(eqx.Module):
    """A layer's output less the target's mean, whitened by the target's noise: `linear x + centre + output psi(x)`.

    `decoder: [n2, C]` multiplies the codes. `.._size` are what each is summed from.
    """

    linear: Float[Array, "n2 n1"]
    centre: Float[Array, " n2"]
    output: Float[Array, "n2 h"]
    decoder: Float[Array, "n2 C"]
    linear_size: Float[Array, "n2 n1"]
    centre_size: Float[Array, " n2"]
    output_size: Float[Array, "n2 h"]
    decoder_size: Float[Array, "n2 C"]

    @classmethod
    def of(cls, layer: AbstractLayer, target: FeatureModel) -> "Whitened":
        """For a layer of any kind."""
        form, units = layer.form(), len(activations_of(layer)[1])
        output = form.output.reshape(layer.outputs, -1)[:, :units]
        matrix, rest = code_decoder(target)
        vectors = jnp.abs(target.decoder)
        matrix_size = vectors
        if target.decoder.ndim == 3:
            matrix_size = (vectors[:, :, 1:] + vectors[:, :, :1]).reshape(target.neurons, -1)
        rest_size = vectors[:, :, 0].sum(axis=1) if target.decoder.ndim == 3 else jnp.zeros_like(rest)
        whiten, _, _ = whitening(target)
        inverse = jnp.abs(whiten(jnp.eye(target.neurons, dtype=target.mean.dtype)))
        if target.noise.ndim == 2:  # of back substitution
            inverse = inverse @ (jnp.abs(target.noise) @ inverse)
        centre, centre_size = form.offset - target.mean - rest, jnp.abs(form.offset) + jnp.abs(target.mean) + rest_size
        return cls(
            *(whiten(one) for one in (form.linear, centre, output, matrix)),
            *(inverse @ jnp.abs(one) for one in (form.linear, centre_size, output, matrix_size)),
        )


@exact_products
@eqx.filter_jit
def carried_certificate(source, layer, target: FeatureModel, resolution: Resolution) -> Certificate:
    """The terms of the loss with their bounds, the target's features being the source's."""
    parts, units = Whitened.of(layer, target), Units.of(source, layer)
    masses = source.prior.masses
    code = codes(target.prior.atoms, target.decoder.ndim == 3)
    flat_code = code.reshape(-1, code.shape[2]), np.repeat(np.arange(source.features), code.shape[1])
    has_linear = not (isinstance(layer, DenseLayer) and layer.skip is None)
    U1, U2, U3 = _output_terms(source, parts, units, has_linear, resolution)
    zero = jnp.zeros_like(U1.value)
    R1 = _rate(masses, source.prior.log_masses, target.prior.log_masses)
    T2 = _with_codes(source, parts, units, *flat_code, resolution)
    T3 = _code_moments(masses, code, parts)
    return Certificate.of(target, R1, Bounded(zero, zero), T2, T3, U1, U2, U3)


def _rate(masses, log_masses, target_log_masses) -> Bounded:
    """`sum_l E -log P2(z_l)`."""
    possible = masses > 0
    own, theirs = (jnp.where(possible, log, 0) for log in (log_masses, target_log_masses))
    sizes = jnp.sum(masses * (jnp.abs(theirs) + 1) * (jnp.abs(own) + 1))
    error = ROUNDING * jnp.finfo(masses.dtype).eps * sizes
    return Bounded(-jnp.sum(masses * theirs), jnp.where(jnp.isfinite(sizes), error, jnp.inf))


def _output_terms(
    source, parts: Whitened, units: Units, has_linear: bool, resolution: Resolution
) -> tuple[Bounded, Bounded, Bounded]:
    """`U1`, `U2` and `U3`: second moments of the linear part, of it with the units, and of the units."""
    eps, order = ROUNDING * jnp.finfo(source.mean.dtype).eps, alone_order(resolution)
    input_mean, covariance = source.moments()
    mapped = parts.linear @ input_mean + parts.centre
    sizes = parts.linear_size @ root_sizes(source) + parts.centre_size
    U1 = Bounded(jnp.sum((parts.linear @ covariance) * parts.linear) + mapped @ mapped, eps * sizes @ sizes)
    if units.count == 0:
        zero = Bounded(jnp.zeros_like(U1.value), jnp.zeros_like(U1.value))
        return U1, zero, zero
    second = units.second_moments(resolution)
    roots = jnp.sqrt(jnp.maximum(jnp.diagonal(second.high), 0))
    towards, constants = parts.output.T @ parts.linear, parts.output.T @ parts.centre
    if has_linear:
        every = np.arange(units.count)
        shared = units.with_rows(every, towards, constants, parts.output_size.T @ sizes, order)
        U2 = weighted_sum(shared, jnp.full_like(roots, 2.0))
    else:
        U2 = weighted_sum(units.means(order), 2 * constants)
    U2 = Bounded(U2.value, U2.error_bound + 2 * eps * roots @ (parts.output_size.T @ sizes))
    U3 = weighted_sum(
        Bounded(second.value.ravel(), second.error_bound.ravel()), (parts.output.T @ parts.output).ravel()
    )
    rounding = eps * jnp.sum((parts.output_size @ roots) ** 2)
    return U1, U2, Bounded(U3.value, U3.error_bound + rounding)


def _with_codes(source, parts: Whitened, units: Units, code, owner, resolution: Resolution) -> Bounded:
    """`T2 = -2 sum_C E <f, decoder_C> code_C(z)`, code: `[C, K]` of the features `owner: [C]`."""
    eps, order = ROUNDING * jnp.finfo(source.mean.dtype).eps, 8 * resolution.frequencies
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
        found = units.states(order)
        bent, bent_size = towards @ parts.output, towards_size @ parts.output_size
        value = value + jnp.einsum("ch,hck->ck", bent, found.value[:, owner])
        error = error + jnp.einsum("ch,hck->ck", jnp.abs(bent), found.error_bound[:, owner])
        error = error + eps * jnp.einsum("ch,hck->ck", bent_size, jnp.abs(found.value)[:, owner])
    error = jnp.sum(jnp.abs(code) * (error + eps * jnp.abs(value)))
    return Bounded(-2 * jnp.sum(code * value), 2 * SAFETY * error)


def _code_moments(masses, code: Float[Array, "m R K"], parts: Whitened) -> Bounded:
    """`T3 = sum_CD <decoder_C, decoder_D> E code_C code_D`."""

    def second(code):
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


def check_carried_certificate(source, layer, resolution: Resolution) -> None:
    """Raise `ValueError` if there can be no bounds, `MemoryError` if the grids cannot fit."""
    check_strip(layer)
    check_pairs(source, len(activations_of(layer)[1]), resolution)

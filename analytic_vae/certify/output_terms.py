"""A layer's output as the loss sees it, whitened by the target's noise, and its second moment with a bound."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model.feature_model import FeatureModel, decoder_matrix, whitening
from ..model.layer import AbstractLayer
from ..spectral.resolution import Resolution
from ..types import Array, Float
from .ball import Bounded, weighted_sum
from .joint_law import root_sizes
from .units import Units, alone_order

ROUNDING = 8  # units in the last place that a number is charged which is the outcome of a few sums and products (B4)


class WhitenedOutput(eqx.Module):
    """A layer's output less the target's mean, whitened by the target's noise: `linear x + centre + output psi(x)`.

    `decoder: [n2, C]` multiplies the codes; `inverse: [n2, n2]` whitens. `.._size` are what each is summed from (B42).
    """

    inverse: Float[Array, "n2 n2"]
    linear: Float[Array, "n2 n1"]
    centre: Float[Array, " n2"]
    output: Float[Array, "n2 h"]
    decoder: Float[Array, "n2 C"]
    inverse_size: Float[Array, "n2 n2"]
    linear_size: Float[Array, "n2 n1"]
    centre_size: Float[Array, " n2"]
    output_size: Float[Array, "n2 h"]
    decoder_size: Float[Array, "n2 C"]

    @classmethod
    def of(cls, layer: AbstractLayer, target: FeatureModel) -> "WhitenedOutput":
        """For a layer of any kind."""
        form = layer.form()
        matrix, rest = decoder_matrix(target)
        matrix_size, rest_size = jnp.abs(matrix), jnp.zeros_like(rest)
        if target.decoder.ndim == 3:  # both are summed from vectors
            vectors = jnp.abs(target.decoder)
            matrix_size = (vectors[:, :, 1:] + vectors[:, :, :1]).reshape(target.neurons, -1)
            rest_size = vectors[:, :, 0].sum(axis=1)
        centre, centre_size = form.offset - target.mean - rest, jnp.abs(form.offset) + jnp.abs(target.mean) + rest_size
        whiten, variance, _ = whitening(target)
        inverse = whiten(jnp.eye(target.neurons, dtype=target.mean.dtype))
        size = jnp.abs(inverse)
        if target.noise.ndim == 2:  # of back substitution (B42): |L^-1| |L| |L^-1|, in units of sigma
            size = size @ (jnp.abs(target.noise) @ size) / jnp.sqrt(variance)
        if target.noise.ndim > 0:  # sigma is the exponential of a mean of logarithms
            deviations = target.noise if target.noise.ndim == 1 else jnp.diagonal(target.noise)
            size = size * (1 + jnp.mean(jnp.abs(jnp.log(jnp.abs(deviations)))) / ROUNDING)
        values = form.linear, centre, form.output, matrix
        sizes = jnp.abs(form.linear), centre_size, jnp.abs(form.output), matrix_size
        return cls(inverse, *map(whiten, values), size, *(size @ one for one in sizes))

    def of_codes(self, codes: slice) -> "WhitenedOutput":
        """With these codes alone."""
        return eqx.tree_at(
            lambda one: (one.decoder, one.decoder_size), self, (self.decoder[:, codes], self.decoder_size[:, codes])
        )


class OutputTerms(eqx.Module):
    """`U1`, `U2` and `U3`; `E psi: [h]` and root mean squares of the units, from above."""

    U1: Bounded
    U2: Bounded
    U3: Bounded
    psi: Bounded
    roots: Float[Array, " h"]


def output_terms(
    source, layer: AbstractLayer, parts: WhitenedOutput, units: Units, resolution: Resolution
) -> OutputTerms:
    """Second moments of the linear part (`U1`), of it with the units, and of the units (B41)."""
    eps, order = ROUNDING * jnp.finfo(source.mean.dtype).eps, alone_order(resolution)
    input_mean, covariance = source.moments()
    mapped = parts.linear @ input_mean + parts.centre
    sizes = parts.linear_size @ root_sizes(source) + parts.centre_size
    U1 = Bounded(jnp.sum((parts.linear @ covariance) * parts.linear) + mapped @ mapped, eps * sizes @ sizes)
    if units.count == 0:
        zero, none = jnp.zeros_like(U1.value), jnp.zeros(0, U1.value.dtype)
        return OutputTerms(U1, Bounded(zero, zero), Bounded(zero, zero), Bounded(none, none), none)
    psi, second = units.means(order), units.second_moments(resolution)
    roots = jnp.sqrt(jnp.maximum(jnp.diagonal(second.high), 0))
    constants, bent_size = parts.output.T @ parts.centre, parts.output_size.T @ sizes
    if not layer.has_linear_part:
        U2 = weighted_sum(psi, 2 * constants)
    else:
        rows = parts.output.T @ parts.linear
        shared = units.with_rows(np.arange(units.count), rows, constants, bent_size, order)
        U2 = weighted_sum(shared, jnp.full_like(roots, 2.0))
    U3 = weighted_sum(jax.tree.map(jnp.ravel, second), (parts.output.T @ parts.output).ravel())
    more = 2 * eps * roots @ bent_size, eps * jnp.sum((parts.output_size @ roots) ** 2)
    U2, U3 = (Bounded(term.value, term.error_bound + rounding) for term, rounding in zip((U2, U3), more, strict=True))
    return OutputTerms(U1, U2, U3, psi, roots)

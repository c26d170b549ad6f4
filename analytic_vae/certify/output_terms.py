"""A layer's output as the loss sees it, whitened by the target's noise, and its second moment with a bound."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..model.feature_model import FeatureModel, decoder_matrix, whitening
from ..model.layer import AbstractLayer
from ..spectral.resolution import Resolution
from ..types import Array, Float
from .ball import ROUNDING, Ball, Bounded
from .joint_law import root_sizes
from .units import Units, alone_order


class WhitenedOutput(eqx.Module):
    """A layer's output less the target's mean, whitened by the target's noise: `linear x + centre + output psi(x)`.

    `decoder: [n2, C]` multiplies the codes; `inverse: [n2, n2]` whitens (B42).
    """

    inverse: Ball
    linear: Ball
    centre: Ball
    output: Ball
    decoder: Ball

    @classmethod
    def of(cls, layer: AbstractLayer, target: FeatureModel) -> "WhitenedOutput":
        """For a layer of any kind."""
        form = layer.form()
        matrix, rest = (Ball.of(one) for one in decoder_matrix(target))
        if target.decoder.ndim == 3:  # both are summed from vectors
            vectors = jnp.abs(target.decoder)
            matrix = Ball.of(matrix.value, (vectors[:, :, 1:] + vectors[:, :, :1]).reshape(target.neurons, -1))
            rest = Ball.of(rest.value, vectors[:, :, 0].sum(axis=1))
        centre = Ball.of(form.offset) - target.mean - rest
        whiten, variance, _ = whitening(target)
        inverse = whiten(jnp.eye(target.neurons, dtype=target.mean.dtype))
        size = jnp.abs(inverse)
        if target.noise.ndim == 2:  # of back substitution (B42): |L^-1| |L| |L^-1|, in units of sigma
            size = size @ (jnp.abs(target.noise) @ size) / jnp.sqrt(variance)
        if target.noise.ndim > 0:  # sigma is the exponential of a mean of logarithms
            deviations = target.noise if target.noise.ndim == 1 else jnp.diagonal(target.noise)
            size = size * (1 + jnp.mean(jnp.abs(jnp.log(jnp.abs(deviations)))) / ROUNDING)
        parts = (Ball.of(form.linear), centre, Ball.of(form.output), matrix)
        return cls(Ball.of(inverse, size), *(Ball.of(whiten(one.value), size @ one.size) for one in parts))

    def of_codes(self, codes: slice) -> "WhitenedOutput":
        """With these codes alone."""
        return eqx.tree_at(lambda one: one.decoder, self, self.decoder[:, codes])


class OutputTerms(eqx.Module):
    """`U1`, `U2` and `U3`; `E psi: [h]` and root mean squares of the units, from above."""

    U1: Ball
    U2: Ball
    U3: Ball
    psi: Bounded
    roots: Float[Array, " h"]


def output_terms(
    source, layer: AbstractLayer, parts: WhitenedOutput, units: Units, resolution: Resolution
) -> OutputTerms:
    """Second moments of the linear part (`U1`), of it with the units, and of the units (B41)."""
    order, roots = alone_order(resolution), root_sizes(source)
    input_mean, covariance = source.moments()
    mapped = parts.linear @ Ball.of(input_mean, roots) + parts.centre
    linear = parts.linear.value
    U1 = jnp.sum((linear @ covariance) * linear) + mapped.value @ mapped.value
    U1 = Ball.of(U1, mapped.size @ mapped.size)  # B42: for mean and covariance together
    if units.count == 0:
        zero, none = Ball.of(jnp.zeros_like(U1.value)), jnp.zeros(0, U1.value.dtype)
        return OutputTerms(U1, zero, zero, Bounded(none, none), none)
    psi, second = units.means(order), units.second_moments(resolution)
    roots = jnp.sqrt(jnp.maximum(jnp.diagonal(second.high), 0))
    U3 = (Ball.of(second) * (parts.output.T @ parts.output)).sum()
    constants = parts.output.T @ parts.centre
    if not layer.has_linear_part:
        U2 = 2 * Ball.of(psi, roots) @ constants
    else:
        rows = parts.output.T @ parts.linear
        sizes = parts.output.T.size @ mapped.size
        shared = units.with_rows(np.arange(units.count), rows.value, constants.value, sizes, order)
        U2 = 2 * Ball.of(shared, roots * sizes).sum()
    return OutputTerms(U1, U2, U3, psi, roots)

"""All units of a full-width layer at once: functions of one projection of the input each, and of pairs of them.

A unit `psi_i(<U_i, x> + c_i)` is what a latent mean of a linear layer is: a function of a linear statistic. So the law
of each, what it has in common with the input, and the covariances of all pairs come from the same engine, with the
input itself as the "output" of an identity. Nothing here depends on an encoder: while one is learnt, it stays.
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._check import is_concrete, require_instance, shown
from .._sharding import sharded_map
from ..model.conditioning import covariance_of, mean_of
from ..model.dense_layer import DenseLayer
from ..model.feature_model import FeatureModel
from ..model.matrices import diagonal
from ..spectral.resolution import FINER, Resolution
from ..types import Array, Float, Scalar
from .budget import PAIRS_ON_CPU, pair_values, together
from .conditional import state_covariance
from .kink_tail import KinkTail
from .layer_moments import LayerMoments
from .pairs import cross_covariances, pair_covariances
from .quadrature_rule import StatisticLaw, Varying
from .reading import Reading
from .ridge_axis import RidgeGrid
from .spectrum import Block
from .statistic import Statistic
from .statistic_function import StatisticFunction, linear_parts

UNRESOLVED = 1e-6  # share of variance that a unit's series may rest on, times what is left of its law

ROUNDING = 64  # times eps: the moment error of a law that lacks nothing, at most


class DenseMoments(LayerMoments):
    """First and second moments of `x1`, of all units `psi`, and from them of `f(x1)`; and what they were computed from.

    Fields beside those of `LayerMoments`: `units`, their laws and series, a leading axis `h`; `moment_error: [h]`, how
    far mass, mean and variance of each law are from the exact ones; `reach: [h]`, the largest square of each unit on
    its box: one that has all but saturated varies with the far tail of its law; `resolution`, at which all that was
    computed, of which `source`, and what the units `apply`: functions, their kinks. Where the source was taken as a
    mixture (`model/conditioning.py`), `parts` are the moments of its components, on a leading axis, and `units` those
    of the likeliest. `remainder: [h]` is the L2 norm of what each series leaves out; a covariance of two units is off
    by about the product of two, but where the source has no noise: there what is left out of one is not orthogonal to
    the other, and finer resolutions tell.
    """

    units: StatisticFunction
    moment_error: Float[Array, " h"]
    reach: Float[Array, " h"]
    resolution: Resolution = eqx.field(static=True)
    source: FeatureModel
    apply: tuple[tuple[Callable, tuple[float, ...]], ...] = eqx.field(static=True)
    parts: "DenseMoments | None" = None

    @classmethod
    def of_parts(cls, weights: Float[Array, " c"], parts: "DenseMoments", source: FeatureModel) -> "DenseMoments":
        """Of a mixture, from the moments of its components, on a leading axis: they stay as `parts`."""
        likeliest = jnp.argmax(weights)
        one = jax.tree.map(lambda leaf: leaf[likeliest] if eqx.is_array(leaf) else leaf, parts)
        psi, mean = parts.psi, parts.input_mean
        apart = psi - mean_of(weights, psi)[None]
        states = parts.psi_states + jnp.einsum("ch,cmk->chmk", apart, parts.source.prior.masses)
        return cls(
            form=one.form,
            input_mean=mean_of(weights, mean),
            input_covariance=covariance_of(weights, parts.input_covariance, mean, mean),
            psi=mean_of(weights, psi),
            psi_covariance=covariance_of(weights, parts.psi_covariance, psi, psi),
            psi_input=covariance_of(weights, parts.psi_input, mean, psi),
            psi_states=mean_of(weights, states),
            units=one.units,
            moment_error=mean_of(weights, parts.moment_error),
            reach=mean_of(weights, parts.reach),
            resolution=parts.resolution,
            source=source,
            apply=parts.apply,
            parts=parts,
        )

    @classmethod
    def of(
        cls, source: FeatureModel, layer: DenseLayer, resolution: Resolution, mesh: Mesh | None = None
    ) -> "DenseMoments":
        """The moments of a layer whose input is `source`."""
        mean, covariance = source.moments()
        reading = Reading.of(source, layer, resolution)
        pairs = reading.for_pairs()
        everywhere = reading, pairs, covariance
        one_unit = partial(_one_unit, layer=layer, resolution=resolution)
        items = layer.weight, layer.bias, jnp.arange(layer.units)
        units, moment_error, reach, kept = sharded_map(one_unit, everywhere, items, mesh)

        count, needs = layer.units * max(1, layer.units // 2), pair_values(pairs.source, 1, True, resolution)
        size = together(count, needs, PAIRS_ON_CPU, mean.dtype, mesh)
        rows = units.statistic.rows
        noise = jnp.einsum("itn,nl,ksl->itks", rows, source.covariance, rows)
        rest, _ = pair_covariances(units.statistic, noise, units.series, pairs.axis.pair_grid(resolution), size, mesh)
        rest = rest + _off_diagonal(main_effects(source, units.states) - main_effects(source, kept))
        gain, own = units.slope * layer.weight, units.input_rest
        return cls(
            form=layer.form(),
            input_mean=mean,
            input_covariance=covariance,
            psi=units.mean,
            psi_covariance=linear_parts(covariance, gain, gain, own, own) + rest + jnp.diag(units.variance),
            psi_input=covariance @ gain.T + own.T,
            psi_states=units.states + jnp.einsum("in,nmk->imk", gain, state_covariance(source)),
            units=units,
            moment_error=moment_error,
            reach=reach,
            resolution=resolution,
            source=source,
            apply=applied(layer),
        )

    def mapped_by(self, layer: DenseLayer) -> "DenseMoments":
        """The same units before another `output` and `skip`: those of this layer."""
        form = layer.form()

        def mapped(moments, copy):
            mine = moments.form._replace(**{name: copy(getattr(form, name)) for name in ("linear", "offset", "output")})
            return eqx.tree_at(lambda one: one.form, moments, mine)

        if self.parts is None:
            return mapped(self, lambda leaf: leaf)
        count = self.parts.psi.shape[0]
        parts = mapped(self.parts, lambda leaf: jnp.broadcast_to(leaf[None], (count, *leaf.shape)))
        return mapped(eqx.tree_at(lambda one: one.parts, self, parts), lambda leaf: leaf)

    @property
    def remainder(self) -> Float[Array, " h"]:
        """L2 norm of what the series leave out of each unit."""
        return self.units.remainder

    def __str__(self) -> str:
        if self.psi.ndim != 1 or not is_concrete(self.psi):
            return repr(self)
        spread = jnp.sqrt(jnp.maximum(diagonal(self.psi_covariance), 0))
        some = ", ".join(f"{mean:.4g} +- {one:.3g}" for mean, one in zip(self.psi[:4], spread[:4], strict=True))
        rest = ", ..." if self.psi.size > 4 else ""
        return f"{self.psi.size} units: {some}{rest} (mean +- spread); accuracy about {float(self.accuracy):.0e}"

    @property
    def accuracy(self) -> Scalar:
        """An estimate of how far means and covariances of the units may be off, relative to their spreads."""
        variance = jnp.abs(jax.lax.stop_gradient(diagonal(self.psi_covariance)))  # below zero it is rounding
        spread = jnp.sqrt(jnp.where(variance > 0, variance, jnp.inf))
        pairs = self._left_out() / spread[:, None] / spread[None]
        eps = jnp.finfo(variance.dtype).eps
        beyond = jnp.maximum(self.moment_error - ROUNDING * eps, 0) + eps / 4  # a mass that the law lacks, anywhere
        return jnp.stack([jnp.max(self.moment_error), jnp.max(beyond * self.reach / spread**2), jnp.max(pairs)]).max()

    @property
    def overall(self) -> Scalar:
        """The same relative to the largest spread: what matters where all units are summed."""
        largest = jnp.max(jax.lax.stop_gradient(diagonal(self.psi_covariance)))
        pairs = jnp.max(self._left_out()) / jnp.where(largest > 0, largest, jnp.inf)
        return jnp.maximum(jnp.max(self.moment_error), pairs)

    def _left_out(self) -> Float[Array, "h h"]:
        """What series leave out of covariances of two units: about `r r'` times their squared correlation."""
        still = jax.lax.stop_gradient
        remainder, weight = still(self.remainder), still(self.form.weight)
        together = weight @ still(self.input_covariance) @ weight.T
        spread = jnp.sqrt(jnp.maximum(diagonal(together), 0))
        spread = jnp.where(spread > 0, spread, 1)
        alike = (together / spread[:, None] / spread[None]) ** 2
        return jnp.outer(remainder, remainder) * alike * (1 - jnp.eye(remainder.size, dtype=remainder.dtype))

    def with_latents(
        self,
        source: FeatureModel,
        latents: StatisticFunction,
        gain: Float[Array, "C n1"],
        grid: RidgeGrid,
        size: int,
        mesh: Mesh | None = None,
    ) -> Float[Array, "h C"]:
        """`Cov(psi, s)` with functions `s = E s + <gain, x1 - E x1> + r` of other projections of the input."""
        units = self.units
        rows, others = units.statistic.rows, latents.statistic.rows
        noise = jnp.einsum("itn,nl,ksl->itks", rows, source.covariance, others)
        left, right = (units.statistic, units.series), (latents.statistic, latents.series)
        rest = cross_covariances(left, right, noise, grid, size, mesh)
        own = units.slope * self.form.weight
        return linear_parts(self.input_covariance, own, gain, units.input_rest, latents.input_rest) + rest


def applied(layer: DenseLayer) -> tuple[tuple[Callable, tuple[float, ...]], ...]:
    """What each unit applies to its projection: a function and its kinks."""
    return tuple((layer.activations[i].function, layer.activations[i].kinks) for i in layer.activation_index)


def _one_unit(everywhere, weight, bias, index, *, layer: DenseLayer, resolution: Resolution):
    """A unit as a function of its projection, its moment error and reach.

    And `E[1{z_l = a_lk} (g - E g)]` of its series.
    """
    reading, pairs, covariance = everywhere
    source, axis = reading.source, reading.axis
    readout, fine = weight[None], resolution.times(FINER)
    grid = axis.law_grid(fine, 1)
    statistic = Statistic.of(reading, readout)
    places = jnp.asarray(layer.kinks, weight.dtype)
    kinks = places[None] - bias if places.size else None
    law = StatisticLaw.of(statistic, grid, fine, kinks)
    nodes = law.nodes
    varying = Varying.of(statistic, nodes, lambda y: layer.one_unit(index, y + bias))
    values = varying.values[:, 0]
    order = resolution.series_order(1, linear=True)
    # A law that has not died out at its last frequencies is not resolved, and its kinks least of all.
    last = jnp.mean(jnp.abs(law.spectrum.characteristic()[-(law.spectrum.frequency.shape[0] // 8) :]))
    least = UNRESOLVED * last if places.size else 0.0
    tangent = varying.base[0], varying.derivative[0]
    latent = StatisticFunction.of(reading, law, values, tangent, order, least)
    if places.size:
        tail = KinkTail.of(lambda s: layer.one_unit(index, s), places, bias, statistic, fine)
        latent = tail.added_to(latent, source, grid)
    moment_error = nodes.moment_error(statistic, readout @ covariance @ readout.T)
    series = latent.series
    kept, _ = Block.of(statistic, axis.pair_grid(resolution), series.frequency).moments(series.coefficients)
    kept = kept.states - source.prior.masses * kept.states.sum(axis=1, keepdims=True)
    latent = latent.with_compressed_law(pairs, readout)
    reach = jnp.where(statistic.still[0], 0, jnp.max(jax.lax.stop_gradient(values - nodes.weights @ values) ** 2))
    return latent, moment_error, reach, kept


def main_effects(source: FeatureModel, states: Float[Array, "h m1 K1"]) -> Float[Array, "h h"]:
    """`sum_l Cov(E[r_i | z_l], E[r_k | z_l])` from `E[1{z_l = a_lk} r]`: what single features make two have in common.

    Of the covariance of two functions these are exact, from laws of one projection. Pairs of short series are right
    about the rest: what the features do together.
    """
    masses = source.prior.masses
    root = jnp.sqrt(jnp.where(masses > 0, masses, 1))
    flat = (jnp.where(masses[None] > 0, states, 0) / root[None]).reshape(states.shape[0], -1)
    return flat @ flat.T


def _off_diagonal(matrix: Float[Array, "h h"]) -> Float[Array, "h h"]:
    return matrix - jnp.diag(diagonal(matrix))


def check_moments(moments, source, layer, resolution) -> None:
    """Raise an error that names the argument unless the moments, if any, are those of such a source and layer."""
    if moments is None:
        return
    require_instance("layer", layer, DenseLayer, "a DenseLayer, as moments were given")
    require_instance("moments", moments, DenseMoments, "what av.dense_moments returns")
    shapes = f"{shown(moments.form.weight.shape)}, {shown(moments.psi_states.shape[1:])}"
    expected = f"{shown(layer.weight.shape)}, {shown(source.prior.atoms.shape)}"
    if shapes != expected:
        raise ValueError(f"moments: expected those of units and features {expected}, got {shapes}.")
    if moments.resolution != resolution:
        raise ValueError(f"moments: expected those at {resolution}, got those at {moments.resolution}.")
    if moments.apply != applied(layer):
        raise ValueError("moments: expected those of this layer's activations, got those of others.")
    given, theirs = (source, layer.weight, layer.bias), (moments.source, moments.form.weight, moments.form.bias)
    same = jax.tree.structure(given) == jax.tree.structure(theirs)
    if not (same and all(map(_may_be_equal, jax.tree.leaves(given), jax.tree.leaves(theirs)))):
        raise ValueError("moments: expected those of this source and layer, got those of others.")


def _may_be_equal(one, other) -> bool:
    """Whether two arrays are equal to rounding, or are traced and of one shape and dtype."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not (is_concrete(one) and is_concrete(other)):
        return True
    one, other = np.asarray(one), np.asarray(other)
    size = np.max(np.abs(other), where=np.isfinite(other), initial=0)
    return np.allclose(one, other, rtol=0, atol=16 * np.finfo(one.dtype).eps * size)

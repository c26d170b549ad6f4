"""The law of a few projections of a layer's output: mean, covariance, density, expectations, tails."""

import itertools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._check import as_floating, is_concrete, require_finite, require_instance, require_shape
from .arguments import check_layer
from .compiled import compiled
from .layer import AbstractLayer, DenseLayer, LinearLayer
from .model import FeatureModel
from .output_bounds import output_moments
from .precision import exact_products
from .spectral.certified_units import check_strip, check_units
from .spectral.expectation import LayerMoments
from .spectral.memory import require_memory
from .spectral.quadrature import panel_count, split_panels
from .spectral.resolution import Resolution
from .spectral.ridge import RidgeAxis
from .spectral.series import periodic_rule
from .spectral.spectrum import Spectrum
from .spectral.statistic import Statistic, grid_weights
from .spectral.unit_law import unit_law
from .spectral.units import DenseMoments
from .types import Array, ArrayLike, Complex, Float

MOST_UNITS = 2  # of a dense layer, whose law is taken together


class LawBounds(eqx.Module):
    """How far `mean: [D]` and `covariance: [D, D]` of a `Law` may be from the exact ones."""

    mean: Float[Array, " D"]
    covariance: Float[Array, "D D"]


class Law(eqx.Module):
    """The law of `Y = V f(x1): [D]`, held as its characteristic function on a grid.

    `mean: [D]` and `covariance: [D, D]` are those of the ridge axis' grid, or of a dense layer's units, for any D; with
    `pushforward(certify=True)` `error_bound` says how far from the exact ones they may be. `density`, `expectation` and
    `tail` sum the Fourier series of the density on a box that holds the law; they are right to the resolution's
    absolute accuracy, and a tail below that is not resolved: it may even come out negative. In one case a tail that is
    0 came out as 8e-6 (D = 1) and 2e-4 (D = 2) at N = 32, 2e-7 and -9e-6 at N = 64.
    """

    mean: Float[Array, " D"]
    covariance: Float[Array, "D D"]
    low: Float[Array, " D"]
    length: Float[Array, " D"]
    characteristic: Complex[Array, " W"]
    resolution: Resolution
    error_bound: LawBounds | None = None

    @property
    def dimension(self) -> int:
        """`D`."""
        return self.mean.shape[0]

    def __str__(self) -> str:
        if self.mean.ndim != 1 or not is_concrete(self.mean):
            return repr(self)
        spread = np.sqrt(np.maximum(np.diagonal(self.covariance), 0))
        bounds = [""] * self.dimension
        if self.error_bound is not None:
            bounds = [f" (+- {bound:.1e})" for bound in np.asarray(self.error_bound.mean)]
        lines = [
            f"projection {d}: mean {mean:.6g}{bounds[d]}, spread {spread[d]:.6g}, box {low:.4g} to {low + length:.4g}"
            for d, (mean, low, length) in enumerate(zip(self.mean, self.low, self.length, strict=True))
        ]
        for d, e in itertools.combinations(range(self.dimension), 2):
            scale = spread[d] * spread[e]
            lines.append(f"correlation of {d} and {e}: {self.covariance[d, e] / scale if scale > 0 else np.nan:.6g}")
        return "\n".join(lines)

    @property
    def box(self) -> tuple[Float[Array, " D"], Float[Array, " D"]]:
        """`(low, high): [D]` each, the box on which the density is given, in the units of Y."""
        return self.low, self.low + self.length

    @exact_products
    def density(self, points: int = 128) -> tuple[Float[Array, "D points"], Array]:
        """The density on an equally spaced grid of the box.

        Returns the grid as one row an axis, `[D, points]`, and the density `[points] * D` in units of `1 / Y^D`. A
        law without Gaussian noise has no density; what is returned then rings, and its integrals stay right.
        """
        if isinstance(points, bool) or not isinstance(points, int | np.integer) or points < 2:
            raise ValueError(f"points: expected an integer of at least 2, got {points!r}.")
        v = (jnp.arange(points, dtype=self.mean.dtype) + 0.5) / points
        ones = jnp.ones_like(v)
        low, high = self.box
        values = self._weights([v] * self.dimension, [ones] * self.dimension) / jnp.prod(high - low)
        return low[:, None] + (high - low)[:, None] * v[None], values

    @exact_products
    def expectation(self, fn: Callable[[Array], Array], kinks: Sequence[Sequence[float]] | None = None) -> Array:
        """`E[fn(Y)]` for `fn` from `[D]` to an array of any shape.

        `kinks`: one sequence per axis of the places where `fn` is not smooth along it, `[()] * D` if not given. They
        may be traced. Raises `ValueError` if their number is not D.
        """
        nodes, weights, points = self._rule([()] * self.dimension if kinks is None else kinks)
        values = jax.vmap(fn)(points)
        return jnp.tensordot(self._weights(nodes, weights).ravel(), values, axes=1)

    @exact_products
    def tail(self, threshold: ArrayLike) -> Array:
        """`P(Y_1 > threshold_1, ..., Y_D > threshold_D)`; a scalar threshold is one for every axis."""
        (threshold,) = as_floating(threshold=threshold)
        if threshold.ndim > 0:
            require_shape("threshold", threshold, (self.dimension,), "one per axis")
        require_finite("threshold", threshold)
        threshold = jnp.broadcast_to(threshold, (self.dimension,)).astype(self.mean.dtype)
        inside = lambda y: jnp.all(y > threshold).astype(y.dtype)  # noqa: E731
        return self.expectation(inside, [threshold[d : d + 1] for d in range(self.dimension)])

    def _rule(self, kinks: Sequence) -> tuple[list[Array], list[Array], Float[Array, "Q D"]]:
        if len(kinks) != self.dimension:
            raise ValueError(f"kinks: expected a sequence for each of {self.dimension} axes, got {len(kinks)}.")
        low, high = self.box
        nodes, weights = [], []
        for axis, places in enumerate(kinks):
            v, weight = self._axis_rule((jnp.asarray(places, low.dtype) - low[axis]) / (high - low)[axis])
            nodes.append(v)
            weights.append(weight)
        mesh = jnp.stack(jnp.meshgrid(*nodes, indexing="ij"), axis=-1).reshape(-1, self.dimension)
        return nodes, weights, low[None] + (high - low)[None] * mesh

    def _axis_rule(self, kinks: Float[Array, " kinks"]) -> tuple[Array, Array]:
        order = self.resolution.law_order(self.dimension)
        if kinks.size == 0:
            v, weight = periodic_rule(order)
            return jnp.asarray(v, kinks.dtype), jnp.asarray(weight, kinks.dtype)
        return split_panels(jnp.zeros_like(kinks[0]), jnp.ones_like(kinks[0]), kinks, panel_count(order))

    def _weights(self, nodes: list[Array], weights: list[Array]) -> Array:
        return grid_weights(self.characteristic, nodes, weights, self.resolution.law_order(self.dimension))


@exact_products
def pushforward(
    source: FeatureModel,
    layer: AbstractLayer,
    readout: ArrayLike,
    resolution: Resolution | None = None,
    certify: bool = False,
) -> Law:
    """The law of `Y = V f(x1)`, D = 1, 2 or 3 projections of a layer's output, without samples.

    Arguments:
        source: law of the layer's input `x1: [n1]`.
        layer: `f`.
        readout: `V: [D, n2]`; of a `DenseLayer` it may involve one or two units, `V output` having other columns zero.
        resolution: how fine; `Resolution()` if not given.
        certify: whether to bound the errors of mean and covariance, too (`Law.error_bound`). Of `E[g(Y)]` for a given
            activation g, `bounded_expectation` bounds the error.

    Raises `ValueError` that names the argument if the parts do not fit together, `MemoryError` before anything is
    computed if the grid cannot fit.

    Source: Lemma 3.4 of "Analytically Learning Variational Auto-Encoders", without binning.

    >>> law = pushforward(source, layer, jnp.eye(2)[:1])
    >>> law.mean, law.tail(1.0), law.expectation(lambda y: y[0] ** 2)
    """
    resolution = resolution or Resolution()
    check_layer(source, layer)
    require_instance("resolution", resolution, Resolution, "a Resolution")
    (readout,) = as_floating(readout=readout)
    require_shape("readout", readout, (None, layer.outputs), "projections, outputs of the layer")
    require_finite("readout", readout)
    if readout.shape[0] > 3:
        raise ValueError(f"readout: expected 1, 2 or 3 projections, got {readout.shape[0]}.")
    if not isinstance(certify, bool | np.bool_):
        raise TypeError(f"certify: expected True or False, got {certify!r}.")
    if certify:
        check_strip(layer)
    _require_grid_memory(readout.shape[0], source, resolution)
    readout = readout.astype(source.mean.dtype)
    if isinstance(layer, DenseLayer):
        layer = _units_read(layer, readout)
        _require_grid_memory(readout.shape[0], source, resolution, layer.units)
        if certify:
            check_units(source, layer.units, resolution)
        law = _dense_pushforward(source, layer, readout, resolution)
    else:
        law = _pushforward(source, layer, readout, resolution)
    if not certify:
        return law
    found = jax.lax.stop_gradient((law.mean, law.covariance))
    exact = output_moments(*jax.lax.stop_gradient((source, layer, readout)), resolution)
    errors = (jnp.abs(a - b.value) + b.error_bound for a, b in zip(found, exact, strict=True))
    bounds = LawBounds(*(jnp.where(jnp.isnan(error), jnp.inf, error) for error in errors))
    return eqx.tree_at(lambda one: one.error_bound, law, bounds, is_leaf=lambda leaf: leaf is None)


@compiled
def _pushforward(source, layer, readout, resolution) -> Law:
    form = layer.form()
    axis = RidgeAxis.of(source, form, resolution)
    mean, covariance = LayerMoments.of(source, form, axis).output()
    statistic = Statistic.of(source, form, readout, axis, resolution, aligned=True)
    phi = Spectrum.of(statistic, axis.law_grid(resolution, readout.shape[0]), resolution).characteristic()
    scale = jnp.diagonal(statistic.basis)
    box = statistic.centre + scale * statistic.low, scale * statistic.length
    return Law(readout @ mean, readout @ covariance @ readout.T, *box, phi, resolution)


def _units_read(layer: DenseLayer, readout: Float[Array, "D n2"]) -> DenseLayer:
    """The layer with the units alone that the readout involves."""
    if layer.units > MOST_UNITS:
        gain = readout if layer.output is None else readout @ layer.output
        if not is_concrete(gain):
            raise ValueError(
                f"readout: expected a concrete one, and a layer of a concrete output, which say what units of a "
                f"DenseLayer of {layer.units} are involved, got traced ones; inside of jit and grad pass a layer of at "
                f"most {MOST_UNITS} units (layer.of_units)."
            )
        units = np.flatnonzero(np.any(np.asarray(gain) != 0, axis=0))
        if units.size > MOST_UNITS:
            raise ValueError(
                f"readout: expected projections that involve at most {MOST_UNITS} units of a DenseLayer, got "
                f"{units.size}; av.dense_moments has mean and covariance of all."
            )
        layer = layer.of_units([int(i) for i in units] or [0])
    return layer


@compiled
def _dense_pushforward(source, layer: DenseLayer, readout, resolution) -> Law:
    form = layer.form()
    mean, covariance = DenseMoments.of(source, layer, resolution).output()
    activations = tuple(layer.activations[i] for i in layer.which)
    parts = readout @ form.linear, jnp.zeros_like(readout[:, 0]), readout @ form.output, form.weight, form.bias
    low, length, phi = unit_law(source, *parts, activations, resolution)
    return Law(readout @ mean, readout @ covariance @ readout.T, low, length, phi, resolution)


@exact_products
def linear_pushforward(source: FeatureModel, layer: LinearLayer) -> FeatureModel:
    """The law of `W x1 + b`, exactly a feature model again: nothing is learnt."""
    require_instance("layer", layer, LinearLayer, "a LinearLayer")
    check_layer(source, layer)
    return source.project(layer.weight).shift(layer.bias)


def _require_grid_memory(dimension: int, source: FeatureModel, resolution: Resolution, units: int = 0) -> None:
    points = (2.5 * resolution.law_order(dimension)) ** dimension
    points += source.features * (2 * resolution.law_order(max(1, units)) + 1) ** units
    itemsize = 2 * np.dtype(source.mean.dtype).itemsize
    require_memory(6 * points * itemsize, "resolution", "lower resolution.frequencies or read fewer projections")

"""The law of a few projections of a layer's output."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._check import as_floating, is_concrete, require_finite, require_flag, require_instance, require_shape
from ._jit import always, compiled, exact_products
from .accuracy import warns
from .certify.output_moments import output_moments
from .certify.units import check_regularity, check_units
from .laws.image import MOST, Image, values_of
from .laws.law import Law, LawBounds
from .laws.series import LawSeries
from .laws.states import States, few_states
from .model.activation import ACTIVATIONS
from .model.compatibility import check_layer
from .model.feature_model import FeatureModel
from .model.layer import AbstractLayer, LinearLayer
from .moments.budget import require_memory
from .spectral.projected_law import Projection
from .spectral.resolution import Resolution
from .types import Array, ArrayLike, Float, Scalar

MOST_UNITS = 2  # of a dense layer, whose law is taken together


@warns
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
        certify: whether to bound the errors of mean and covariance, too (`Law.bounds`). Of `E[g(Y)]` for a given
            activation g, `bounded_expectation` bounds the error.

    Raises `ValueError` that names the argument if the parts do not fit together, `MemoryError` before anything is
    computed if the grid cannot fit. Warns (`AccuracyWarning`) where `Law.accuracy` is above `ACCURACY`.

    Source: Lemma 3.4 of "Analytically Learning Variational Auto-Encoders", without binning.

    >>> law = pushforward(source, layer, jnp.eye(2)[:1])
    >>> law.mean, law.tail(1.0), law.expectation(lambda y: y[0] ** 2)
    """
    resolution = Resolution.of(resolution)
    check_layer(source, layer)
    (readout,) = as_floating(readout=readout)
    require_shape("readout", readout, (None, layer.outputs), "projections, outputs of the layer")
    require_finite("readout", readout)
    if readout.shape[0] > 3:
        raise ValueError(f"readout: expected 1, 2 or 3 projections, got {readout.shape[0]}.")
    require_flag("certify", certify)
    if certify:
        check_regularity(layer)
    _require_grid_memory(readout.shape[0], source, resolution)
    readout = readout.astype(source.mean.dtype)
    if layer.reads_input:
        layer = layer.involved(readout, MOST_UNITS)
        _require_grid_memory(readout.shape[0], source, resolution, layer.units)
        if certify:
            check_units(source, layer.units, resolution)
    known = _Known.of(source, layer, readout)
    values = None
    if known.still and not few_states(source.prior.atoms.shape, MOST[2]):
        values = values_of(_projections(source, layer, readout, known))
    law = _law(source, layer, readout, known, values, resolution)
    if certify:
        law = _with_bounds(law, source, layer, readout, resolution)
    return law


def _with_bounds(law: Law, source, layer, readout, resolution) -> Law:
    found = jax.lax.stop_gradient((law.mean, law.covariance))
    exact = output_moments(*jax.lax.stop_gradient((source, layer, readout)), resolution)
    errors = (jnp.abs(a - b.value) + b.error_bound for a, b in zip(found, exact, strict=True))
    bounds = LawBounds(*(jnp.where(jnp.isnan(error), jnp.inf, error) for error in errors))
    return eqx.tree_at(lambda one: one.bounds, law, bounds, is_leaf=lambda leaf: leaf is None)


class _Known(NamedTuple):
    """What is known before anything is compiled: are there units, is there more beside them, is there no noise."""

    units: bool
    linear: bool
    still: bool

    @classmethod
    def of(cls, source: FeatureModel, layer: AbstractLayer, readout: Float[Array, "D n2"]) -> "_Known":
        """What is not known may be."""
        sizes = [not is_concrete(one) or float(one) != 0 for one in _sizes(source, layer, readout)]
        units, linear = sizes[0], layer.has_linear_part and sizes[1]
        return cls(units, linear, not ((units and sizes[2]) or (linear and sizes[3])))


@partial(compiled, quick=always)
def _sizes(source: FeatureModel, layer: AbstractLayer, readout: Float[Array, "D n2"]) -> tuple[Scalar, ...]:
    """Of what units add, of what goes past them, and of the noise in both."""
    form = layer.form()
    output, rows, offset = readout @ form.output, readout @ form.linear, readout @ form.offset
    factor = source.noise if source.noise.ndim == 2 else jnp.diag(jnp.broadcast_to(source.noise, source.mean.shape))
    sizes = output, jnp.append(rows, offset), form.weight @ factor, rows @ factor
    return tuple(jnp.max(jnp.abs(one), initial=0) for one in sizes)


@partial(compiled, quick=always)
def _projections(source: FeatureModel, layer: AbstractLayer, readout: Float[Array, "D n2"], known: _Known):
    return _as_image(source, layer, readout, known)[0]


def _as_image(source: FeatureModel, layer: AbstractLayer, readout: Float[Array, "D n2"], known: _Known):
    """`Y = factors psi(Z)`: the law of Z, the factors, and the functions; the units stand before linear parts."""
    form = layer.form()
    D, identity = readout.shape[0], ACTIVATIONS["identity"]
    rows, offset, output = readout @ form.linear, readout @ form.offset, readout @ form.output
    units, bias, functions = form.weight, form.bias, [layer.activations[i] for i in layer.activation_index]
    if not known.units:
        units, bias, output, functions = units[:0], bias[:0], output[:, :0], []
    if known.linear:
        units, bias = jnp.concatenate([units, rows]), jnp.concatenate([bias, offset])
        output, functions = jnp.concatenate([output, jnp.eye(D, dtype=output.dtype)], 1), [*functions, *[identity] * D]
    if not functions:  # constant
        units, bias = jnp.zeros_like(rows[:1]), jnp.zeros_like(offset[:1])
        output, functions = jnp.zeros((D, 1), output.dtype), [identity]
    return Projection.of(source, units, bias), output, tuple(functions)


@partial(compiled, quick=always)
def _law(source, layer, readout, known: _Known, values: States | None, resolution) -> Law:
    """Image, moments and box; the series where it is needed: for densities of two projections, or without image."""
    image = Image.of(*_as_image(source, layer, readout, known), resolution.frequencies, known.still, values)
    series = None
    if image is None or readout.shape[0] > 1:
        series = LawSeries.of(source, layer, readout, resolution)
    if image is None or not image.states.listed:
        mean, covariance, accuracy = LawSeries.moments(source, layer, readout, resolution)
    else:
        mean, covariance = image.moments()
        accuracy = jnp.zeros_like(mean[0])
    if image is None:
        low, length = series.low, series.length
        accuracy = jnp.maximum(accuracy, series.accuracy)
    else:
        low, high = image.box()
        length = high - low
        accuracy = jnp.maximum(accuracy, image.accuracy)
    return Law(mean, covariance, jax.lax.stop_gradient(accuracy), low, length, image, series)


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

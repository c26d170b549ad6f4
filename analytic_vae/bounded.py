"""Expectations of a layer's activations with a bound of their error."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ._check import as_floating, require_finite, require_instance, require_shape
from .activation import Activation, get_activation
from .arguments import check_layer
from .layer import LinearLayer
from .model import FeatureModel
from .precision import exact_products
from .spectral.certified import Bounded, as_function, product_expectation
from .spectral.memory import require_memory
from .spectral.projection import Projection
from .spectral.resolution import Resolution
from .types import ArrayLike


@exact_products
def bounded_expectation(
    source: FeatureModel,
    layer: LinearLayer,
    readout: ArrayLike,
    activations: Sequence[str | Activation],
    resolution: Resolution | None = None,
) -> Bounded:
    """`E[psi_1(Y_1)]` or `E[psi_1(Y_1) psi_2(Y_2)]`, `Y = V f(x1)`, with a bound of its error.

    Arguments:
        source: law of the layer's input `x1: [n1]`.
        layer: `f`, linear so far.
        readout: `V: [D, n2]`, D = 1 or 2.
        activations: D names, or `Activation`s that have a `strip`.
        resolution: how fine; `Resolution()` if not given. Raising it makes the bound fall: exponentially if psi is
            analytic or there is noise, as the square of the frequencies for kinks without noise.

    Returns a `Bounded`: the exact number lies in `value +- error_bound`, where `error_bound` holds what is outside the
    box, the tail of the series, aliases, smoothing and (as independent roundings) the arithmetic of the dtype.

    Raises `ValueError` or `TypeError` that names the argument. Differentiable: the bound without NaN.

    >>> bounded_expectation(source, layer, jnp.eye(2), ["relu", "relu"]).high
    """
    resolution = resolution or Resolution()
    require_instance("layer", layer, LinearLayer, "a LinearLayer")
    check_layer(source, layer)
    require_instance("resolution", resolution, Resolution, "a Resolution")
    (readout,) = as_floating(readout=readout)
    require_shape("readout", readout, (None, layer.outputs), "projections, outputs of the layer")
    require_finite("readout", readout)
    if readout.shape[0] not in (1, 2):
        raise ValueError(f"readout: expected 1 or 2 projections, got {readout.shape[0]}.")
    if not isinstance(activations, list | tuple) or len(activations) != readout.shape[0]:
        raise ValueError(f"activations: expected one for each of {readout.shape[0]} projections, got {activations!r}.")
    chosen = tuple(get_activation(one) for one in activations)
    for one in chosen:
        if one.strip is None:
            raise ValueError(f"activations: expected a strip, which bounds need, got {one.name} without one.")
    order = 2 * resolution.law_order(readout.shape[0])
    _require_memory(source, readout.shape[0], order)
    return _bounded_expectation(source, layer, readout.astype(source.mean.dtype), chosen, order)


@eqx.filter_jit
def _bounded_expectation(source, layer, readout, activations, order) -> Bounded:
    rows, offset = readout @ layer.weight, readout @ layer.bias
    law = Projection.of(source, rows, offset)
    terms = jnp.abs(readout) @ jnp.abs(layer.weight)  # what the rows were summed from: they may cancel
    noise = jnp.sqrt(jnp.diagonal(source.covariance))
    sizes = jnp.tensordot(terms, jnp.abs(source.atom_vectors), axes=1).max(axis=2).sum(axis=1)
    sizes = sizes + terms @ (jnp.abs(source.mean) + 8 * noise) + jnp.abs(readout) @ jnp.abs(layer.bias)
    functions = [as_function(one, source.mean.dtype) for one in activations]
    return product_expectation(law, sizes, functions, order)


def _require_memory(source: FeatureModel, dimension: int, order: int) -> None:
    points = (order + 1) * (2 * order + 1) ** (dimension - 1)
    tables = 2 * source.features + 12  # factors of the product over features, complex, and the grids of the bound
    require_memory(
        tables * points * 2 * np.dtype(source.mean.dtype).itemsize, "resolution", "lower resolution.frequencies"
    )

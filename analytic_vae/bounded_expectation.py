"""Expectations of a layer's activations with a bound of their error."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._check import as_floating, is_concrete, require_finite, require_instance, require_shape
from ._jit import compiled, exact_products
from .certify.ball import SAFETY, Bounded
from .certify.functions import as_function
from .certify.joint_law import source_sizes
from .certify.product import product_expectation
from .model.activation import Activation, get_activation
from .model.compatibility import check_layer
from .model.feature_model import FeatureModel
from .model.layer import LinearLayer
from .moments.budget import require_memory
from .spectral.enumeration import support
from .spectral.projected_law import Projection
from .spectral.resolution import Resolution
from .types import Array, ArrayLike


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
        source: law of the layer's input `x1: [n1]`. Without noise, and where Y has few different values (on a lattice,
            say), they are summed over: then all but rounding is exact.
        layer: `f`, linear so far.
        readout: `V: [D, n2]`, D = 1 or 2.
        activations: D names, or `Activation`s that have a `regularity`.
        resolution: how fine; `Resolution()` if not given. Raising it makes the bound fall: exponentially if psi is
            analytic or there is noise, as the square of the frequencies for kinks without noise.

    Returns a `Bounded`: the exact number lies in `value +- error_bound`, where `error_bound` holds what is outside the
    box, the tail of the series, aliases, smoothing and (as independent roundings) the arithmetic of the dtype.

    Raises `ValueError` or `TypeError` that names the argument. Differentiable: the bound without NaN.

    >>> bounded_expectation(source, layer, jnp.eye(2), ["relu", "relu"]).high
    """
    resolution = Resolution.of(resolution)
    require_instance("layer", layer, LinearLayer, "a LinearLayer")
    check_layer(source, layer)
    (readout,) = as_floating(readout=readout)
    require_shape("readout", readout, (None, layer.outputs), "projections, outputs of the layer")
    require_finite("readout", readout)
    if readout.shape[0] not in (1, 2):
        raise ValueError(f"readout: expected 1 or 2 projections, got {readout.shape[0]}.")
    if not isinstance(activations, list | tuple) or len(activations) != readout.shape[0]:
        raise ValueError(f"activations: expected one for each of {readout.shape[0]} projections, got {activations!r}.")
    chosen = tuple(get_activation(one) for one in activations)
    for one in chosen:
        if one.regularity is None:
            raise ValueError(f"activations: expected those of known regularity, which bounds need, got {one.name}.")
    readout = readout.astype(source.mean.dtype)
    states = _states(source, layer, readout)
    if states is not None:
        return _over_states(states, chosen)
    order = 2 * resolution.law_order(readout.shape[0])
    _require_memory(source, readout.shape[0], order)
    return _bounded_expectation(source, layer, readout, chosen, order)


def _states(source, layer, readout):
    """A law without noise as values, masses and what rounding may have moved, if it can be looked at and is small."""
    arrays = jax.tree.leaves(eqx.filter((source, layer, readout), eqx.is_array))
    if not all(is_concrete(array) for array in arrays) or np.any(np.asarray(source.noise) != 0):
        return None
    law, sizes = _law(source, layer, readout)
    found = support(law)
    if found is None:
        return None
    values, masses, moved = found
    return values, masses, moved + 4 * np.finfo(source.mean.dtype).eps * np.asarray(sizes, float), law


def _over_states(states, activations) -> Bounded:
    """`E prod_d psi_d(Y_d)` as a sum over the values of a law without noise."""
    values, masses, moved, law = states
    dtype = law.mean.dtype
    eps = np.finfo(dtype).eps
    columns = [np.asarray(one(jnp.asarray(values[:, d], dtype)), float) for d, one in enumerate(activations)]
    slopes = [_steepest(one, values[:, d], moved[d], dtype) for d, one in enumerate(activations)]
    # Of each value: that of its argument, and of the function itself.
    errors = [
        slope * (shift + eps * np.abs(values[:, d])) + 8 * eps * np.abs(column)
        for d, (column, slope, shift) in enumerate(zip(columns, slopes, moved, strict=True))
    ]
    value, error = columns[0], errors[0]
    if len(columns) == 2:
        error = (np.abs(columns[0]) + errors[0]) * errors[1] + errors[0] * np.abs(columns[1])
        value = columns[0] * columns[1]
    relative = 8 * eps * law.masses.shape[0]  # of the masses, all of them positive
    error = masses @ error + relative * masses @ np.abs(value)
    return Bounded(jnp.asarray(masses @ value, dtype), jnp.asarray(SAFETY * error + eps * abs(masses @ value), dtype))


def _steepest(activation: Activation, values: np.ndarray, moved: float, dtype) -> float:
    """A bound of the slope between the values, and as far beyond as these may have been moved."""
    least, most = np.min(values - moved), np.max(values + moved)
    return float(activation.regularity.slope(jnp.asarray(least, dtype), jnp.asarray(most, dtype), jnp.zeros((), dtype)))


@compiled
def _bounded_expectation(source, layer, readout, activations, order) -> Bounded:
    law, sizes = _law(source, layer, readout)
    functions = [as_function(one, source.mean.dtype) for one in activations]
    return product_expectation(law, sizes, functions, order)


@compiled
def _law(source, layer, readout) -> tuple[Projection, Array]:
    """The law of the projections, and mean sizes of what they are summed from."""
    rows, offset = readout @ layer.weight, readout @ layer.bias
    law = Projection.of(source, rows, offset)
    terms = jnp.abs(readout) @ jnp.abs(layer.weight)  # the rows themselves may cancel
    return law, terms @ source_sizes(source) + jnp.abs(readout) @ jnp.abs(layer.bias)


def _require_memory(source: FeatureModel, dimension: int, order: int) -> None:
    points = (order + 1) * (2 * order + 1) ** (dimension - 1)
    tables = 2 * source.features + 12  # factors of the product over features, complex, and the grids of the bound
    require_memory(
        tables * points * 2 * np.dtype(source.mean.dtype).itemsize, "resolution", "lower resolution.frequencies"
    )

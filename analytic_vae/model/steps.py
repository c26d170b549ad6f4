"""From affine maps and activations, in the order in which they are applied, to layers.

What reads weights, modules and files makes a list of these steps; here it becomes layers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .._check import as_floating, require_finite, require_shape
from ..types import Array
from .activation import Activation, get_activation, residual
from .dense_layer import DenseLayer
from .layer import AbstractLayer, LinearLayer, RidgeLayer


class Affine(NamedTuple):
    """`x -> W x + b` under the names that errors are to use."""

    weight_name: str
    weight: Any
    bias_name: str = ""
    bias: Any = None


class Scaling(NamedTuple):
    """`x -> scale x + shift`, each coordinate for itself; `[n]` or one number: a normalisation by known moments."""

    name: str
    scale: Any
    shift: Any


class Bend(NamedTuple):
    """An activation of every coordinate."""

    activation: Activation


class Block(NamedTuple):
    """`x -> x + W2 psi(W1 x + b1) + b2`: a residual block."""

    first: Affine
    activation: Activation
    second: Affine


class Softmax(NamedTuple):
    """The end of a classifier: it is left out, so that the outputs are the logits."""

    name: str


Step: TypeAlias = Affine | Scaling | Bend | Block | Softmax


class _Map(NamedTuple):
    """`x -> psi(W x + b)`, or without `psi`."""

    weight: Array
    bias: Array
    activation: Activation | None = None


def layers_of(steps: Sequence[Step], *, layers: str = "dense", forget: str | None = None) -> list[AbstractLayer]:
    """The layers that compute these steps one after another; `layers`, `forget` as of `from_weights`.

    Scalings are folded into the affine map before them, or else into the one after them; a softmax at the end is left
    out. Raises `ValueError` that names the array if shapes do not fit or chain or a number is not finite.
    """
    steps = list(steps)
    if steps and isinstance(steps[-1], Softmax):
        del steps[-1]
    for step in steps:
        if isinstance(step, Softmax):
            raise ValueError(f"{step.name}: expected a softmax at the end alone, where it is left out for the logits.")
    composers = {None: _forget_each, "each": _forget_each, "last": _forget_last}
    if layers == "dense" and forget is not None:
        raise ValueError(f"forget: expected none, which is of ridge layers only, got {forget!r}; pass layers='ridge'.")
    if forget not in composers:
        raise ValueError(f"forget: expected 'each' or 'last', got {forget!r}.")
    if layers not in ("dense", "ridge"):
        raise ValueError(f"layers: expected 'dense' or 'ridge', got {layers!r}.")
    blocks = [step for step in steps if isinstance(step, Block)]
    if layers == "ridge" and blocks:
        raise ValueError(f"layers: expected 'dense' for residual blocks ({blocks[0].first.weight_name}), got 'ridge'.")
    compose = _dense if layers == "dense" else composers[forget]
    return compose(_folded(_checked(steps)))


def activations_of(activation: str | Activation | Sequence, maps: int) -> list[Activation | None]:
    """What follows each of so many affine maps: one activation after all but the last, or a list of them.

    A list has one for each map, or for each but the last; "identity" or None where there is none.
    """
    if isinstance(activation, str | Activation) or not isinstance(activation, Sequence):
        return [*[get_activation(activation)] * (maps - 1), None][:maps]
    if len(activation) not in (maps - 1, maps):
        raise ValueError(
            f"activation: expected one, or a list of {maps - 1} (one after each affine map but the last) or {maps} "
            f"(after the last, too), got a list of {len(activation)}."
        )
    found = [None if one is None or one == "identity" else get_activation(one) for one in activation]
    return [*found, *[None] * (maps - len(found))]


def chained(maps: Sequence[Affine], activations: Sequence[Activation | None]) -> list[Step]:
    """The maps, each with its activation after it."""
    steps: list[Step] = []
    for one, activation in zip(maps, activations, strict=True):
        steps += [one] if activation is None else [one, Bend(activation)]
    return steps


def require_chain(steps: Sequence[Step]) -> None:
    """Raise `ValueError` unless the shapes of each map fit those of the one before and of its bias."""
    width, before = None, ""
    for step in steps:
        if isinstance(step, Scaling):
            lengths = {np.shape(part)[0] for part in (step.scale, step.shift) if np.ndim(part) == 1}
            if len(lengths) > 1 or any(np.ndim(part) > 1 for part in (step.scale, step.shift)):
                raise ValueError(
                    f"{step.name}: expected a scale and a shift for each coordinate, got {sorted(lengths)}."
                )
            for length in lengths:
                if width not in (None, length):
                    raise ValueError(f"{step.name}: expected {width} numbers, the outputs of {before}, got {length}.")
                width, before = length, step.name
        for affine in _affines(step):
            require_shape(affine.weight_name, affine.weight, (None, None), "outputs, inputs")
            shape = np.shape(affine.weight)
            if width not in (None, shape[1]):
                raise ValueError(
                    f"{affine.weight_name}: expected {width} inputs, as many as the outputs of {before}, "
                    f"got {shape[1]} (shape {shape})."
                )
            if affine.bias is not None:
                require_shape(affine.bias_name, affine.bias, shape[:1], f"outputs of {affine.weight_name}")
            width, before = shape[0], affine.weight_name
        if isinstance(step, Block) and width != np.shape(step.first.weight)[1]:
            raise ValueError(
                f"{step.second.weight_name}: expected {np.shape(step.first.weight)[1]} outputs, as many as the inputs "
                f"of {step.first.weight_name}, since a residual block adds them, got {width}."
            )


def _affines(step: Step) -> list[Affine]:
    return [step] if isinstance(step, Affine) else [step.first, step.second] if isinstance(step, Block) else []


def _checked(steps: Sequence[Step]) -> list[Step]:
    """The steps with arrays of one dtype, checked; a bias that is not given is zero."""
    maps = [affine for step in steps for affine in _affines(step)]
    if not maps:
        raise ValueError("weights: expected at least one pair (W, b), got none.")
    named: dict[str, Any] = {}  # under names of their own: the same array may be used twice

    def renamed(name: str, array: Any) -> str:
        while name in named:
            name += " again"
        named[name] = array
        return name

    def with_names(a: Affine) -> Affine:
        weight_name = renamed(a.weight_name, a.weight)
        return a._replace(weight_name=weight_name, bias_name="" if a.bias is None else renamed(a.bias_name, a.bias))

    steps = [_mapped(step, with_names) for step in steps]
    arrays = dict(zip(named, as_floating(**named), strict=True))
    as_arrays = lambda a: a._replace(weight=arrays[a.weight_name], bias=arrays.get(a.bias_name))  # noqa: E731
    steps = [_mapped(step, as_arrays) for step in steps]
    require_chain(steps)
    for name, array in arrays.items():
        require_finite(name, array)
    for step in steps:
        if isinstance(step, Scaling):
            require_finite(step.name, np.append(step.scale, step.shift))
    with_bias = lambda a: a._replace(bias=jnp.zeros_like(a.weight[:, 0]) if a.bias is None else a.bias)  # noqa: E731
    return [_mapped(step, with_bias) for step in steps]


def _mapped(step: Step, function) -> Step:
    if isinstance(step, Affine):
        return function(step)
    return step._replace(first=function(step.first), second=function(step.second)) if isinstance(step, Block) else step


def _folded(steps: Sequence[Step]) -> list[_Map | Block]:
    """Affine maps with what follows each, and blocks; no scalings are left."""
    found: list[_Map | Block] = []
    waiting: Scaling | None = None  # for the affine map after it

    def flush(index: int) -> None:
        nonlocal waiting
        found.append(_diagonal(steps, index, waiting))
        waiting = None

    for index, step in enumerate(steps):
        is_open = waiting is None and bool(found) and isinstance(found[-1], _Map) and found[-1].activation is None
        if isinstance(step, Affine):
            found.append(_before(waiting, _Map(step.weight, step.bias)))
            waiting = None
        elif isinstance(step, Scaling):
            if is_open:
                found[-1] = scaled(found[-1], step)
            else:
                waiting = step if waiting is None else _both(waiting, step)
        elif isinstance(step, Bend):
            if not is_open:
                flush(index)
            found[-1] = found[-1]._replace(activation=step.activation)
        else:
            if waiting is not None:
                flush(index)
            found.append(step)
    if waiting is not None:
        flush(len(steps))
    return found


_AnyMap = TypeVar("_AnyMap", Affine, _Map)


def scaled(one: _AnyMap, scaling: Scaling) -> _AnyMap:
    """`scale (W x + b) + shift`, in double precision, rounded once."""
    weight, scale = _exact(one.weight), _exact(scaling.scale)
    bias = np.zeros(len(weight)) if one.bias is None else _exact(one.bias)
    weight, bias = _rounded(scale[..., None] * weight, scale * bias + _exact(scaling.shift), one, scaling)
    named = {"bias_name": one.bias_name or scaling.name} if isinstance(one, Affine) else {}
    return one._replace(weight=weight, bias=bias, **named)


def _before(scaling: Scaling | None, one: _Map) -> _Map:
    """`W (scale x + shift) + b`."""
    if scaling is None:
        return one
    weight, bias = _exact(one.weight), _exact(one.bias)
    shift = np.broadcast_to(_exact(scaling.shift), weight.shape[1:])
    weight, bias = _rounded(weight * _exact(scaling.scale), bias + weight @ shift, one, scaling)
    return one._replace(weight=weight, bias=bias)


def _both(first: Scaling, second: Scaling) -> Scaling:
    scale = _exact(second.scale)
    shift = scale * _exact(first.shift) + _exact(second.shift)
    return Scaling(second.name, scale * _exact(first.scale), shift)


def _diagonal(steps: Sequence[Step], index: int, scaling: Scaling | None) -> _Map:
    """A scaling, or nothing at all, as a map of its own: before the step of that index."""
    affines = [affine for step in steps[index:] for affine in _affines(step)]
    earlier = [affine for step in steps[:index] for affine in _affines(step)]
    width = affines[0].weight.shape[1] if affines else earlier[-1].weight.shape[0]
    dtype = (affines or earlier)[0].weight.dtype
    identity = _Map(jnp.eye(width, dtype=dtype), jnp.zeros(width, dtype))
    return _before(scaling, identity)


def _exact(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64)


def _rounded(weight: np.ndarray, bias: np.ndarray, one: Affine | _Map, scaling: Scaling) -> tuple[Any, Any]:
    dtype = one.weight.dtype
    with np.errstate(over="ignore"):
        parts = weight.astype(dtype), bias.astype(dtype)
    if not all(np.all(np.isfinite(part)) for part in parts):
        raise ValueError(
            f"{scaling.name}: expected a normalisation that keeps weights within {dtype}, got larger ones."
        )
    return parts if isinstance(one.weight, np.ndarray) else tuple(map(jnp.asarray, parts))


def _dense(maps: list[_Map | Block]) -> list[AbstractLayer]:
    layers: list[AbstractLayer] = []
    for one in maps:
        if isinstance(one, Block):
            layers += _block_layers(one)
        else:
            layers.append(LinearLayer(*one[:2]) if one.activation is None else DenseLayer(*one))
    return layers


def _block_layers(block: Block) -> list[AbstractLayer]:
    """A dense layer with a skip has no bias of its output: a linear layer adds it."""
    identity = jnp.eye(block.first.weight.shape[1], dtype=block.first.weight.dtype)
    first, second = block.first, block.second
    layer = DenseLayer(first.weight, first.bias, block.activation, output=second.weight, skip=identity)
    return [layer, LinearLayer(identity, second.bias)] if np.any(second.bias) else [layer]


def _forget_each(maps: list[_Map]) -> list[AbstractLayer]:
    layers: list[AbstractLayer] = []
    for one in maps:
        layers.append(LinearLayer(one.weight, one.bias))
        if one.activation is None:
            continue
        is_relu = one.activation.function is jax.nn.relu
        sign, step = (-1.0, one.activation) if is_relu else (1.0, residual(one.activation))
        units = np.eye(one.weight.shape[0], dtype=one.weight.dtype)
        identity = jnp.asarray(units)
        layers.extend(RidgeLayer(identity, unit, sign * unit, 0.0, step) for unit in units)
    return layers


def _forget_last(maps: list[_Map]) -> list[AbstractLayer]:
    layers: list[AbstractLayer] = []
    kept = 0  # pre-activations that the next linear layer drops
    for one in maps:
        h = one.weight.shape[0]
        padding = jnp.zeros((h, kept), one.weight.dtype)
        layers.append(LinearLayer(jnp.concatenate([padding, one.weight], axis=1) if kept else one.weight, one.bias))
        kept = 0 if one.activation is None else h
        for neuron in range(kept):
            units = np.eye(h + neuron + 1, dtype=one.weight.dtype)  # NumPy: nothing to compile for each shape
            layers.append(RidgeLayer(units[:, :-1], units[-1], units[neuron], 0.0, one.activation))
    return [*layers, LinearLayer(np.eye(kept, 2 * kept, kept, dtype=maps[-1].weight.dtype))] if kept else layers

"""Scalings folded into the affine maps beside them, in double precision."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np

from ..types import Array
from .activation import Activation, get_activation
from .steps import Affine, Bend, Block, Scaling, Slopes, Step, affines_of


class Map(NamedTuple):
    """`x -> psi(W x + b)`, or without `psi`; with slopes `x -> a W x + (1 - a) relu(W x + b)`."""

    weight: Array
    bias: Array
    activation: Activation | None = None
    slopes: Array | None = None


def folded(steps: Sequence[Step]) -> list[Map | Block]:
    """Affine maps with what follows each, and blocks; no scalings are left."""
    found: list[Map | Block] = []
    waiting: Scaling | None = None  # for the affine map after it

    def flush(index: int) -> None:
        nonlocal waiting
        found.append(_diagonal(steps, index, waiting))
        waiting = None

    for index, step in enumerate(steps):
        is_open = waiting is None and bool(found) and isinstance(found[-1], Map) and found[-1].activation is None
        if isinstance(step, Affine):
            found.append(_before(waiting, Map(step.weight, step.bias)))
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
        elif isinstance(step, Slopes):
            if not is_open:
                flush(index)
            found[-1], waiting = _with_slopes(found[-1], step)
        else:
            if waiting is not None:
                flush(index)
            found.append(step)
    if waiting is not None:
        flush(len(steps))
    return found


AnyMap = TypeVar("AnyMap", Affine, Map)


def scaled(one: AnyMap, scaling: Scaling) -> AnyMap:
    """`scale (W x + b) + shift`, in double precision, rounded once."""
    weight, scale = _exact(one.weight), _exact(scaling.scale)
    bias = np.zeros(len(weight)) if one.bias is None else _exact(one.bias)
    weight, bias = _rounded(scale[..., None] * weight, scale * bias + _exact(scaling.shift), one, scaling)
    named = {"bias_name": one.bias_name or scaling.name} if isinstance(one, Affine) else {}
    return one._replace(weight=weight, bias=bias, **named)


def _before(scaling: Scaling | None, one: Map) -> Map:
    """`W (scale x + shift) + b`."""
    if scaling is None:
        return one
    weight, bias = _exact(one.weight), _exact(one.bias)
    shift = np.broadcast_to(_exact(scaling.shift), weight.shape[1:])
    weight, bias = _rounded(weight * _exact(scaling.scale), bias + weight @ shift, one, scaling)
    return one._replace(weight=weight, bias=bias)


def _with_slopes(one: Map, step: Slopes) -> tuple[Map, Scaling]:
    """`a s + (1 - a) relu(s)`, `s = W x + b`: the map, and the `a b` that it leaves to the one after it."""
    slopes = np.broadcast_to(_exact(step.slopes), np.shape(one.bias))
    return one._replace(activation=get_activation("relu"), slopes=slopes), Scaling(step.name, 1.0, slopes * one.bias)


def _both(first: Scaling, second: Scaling) -> Scaling:
    scale = _exact(second.scale)
    shift = scale * _exact(first.shift) + _exact(second.shift)
    return Scaling(second.name, scale * _exact(first.scale), shift)


def _diagonal(steps: Sequence[Step], index: int, scaling: Scaling | None) -> Map:
    """A scaling, or nothing at all, as a map of its own: before the step of that index."""
    affines = [affine for step in steps[index:] for affine in affines_of(step)]
    earlier = [affine for step in steps[:index] for affine in affines_of(step)]
    width = affines[0].weight.shape[1] if affines else earlier[-1].weight.shape[0]
    dtype = (affines or earlier)[0].weight.dtype
    identity = Map(jnp.eye(width, dtype=dtype), jnp.zeros(width, dtype))
    return _before(scaling, identity)


def _exact(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64)


def _rounded(weight: np.ndarray, bias: np.ndarray, one: Affine | Map, scaling: Scaling) -> tuple[Any, Any]:
    dtype = one.weight.dtype
    with np.errstate(over="ignore"):
        parts = weight.astype(dtype), bias.astype(dtype)
    if not all(np.all(np.isfinite(part)) for part in parts):
        raise ValueError(
            f"{scaling.name}: expected a normalisation that keeps weights within {dtype}, got larger ones."
        )
    return parts if isinstance(one.weight, np.ndarray) else tuple(map(jnp.asarray, parts))

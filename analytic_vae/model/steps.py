"""Affine maps, scalings and activations, in the order in which they are applied.

What reads weights, modules and files makes a list of these steps; `composition.py` makes layers of it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from .._check import as_floating, require_finite, require_shape
from .activation import Activation, get_activation


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


class Slopes(NamedTuple):
    """A PReLU of a slope for each coordinate, `[n]` or one: `x -> a x + (1 - a) relu(x)`."""

    name: str
    slopes: Any


class Block(NamedTuple):
    """`x -> x + W2 psi(W1 x + b1) + b2`: a residual block."""

    first: Affine
    activation: Activation
    second: Affine


class Softmax(NamedTuple):
    """The end of a classifier: it is left out, so that the outputs are the logits."""

    name: str


Step: TypeAlias = Affine | Scaling | Bend | Slopes | Block | Softmax


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
        if isinstance(step, Scaling | Slopes):
            lengths = {np.shape(part)[0] for part in step[1:] if np.ndim(part) == 1}
            if len(lengths) > 1 or any(np.ndim(part) > 1 for part in step[1:]):
                raise ValueError(f"{step.name}: expected one number for each coordinate, got {sorted(lengths)}.")
            for length in lengths:
                if width not in (None, length):
                    raise ValueError(f"{step.name}: expected {width} numbers, the outputs of {before}, got {length}.")
                width, before = length, step.name
        for affine in affines_of(step):
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


def affines_of(step: Step) -> list[Affine]:
    """The affine maps of a step: one, the two of a block, or none."""
    return [step] if isinstance(step, Affine) else [step.first, step.second] if isinstance(step, Block) else []


def checked(steps: Sequence[Step]) -> list[Step]:
    """The steps with arrays of one dtype, checked; a bias that is not given is zero."""
    maps = [affine for step in steps for affine in affines_of(step)]
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
        if isinstance(step, Scaling | Slopes):
            require_finite(step.name, np.concatenate([np.ravel(part) for part in step[1:]]))
    with_bias = lambda a: a._replace(bias=jnp.zeros_like(a.weight[:, 0]) if a.bias is None else a.bias)  # noqa: E731
    return [_mapped(step, with_bias) for step in steps]


def _mapped(step: Step, function) -> Step:
    if isinstance(step, Affine):
        return function(step)
    return step._replace(first=function(step.first), second=function(step.second)) if isinstance(step, Block) else step

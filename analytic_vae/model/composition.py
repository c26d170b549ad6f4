"""From steps to layers: whole layers, or the paper's path, one unit at a time."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from .activation import residual
from .dense_layer import DenseLayer
from .folding import Map, folded
from .layer import AbstractLayer, LinearLayer, RidgeLayer
from .steps import Block, Slopes, Softmax, Step, checked


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
    skips = [step for step in steps if isinstance(step, Block | Slopes)]
    if layers == "ridge" and skips:
        name = skips[0].first.weight_name if isinstance(skips[0], Block) else skips[0].name
        raise ValueError(f"layers: expected 'dense' for residual blocks and PReLUs ({name}), got 'ridge'.")
    compose = _dense if layers == "dense" else composers[forget]
    return compose(folded(checked(steps)))


def _dense(maps: list[Map | Block]) -> list[AbstractLayer]:
    layers: list[AbstractLayer] = []
    for one in maps:
        if isinstance(one, Block):
            layers += _block_layers(one)
        else:
            layers.append(_layer(one))
    return layers


def _layer(one: Map) -> AbstractLayer:
    if one.activation is None:
        return LinearLayer(one.weight, one.bias)
    output = skip = None
    if one.slopes is not None:
        slopes = np.asarray(one.slopes, one.weight.dtype)
        output, skip = np.diag(1 - slopes), slopes[:, None] * one.weight
    return DenseLayer(one.weight, one.bias, one.activation, output, skip)


def _block_layers(block: Block) -> list[AbstractLayer]:
    """A dense layer with a skip has no bias of its output: a linear layer adds it."""
    identity = jnp.eye(block.first.weight.shape[1], dtype=block.first.weight.dtype)
    first, second = block.first, block.second
    layer = DenseLayer(first.weight, first.bias, block.activation, output=second.weight, skip=identity)
    return [layer, LinearLayer(identity, second.bias)]  # laws of outputs are those of a linear layer, too


def _forget_each(maps: list[Map]) -> list[AbstractLayer]:
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


def _forget_last(maps: list[Map]) -> list[AbstractLayer]:
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

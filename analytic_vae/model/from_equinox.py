"""Modules of equinox as networks."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import nn

from .._check import require_instance
from ..types import Array
from .activation import Activation
from .activation_names import steps_of_function
from .network import Network, network_of
from .steps import Affine, Softmax, Step, activations_of, chained

_PROBES = (-30.0, -3.0, -0.7, 0.0, 0.4, 2.5, 30.0)

_NORMS = {  # what is neither an affine map nor a function of one coordinate
    "LayerNorm": "divides by the spread of all coordinates, which is not linear",
    "RMSNorm": "divides by the size of all coordinates, which is not linear",
    "GroupNorm": "divides by the spread of several coordinates, which is not linear",
    "BatchNorm": "has its moments in a State; fold scale and shift into the Linear beside it",
}


def from_mlp(
    mlp: eqx.nn.MLP | eqx.nn.Sequential | Sequence,
    activation: str | Activation | None = None,
    *,
    layers: str = "dense",
    forget: str | None = None,
) -> Network:
    """An `equinox.nn.MLP`, an `equinox.nn.Sequential` or a list of equinox's layers as a `Network`.

    It is the function at inference: `Dropout` is left out. Activations are functions, `Lambda`s of them, or in a list
    also names and `Activation`s. See `from_weights` for how layers are made.

    Arguments:
        mlp: of `Linear`, `MLP`, `Sequential`, `Lambda`, `Identity`, `Dropout` and functions. The `final_activation`
            of an `MLP` is recognised as others are. A size of `"scalar"` becomes one neuron, `[1]`.
        activation: replaces the activation of an `MLP`, or every function in a list. Needed unless that is one of
            `jax.nn`'s `relu`, `leaky_relu`, `gelu` (its default, the tanh approximation), `sigmoid`, `softplus`,
            `identity` and others by the names of ours, `jnp.tanh`, or a `functools.partial` of them.
        layers, forget: as in `from_weights`.

    Raises `ValueError` if an activation is not recognised, or a layer is
    neither affine nor elementwise (`LayerNorm`, `Conv`); `TypeError` if `mlp` is nothing of equinox.

    >>> network = from_mlp(eqx.nn.MLP(2, 3, 4, depth=2, key=jax.random.key(0)))
    """
    if not isinstance(mlp, eqx.nn.MLP | eqx.nn.Sequential | Sequence) or isinstance(mlp, str):
        hint = "; av.from_torch takes modules of torch" if hasattr(mlp, "state_dict") else ""
        expected = f"an equinox.nn.MLP, an equinox.nn.Sequential or a list of layers{hint}"
        require_instance("mlp", mlp, eqx.nn.MLP, expected)
    return network_of(_steps_of("mlp", mlp, activation), layers=layers, forget=forget)


def _steps_of(name: str, module: Any, activation: str | Activation | None) -> list[Step]:
    """The steps of a module that is called so in messages."""
    if isinstance(module, eqx.nn.MLP):
        return _mlp_steps(name, module, activation)
    if isinstance(module, eqx.nn.Sequential | list | tuple):
        parts = module.layers if isinstance(module, eqx.nn.Sequential) else module
        return [step for i, part in enumerate(parts) for step in _steps_of(f"{name}[{i}]", part, activation)]
    if isinstance(module, eqx.nn.Linear):
        return [Affine(f"{name}.weight", module.weight, f"{name}.bias", module.bias)]
    if isinstance(module, eqx.nn.Identity | eqx.nn.Dropout):
        return []
    kind = type(module).__name__
    if kind in _NORMS:
        raise ValueError(f"{name}: expected affine maps and elementwise functions, but {kind} {_NORMS[kind]}.")
    function = module.fn if isinstance(module, eqx.nn.Lambda) else module
    if isinstance(function, eqx.Module) and not isinstance(function, Activation):
        raise ValueError(f"{name}: expected a Linear, a Lambda, a function, an Identity or a Dropout, got {kind}.")
    if any(function is softmax for softmax in (nn.softmax, nn.log_softmax)):
        return [Softmax(name)]
    return steps_of_function(name, function if activation is None or isinstance(function, str) else activation)


def _mlp_steps(name: str, mlp: eqx.nn.MLP, activation: str | Activation | None) -> list[Step]:
    maps = [affine for i, layer in enumerate(mlp.layers) for affine in _maps_of(f"{name}.layers[{i}]", layer)]
    last = [] if _is_identity(mlp) else _final_steps(name, mlp)
    if activation is not None:
        return [*chained(maps, activations_of(activation, len(maps))), *last]
    between = steps_of_function(f"{name}.activation", mlp.activation) if len(maps) > 1 else []
    return [*(step for affine in maps[:-1] for step in (affine, *between)), maps[-1], *last]


def _final_steps(name: str, mlp: eqx.nn.MLP) -> list[Step]:
    try:
        return steps_of_function(f"{name}.final_activation", mlp.final_activation)
    except ValueError as error:
        raise ValueError(
            f"{name}.final_activation: expected the identity or a function whose kinks are known, got "
            f"{mlp.final_activation!r}. In a list of layers it may be an Activation: [*layers, Activation(...)]."
        ) from error


def _maps_of(name: str, layer: eqx.nn.Linear) -> list[Affine]:
    """The map of a linear layer, or those of the stack of them that `MLP(scan=True)` holds."""
    if layer.weight.ndim == 2:
        return [Affine(f"{name}.weight", layer.weight, f"{name}.bias", layer.bias)]
    biases: list[Array | None] = [None] * len(layer.weight) if layer.bias is None else list(layer.bias)
    return [
        Affine(f"{name}.weight[{i}]", weight, f"{name}.bias[{i}]", bias)
        for i, (weight, bias) in enumerate(zip(layer.weight, biases, strict=True))
    ]


def _is_identity(mlp: eqx.nn.MLP) -> bool:
    size = None if mlp.out_size == "scalar" else mlp.out_size
    for probe in _PROBES:
        if size is None:
            value = mlp.final_activation(jnp.asarray(probe))
        else:
            value = eqx.filter_vmap(lambda function, x: function(x))(mlp.final_activation, jnp.full(size, probe))
        if not bool(jnp.all(value == probe)):
            return False
    return True

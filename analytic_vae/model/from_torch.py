"""Modules of PyTorch as networks, read by the names of their classes: torch is not imported."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._check import finite_array
from .activation import Activation
from .activation_names import TORCH, steps_of_activation, steps_of_function
from .network import Network, as_numbers, network_of
from .steps import Affine, Scaling, Slopes, Softmax, Step

_PASS = ("Dropout", "AlphaDropout", "FeatureAlphaDropout", "Dropout1d", "Flatten")

_REFUSED = {
    "LayerNorm": "divides by the spread of all coordinates, which is not linear",
    "RMSNorm": "divides by the size of all coordinates, which is not linear",
    "GroupNorm": "divides by the spread of several coordinates, which is not linear",
    "Bilinear": "is a product of two inputs",
    "MultiheadAttention": "is no function of sums of projections",
}


def from_torch(module: Any, *, layers: str = "dense", forget: str | None = None) -> Network:
    """A PyTorch `nn.Sequential`, an `nn.Linear`, or a list of modules as they are applied, as a `Network`.

    It is the function in evaluation (`module.eval()`): `BatchNorm1d` is folded by its running moments, `Dropout` is
    left out. A `Softmax` or `LogSoftmax` at the end is left out, too, so that the outputs are the logits. torch is not
    imported; arrays are copied.

    Arguments:
        module: of `Linear`, nested `Sequential`, `BatchNorm1d`, `Flatten`, `Dropout`, `Identity` and activations
            (`ReLU`, `LeakyReLU`, `PReLU`, `GELU`, `SiLU`, `ELU`, `Tanh`, `Sigmoid`, `Softplus`, ...). A
            class of your own says in its `forward` what follows what, which cannot be read: list its layers, in which
            names and `Activation`s may stand for functions: `[net.fc1, "relu", net.fc2]`.
        layers, forget: as in `from_weights`.

    Raises `ValueError` that names the module (`module[2]`) if it is neither affine nor elementwise or is of a class of
    its own, `TypeError` if `module` is nothing of torch.

    >>> network = from_torch([net.fc1, "relu", net.fc2])
    """
    if not (isinstance(module, list | tuple) or hasattr(module, "state_dict")) or isinstance(module, str):
        raise TypeError(
            f"module: expected a torch.nn.Sequential or a list of modules, got {type(module).__name__}; "
            "av.from_arrays takes a state_dict."
        )
    return network_of(_steps_of("module", module), layers=layers, forget=forget)


def _steps_of(name: str, module: Any) -> list[Step]:
    """The steps of a module that is called so in messages."""
    if getattr(module, "_forward_hooks", None) or getattr(module, "_forward_pre_hooks", None):
        if not hasattr(module, "weight_g") and not hasattr(module, "weight_orig"):  # those have a message of their own
            raise ValueError(
                f"{name}: expected a module without hooks, which may change what it computes; remove them."
            )
    if isinstance(module, str | Activation):
        return steps_of_function(name, module)
    kind = "Sequential" if isinstance(module, Sequence) else _kind(name, module)
    if kind == "Sequential":
        return [step for i, part in enumerate(module) for step in _steps_of(f"{name}[{i}]", part)]
    if kind in ("Linear", "Conv1D"):
        return [_linear(name, kind, module)]
    if kind == "BatchNorm1d":
        return [_batch_norm(name, module)]
    if kind == "PReLU":
        slopes = _numbers(f"{name}.weight", module.weight)
        if slopes.size > 1:
            return [Slopes(f"{name}.weight", slopes)]
        return steps_of_activation(name, "leaky_relu", slope=float(slopes.reshape(())))
    if kind in ("Softmax", "LogSoftmax"):
        return [Softmax(name)]
    if kind in _PASS:
        return []
    ours, parameters = TORCH[kind]
    found = {key: getattr(module, attribute) for key, attribute in parameters.items() if hasattr(module, attribute)}
    return steps_of_activation(name, ours, **found)


def _kind(name: str, module: Any) -> str:
    """The name of the class of torch that a module is of, or inherits its `forward` from."""
    own = type(module)
    for base in own.__mro__:
        kind = base.__name__
        if not base.__module__.startswith(("torch.nn.", "transformers.")):
            continue
        if kind in _REFUSED:
            raise ValueError(f"{name}: expected affine maps and elementwise functions, but {kind} {_REFUSED[kind]}.")
        if kind in {"Sequential", "Linear", "Conv1D", "BatchNorm1d", "PReLU", "Softmax", "LogSoftmax", *_PASS, *TORCH}:
            if getattr(own, "forward", None) is getattr(base, "forward", None):
                return kind
            break  # a class that does something else with the same arrays
    raise ValueError(
        f"{name}: expected Linear, BatchNorm1d, Sequential, an activation or the like, got a module of class "
        f"{own.__name__}, whose forward cannot be read. Pass a list of its layers in the order in which they are "
        'applied: av.from_torch([net.fc1, "relu", net.fc2]).'
    )


def _linear(name: str, kind: str, module: Any) -> Affine:
    if hasattr(module, "weight_g"):  # the weight is only computed when the module is called
        raise ValueError(f"{name}: expected a plain Linear; call torch.nn.utils.remove_weight_norm on it first.")
    if hasattr(module, "weight_orig"):
        raise ValueError(
            f"{name}: expected a plain Linear; call torch.nn.utils.prune.remove(module, 'weight') (or "
            "remove_spectral_norm) on it first."
        )
    weight = _numbers(f"{name}.weight", module.weight)
    bias = None if getattr(module, "bias", None) is None else _numbers(f"{name}.bias", module.bias)
    # transformers' Conv1D has [in, out]
    return Affine(f"{name}.weight", weight.T if kind == "Conv1D" else weight, f"{name}.bias", bias)


def _batch_norm(name: str, module: Any) -> Scaling:
    """`(x - running_mean) / sqrt(running_var + eps) weight + bias`."""
    if module.running_mean is None or module.running_var is None:
        raise ValueError(f"{name}: expected a BatchNorm1d with running moments, got one that normalises each batch.")
    mean, variance = (_numbers(f"{name}.{key}", getattr(module, key)) for key in ("running_mean", "running_var"))
    scale = 1 / np.sqrt(variance.astype(np.float64) + module.eps)
    if getattr(module, "weight", None) is not None:
        scale = scale * _numbers(f"{name}.weight", module.weight)
    shift = 0.0 if getattr(module, "bias", None) is None else _numbers(f"{name}.bias", module.bias)
    return Scaling(name, scale, shift - scale * mean)


def _numbers(name: str, tensor: Any) -> np.ndarray:
    try:
        return finite_array(name, np.array(as_numbers(tensor)))
    except (TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{name}: expected a tensor of numbers, got {type(tensor).__name__}: {error}") from error

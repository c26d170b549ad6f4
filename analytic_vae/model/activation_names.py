"""What frameworks call their activations: names and parameters to steps of a network."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .activation import ACTIVATIONS, Activation, get_activation
from .steps import Bend, Scaling, Step

# Classes of torch.nn: our name, and what that class calls each parameter of `steps_of_activation`.
TORCH: dict[str, tuple[str, dict[str, str]]] = {
    "ReLU": ("relu", {}),
    "LeakyReLU": ("leaky_relu", {"slope": "negative_slope"}),
    "GELU": ("gelu", {"approximate": "approximate"}),
    "SiLU": ("silu", {}),
    "ELU": ("elu", {"alpha": "alpha"}),
    "CELU": ("celu", {"alpha": "alpha"}),
    "SELU": ("selu", {}),
    "ReLU6": ("relu6", {}),
    "Hardtanh": ("hardtanh", {"low": "min_val", "high": "max_val"}),
    "Hardsigmoid": ("hard_sigmoid", {}),
    "Hardswish": ("hard_swish", {}),
    "Mish": ("mish", {}),
    "Softsign": ("softsign", {}),
    "Softplus": ("softplus", {"beta": "beta", "threshold": "threshold"}),
    "Tanh": ("tanh", {}),
    "Sigmoid": ("sigmoid", {}),
    "Identity": ("identity", {}),
    # transformers wraps its own
    "NewGELUActivation": ("gelu_tanh", {}),
    "GELUTanh": ("gelu_tanh", {}),
    "QuickGELUActivation": ("quick_gelu", {}),
    "GELUActivation": ("gelu", {}),
    "SiLUActivation": ("silu", {}),
}

# Operators of ONNX: our name, and for each parameter the attribute and its value where the node has none.
ONNX: dict[str, tuple[str, dict[str, tuple[str, Any]]]] = {
    "Relu": ("relu", {}),
    "LeakyRelu": ("leaky_relu", {"slope": ("alpha", 0.01)}),
    "Gelu": ("gelu", {"approximate": ("approximate", "none")}),
    "Swish": ("silu", {"alpha": ("alpha", 1.0)}),
    "Elu": ("elu", {"alpha": ("alpha", 1.0)}),
    "Celu": ("celu", {"alpha": ("alpha", 1.0)}),
    "Selu": ("selu", {"alpha": ("alpha", 1.6732632423543772), "gamma": ("gamma", 1.0507009873554805)}),
    "HardSigmoid": ("hard_sigmoid", {"slope": ("alpha", 0.2), "offset": ("beta", 0.5)}),
    "HardSwish": ("hard_swish", {}),
    "Mish": ("mish", {}),
    "Softsign": ("softsign", {}),
    "Softplus": ("softplus", {}),
    "Tanh": ("tanh", {}),
    "Sigmoid": ("sigmoid", {}),
    "Abs": ("abs", {}),
    "Identity": ("identity", {}),
}

# Functions of JAX, with their defaults.
JAX: dict[Callable, str] = {
    jax.nn.relu: "relu",
    jax.nn.leaky_relu: "leaky_relu",
    jax.nn.gelu: "gelu_tanh",  # its default is the tanh approximation; "gelu" is exact
    jax.nn.silu: "silu",
    jax.nn.elu: "elu",
    jax.nn.celu: "celu",
    jax.nn.selu: "selu",
    jax.nn.relu6: "relu6",
    jax.nn.hard_tanh: "hardtanh",
    jax.nn.hard_sigmoid: "hard_sigmoid",
    jax.nn.hard_silu: "hard_swish",
    jax.nn.mish: "mish",
    jax.nn.soft_sign: "softsign",
    jax.nn.sigmoid: "sigmoid",
    jax.nn.softplus: "softplus",
    jax.nn.identity: "identity",
    jnp.tanh: "tanh",
    jax.nn.tanh: "tanh",
    jnp.abs: "abs",
    jnp.square: "square",
}

# What `functools.partial` may set of them.
_JAX_PARAMETERS = {"negative_slope": "slope", "alpha": "alpha", "approximate": "approximate"}


def steps_of_activation(where: str, name: str, **parameters: Any) -> list[Step]:
    """The steps of an activation with its parameters, some of which are scalings about one without; none of identity.

    Raises `ValueError` that begins with `where` if there is no such activation here.
    """
    if parameters:
        if name not in _PARAMETRISED:
            raise ValueError(f"{where}: expected {name} without parameters, got {parameters}.")
        return _PARAMETRISED[name](where, **parameters)
    return [] if name == "identity" else [Bend(activation_named(where, name))]


def activation_named(where: str, name: str) -> Activation:
    """The activation of that name. Raises `ValueError` that begins with `where` if it is not known."""
    try:
        return get_activation(name)
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).removeprefix('activation: ')}") from error


def steps_of_function(where: str, function: Any) -> list[Step]:
    """The steps of a name, an `Activation`, a function of JAX or a `functools.partial` of one.

    Raises `ValueError` for any other function: its kinks are not known.
    """
    if isinstance(function, str):
        return steps_of_activation(where, function)
    if isinstance(function, Activation):
        return [Bend(function)]
    inner, keywords = function, {}
    if isinstance(function, partial) and not function.args and set(function.keywords) <= set(_JAX_PARAMETERS):
        inner, keywords = function.func, {_JAX_PARAMETERS[key]: value for key, value in function.keywords.items()}
    # By identity: an activation with parameters (PReLU) need not be hashable.
    for known, name in JAX.items():
        if inner is known:
            if name == "gelu_tanh" and "approximate" in keywords:
                name, keywords = "gelu", {"approximate": "tanh" if keywords["approximate"] else "none"}
            return steps_of_activation(where, name, **keywords)
    known_ones = ", ".join(sorted(set(JAX.values())))
    raise ValueError(
        f"{where}: expected a function whose kinks are known ({known_ones}), got {function!r}. "
        "Pass activation= a name or an Activation(function, kinks), which declares its kinks."
    )


def _leaky(where: str, slope: float) -> list[Step]:
    slope = float(slope)
    return [Bend(get_activation("leaky_relu" if round(slope, 9) == 0.01 else f"leaky_relu({slope!r})"))]


def _elu(where: str, alpha: float) -> list[Step]:
    return [Bend(activation_named(where, "elu" if float(alpha) == 1 else f"elu({float(alpha)!r})"))]


def _silu(where: str, alpha: float) -> list[Step]:
    """`b sigmoid(alpha b)`."""
    if not alpha > 0:
        raise ValueError(f"{where}: expected an alpha above 0, got {alpha}.")
    return _about(alpha, 0.0, [Bend(activation_named(where, "silu"))], 1 / alpha, 0.0)


def _celu(where: str, alpha: float) -> list[Step]:
    return [Bend(activation_named(where, "celu" if float(alpha) == 1 else f"celu({float(alpha)!r})"))]


def _softplus(where: str, beta: float = 1.0, threshold: float = 20.0) -> list[Step]:
    """`softplus(beta b) / beta`; torch leaves out what is below `e^-threshold`."""
    if threshold < 15:
        raise ValueError(f"{where}: expected a threshold of 15 or more, got {threshold}.")
    return [Bend(activation_named(where, "softplus" if float(beta) == 1 else f"softplus({float(beta)!r})"))]


def _hardtanh(where: str, low: float, high: float) -> list[Step]:
    """`clip(b, low, high)`."""
    middle, half = (low + high) / 2, (high - low) / 2
    if not 0 < half < float("inf"):
        raise ValueError(f"{where}: expected a finite interval, got [{low}, {high}].")
    return _about(1 / half, -middle / half, [Bend(activation_named(where, "hardtanh"))], half, middle)


def _hard_sigmoid(where: str, slope: float, offset: float) -> list[Step]:
    """`clip(slope b + offset, 0, 1)`; ours has 1/6 and 1/2."""
    return _about(6 * slope, 6 * offset - 3, [Bend(activation_named(where, "hard_sigmoid"))], 1.0, 0.0)


def _gelu(where: str, approximate: str | bool) -> list[Step]:
    return [Bend(activation_named(where, "gelu_tanh" if approximate in (True, "tanh") else "gelu"))]


def _selu(where: str, alpha: float, gamma: float) -> list[Step]:
    """`gamma elu(b)` of another alpha."""
    usual = abs(alpha - 1.6732632423543772) < 1e-6 and abs(gamma - 1.0507009873554805) < 1e-6
    return [Bend(ACTIVATIONS["selu"])] if usual else _about(1.0, 0.0, _elu(where, alpha), float(gamma), 0.0)


def _about(scale: float, shift: float, inner: list[Step], outer: float, level: float) -> list[Step]:
    """`outer psi(scale b + shift) + level`."""
    before = [] if (scale, shift) == (1.0, 0.0) else [Scaling("a scaled activation", scale, shift)]
    after = [] if (outer, level) == (1.0, 0.0) else [Scaling("a scaled activation", outer, level)]
    return [*before, *inner, *after]


_PARAMETRISED: dict[str, Callable[..., list[Step]]] = {
    "leaky_relu": _leaky,
    "elu": _elu,
    "celu": _celu,
    "softplus": _softplus,
    "hardtanh": _hardtanh,
    "hard_sigmoid": _hard_sigmoid,
    "gelu": _gelu,
    "selu": _selu,
    "silu": _silu,
}

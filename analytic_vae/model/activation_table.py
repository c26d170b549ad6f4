"""The activations that have a name: one row each, of a function, its kinks, and what else is known of it."""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..types import Array
from .analyticity import (
    GELU,
    GELU_TANH,
    MISH,
    SIGMOID,
    SILU,
    SOFTPLUS,
    SQUARE,
    TANH,
    Regularity,
    linear,
    scaled,
)


class Row(NamedTuple):
    """What `Activation` takes, less the name; the documentation is there."""

    function: Callable[[Array], Array]
    kinks: tuple[float, ...] = ()
    regularity: Regularity | None = None
    turns: tuple[float, ...] = ()
    breaks: tuple[float, ...] = ()


_AWAY = (1.0, 2.0, 4.0, 8.0, 18.0)

_BENDS = (*(-b for b in _AWAY), 0.0, *_AWAY)  # of tanh, whose scale is 1

_FALLS = tuple(-b for b in _AWAY)  # of e^b below 0

_SLOW = (-100.0, -30.0, -10.0, -3.0, -1.0, 1.0, 3.0, 10.0, 30.0, 100.0)  # of a function that falls as 1 / b

_NORMAL = (-5.0, -2.5, 0.0, 2.5, 5.0)

_SILU_TURN = -1.2784645427610738

_QUICK = 1.702


def _times(factor: float, places: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(factor * place for place in places)


class _With(NamedTuple):
    """A function of b and a number, as one of b; equal ones are equal, so that programs are shared."""

    function: Callable[[Array, float], Array]
    number: float
    kinks: tuple[float, ...]

    def __call__(self, b: Array) -> Array:
        return self.function(b, self.number)


def identity(b: Array) -> Array:
    """`b`."""
    return b


def _gelu(b: Array) -> Array:
    return jax.nn.gelu(b, approximate=False)


def _gelu_tanh(b: Array) -> Array:
    return jax.nn.gelu(b, approximate=True)


def _quick_gelu(b: Array) -> Array:
    return b * jax.nn.sigmoid(_QUICK * b)


def _step(b: Array) -> Array:
    return jnp.where(b > 0, jnp.ones_like(b), jnp.zeros_like(b))


def _softplus(b: Array, beta: float) -> Array:
    return jax.nn.softplus(beta * b) / beta


ROWS: dict[str, Row] = {
    "identity": Row(identity, regularity=linear(1.0, ())),
    "relu": Row(jax.nn.relu, (0.0,), linear(1.0, (1.0,))),
    "relu6": Row(jax.nn.relu6, (0.0, 6.0), linear(1.0, (1.0, -1.0))),
    "hardtanh": Row(jax.nn.hard_tanh, (-1.0, 1.0), linear(1.0, (1.0, -1.0))),
    "hard_sigmoid": Row(jax.nn.hard_sigmoid, (-3.0, 3.0), linear(1 / 6, (1 / 6, -1 / 6), 0.5)),
    "abs": Row(jnp.abs, (0.0,), linear(1.0, (2.0,)), (0.0,)),
    "gelu": Row(_gelu, (), GELU, (-0.7517915246935644,), _NORMAL),
    "gelu_tanh": Row(_gelu_tanh, (), GELU_TANH, (-0.7524614220710163,), _NORMAL),
    "quick_gelu": Row(_quick_gelu, (), scaled(SILU, _QUICK), (_SILU_TURN / _QUICK,), _times(2 / _QUICK, _BENDS)),
    "silu": Row(jax.nn.silu, (), SILU, (_SILU_TURN,), _times(2, _BENDS)),
    "mish": Row(jax.nn.mish, (), MISH, (-1.1924312145154955,), _times(2, _BENDS)),
    "sigmoid": Row(jax.nn.sigmoid, (), SIGMOID, (), _times(2, _BENDS)),
    "tanh": Row(jnp.tanh, (), TANH, (), _BENDS),
    "square": Row(jnp.square, (), SQUARE, (0.0,)),
    # Without bounds: neither analytic nor linear between their kinks.
    "selu": Row(jax.nn.selu, (0.0,), breaks=_FALLS),
    "hard_swish": Row(jax.nn.hard_swish, (-3.0, 3.0), turns=(-1.5,)),
    "softsign": Row(jax.nn.soft_sign, (0.0,), breaks=_SLOW),
    "step": Row(_step, (0.0,)),
}


def _leaky_relu(slope: float = 0.01) -> Row:
    function = jax.nn.leaky_relu if slope == 0.01 else _With(jax.nn.leaky_relu, slope, (0.0,))
    return Row(function, (0.0,), linear(max(1.0, abs(slope)), (1 - slope,)), (0.0,) if slope < 0 else ())


def _elu(alpha: float = 1.0) -> Row:
    return Row(_With(jax.nn.elu, alpha, (0.0,)), (0.0,), breaks=_FALLS)


def _celu(alpha: float = 1.0) -> Row:
    return Row(_With(jax.nn.celu, alpha, (0.0,)), (0.0,), breaks=_times(alpha, _FALLS))


def _soft(beta: float = 1.0) -> Row:
    function = jax.nn.softplus if beta == 1 else _With(_softplus, beta, ())
    return Row(function, (), scaled(SOFTPLUS, beta), (), _times(2 / beta, _BENDS))


def known_kinks(function: Callable) -> tuple[float, ...] | None:
    """Those of a function that is in a row here, or of its residual; None of any other."""
    inner = function if isinstance(function, _With) else getattr(function, "function", function)
    if isinstance(inner, _With):
        return inner.kinks
    return next((row.kinks for row in ROWS.values() if row.function is inner), None)


# Those with a number, its name, and the least that it may be.
FAMILIES: dict[str, tuple[Callable[..., Row], str, float]] = {
    "leaky_relu": (_leaky_relu, "slope", -float("inf")),
    "elu": (_elu, "alpha", 0.0),
    "celu": (_celu, "alpha", 0.0),
    "softplus": (_soft, "beta", 0.0),
}

ALIASES = {
    "swish": "silu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "logistic": "sigmoid",
    "linear": "identity", "hard_tanh": "hardtanh", "hardsigmoid": "hard_sigmoid", "hardswish": "hard_swish",
    "hard_silu": "hard_swish", "soft_sign": "softsign",
}  # fmt: skip


def row_of(name: str) -> tuple[str, Row] | None:
    """Name and row of `relu`, or of `leaky_relu(0.2)`; None for an unknown name.

    Raises `ValueError` for a number that does not fit.
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", name)
    if match is None:
        return None
    base, given = ALIASES.get(match[1], match[1]), match[2]
    if given is None and base in FAMILIES:
        return base, FAMILIES[base][0]()
    if base in ROWS and given is None:
        return base, ROWS[base]
    if base not in FAMILIES:
        return None
    make, parameter, least = FAMILIES[base]
    try:
        value = float(given)
    except ValueError:
        value = float("nan")
    if not least < value < float("inf"):
        expected = "a finite number" if least < 0 else f"a finite number above {least:g}"
        raise ValueError(f"activation: expected {expected} as {parameter} of {base}, got {name!r}.")
    return f"{base}({value!r})", make(value)

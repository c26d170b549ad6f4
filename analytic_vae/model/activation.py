"""Activations and their kinks."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from .._check import require_instance
from ..types import Array, Scalar
from .analyticity import (
    Regularity,
    _farthest,
    _gelu_slope,
    _linear,
    _sigmoid_slope,
    _sigmoid_sup,
    _softplus_sup,
    _tanh_slope,
    _tanh_sup,
)


class Activation(eqx.Module):
    """An elementwise function with the points where it or a derivative jumps.

    Arguments:
        function: maps an array to an array of the same shape, elementwise; traceable by JAX.
        kinks: the points (floats) between which the function is smooth. ReLU: `(0.0,)`.
        name: how the activation is called in reports and files.
        regularity: what bounds of errors need; without it there are estimates only.
        turns: the points between which the function rises or falls, kinks included; found on a grid if not given.
        breaks: further points at which quadrature had better be split: about where the function bends.

    >>> hinge = Activation(lambda b: jnp.clip(b, -1, 1), kinks=(-1.0, 1.0), name="hard tanh")
    """

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    function: Callable[[Array], Array] = eqx.field(static=True)
    kinks: tuple[float, ...] = eqx.field(static=True)
    name: str = eqx.field(static=True)
    regularity: Regularity | None = eqx.field(static=True)
    turns: tuple[float, ...] | None = eqx.field(static=True)
    breaks: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[[Array], Array],
        kinks: tuple[float, ...] = (),
        name: str | None = None,
        regularity: Regularity | None = None,
        turns: tuple[float, ...] | None = None,
        breaks: tuple[float, ...] = (),
    ):
        if not callable(function):
            raise TypeError(f"function: expected a callable, got {type(function).__name__}.")
        self.function = function
        self.kinks = tuple(sorted(float(kink) for kink in kinks))
        self.name = name or getattr(function, "__name__", "activation")
        self.regularity = regularity
        self.turns = None if turns is None else tuple(sorted({*map(float, turns), *self.kinks}))
        self.breaks = tuple(sorted(map(float, breaks)))
        if not all(abs(kink) < float("inf") for kink in self.kinks):
            raise ValueError(f"kinks: expected finite numbers, got {self.kinks}.")
        if regularity is not None and len(regularity.jumps) != len(self.kinks):
            raise ValueError(
                f"regularity: expected {len(self.kinks)} jumps, one for each kink, got {len(regularity.jumps)}."
            )

    def __call__(self, b: Array) -> Array:
        return self.function(b)

    @property
    def piecewise_linear(self) -> bool:
        """Whether its regularity says that it is linear between its kinks; the identity is, too."""
        return self.function is _identity or bool(self.regularity and self.regularity.jumps)


def _identity(b: Array) -> Array:
    return b


def _gelu(b: Array) -> Array:
    return jax.nn.gelu(b, approximate=False)


_AWAY = (1.0, 2.0, 4.0, 8.0, 18.0)

_BENDS = (*(-b for b in _AWAY), 0.0, *_AWAY)  # of tanh, whose scale is 1

ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation(jax.nn.relu, (0.0,), "relu", _linear(1.0, (1.0,)), ()),
        Activation(jax.nn.leaky_relu, (0.0,), "leaky_relu", _linear(1.0, (0.99,)), ()),
        # |z Phi(z)| and |Phi(z) + z phi(z)|, with |Phi(b + iv)| <= e^(v^2 / 2) Phi(b)
        Activation(
            _gelu,
            (),
            "gelu",
            Regularity(lambda low, high, width: jnp.exp(width**2 / 2) * _farthest(low, high, width), _gelu_slope),
            (-0.7517915246935644,),
            (-5.0, -2.5, 0.0, 2.5, 5.0),
        ),
        Activation(
            jax.nn.sigmoid, (), "sigmoid", Regularity(_sigmoid_sup, _sigmoid_slope), (), tuple(2 * b for b in _BENDS)
        ),
        Activation(jnp.tanh, (), "tanh", Regularity(_tanh_sup, _tanh_slope), (), _BENDS),
        Activation(
            jax.nn.softplus,
            (),
            "softplus",
            Regularity(_softplus_sup, lambda width: _sigmoid_sup(0, 0, width)),
            (),
            tuple(2 * b for b in _BENDS),
        ),
        Activation(_identity, (), "identity", _linear(1.0, ()), ()),
    )
}


def get_activation(activation: "str | Activation") -> Activation:
    """The activation of that name, or the `Activation` itself.

    A bare callable is refused: its kinks are not known, and a kink that is not declared costs accuracy silently.
    Raises `ValueError` for an unknown name.
    """
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(sorted(ACTIVATIONS))}, got {activation!r}.")
        return ACTIVATIONS[activation]
    require_instance(
        "activation", activation, Activation, "a name or an Activation(function, kinks), which declares its kinks"
    )
    return activation


def residual(activation: "str | Activation") -> Activation:
    """`b -> psi(b) - b`: what must be added to a neuron that holds `b` so that it holds `psi(b)`."""
    activation = get_activation(activation)
    regularity = activation.regularity
    if regularity is not None:
        regularity = Regularity(_ResidualSup(regularity.sup), _ResidualSlope(regularity.slope), regularity.jumps)
    falls = activation is not ACTIVATIONS["gelu"] and activation in ACTIVATIONS.values()  # slopes of at most 1
    turns = () if falls else None
    name = f"{activation.name} - identity"
    return Activation(_Residual(activation.function), activation.kinks, name, regularity, turns, activation.breaks)


class _Residual(eqx.Module):
    function: Callable[[Array], Array] = eqx.field(static=True)

    def __call__(self, b: Array) -> Array:
        return self.function(b) - b


class _ResidualSup(eqx.Module):
    sup: Callable = eqx.field(static=True)

    def __call__(self, low: Scalar, high: Scalar, width: Scalar) -> Scalar:
        return self.sup(low, high, width) + _farthest(low, high, width)


class _ResidualSlope(eqx.Module):
    slope: Callable = eqx.field(static=True)

    def __call__(self, width: Scalar) -> Scalar:
        return self.slope(width) + 1

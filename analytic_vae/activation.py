"""Activations and their kinks: where a function is not smooth, quadrature must be split."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from ._check import require_instance
from .types import Array


class Activation(eqx.Module):
    """An elementwise function with the points where it or a derivative jumps.

    Arguments:
        function: maps an array to an array of the same shape, elementwise; traceable by JAX.
        kinks: the points (floats) between which the function is smooth. ReLU: `(0.0,)`.
        name: how the activation is called in reports and files.

    >>> hinge = Activation(lambda b: jnp.clip(b, -1, 1), kinks=(-1.0, 1.0), name="hard tanh")
    """

    function: Callable[[Array], Array] = eqx.field(static=True)
    kinks: tuple[float, ...] = eqx.field(static=True)
    name: str = eqx.field(static=True)

    def __init__(self, function: Callable[[Array], Array], kinks: tuple[float, ...] = (), name: str | None = None):
        if not callable(function):
            raise TypeError(f"function: expected a callable, got {type(function).__name__}.")
        self.function = function
        self.kinks = tuple(sorted(float(kink) for kink in kinks))
        self.name = name or getattr(function, "__name__", "activation")
        if not all(abs(kink) < float("inf") for kink in self.kinks):
            raise ValueError(f"kinks: expected finite numbers, got {self.kinks}.")

    def __call__(self, b: Array) -> Array:
        return self.function(b)


def _identity(b: Array) -> Array:
    return b


def _gelu(b: Array) -> Array:
    return jax.nn.gelu(b, approximate=False)


ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation(jax.nn.relu, (0.0,), "relu"),
        Activation(jax.nn.leaky_relu, (0.0,), "leaky_relu"),
        Activation(_gelu, (), "gelu"),
        Activation(jax.nn.sigmoid, (), "sigmoid"),
        Activation(jnp.tanh, (), "tanh"),
        Activation(jax.nn.softplus, (), "softplus"),
        Activation(_identity, (), "identity"),
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
    return Activation(_Residual(activation.function), activation.kinks, f"{activation.name} - identity")


class _Residual(eqx.Module):
    function: Callable[[Array], Array] = eqx.field(static=True)

    def __call__(self, b: Array) -> Array:
        return self.function(b) - b

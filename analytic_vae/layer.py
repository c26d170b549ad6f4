"""Layers: a linear map, a linear map with one non-linear direction, and networks of them."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp

from ._check import as_floating, require_finite, require_instance, require_shape
from .activation import Activation, get_activation
from .types import Array, ArrayLike, Float, Scalar


class RidgeForm(NamedTuple):
    """What the engine sees of a layer: `f(x) = linear x + offset + output psi(<direction, x> + bias)`.

    `direction: [n1]` lives in the input space; `direction_size` are the sizes that it was summed from, for they may
    cancel. For a linear layer `activation` is None and the ridge parts are zero.
    """

    linear: Float[Array, "n2 n1"]
    offset: Float[Array, " n2"]
    output: Float[Array, " n2"]
    direction: Float[Array, " n1"]
    direction_size: Float[Array, " n1"]
    bias: Scalar
    activation: Activation | None

    def mapped(self, x: Float[Array, "n1 *s"], psi: Float[Array, "*s"]) -> Float[Array, "n2 *s"]:
        """`linear x + output psi`: from covariances of `x` and of `psi` with anything to those of `f`."""
        return self.linear @ x + jnp.tensordot(self.output, psi, axes=0)


class AbstractLayer(eqx.Module):
    """A function of one layer's activations that the engine can follow exactly."""

    @property
    def inputs(self) -> int:
        """`n1`."""
        raise NotImplementedError

    @property
    def outputs(self) -> int:
        """`n2`."""
        raise NotImplementedError

    def form(self) -> RidgeForm:
        """The layer as a map with at most one non-linear direction."""
        raise NotImplementedError

    def __call__(self, x: Float[Array, " n1"]) -> Float[Array, " n2"]:
        raise NotImplementedError


class LinearLayer(AbstractLayer):
    """`f(x) = W x + b`. Its pushforward of a feature model is exactly a feature model.

    Arguments:
        weight: `W: [n2, n1]`.
        bias: `[n2]`; zero if not given.

    Raises `ValueError` that names the argument if a shape does not fit or a number is not finite.
    """

    weight: Float[Array, "n2 n1"]
    bias: Float[Array, " n2"]

    def __init__(self, weight: ArrayLike, bias: ArrayLike | None = None):
        (weight,) = as_floating(weight=weight)
        require_shape("weight", weight, (None, None), "outputs, inputs")
        bias = jnp.zeros(weight.shape[0], weight.dtype) if bias is None else bias
        self.weight, self.bias = as_floating(weight=weight, bias=bias)
        require_shape("bias", self.bias, (weight.shape[0],), "outputs of the weight")
        require_finite("weight", self.weight)
        require_finite("bias", self.bias)

    @property
    def inputs(self) -> int:
        return self.weight.shape[1]

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    def form(self) -> RidgeForm:
        zeros = jnp.zeros_like(self.weight[0])
        return RidgeForm(self.weight, self.bias, jnp.zeros_like(self.bias), zeros, zeros, zeros[0], None)

    def __call__(self, x: Float[Array, " n1"]) -> Float[Array, " n2"]:
        return self.weight @ x + self.bias


class RidgeLayer(AbstractLayer):
    """`f(x) = A x + w psi(<u, A x> + b)`: a linear map with one non-linear direction.

    Arguments:
        linear: `A: [n2, n1]`.
        output: `w: [n2]`, where the non-linearity goes.
        direction: `u: [n2]`, what it reads of `A x`.
        bias: `b`, a scalar added before the non-linearity.
        activation: `psi`: a name (`relu`, `leaky_relu`, `gelu`, `sigmoid`, `tanh`, `softplus`, `identity`) or an
            `Activation(function, kinks)`.

    Raises `ValueError` that names the argument if a shape does not fit, a number is not finite, or the activation
    is unknown.

    Source: equation (1) of "Analytically Learning Variational Auto-Encoders" (whose (9) swaps `u` and `w`).
    """

    linear: Float[Array, "n2 n1"]
    output: Float[Array, " n2"]
    direction: Float[Array, " n2"]
    bias: Scalar
    activation: Activation

    def __init__(
        self,
        linear: ArrayLike,
        output: ArrayLike,
        direction: ArrayLike,
        bias: ArrayLike = 0.0,
        activation: str | Activation = "relu",
    ):
        self.linear, self.output, self.direction, self.bias = as_floating(
            linear=linear, output=output, direction=direction, bias=bias
        )
        require_shape("linear", self.linear, (None, None), "outputs, inputs")
        require_shape("output", self.output, self.linear.shape[:1], "outputs of linear")
        require_shape("direction", self.direction, self.linear.shape[:1], "outputs of linear")
        require_shape("bias", self.bias, (), "a scalar")
        for name in ("linear", "output", "direction", "bias"):
            require_finite(name, getattr(self, name))
        self.activation = get_activation(activation)

    @property
    def inputs(self) -> int:
        return self.linear.shape[1]

    @property
    def outputs(self) -> int:
        return self.linear.shape[0]

    def form(self) -> RidgeForm:
        offset = jnp.zeros_like(self.output)
        direction, size = self.direction @ self.linear, jnp.abs(self.direction) @ jnp.abs(self.linear)
        return RidgeForm(self.linear, offset, self.output, direction, size, self.bias, self.activation)

    def __call__(self, x: Float[Array, " n1"]) -> Float[Array, " n2"]:
        remembered = self.linear @ x
        return remembered + self.output * self.activation(self.direction @ remembered + self.bias)


class Network(eqx.Module):
    """Layers applied one after another.

    Arguments:
        layers: a sequence of layers; the inputs of each must be the outputs of the one before.

    Raises `ValueError` if it is empty or two neighbours do not fit, `TypeError` if an entry is no layer.
    """

    layers: tuple[AbstractLayer, ...]

    def __init__(self, layers):
        self.layers = tuple(layers)
        if not self.layers:
            raise ValueError("layers: expected at least one layer, got none.")
        for index, layer in enumerate(self.layers):
            require_instance(f"layers[{index}]", layer, AbstractLayer, "a LinearLayer or a RidgeLayer")
        for index, (before, after) in enumerate(zip(self.layers[:-1], self.layers[1:], strict=True)):
            if before.outputs != after.inputs:
                raise ValueError(
                    f"layers[{index + 1}]: expected {before.outputs} inputs, as many as the outputs of "
                    f"layers[{index}], got {after.inputs}."
                )

    @property
    def inputs(self) -> int:
        """Neurons before the first layer."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Neurons after the last layer."""
        return self.layers[-1].outputs

    def __call__(self, x: Float[Array, " n_in"]) -> Float[Array, " n_out"]:
        for layer in self.layers:
            x = layer(x)
        return x

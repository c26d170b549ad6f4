"""Layers: a linear map, and one with one non-linear direction."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._check import as_floating, as_input, require_finite, require_shape
from .._repr import short_repr
from ..types import Array, ArrayLike, Float, Scalar
from .activation import Activation, get_activation
from .layer_forms import LayerForm, RidgeForm


class AbstractLayer(eqx.Module):
    """A function of one layer's activations that the engine can follow exactly."""

    __repr__ = short_repr

    @property
    def inputs(self) -> int:
        """`n1`."""
        raise NotImplementedError

    @property
    def outputs(self) -> int:
        """`n2`."""
        raise NotImplementedError

    activations: eqx.AbstractVar[tuple[Activation, ...]]  # the distinct ones of its units
    activation_index: eqx.AbstractVar[tuple[int, ...]]  # for each unit that of its own

    @property
    def units(self) -> int:
        """`h`: none of a linear layer, one of a ridge layer."""
        return len(self.activation_index)

    @property
    def reads_input(self) -> bool:
        """Whether encoders of this layer's output read its input, and not the output itself."""
        return False

    @property
    def has_linear_part(self) -> bool:
        """Whether anything goes past the units."""
        return True

    def form(self) -> LayerForm:
        """The layer as arrays."""
        raise NotImplementedError

    def read_form(self) -> RidgeForm:
        """What encoders read, as a function of the input."""
        raise NotImplementedError

    def involved(self, readout: Float[Array, "D n2"], most: int) -> "AbstractLayer":
        """The layer with those units alone that projections of its output involve: `most` at most."""
        del readout, most
        return self

    def about(self, mean: np.ndarray) -> "tuple[AbstractLayer, np.ndarray] | None":
        """`f(mean + x) - by` as a layer of x, and `by`, in double precision; None if nobody knows."""
        del mean
        return None

    def __call__(self, x: Float[Array, " n1"]) -> Float[Array, " n2"]:
        """`f(x)` of one vector; for a batch use `jax.vmap`. Raises `ValueError` if `x` has another shape."""
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
    def activations(self) -> tuple[Activation, ...]:
        return ()

    @property
    def activation_index(self) -> tuple[int, ...]:
        return ()

    @property
    def inputs(self) -> int:
        return self.weight.shape[1]

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    def form(self) -> LayerForm:
        none = jnp.zeros_like(self.weight[:0])
        return LayerForm(self.weight, self.bias, jnp.zeros_like(self.weight[:, :0]), none, none, none[:, 0])

    def read_form(self) -> RidgeForm:
        zeros = jnp.zeros_like(self.weight[0])
        return RidgeForm(self.weight, self.bias, jnp.zeros_like(self.bias), zeros, zeros, zeros[0], None)

    def about(self, mean):
        by = _exact(self.weight) @ mean + _exact(self.bias)
        return eqx.tree_at(lambda one: one.bias, self, jnp.zeros_like(self.bias)), by

    def __call__(self, x: Float[Array, " n1"]) -> Float[Array, " n2"]:
        return self.weight @ as_input(x, self.inputs, "inputs of the layer") + self.bias


class RidgeLayer(AbstractLayer):
    """`f(x) = A x + w psi(<u, A x> + b)`: a linear map with one non-linear direction.

    Arguments:
        linear: `A: [n2, n1]`.
        output: `w: [n2]`, where the non-linearity goes.
        direction: `u: [n2]`, what it reads of `A x`.
        bias: `b`, a scalar added before the non-linearity.
        activation: `psi`: a name (`relu`, `silu`, `leaky_relu(0.2)`, ...: see `Activation`) or an
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
    offset: Float[Array, " n2"] | None  # what the layer about another mean is moved by

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
        self.activation, self.offset = get_activation(activation), None

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (self.activation,)

    @property
    def activation_index(self) -> tuple[int, ...]:
        return (0,)

    @property
    def inputs(self) -> int:
        return self.linear.shape[1]

    @property
    def outputs(self) -> int:
        return self.linear.shape[0]

    def form(self) -> LayerForm:
        return self.read_form().units()

    def read_form(self) -> RidgeForm:
        offset = jnp.zeros_like(self.output) if self.offset is None else self.offset
        direction, size = self.direction @ self.linear, jnp.abs(self.direction) @ jnp.abs(self.linear)
        return RidgeForm(self.linear, offset, self.output, direction, size, self.bias, self.activation)

    def about(self, mean):
        if self.offset is not None:
            return None
        dtype, remembered = self.output.dtype, _exact(self.linear) @ mean
        argument = jnp.asarray(_exact(self.direction) @ remembered + _exact(self.bias), dtype)
        level = _exact(self.output) * float(self.activation(argument))
        where = lambda one: (one.bias, one.offset)  # noqa: E731
        inner = eqx.tree_at(where, self, (argument, -jnp.asarray(level, dtype)), is_leaf=lambda leaf: leaf is None)
        return inner, remembered + level

    def __call__(self, x: Float[Array, " n1"]) -> Float[Array, " n2"]:
        remembered = self.linear @ as_input(x, self.inputs, "inputs of the layer")
        y = remembered + self.output * self.activation(self.direction @ remembered + self.bias)
        return y if self.offset is None else y + self.offset


def _exact(array: Array) -> np.ndarray:
    return np.asarray(array, np.float64)

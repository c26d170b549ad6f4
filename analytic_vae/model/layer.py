"""Layers: a linear map, one with one non-linear direction, and full-width ones."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._check import as_floating, as_input, is_concrete, require_finite, require_shape
from ..types import Array, ArrayLike, Float, Scalar
from .activation import Activation, get_activation


class RidgeForm(NamedTuple):
    """What encoders read, as a function of the input: `linear x + offset + output psi(<direction, x> + bias)`.

    `direction: [n1]` lives in the input space; `direction_size` are the sizes that it was summed from, for they may
    cancel. Where nothing is bent `activation` is None and the ridge parts are zero.
    """

    linear: Float[Array, "n2 n1"]
    offset: Float[Array, " n2"]
    output: Float[Array, " n2"]
    direction: Float[Array, " n1"]
    direction_size: Float[Array, " n1"]
    bias: Scalar
    activation: Activation | None

    def units(self) -> "LayerForm":
        """The same with an axis of one unit."""
        weight = self.direction[None], self.direction_size[None]
        return LayerForm(self.linear, self.offset, self.output[:, None], *weight, self.bias[None])


class LayerForm(NamedTuple):
    """A layer of no, one or many units as arrays: `f(x) = linear x + offset + output psi(weight x + bias)`.

    `weight_size` are the sizes that `weight` was summed from.
    """

    linear: Float[Array, "n2 n1"]
    offset: Float[Array, " n2"]
    output: Float[Array, "n2 h"]
    weight: Float[Array, "h n1"]
    weight_size: Float[Array, "h n1"]
    bias: Float[Array, " h"]

    def mapped(self, x: Float[Array, "n1 *s"], psi: Float[Array, "h *s"]) -> Float[Array, "n2 *s"]:
        """`linear x + output psi`: from covariances of `x` and of `psi` with anything to those of `f`."""
        return self.linear @ x + self.output @ psi


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


class DenseLayer(AbstractLayer):
    """`f(x) = skip x + output psi(U x + c)`: a whole layer of `h` units, any of them non-linear.

    Arguments:
        weight: `U: [h, n1]`.
        bias: `c: [h]`; zero if not given.
        activation: `psi`: a name or an `Activation` for all units, or a sequence of `h` of them.
        output: `[n2, h]`, where the units go; the identity (`n2 = h`) if not given.
        skip: `[n2, n1]`, a linear map beside the units (a residual connection); none if not given.

    An encoder of its output reads its *input* `x`, or hands the input's features on (`CarriedEncoder`): the bound holds
    for any law of `z2` given what produced `x2`, and all units are then taken in one step.

    Raises `ValueError` that names the argument if a shape does not fit, a number is not finite, or an activation is
    unknown.

    Source: Jensen's inequality as in Theorem 3.1 of "Analytically Learning Variational Auto-Encoders", whose discussion
    (item 2) has one unit a step.

    >>> DenseLayer(jnp.eye(2), jnp.zeros(2), "relu")(jnp.array([-1.0, 2.0]))
    Array([0., 2.], dtype=...)
    """

    weight: Float[Array, "h n1"]
    bias: Float[Array, " h"]
    output: Float[Array, "n2 h"] | None
    skip: Float[Array, "n2 n1"] | None
    activations: tuple[Activation, ...]
    activation_index: tuple[int, ...] = eqx.field(static=True)  # of the distinct activations, for each unit

    def __init__(
        self,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        activation: str | Activation | Sequence[str | Activation] = "relu",
        output: ArrayLike | None = None,
        skip: ArrayLike | None = None,
    ):
        (weight,) = as_floating(weight=weight)
        require_shape("weight", weight, (None, None), "units, inputs")
        h, n1 = weight.shape
        given = {"weight": weight, "bias": jnp.zeros(h, weight.dtype) if bias is None else bias}
        given |= {name: a for name, a in (("output", output), ("skip", skip)) if a is not None}
        arrays = dict(zip(given, as_floating(**given), strict=True))
        self.weight, self.bias = arrays["weight"], arrays["bias"]
        self.output, self.skip = arrays.get("output"), arrays.get("skip")
        require_shape("bias", self.bias, (h,), "units of the weight")
        if self.output is not None:
            require_shape("output", self.output, (None, h), "outputs, units of the weight")
        if self.skip is not None:
            require_shape("skip", self.skip, (self.outputs, n1), "outputs, inputs of the weight")
        for name, array in arrays.items():
            require_finite(name, array)
        self.activations, self.activation_index = _distinct(activation, h)

    @property
    def units(self) -> int:
        return self.weight.shape[0]

    @property
    def reads_input(self) -> bool:
        return True

    @property
    def has_linear_part(self) -> bool:
        return self.skip is not None

    @property
    def inputs(self) -> int:
        return self.weight.shape[1]

    @property
    def outputs(self) -> int:
        return self.units if self.output is None else self.output.shape[0]

    def form(self) -> LayerForm:
        dtype = self.weight.dtype
        linear = jnp.zeros((self.outputs, self.inputs), dtype) if self.skip is None else self.skip
        output = jnp.eye(self.units, dtype=dtype) if self.output is None else self.output
        return LayerForm(linear, jnp.zeros(self.outputs, dtype), output, self.weight, jnp.abs(self.weight), self.bias)

    def read_form(self) -> RidgeForm:
        dtype, none = self.weight.dtype, jnp.zeros(self.inputs, self.weight.dtype)
        return RidgeForm(jnp.eye(self.inputs, dtype=dtype), none, none, none, none, jnp.zeros((), dtype), None)

    def about(self, mean):
        bias = jnp.asarray(_exact(self.bias) + _exact(self.weight) @ mean, self.bias.dtype)
        by = np.zeros(self.outputs) if self.skip is None else _exact(self.skip) @ mean
        return eqx.tree_at(lambda one: one.bias, self, bias), by

    def involved(self, readout: Float[Array, "D n2"], most: int) -> "DenseLayer":
        gain = readout if self.output is None else readout @ self.output
        if not is_concrete(gain):
            if self.units <= most:
                return self
            raise ValueError(
                f"readout: expected a concrete one, and a layer of a concrete output, which say what units of a "
                f"DenseLayer of {self.units} are involved, got traced ones; inside of jit and grad pass a layer of at "
                f"most {most} units (layer.of_units)."
            )
        units = np.flatnonzero(np.any(np.asarray(gain) != 0, axis=0))
        if units.size > most:
            raise ValueError(
                f"readout: expected projections that involve at most {most} units of a DenseLayer, got {units.size}; "
                "av.dense_moments has mean and covariance of all."
            )
        return self if units.size == self.units else self.of_units([int(i) for i in units] or [0])

    def one_unit(self, index: Array | int, s: Array) -> Array:
        """`psi` of the unit of that index, which may be traced."""
        if len(self.activations) == 1:
            return self.activations[0](s)
        return jax.lax.switch(jnp.asarray(self.activation_index)[index], self.activations, s)

    @property
    def kinks(self) -> tuple[float, ...]:
        """Where any of the activations is not smooth."""
        return tuple(sorted({kink for one in self.activations for kink in one.kinks}))

    def of_units(self, units: Sequence[int]) -> "DenseLayer":
        """The layer with these units alone."""
        index = jnp.asarray(units, int)
        output = self.form().output[:, index]
        chosen = [self.activations[self.activation_index[i]] for i in units]
        return DenseLayer(self.weight[index], self.bias[index], chosen, output, self.skip)

    def __call__(self, x: Float[Array, " n1"]) -> Float[Array, " n2"]:
        x = as_input(x, self.inputs, "inputs of the layer")
        s = self.weight @ x + self.bias
        psi = jnp.stack([one(s) for one in self.activations])[
            jnp.asarray(self.activation_index), jnp.arange(self.units)
        ]
        y = psi if self.output is None else self.output @ psi
        return y if self.skip is None else y + self.skip @ x


def _exact(array: Array) -> np.ndarray:
    return np.asarray(array, np.float64)


def _distinct(activation, units: int) -> tuple[tuple[Activation, ...], tuple[int, ...]]:
    """The distinct activations, and for each unit the index of its own."""
    if isinstance(activation, str | Activation) or not isinstance(activation, Sequence):
        return (get_activation(activation),), (0,) * units
    if len(activation) != units:
        raise ValueError(f"activation: expected one, or one for each of {units} units, got {len(activation)}.")
    found: list[Activation] = []
    activation_index = []
    for one in map(get_activation, activation):
        if one not in found:
            found.append(one)
        activation_index.append(found.index(one))
    return tuple(found), tuple(activation_index)

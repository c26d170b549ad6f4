"""Full-width layers: any number of units, each of them non-linear."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._check import as_floating, as_input, is_concrete, require_finite, require_shape
from ..types import Array, ArrayLike, Float
from .activation import Activation, get_activation
from .layer import AbstractLayer, _exact
from .layer_forms import LayerForm, RidgeForm


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

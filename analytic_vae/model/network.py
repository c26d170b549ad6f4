"""Networks of layers, and trained multi-layer perceptrons as such."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._check import as_floating, as_input, require_finite, require_instance, require_shape
from .._repr import short_repr
from ..types import Array, ArrayLike, Float
from .activation import Activation, get_activation, residual
from .dense_layer import DenseLayer
from .layer import AbstractLayer, LinearLayer, RidgeLayer


class Network(eqx.Module):
    """Layers applied one after another.

    Arguments:
        layers: a sequence of layers; the inputs of each must be the outputs of the one before.

    Raises `ValueError` if it is empty or two neighbours do not fit, `TypeError` if it is no sequence or an entry is no
    layer.
    """

    __repr__ = short_repr

    layers: tuple[AbstractLayer, ...]

    def __init__(self, layers: Iterable[AbstractLayer]):
        if isinstance(layers, AbstractLayer) or not isinstance(layers, Iterable):
            raise TypeError(f"layers: expected a sequence of layers, got {type(layers).__name__}.")
        self.layers = tuple(layers)
        if not self.layers:
            raise ValueError("layers: expected at least one layer, got none.")
        for index, layer in enumerate(self.layers):
            require_instance(f"layers[{index}]", layer, AbstractLayer, "a LinearLayer, a DenseLayer or a RidgeLayer")
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
        """The output for one vector; for a batch use `jax.vmap`. Raises `ValueError` if `x` has another shape."""
        x = as_input(x, self.inputs, "inputs of the network")
        for layer in self.layers:
            x = layer(x)
        return x


Weights = Sequence[tuple[ArrayLike, ArrayLike | None]]

_RECOGNISED: dict[Callable, str | Activation] = {
    jax.nn.relu: "relu",
    jax.nn.leaky_relu: "leaky_relu",
    jax.nn.sigmoid: "sigmoid",
    jax.nn.softplus: "softplus",
    jax.nn.identity: "identity",
    jnp.tanh: "tanh",
    jax.nn.gelu: "gelu_tanh",  # its default is the tanh approximation; "gelu" is exact
}

_PROBES = (-30.0, -3.0, -0.7, 0.0, 0.4, 2.5, 30.0)


def from_weights(
    weights: Weights, activation: str | Activation, *, layers: str = "dense", forget: str | None = None
) -> Network:
    """The network `x -> W_L psi(... psi(W_1 x + b_1) ...) + b_L`: a `DenseLayer` for each hidden layer, then linear.

    With `layers="ridge"` it is made of linear layers and ridge layers, the paper's path. A ridge layer has one
    non-linear direction, so the `h` neurons of a hidden layer are computed one after another, each in an auxiliary
    direction while everything else is remembered. When the pre-activations `s` are forgotten is a matter of choice;
    the function is the same:

    - `forget="last"`, the paper's recipe: neuron `i` appends the coordinate `psi(s_i)` (`A = [I; 0]`, `w` the last
      unit vector, `u = e_i`), so the width grows from `h` to `2h`; then one linear layer drops all of `s` and applies
      the next affine map.
    - `forget="each"`: the step that computes `psi(s_i)` also overwrites `s_i` with it, `A = I`, `w = u = e_i` with the
      non-linearity `psi(s) - s`; for ReLU `relu(s) = s + relu(-s)`, so `u = -e_i` with ReLU itself, which is exact.
      The width stays `h`, and the identity matrix is one array that all the steps share. Where `|psi(s)|` is much
      smaller than `|s|`, `s + (psi(s) - s)` rounds relative to `s`.

    Arguments:
        weights: pairs `(W: [out, in], b: [out] or None)`, in the order of application.
        activation: `psi` after all but the last affine map: a name or an `Activation`.
        layers: `"dense"` or `"ridge"`.
        forget: `"each"`, if not given, or `"last"`; of ridge layers only.

    Returns a `Network` of one dtype, the common one of the weights.

    Raises `ValueError` that names the pair if shapes do not fit or chain or numbers are not finite, or if there is no
    pair or no such activation, `layers` or `forget`; `TypeError` if the activation is a bare callable.

    Source: section 2.1 of "Analytically Learning Variational Auto-Encoders".

    >>> network = from_weights([(jnp.eye(2), jnp.ones(2)), (jnp.ones((1, 2)), None)], "relu")
    >>> network(jnp.array([-3.0, 1.0]))
    Array([2.], dtype=...)
    """
    activation = get_activation(activation)
    composers = {None: _forget_each, "each": _forget_each, "last": _forget_last}
    if layers == "dense" and forget is not None:
        raise ValueError(f"forget: expected none, which is of ridge layers only, got {forget!r}; pass layers='ridge'.")
    if forget not in composers:
        raise ValueError(f"forget: expected 'each' or 'last', got {forget!r}.")
    if layers not in ("dense", "ridge"):
        raise ValueError(f"layers: expected 'dense' or 'ridge', got {layers!r}.")
    compose = _dense if layers == "dense" else composers[forget]
    return Network(compose(_chained(weights), activation))


def from_mlp(
    mlp: eqx.nn.MLP, activation: str | Activation | None = None, *, layers: str = "dense", forget: str | None = None
) -> Network:
    """An `equinox.nn.MLP` as a `Network`; see `from_weights` for how.

    Arguments:
        mlp: its `final_activation` must be the identity. A size of `"scalar"` becomes one neuron, `[1]`.
        activation: replaces `mlp.activation`. Needed unless that is one of `jax.nn.relu`, `jax.nn.leaky_relu`,
            `jax.nn.gelu` (its default, the tanh approximation), `jax.nn.sigmoid`, `jax.nn.softplus`,
            `jax.nn.identity` or `jnp.tanh`.
        layers, forget: as in `from_weights`.

    Raises `ValueError` if the activation is not recognised or the final one is not the identity, `TypeError` if `mlp`
    is no `equinox.nn.MLP`.

    >>> network = from_mlp(eqx.nn.MLP(2, 3, 4, depth=2, key=jax.random.key(0)))
    """
    require_instance("mlp", mlp, eqx.nn.MLP, "an equinox.nn.MLP")
    _require_identity(mlp)
    activation = _recognise(mlp.activation) if activation is None else activation
    pairs = [pair for layer in mlp.layers for pair in _pairs_of(layer)]
    return from_weights(pairs, activation, layers=layers, forget=forget)


class _Affine(NamedTuple):
    """`W x + b` under the names that errors are to use."""

    weight_name: str
    weight: Any
    bias_name: str
    bias: Any


def _dense(pairs: list[tuple[Array, Array]], activation: Activation) -> list[AbstractLayer]:
    return [*(DenseLayer(*pair, activation) for pair in pairs[:-1]), LinearLayer(*pairs[-1])]


def _forget_each(pairs: list[tuple[Array, Array]], activation: Activation) -> list[AbstractLayer]:
    if activation.function is jax.nn.relu:
        sign, step = -1.0, activation
    else:
        sign, step = 1.0, residual(activation)
    layers: list[AbstractLayer] = []
    for weight, bias in pairs[:-1]:
        units = np.eye(weight.shape[0], dtype=weight.dtype)
        identity = jnp.asarray(units)
        layers.append(LinearLayer(weight, bias))
        layers.extend(RidgeLayer(identity, unit, sign * unit, 0.0, step) for unit in units)
    return [*layers, LinearLayer(*pairs[-1])]


def _forget_last(pairs: list[tuple[Array, Array]], activation: Activation) -> list[AbstractLayer]:
    layers: list[AbstractLayer] = [LinearLayer(*pairs[0])]
    for weight, bias in pairs[1:]:
        hidden = weight.shape[1]
        for neuron in range(hidden):
            width = hidden + neuron + 1
            units = np.eye(width, dtype=weight.dtype)  # NumPy: nothing to compile for each of the many shapes
            layers.append(RidgeLayer(units[:, :-1], units[-1], units[neuron], 0.0, activation))
        layers.append(LinearLayer(jnp.concatenate([jnp.zeros_like(weight), weight], axis=1), bias))
    return layers


def _chained(weights: Weights) -> list[tuple[Array, Array]]:
    """The pairs as arrays of one dtype, checked; a bias that is not given is zero."""
    maps = [_affine_of(index, pair) for index, pair in enumerate(weights)]
    if not maps:
        raise ValueError("weights: expected at least one pair (W, b), got none.")
    named = {affine.weight_name: affine.weight for affine in maps}
    named |= {affine.bias_name: affine.bias for affine in maps if affine.bias is not None}
    arrays = dict(zip(named, as_floating(**named), strict=True))
    maps = [a._replace(weight=arrays[a.weight_name], bias=arrays.get(a.bias_name)) for a in maps]
    _require_chain(maps)
    for name, array in arrays.items():
        require_finite(name, array)
    return [(a.weight, jnp.zeros_like(a.weight[:, 0]) if a.bias is None else a.bias) for a in maps]


def _affine_of(index: int, pair: tuple[ArrayLike, ArrayLike | None]) -> _Affine:
    if not isinstance(pair, Sequence) or len(pair) != 2 or pair[0] is None:
        raise ValueError(f"weights[{index}]: expected a pair (W, b) in which b may be None, got {pair!r}.")
    return _Affine(f"weights[{index}][0]", pair[0], f"weights[{index}][1]", pair[1])


def _require_chain(maps: Sequence[_Affine]) -> None:
    before: _Affine | None = None
    for affine in maps:
        name, shape = affine.weight_name, np.shape(affine.weight)
        require_shape(name, affine.weight, (None, None), "outputs, inputs")
        if before is not None and shape[1] != before.weight.shape[0]:
            raise ValueError(
                f"{name}: expected {before.weight.shape[0]} inputs, as many as the outputs of {before.weight_name}, "
                f"got {shape[1]} (shape {shape})."
            )
        if affine.bias is not None:
            require_shape(affine.bias_name, affine.bias, shape[:1], f"outputs of {name}")
        before = affine


def _pairs_of(layer: eqx.nn.Linear) -> list[tuple[Array, Array | None]]:
    """The pair of a linear layer, or the pairs of the stack of them that `MLP(scan=True)` holds."""
    if layer.weight.ndim == 2:
        return [(layer.weight, layer.bias)]
    biases = [None] * len(layer.weight) if layer.bias is None else layer.bias
    return list(zip(layer.weight, biases, strict=True))


def _recognise(function: Callable) -> str | Activation:
    # By identity: an activation with parameters (PReLU) need not be hashable.
    for known, activation in _RECOGNISED.items():
        if function is known:
            return activation
    raise ValueError(
        f"mlp.activation: expected a function whose kinks are known ({', '.join(_names(_RECOGNISED))}), got "
        f"{function!r}. Pass activation= a name or an Activation(function, kinks), which declares its kinks."
    )


def _names(functions: dict[Callable, str | Activation]) -> list[str]:
    return sorted(a if isinstance(a, str) else a.name for a in functions.values())


def _require_identity(mlp: eqx.nn.MLP) -> None:
    size = None if mlp.out_size == "scalar" else mlp.out_size
    for probe in _PROBES:
        if size is None:
            value = mlp.final_activation(jnp.asarray(probe))
        else:
            value = eqx.filter_vmap(lambda function, x: function(x))(mlp.final_activation, jnp.full(size, probe))
        if not bool(jnp.all(value == probe)):
            raise ValueError(f"mlp.final_activation: expected the identity, got a function with f({probe}) = {value}.")

"""Networks of layers, and trained multi-layer perceptrons as such."""

from collections.abc import Iterable, Sequence
from typing import Any

import equinox as eqx

from .._check import as_input, require_instance
from .._repr import short_repr
from ..types import Array, ArrayLike, Float
from .activation import Activation
from .composition import layers_of
from .layer import AbstractLayer
from .steps import Affine, Step, activations_of, chained


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


def from_weights(
    weights: Weights,
    activation: str | Activation | Sequence[str | Activation | None],
    *,
    layers: str = "dense",
    forget: str | None = None,
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
        weights: pairs `(W: [out, in], b: [out] or None)`, in the order of application: arrays of NumPy or JAX, or
            tensors of torch.
        activation: `psi` after all but the last affine map: a name or an `Activation`; or a list of them, one after
            each map (but the last, or all), `"identity"` or None where there is none.
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
    maps = [_affine_of(index, pair) for index, pair in enumerate(weights)]
    return network_of(chained(maps, activations_of(activation, len(maps))), layers=layers, forget=forget)


def network_of(steps: Sequence[Step], *, layers: str = "dense", forget: str | None = None) -> Network:
    """The network that computes these steps one after another."""
    return Network(layers_of(steps, layers=layers, forget=forget))


def as_numbers(value: Any) -> Any:
    """A tensor of torch as an array of NumPy, without torch; anything else as it is."""
    if not (hasattr(value, "detach") and hasattr(value, "cpu")):
        return value
    tensor = value.detach().cpu()
    if "float16" in str(tensor.dtype):  # NumPy has no bfloat16, and nothing is computed in half precision
        tensor = tensor.float()
    return tensor.numpy()


def _affine_of(index: int, pair: tuple[ArrayLike, ArrayLike | None]) -> Affine:
    if not isinstance(pair, Sequence) or len(pair) != 2 or pair[0] is None:
        raise ValueError(f"weights[{index}]: expected a pair (W, b) in which b may be None, got {pair!r}.")
    return Affine(f"weights[{index}][0]", as_numbers(pair[0]), f"weights[{index}][1]", as_numbers(pair[1]))

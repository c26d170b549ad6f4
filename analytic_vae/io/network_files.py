"""Files of trained multi-layer perceptrons."""

import os
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .._check import finite_array, require_shape
from ..model.activation import Activation
from ..model.network import Network, _Affine, _require_chain, from_weights
from .arrays import MAX_BYTES, read_arrays


def load_network(
    path: str | os.PathLike[str],
    activation: str | Activation = "relu",
    *,
    layers: str = "dense",
    forget: str | None = None,
    order: Sequence[str] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Network:
    """The multi-layer perceptron in an `.npz` or `.safetensors` file as a `Network`; see `from_weights` for how.

    One of these layouts, `W` being `[out, in]` and every bias optional:

    - names that end in `weight` and `bias` and otherwise differ only in their numbers, which give the order, as a
      torch `Sequential` has them: `layers.0.weight`, `layers.0.bias`, `layers.2.weight`, ...; any names with `order`;
    - `W0, b0, W1, b1, ...`;
    - `weights: [L, n, n]`, the matrices stacked, with `biases: [L, n]` or none. Other arrays are then ignored.

    Arguments:
        path: the file. `.safetensors` needs `pip install 'analytic_vae[files]'`.
        activation: after all but the last affine map: a name or an `Activation`.
        layers, forget: as in `from_weights`.
        order: the names of the weights in the order of application, with or without `.weight`, each once. Needed where
            several share their first number (`blocks.0.fc1.weight`, `blocks.0.fc2.weight`): most such networks have
            skip connections, which a file of weights does not show, and are no chain.
        max_bytes: the most bytes that the arrays of the file may take.

    Raises `FileNotFoundError` if there is no file, and `ValueError` if the file is damaged, too large, holds Python
    objects or none of the layouts, or if an array, which is then named, is not real, finite and of a shape that fits.

    >>> network = load_network("net.npz", "gelu", order=["encoder.fc1", "encoder.fc2", "head"])
    """
    return from_weights(weights_of(path, order=order, max_bytes=max_bytes), activation, layers=layers, forget=forget)


def weights_of(
    path: str | os.PathLike[str], *, order: Sequence[str] | None = None, max_bytes: int = MAX_BYTES
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """The pairs `(W: [out, in], b: [out] or None)` of a network file, in order; layouts, errors as `load_network`."""
    arrays = read_arrays(path, max_bytes=max_bytes)
    if "weights" in arrays and arrays["weights"].ndim == 3:
        if order is not None:
            raise ValueError(f"order: expected none, since {path} holds a stack, which has an order; got {order!r}.")
        maps = _stacked(arrays)
    else:
        maps = _paired(arrays, path, order)
    maps = [
        affine._replace(
            weight=finite_array(affine.weight_name, affine.weight),
            bias=None if affine.bias is None else finite_array(affine.bias_name, affine.bias),
        )
        for affine in maps
    ]
    _require_chain(maps)
    return [(affine.weight, affine.bias) for affine in maps]


def _stacked(arrays: dict[str, np.ndarray]) -> list[_Affine]:
    weights, biases = arrays["weights"], arrays.get("biases")
    require_shape("weights", weights, (None, None, None), "layers, outputs, inputs")
    if biases is not None:
        require_shape("biases", biases, weights.shape[:2], "layers, outputs of weights")
    return [
        _Affine(f"weights[{layer}]", weight, f"biases[{layer}]", None if biases is None else biases[layer])
        for layer, weight in enumerate(weights)
    ]


def _paired(arrays: dict[str, np.ndarray], path: str | os.PathLike[str], order: Sequence[str] | None) -> list[_Affine]:
    parts = {name: _split_name(name) for name in arrays}
    weights = {place: name for name, (place, kind) in parts.items() if kind == "w"}
    biases = {place: name for name, (place, kind) in parts.items() if kind == "b"}
    _require_layout(arrays, path, weights, biases)
    if order is None:
        _require_numbered(path, weights)
        places = sorted(weights, key=_order)
    else:
        places = _places_in(order, weights)
    return [
        _Affine(weights[place], arrays[weights[place]], biases.get(place, ""), arrays.get(biases.get(place, "")))
        for place in places
    ]


def _places_in(order: Sequence[str], weights: dict[str, str]) -> list[str]:
    """The places of the weights as the user orders them, each once."""
    if isinstance(order, str) or not all(isinstance(name, str) for name in order):
        raise TypeError(f"order: expected a list of names of weights, got {order!r}.")
    known = {alias: place for place, name in weights.items() for alias in (name, place, place.rstrip("._"))}
    unknown = [name for name in order if name not in known]
    if unknown:
        raise ValueError(f"order: expected names among {_stems(weights)}, got {', '.join(map(repr, unknown))}.")
    places = [known[name] for name in order]
    if len(set(places)) < len(places) or len(places) < len(weights):
        raise ValueError(f"order: expected each of {_stems(weights)} once, got {', '.join(order)}.")
    return places


def _stems(weights: dict[str, str]) -> str:
    """What `order` may call the weights: `blocks.0.fc1, blocks.0.fc2`; or `W0, W1`, whose places are bare numbers."""
    stems = {place: place.rstrip("._") for place in weights}
    return ", ".join(
        name if stems[place].isdigit() or not stems[place] else stems[place] for place, name in weights.items()
    )


def _split_name(name: str) -> tuple[str, str]:
    """Where an array stands and whether it is a weight, `w`, a bias, `b`, or neither: `net.2.weight -> net.2., w`."""
    match = re.fullmatch(r"(?P<kind>[wb])_?(?P<place>\d+)", name, re.IGNORECASE) or re.fullmatch(
        r"(?P<place>.*?)(?P<kind>weight|bias)", name, re.IGNORECASE | re.DOTALL
    )
    return (match["place"], match["kind"][0].lower()) if match else (name, "")


def _require_layout(
    arrays: dict[str, np.ndarray], path: str | os.PathLike[str], weights: dict[str, str], biases: dict[str, str]
) -> None:
    layouts = "names that end in 'weight' and 'bias', or W0, b0, W1, b1, ..., or a stack weights [L, n, n]"
    if not weights:
        held = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no arrays"
        raise ValueError(f"path: found no weights in {path}; expected {layouts}; got {held}.")
    # An array that is left out may be part of the function (a normalisation, a transposed kernel): say so instead.
    used = {*weights.values(), *(name for place, name in biases.items() if place in weights)}
    unused = [name for name in arrays if name not in used]
    if unused:
        raise ValueError(f"path: expected weights with their biases and nothing else in {path}; got also {unused}.")


def _require_numbered(path: str | os.PathLike[str], weights: dict[str, str]) -> None:
    """Raise `ValueError` unless the numbers in the names say what follows what."""
    skeletons, orders = {re.sub(r"\d+", "#", place) for place in weights}, {_order(place) for place in weights}
    if len(skeletons) > 1 or len(orders) < len(weights):
        raise ValueError(
            f"path: expected names that differ only in their numbers, which give the order, in {path}; "
            f"got {sorted(weights.values())}. Or say it: order=[...] (--order) with these names as they are applied."
        )
    places = sorted(weights, key=_order)
    for one, other in pairwise(places):
        if _order(one)[:1] == _order(other)[:1]:
            raise ValueError(
                f"path: expected a number of its own for each weight, its place in a chain, in {path}; got "
                f"{weights[one]} and {weights[other]}, as of a residual block, whose skips a file of weights does not "
                f"show. If each weight is applied to what the one before it gave, say so: order=[...] (--order) with "
                f"{_stems({place: weights[place] for place in places})} as they are applied."
            )


def _order(place: str) -> tuple[int, ...]:
    """The numbers in a name, which give its place in the order of layers."""
    return tuple(int(digits) for digits in re.findall(r"\d+", place))

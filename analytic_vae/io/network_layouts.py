"""Named arrays to the steps of a multi-layer perceptron: orientation, normalisations, residual blocks."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .._check import finite_array, require_choice, require_flag, require_number, require_shape
from ..model.activation import Activation, get_activation
from ..model.steps import Affine, Bend, Block, Scaling, Step, activations_of, chained
from .network_names import (
    Numbered,
    Place,
    blocks_of,
    by_numbers,
    hint_of_blocks,
    in_order,
    places_of,
    require_no_gate,
    stored_in_out,
)

LAYOUTS = "names that end in 'weight' and 'bias', or W0, b0, W1, b1, ..., or a stack weights [L, n, n]"

Arrays = Mapping[str, np.ndarray]

Activations = str | Activation | Sequence[str | Activation | None]


class Reading(NamedTuple):
    """What a user says of a file that does not say it itself; see `load_network`."""

    order: Sequence[str] | None = None
    transposed: bool | None = None
    residual: bool = False
    batch_norm: str | None = None
    epsilon: float | None = None
    one_block: bool = False  # whether all names are of one block, without its skip if it has one


def steps_of_arrays(arrays: Arrays, what: str, activation: Activations, reading: Reading) -> list[Step]:
    """The steps of the network whose arrays these are, of a file that messages call `what`."""
    _require_reading(reading)
    if "weights" in arrays and arrays["weights"].ndim == 3:
        if reading.order is not None:
            raise ValueError(
                f"order: expected none, since {what} holds a stack, which has an order; got {reading.order!r}."
            )
        maps = _stacked(arrays, bool(reading.transposed))
        return chained(maps, activations_of(activation, len(maps)))
    places = _places(arrays, what)
    maps = [place for place in places if not place.is_norm]
    reading = reading._replace(one_block=reading.one_block or _cannot_skip(maps, arrays))
    if len(maps) < len(places):
        return _normalised(places, arrays, what, activation, reading)
    if reading.batch_norm is not None or reading.epsilon is not None:
        raise ValueError(f"batch_norm, epsilon: expected none, since {what} holds no running means and variances.")
    if reading.order is not None:
        places = in_order(places, reading.order)
    else:
        places = by_numbers(places, what, may_skip=not reading.one_block, residual=reading.residual)
    maps = _affines(places, arrays, what, reading.transposed)
    if reading.residual:
        return _residual(blocks_of(places), maps, activation)
    if reading.order is None and isinstance(activation, str | Activation):
        _tell_of_code(places, activation)
    return chained(maps, activations_of(activation, len(maps)))


def _require_reading(reading: Reading) -> None:
    require_flag("transposed", reading.transposed, optional=True)
    require_flag("residual", reading.residual)
    if reading.batch_norm is not None:
        require_choice("batch_norm", reading.batch_norm, ("before", "after"))
    if reading.epsilon is not None:
        require_number("epsilon", reading.epsilon)


def _stacked(arrays: Arrays, transposed: bool) -> list[Affine]:
    weights, biases = arrays["weights"], arrays.get("biases")
    require_shape("weights", weights, (None, None, None), "layers, outputs, inputs")
    if transposed:
        weights = np.swapaxes(weights, 1, 2)
    if biases is not None:
        require_shape("biases", biases, weights.shape[:2], "layers, outputs of weights")
    return [
        _finite(Affine(f"weights[{i}]", weight, f"biases[{i}]", None if biases is None else biases[i]))
        for i, weight in enumerate(weights)
    ]


def _places(arrays: Arrays, what: str) -> list[Place]:
    """The affine maps and normalisations of a file that holds nothing else."""
    places, extra = places_of(arrays)
    if not any("weight" in place.roles and not place.is_norm for place in places):
        held = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no arrays"
        raise ValueError(f"path: found no weights in {what}; expected {LAYOUTS}; got {_cut(held)}.")
    maps = [place for place in places if not place.is_norm and "weight" in place.roles]
    require_no_gate(maps, {place.weight: arrays[place.weight].shape for place in maps}, what)
    # An array that is left out may be part of the function (an attention, an embedding): say so instead.
    if extra:
        raise ValueError(
            f"path: expected weights with their biases and nothing else in {what}; got also {_cut(str(extra))}."
            f"{hint_of_blocks(arrays)}"
        )
    for place in places:
        name = place.roles.get("weight", place.roles.get("scale", ""))
        if not place.is_norm and ("scale" in place.roles or arrays[name].ndim == 1):
            raise ValueError(
                f"{name}: expected shape [outputs, inputs], got {list(arrays[name].shape)}, as of a LayerNorm, which "
                "divides by the spread of all coordinates and is not linear; one without running means and variances "
                f"is not built.{hint_of_blocks(arrays)}"
            )
    return places


def _cut(text: str, length: int = 600) -> str:
    return text if len(text) <= length else f"{text[:length]} ..."


def _cannot_skip(places: Sequence[Place], arrays: Arrays) -> bool:
    """Whether the ends of the chain differ in width, so that it is no residual block by itself."""
    numbers = Numbered.of(places).numbers
    found = sorted(places, key=lambda place: numbers[place.name])
    first, last = arrays[found[0].weight].shape, arrays[found[-1].weight].shape
    return first[-1:] != last[:1] and first[:1] != last[-1:]


def _affines(places: Sequence[Place], arrays: Arrays, what: str, transposed: bool | None) -> list[Affine]:
    """The affine maps in order, each `[out, in]`."""
    maps = []
    for place in places:
        bias = place.roles.get("bias", "")
        maps.append(_finite(Affine(place.weight, arrays[place.weight], bias, arrays.get(bias))))
        require_shape(maps[-1].weight_name, maps[-1].weight, (None, None), "outputs, inputs")
    if transposed is None:
        transposed = _is_transposed(places, maps, what)
    return [one._replace(weight=one.weight.T) for one in maps] if transposed else maps


def _is_transposed(places: Sequence[Place], maps: Sequence[Affine], what: str) -> bool:
    """Whether the weights are `[in, out]`: by their shapes if those fit one way alone, or else by their names."""
    fits = {turned: _fits(maps, turned) for turned in (False, True)}
    hints = {stored_in_out(place) for place in places}
    if fits[True] != fits[False]:
        return fits[True]
    if hints == {None} and fits[True]:
        warnings.warn(
            f"The shapes in {what} fit W x + b as well as x W + b: its weights are taken as [out, in]. Say "
            "transposed=False (--transposed no) if they are, or transposed=True if they are [in, out].",
            stacklevel=5,
        )
    if len(hints) > 1 and fits[True]:
        raise ValueError(
            f"transposed: expected True or False for {what}, whose shapes fit both ways, and of whose names some are "
            f"of weights [in, out] and some of [out, in]: {', '.join(one.weight_name for one in maps)}."
        )
    return hints == {True}


def _fits(maps: Sequence[Affine], turned: bool) -> bool:
    shapes = [one.weight.shape[::-1] if turned else one.weight.shape for one in maps]
    biases = all(one.bias is None or one.bias.shape == shape[:1] for one, shape in zip(maps, shapes, strict=True))
    return biases and all(before[0] == after[1] for before, after in pairwise(shapes))


def _finite(affine: Affine) -> Affine:
    bias = None if affine.bias is None else finite_array(affine.bias_name, affine.bias)
    return affine._replace(weight=finite_array(affine.weight_name, affine.weight), bias=bias)


def _tell_of_code(places: Sequence[Place], activation: str | Activation) -> None:
    """A file does not show whether a deep encoder ends in an activation."""
    numbered = Numbered.of(places)
    if numbered.words != "autoencoder":
        return
    encoder = [place for place in places if numbered.numbers[place.name][0] == 0]
    if len(encoder) > 1:
        name = activation if isinstance(activation, str) else activation.name
        warnings.warn(
            f"{name} is taken to follow the code ({encoder[-1].stem}), as every other map but the last. If nothing "
            "does, say activation=[...] with one for each map, 'identity' where there is none.",
            stacklevel=4,
        )


def _residual(groups: list[list[Place]], maps: Sequence[Affine], activation: Activations) -> list[Step]:
    """Blocks `x + W2 psi(W1 x + b1) + b2`, and other maps about them, which nothing follows unless a list says so."""
    firsts = [len(group) == 2 and place is group[0] for group in groups for place in group]
    if isinstance(activation, str | Activation):
        after = [get_activation(activation) if first else None for first in firsts]
    else:
        after = activations_of(activation, len(maps))
    steps: list[Step] = []
    remaining = iter(zip(maps, after, strict=True))
    for group in groups:
        one, inner = next(remaining)
        outer = inner
        if len(group) == 2:
            second, outer = next(remaining)
            steps.append(Block(one, inner or get_activation("identity"), second))
        else:
            steps.append(one)
        if outer is not None:
            steps.append(Bend(outer))
    return steps


def _normalised(
    places: Sequence[Place], arrays: Arrays, what: str, activation: Activations, reading: Reading
) -> list[Step]:
    """A chain with batch normalisations, each before or after the activation of a map, or before all of them."""
    if reading.residual:
        raise ValueError(f"residual: expected False, since {what} holds batch normalisations; both are not built.")
    ordered, sides = _sides(places, what, reading)
    maps = [place for place in ordered if not place.is_norm]
    affines = _affines(maps, arrays, what, reading.transposed)
    after = activations_of(activation, len(maps))
    steps: list[Step] = []
    index = -1
    held: list[Scaling] = []
    for place in [*ordered, None]:
        if place is not None and place.is_norm:
            scaling = _scaling(place, arrays, reading.epsilon)
            (held if sides[place.name] == "after" else steps).append(scaling)
            continue
        if index >= 0 and (bend := after[index]) is not None:
            steps.append(Bend(bend))
        steps += held
        held = []
        index += 1
        if place is not None:
            steps.append(affines[index])
    return steps


def _scaling(place: Place, arrays: Arrays, epsilon: float | None) -> Scaling:
    """`(x - mean) / sqrt(variance + epsilon) scale + bias`."""
    by_keras = "moving_" in place.roles["variance"]
    epsilon = (1e-3 if by_keras else 1e-5) if epsilon is None else epsilon
    found = {}
    for role in ("mean", "variance", "scale", "weight", "bias"):
        if role in place.roles:
            name = place.roles[role]
            found[role] = finite_array(name, arrays[name]).astype(np.float64)
            require_shape(name, found[role], (None,), "outputs")
    if np.any(found["variance"] + epsilon <= 0):
        raise ValueError(
            f"{place.roles['variance']}: expected variances of zero or more, got {found['variance'].min():.3g}."
        )
    for role, array in found.items():
        require_shape(place.roles[role], array, found["mean"].shape, f"as many as {place.roles['mean']} has")
    scale = found.get("scale", found.get("weight", 1.0)) / np.sqrt(found["variance"] + epsilon)
    return Scaling(place.stem, scale, found.get("bias", 0.0) - scale * found["mean"])


def _sides(places: Sequence[Place], what: str, reading: Reading) -> tuple[list[Place], dict[str, str]]:
    """Maps and normalisations in order, and for each normalisation its side of the activation of the map before it."""
    numbered = Numbered.of(places)
    if reading.order is not None:
        ordered, side = in_order(places, reading.order), lambda *_: None
    elif len(set(numbered.skeletons.values())) == 1:  # a Sequential, in which each has its index
        ordered = by_numbers(places, what, may_skip=not reading.one_block)
        side = lambda *three: _side(numbered, *three)  # noqa: E731
    else:
        ordered, side = _paired(places, what, reading), lambda *_: None
    sides: dict[str, str] = {}
    for index, place in enumerate(ordered):
        if not place.is_norm:
            continue
        before = [one for one in ordered[:index] if not one.is_norm]
        after = [one for one in ordered[index:] if not one.is_norm]
        found = "front" if not before else reading.batch_norm or side(before[-1], place, after)
        if found is None:
            raise ValueError(
                f"path: {what} does not show whether the batch normalisation {place.stem} comes before or after the "
                f"activation of {before[-1].stem}. Say batch_norm='before' or 'after' (--batch-norm)."
            )
        sides[place.name] = found
    return ordered, sides


def _side(numbered: Numbered, before: Place, norm: Place, after: list[Place]) -> str | None:
    """A Sequential has something else, the activation, where its numbers leave a gap."""

    def adjacent(one: Place, other: Place) -> bool:
        (*rest, last), (*others, following) = numbered.numbers[one.name], numbered.numbers[other.name]
        return rest == others and following == last + 1

    close = adjacent(before, norm), bool(after) and adjacent(norm, after[0])
    return {(True, False): "before", (False, True): "after"}.get(close)


def _paired(places: Sequence[Place], what: str, reading: Reading) -> list[Place]:
    """Each normalisation after the map of its own number, `bn1` after `fc1`."""
    maps = by_numbers([place for place in places if not place.is_norm], what, may_skip=not reading.one_block)
    norms = [place for place in places if place.is_norm]
    keys = {place.name: numbers for some in (maps, norms) for place, numbers in _keys(some)}
    found: list[Place] = []
    for one in maps:
        found += [one, *(norm for norm in norms if keys[norm.name] == keys[one.name])]
    if len(found) < len(places):
        lost = [norm.stem for norm in norms if norm not in found]
        raise ValueError(
            f"path: expected a normalisation for each number of a weight in {what}; got {', '.join(lost)} beside "
            f"{', '.join(one.stem for one in maps)}. Say order=[...] (--order) with all of them as they are applied."
        )
    return found


def _keys(places: Sequence[Place]) -> list[tuple[Place, tuple[int, ...]]]:
    numbers = Numbered.of(places).numbers
    return [(place, numbers[place.name]) for place in places]

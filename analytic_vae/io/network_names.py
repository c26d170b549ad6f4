"""Names of arrays in files of networks: what stands where, and what follows what."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

# The last part of a name -> what the array is. "mean" and "variance" are those of a batch normalisation.
ROLES = {
    "weight": "weight", "kernel": "weight", "w": "weight",
    "bias": "bias", "b": "bias", "beta": "bias",
    "scale": "scale", "gamma": "scale",
    "running_mean": "mean", "moving_mean": "mean", "mean": "mean",
    "running_var": "variance", "moving_variance": "variance", "var": "variance",
}  # fmt: skip

_IGNORED = "num_batches_tracked"  # torch counts batches, which no function depends on

# Words that say an order as numbers do: of autoencoders, and of the two maps of a transformer's block.
_AUTOENCODER = (("encoder", "decoder"), ("enc", "dec"))
_MLP_WORDS = (
    ("c_fc", "c_proj"), ("fc_in", "fc_out"), ("dense_h_to_4h", "dense_4h_to_h"), ("up_proj", "down_proj"),
    ("wi", "wo"), ("intermediate", "output"), ("linear_in", "linear_out"),
)  # fmt: skip

STORED_IN_OUT = {"kernel", "w"}, {"c_fc", "c_proj", "c_attn"}  # roles of flax, keras and haiku; GPT-2's Conv1D

_GATES = {"gate_proj", "gate_up_proj", "wi_0", "wi_1"}


class Place(NamedTuple):
    """What stands at one place of a network: `net.2` has a weight and a bias."""

    name: str
    roles: dict[str, str]  # what it is -> the name of the array

    @property
    def weight(self) -> str:
        """The name of its weight."""
        return self.roles["weight"]

    @property
    def is_norm(self) -> bool:
        """Whether it is a batch normalisation."""
        return {"mean", "variance"} <= set(self.roles)

    @property
    def stem(self) -> str:
        """What a user may call it: `W0` has no other name."""
        stem = self.name.rstrip("._/")
        return self.roles.get("weight", stem) if stem.isdigit() or not stem else stem


def places_of(names: Iterable[str]) -> tuple[list[Place], list[str]]:
    """The places in the order of the file, and the names that are none of a weight, a bias or a normalisation."""
    found: dict[str, Place] = {}
    extra: list[str] = []
    for name in names:
        place, role = split_name(name)
        roles = found.setdefault(place, Place(place, {})).roles if role else {}
        if role and role not in roles:
            roles[role] = name
        elif not name.endswith(_IGNORED):
            extra.append(name)
    places = [place for place in found.values() if "weight" in place.roles or place.is_norm or "scale" in place.roles]
    lost = [name for place in found.values() if place not in places for name in place.roles.values()]
    # The letters of the package's own layout; `mean` and `var` alone are no normalisation.
    lost += [n for p in places if not p.is_norm for role, n in p.roles.items() if role in ("mean", "variance")]
    return places, [*lost, *extra]


def split_name(name: str) -> tuple[str, str]:
    """Where an array stands, and what it is, or nothing: `net.2.weight -> net.2, weight`, `W0 -> 0, weight`."""
    bare = re.sub(r"^((params|batch_stats)[./])+", "", name.removesuffix(":0"))
    if match := re.fullmatch(r"(?P<kind>[wb])_?(?P<place>\d+)", bare, re.IGNORECASE):
        return match["place"], "weight" if match["kind"].lower() == "w" else "bias"
    place, _, last = re.sub("/", ".", bare).rpartition(".")
    if last.lower() in ROLES and (place or last.lower() in ("weight", "bias", "kernel")):
        return bare[: len(place)], ROLES[last.lower()]
    match = re.fullmatch(r"(?P<place>.*?)(?P<kind>weight|bias|kernel)", bare, re.IGNORECASE | re.DOTALL)
    return (match["place"], ROLES[match["kind"].lower()]) if match else (name, "")


def stored_in_out(place: Place) -> bool | None:
    """Whether its name says that the weight is `[in, out]`; None if it is one of letters, which say nothing."""
    last = re.split(r"[./]", place.weight.removesuffix(":0"))[-1].lower()
    if re.fullmatch(r"w_?\d+", last):
        return None
    return last in STORED_IN_OUT[0] or last.endswith("kernel") or _parts(place.name)[-1] in STORED_IN_OUT[1]


def require_no_gate(places: Sequence[Place], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raise `ValueError` if the names are those of a gated block, as Llama's: it would look like a chain of maps."""
    parts = {place.name: _parts(place.name)[-1] for place in places}
    gates = [place.weight for place in places if parts[place.name] in _GATES]
    triple = {parts[place.name]: shapes[place.weight] for place in places if "bias" not in place.roles}
    if len(places) == 3 and set(triple) == {"w1", "w2", "w3"} and triple["w1"] == triple["w3"] == triple["w2"][::-1]:
        gates = [place.weight for place in places]  # Llama's own files
    if gates:
        raise ValueError(
            f"path: expected a multi-layer perceptron in {what}, got a gated block ({', '.join(gates[:3])}), "
            "psi(gate x) (up x): a product of two units is no sum of functions of one projection each; it is not built."
        )


def in_order(places: Sequence[Place], order: Sequence[str]) -> list[Place]:
    """The places as the user orders them, each once."""
    if isinstance(order, str) or not all(isinstance(name, str) for name in order):
        raise TypeError(f"order: expected a list of names of weights, got {order!r}.")
    known = {alias: p for p in places for alias in (p.roles.get("weight", p.stem), p.name, p.name.rstrip("._/"))}
    stems = ", ".join(place.stem for place in places)
    unknown = [name for name in order if name not in known]
    if unknown:
        raise ValueError(f"order: expected names among {stems}, got {', '.join(map(repr, unknown))}.")
    found = [known[name] for name in order]
    if len({place.name for place in found}) < len(found) or len(found) < len(places):
        raise ValueError(f"order: expected each of {stems} once, got {', '.join(order)}.")
    return found


class Numbered(NamedTuple):
    """The names of places with their words for an order replaced by numbers."""

    numbers: dict[str, tuple[int, ...]]
    skeletons: dict[str, str]
    words: str  # "autoencoder", "mlp" or nothing

    @classmethod
    def of(cls, places: Sequence[Place]) -> "Numbered":
        """Of these places."""
        names = [place.name for place in places]
        parts, words = {name: _parts(name) for name in names}, ""
        for index in range(min((len(one) for one in parts.values()), default=0)):
            here = {one[index] for one in parts.values()}
            for kind, pairs in (("autoencoder", _AUTOENCODER), ("mlp", _MLP_WORDS if len(names) == 2 else ())):
                for pair in pairs:
                    if here == set(pair) and not words:
                        words = kind
                        for one in parts.values():
                            one[index] = str(pair.index(one[index]))
        bare = {name: ".".join(one) for name, one in parts.items()}
        # keras: dense, dense_1, dense_2
        stems = {re.sub(r"_\d+$", "", one) for one in bare.values()}
        if len(stems) == 1 and len(bare) > 1:
            bare = {name: f"{one}_0" if one in stems else one for name, one in bare.items()}
        numbers = {name: tuple(int(digits) for digits in re.findall(r"\d+", one)) for name, one in bare.items()}
        return cls(numbers, {name: re.sub(r"\d+", "#", one) for name, one in bare.items()}, words)

    def without_common(self) -> "Numbered":
        """Without the numbers that all names begin with alike, as those of one block of many do."""
        common = 0
        columns = list(zip(*self.numbers.values(), strict=False))
        while common < len(columns) - 1 and len(set(columns[common])) == 1:
            common += 1
        return self._replace(numbers={name: one[common:] for name, one in self.numbers.items()})


def by_numbers(places: Sequence[Place], what: str, *, may_skip: bool = True, residual: bool = False) -> list[Place]:
    """The places in the order of the numbers in their names.

    Raises `ValueError` if they do not say what follows what, or if, unless `residual`, they may be those of residual
    blocks. `may_skip=False`: the names are of one block alone.
    """
    numbered = Numbered.of(places)
    if not may_skip or numbered.words == "mlp":
        numbered = numbered.without_common()
    numbers = numbered.numbers
    if len(set(numbered.skeletons.values())) > 1 or len(set(numbers.values())) < len(places):
        raise ValueError(
            f"path: expected names that differ only in their numbers, which give the order, in {what}; "
            f"got {sorted(place.weight for place in places if 'weight' in place.roles)}. Or say it: order=[...] "
            f"(--order) with {', '.join(place.stem for place in places)} as they are applied."
        )
    found = sorted(places, key=lambda place: numbers[place.name])
    first = 2 if numbered.words == "autoencoder" else 1
    for one, other in pairwise(place for place in found if not place.is_norm):
        if not residual and numbers[one.name][:first] == numbers[other.name][:first] and len(numbers[one.name]) > first:
            raise ValueError(
                f"path: expected a number of its own for each weight, its place in a chain, in {what}; got "
                f"{one.weight} and {other.weight}, as of a residual block, whose skips a file of weights does not "
                f"show. If each weight is applied to what the one before it gave, say so: order=[...] (--order) with "
                f"{', '.join(place.stem for place in found)} as they are applied. If each pair is a block "
                "x + W2 psi(W1 x + b1) + b2: residual=True (--residual)."
            )
    return found


def blocks_of(places: Sequence[Place]) -> list[list[Place]]:
    """Neighbours whose names are alike up to their first number, `blocks.0`, together."""
    groups: list[list[Place]] = []
    for place in places:
        if groups and _block_name(groups[-1][0].name) == _block_name(place.name):
            groups[-1].append(place)
        else:
            groups.append([place])
    sizes = Counter(map(len, groups))
    if 2 not in sizes or set(sizes) - {1, 2}:
        raise ValueError(
            "residual: expected blocks of two weights each, blocks.0.fc1, blocks.0.fc2, ..., got "
            f"{', '.join(place.stem for place in places)}."
        )
    return groups


def chosen(names: Iterable[str], block: str, what: str) -> dict[str, str]:
    """The names that stand in a block, `h.0.mlp`, and what is left of them: `c_fc.weight`.

    Its own beginning may be left out (`transformer.h.0.mlp`). Raises `ValueError` if there is none or several.
    """
    names, bare = list(names), block.rstrip("./")
    pattern = re.compile(rf"(?P<before>(?:.*[./])?){re.escape(bare)}[./](?P<rest>.+)", re.DOTALL)
    matches = [match for name in names if (match := pattern.fullmatch(name))]
    before = {match["before"] for match in matches}
    if "" in before:
        before = {""}
    if not bare or len(before) != 1:
        where = ", ".join(f"{one}{bare}" for one in sorted(before)[:4]) if before else f"names as {_some(names)}"
        raise ValueError(f"block: expected the beginning of names of one block in {what}, got {block!r}: {where}.")
    return {match[0]: match["rest"] for match in matches if match["before"] in before}


def hint_of_blocks(names: Iterable[str]) -> str:
    """What to say of a whole model's file: the blocks in it that may be read."""
    matches = (re.match(r"(.*?[./])?(mlp|ffn|feed_forward)(?=[./])", name) for name in names)
    found = list(dict.fromkeys(match[0] for match in matches if match))
    more = f" (of {len(found)})" if len(found) > 1 else ""
    return f" To read one block alone: block={found[0]!r}{more} (--block)." if found else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") or "none"


def _block_name(name: str) -> str:
    match = re.match(r".*?\d+(?=[./\]])", name)
    return match[0] if match else name


def _parts(name: str) -> list[str]:
    return re.split(r"[./]", name)

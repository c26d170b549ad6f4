"""Activations and their kinks."""

from collections.abc import Callable
from functools import lru_cache

import equinox as eqx

from .._check import require_instance
from .._warning import warn
from ..types import Array
from .activation_table import ALIASES, FAMILIES, ROWS, identity, known_kinks, row_of
from .analyticity import Regularity, less_identity
from .kink_check import undeclared_kinks


class Activation(eqx.Module):
    """An elementwise function with the points where it or a derivative jumps.

    Layers take a name, too:

    - linear between kinks: `identity`, `relu`, `leaky_relu`, `relu6`, `hardtanh`, `hard_sigmoid`, `abs`;
    - analytic: `tanh`, `sigmoid`, `softplus`, `silu`, `mish`, `gelu`, `gelu_tanh`, `quick_gelu`, `square`;
    - neither: `elu`, `celu`, `selu`, `hard_swish`, `softsign`, `step` (1 above 0, else 0).

    Some have a number: `leaky_relu(slope)`, `elu(alpha)`, `celu(alpha)`, `softplus(beta)`, "leaky_relu(0.2)", say. Of
    the first two kinds there are bounds (`certify=True`): of `gelu_tanh` at up to eight times the frequencies, of
    `square` but for losses of ridge layers. `swish`, `gelu_new`, `logistic`, `hard_tanh` and the like are understood.

    Arguments:
        function: maps an array to an array of the same shape, elementwise; traceable by JAX.
        kinks: the points (floats) between which the function is smooth. ReLU: `(0.0,)`. One that is not declared costs
            accuracy: an `AccuracyWarning` names those that are found, jumps of the function and of its first two
            derivatives within 10 of zero.
        name: how the activation is called in reports and files.
        regularity: what bounds of errors need; without it there are estimates only.
        turns: the points between which the function rises or falls, kinks included; found on a grid if not given.
        breaks: further points at which quadrature had better be split: about where the function bends.

    >>> hinge = Activation(lambda b: jnp.clip(b, -1, 1), kinks=(-1.0, 1.0), name="hard tanh")
    """

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    function: Callable[[Array], Array] = eqx.field(static=True)
    kinks: tuple[float, ...] = eqx.field(static=True)
    name: str = eqx.field(static=True)
    regularity: Regularity | None = eqx.field(static=True)
    turns: tuple[float, ...] | None = eqx.field(static=True)
    breaks: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[[Array], Array],
        kinks: tuple[float, ...] = (),
        name: str | None = None,
        regularity: Regularity | None = None,
        turns: tuple[float, ...] | None = None,
        breaks: tuple[float, ...] = (),
    ):
        if not callable(function):
            raise TypeError(f"function: expected a callable, got {type(function).__name__}.")
        self.function = function
        self.kinks = tuple(sorted(float(kink) for kink in kinks))
        self.name = name or getattr(function, "__name__", "activation")
        self.regularity = regularity
        self.turns = None if turns is None else tuple(sorted({*map(float, turns), *self.kinks}))
        self.breaks = tuple(sorted(map(float, breaks)))
        if not all(abs(kink) < float("inf") for kink in self.kinks):
            raise ValueError(f"kinks: expected finite numbers, got {self.kinks}.")
        if regularity is None and known_kinks(function) != self.kinks:
            self._look_for_kinks()
        if regularity is not None and len(regularity.jumps) != len(self.kinks):
            raise ValueError(
                f"regularity: expected {len(self.kinks)} jumps, one for each kink, got {len(regularity.jumps)}."
            )

    def _look_for_kinks(self) -> None:
        found = undeclared_kinks(self.function, self.kinks)
        if found:
            few, more = ", ".join(f"{place:g}" for place in found[:6]), max(len(found) - 6, 0)
            warn(
                f"kinks: the activation {self.name!r} or a derivative of it jumps at {few}"
                f"{f' and {more} more places' if more else ''}, which was not declared: numbers may be off. Pass "
                "kinks= with all places between which it is smooth."
            )

    def __call__(self, b: Array) -> Array:
        return self.function(b)

    @property
    def piecewise_linear(self) -> bool:
        """Whether its regularity says that it is linear between its kinks; the identity is, too."""
        return self.function is identity or bool(self.regularity and self.regularity.jumps)


ACTIVATIONS: dict[str, Activation] = {
    name: Activation(row.function, row.kinks, name, *row[2:])
    for name, row in (ROWS | {name: make() for name, (make, _, _) in FAMILIES.items()}).items()
}


def get_activation(activation: "str | Activation") -> Activation:
    """The activation of that name (`relu`, `leaky_relu(0.2)`), or the `Activation` itself.

    A bare callable is refused: its kinks are not known, and a kink that is not declared costs accuracy silently.
    Raises `ValueError` for an unknown name.
    """
    if isinstance(activation, str):
        return _named(activation)
    require_instance(
        "activation", activation, Activation, "a name or an Activation(function, kinks), which declares its kinks"
    )
    return activation


@lru_cache(maxsize=256)  # one object for a name, so that programs are shared
def _named(name: str) -> Activation:
    found = row_of(name)
    if found is None:
        if name.strip().lower() == "prelu":
            raise ValueError(
                f'activation: expected one without weights of its own, got {name!r}; "leaky_relu(0.25)" has one slope, '
                "av.from_torch reads a PReLU with a slope for each unit."
            )
        families = [f"{base}({number})" for base, (_, number, _) in FAMILIES.items()]
        known = ", ".join(sorted([*ACTIVATIONS, *families, *ALIASES]))
        raise ValueError(f"activation: expected one of {known}, got {name!r}.")
    standard, row = found
    if standard != name:
        return _named(standard)
    return ACTIVATIONS.get(name) or Activation(row.function, row.kinks, name, *row[2:])


def residual(activation: "str | Activation") -> Activation:
    """`b -> psi(b) - b`: what must be added to a neuron that holds `b` so that it holds `psi(b)`."""
    activation = get_activation(activation)
    regularity = None if activation.regularity is None else less_identity(activation.regularity)
    falls = activation.name in _SLOPES_UP_TO_1 and activation == ACTIVATIONS[activation.name]
    turns = activation.kinks if falls else None
    name = f"{activation.name} - identity"
    return Activation(_Residual(activation.function), activation.kinks, name, regularity, turns, activation.breaks)


_SLOPES_UP_TO_1 = (
    "identity", "relu", "relu6", "hardtanh", "hard_sigmoid", "abs", "sigmoid", "tanh", "softsign", "leaky_relu",
    "elu", "celu", "softplus",
)  # fmt: skip


class _Residual(eqx.Module):
    function: Callable[[Array], Array] = eqx.field(static=True)

    def __call__(self, b: Array) -> Array:
        return self.function(b) - b

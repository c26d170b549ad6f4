"""What was learnt, beside samples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import CORRELATIONS, GREY, LEARNT, MEANS, SAMPLED, SMALL, SPREADS, count_ticks, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHANCE = 3.0  # standard errors that samples may be off by themselves

FLOOR = 0.02  # standard errors: what is less is drawn here

KINDS = {"means": (MEANS, "o"), "spreads": (SPREADS, "s"), "correlations": (CORRELATIONS, "^")}

NAMED = 6  # layers up to which the worst neuron of each is named

SEEN = 1e-4  # mass of a cell that nobody could see

TIGHT = {"columnspacing": 0.6, "handletextpad": 0.1, "handlelength": 1.2, "borderpad": 0.3}  # a legend

GOLDEN = 0.618033988749895  # multiples of it, less their whole parts, never crowd


def draw_deviations(
    ax: "Axes",
    layers: Sequence[dict[str, np.ndarray]],
    samples: int,
    worst: Sequence[str] = (),
) -> None:
    """How far every layer is off, in standard errors of the samples: dots, and a line from median to worst.

    Arguments:
        layers: for each, arrays under the names `means`, `spreads`, `correlations`; what is missing is not drawn.
        samples: their number; `1 / sqrt(samples)` spreads are one standard error of a mean: the axis at the right.
        worst: for each layer what to call the neuron whose mean is worst; named where they are few, and off.
    """
    dress(ax, f"against {samples} samples", "layer", "off by, in standard errors", grid="y")
    kinds = [kind for kind in KINDS if any(kind in layer for layer in layers)]
    width, top = 0.8 / max(len(kinds), 1), 2 * CHANCE
    for place, kind in enumerate(kinds):
        color, marker = KINDS[kind]
        label = kind
        for index, layer in enumerate(layers):
            values = np.sort(np.maximum(np.ravel(layer.get(kind, ())), FLOOR))[::-1]
            if not values.size:
                continue
            x = index + (place - (len(kinds) - 1) / 2) * width
            jitter = ((GOLDEN * np.arange(values.size)) % 1 - 0.5) * 0.6 * width * (values.size > 2)
            jitter[0] = 0
            middle = values[-1] if values.size == 2 else np.median(values)  # two are the median and the worst
            ax.vlines(x, middle, values[0], color=color, lw=1.2, alpha=0.7)
            ax.plot(x + jitter, values, marker, color=color, ms=3.5, alpha=0.6, mew=0, label=label)
            label, top = None, max(top, values[0])
            if kind == "means" and len(layers) <= NAMED and index < len(worst) and values[0] > CHANCE:
                ax.annotate(
                    worst[index], (x, values[0]), (0, 4), textcoords="offset points", fontsize="x-small", ha="center",
                    color=color,
                )  # fmt: skip
    ax.axhspan(FLOOR / 2, CHANCE, color=GREY, alpha=0.18, lw=0, zorder=0, label="chance")
    ax.set_yscale("log")
    ax.set_ylim(FLOOR / 2, 8 * top)  # room for the words
    ax.set_xlim(-0.6, len(layers) - 0.4)
    count_ticks(ax, len(layers), most=12)
    one = samples**-0.5
    side = ax.secondary_yaxis("right", functions=(lambda se: se * one, lambda spreads: spreads / one))
    side.set_ylabel("means: in spreads", fontsize=SMALL)
    side.tick_params(labelsize=SMALL)
    ax.legend(fontsize="x-small", loc="upper center", ncols=4, framealpha=0.9, **TIGHT)


def draw_explained(ax: "Axes", shares: np.ndarray) -> None:
    """The share of every layer's variance that is in its features, not in the noise."""
    dress(ax, "variance in the features", "layer", "share", grid="y")
    ax.bar(np.arange(shares.size), shares, 0.6, color=LEARNT)
    ax.set_ylim(0, 1)
    ax.set_xlim(-0.6, shares.size - 0.4)
    count_ticks(ax, shares.size, most=12)


def draw_outputs(
    ax: "Axes",
    names: Sequence[str],
    moments: tuple[np.ndarray, np.ndarray],
    sampled: tuple[np.ndarray, np.ndarray],
    laws: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]] = (),
) -> None:
    """Mean and spread of some neurons, learnt (left) and sampled (right), and their laws if there are any.

    `moments` and `sampled` are means and spreads. A law is `(edges, masses, sampled masses)`: a half of a violin each,
    both in the same scale. Where spreads differ by more than ten times, all are in spreads from the sampled mean.
    """
    dress(ax, "outputs", "output", "output", grid="y")
    places, scaled = np.arange(len(names)), _scaled(sampled)
    centre, unit = np.zeros(len(names)), np.ones(len(names))
    if scaled:
        centre, unit = sampled[0], np.where(sampled[1] > 0, sampled[1], 1)
        ax.set_ylabel("spreads from the sampled mean", fontsize=SMALL)
    reach: list[float] = []
    for place, (edges, own, other) in zip(places, laws, strict=False):
        y = (edges - centre[place]) / unit[place]
        most = _broad(np.concatenate([own, other]))
        filled = np.flatnonzero(np.maximum(own, other) > SEEN)
        reach += [*y[filled], *y[filled + 1]]
        for side, masses, color in ((-1, own, LEARNT), (1, other, SAMPLED)):
            x = place + side * 0.45 * np.minimum(masses / most, 1)
            ax.fill_betweenx(np.repeat(y, 2)[1:-1], place, np.repeat(x, 2), color=color, alpha=0.3, lw=0)
    for side, (mean, spread), color, label in ((-1, moments, LEARNT, "learnt"), (1, sampled, SAMPLED, "sampled")):
        middle, half = (mean - centre) / unit, spread / unit
        reach += [*(middle - half), *(middle + half)]
        style = {"fmt": "o", "ms": 3.5, "lw": 1.2, "capsize": 2}
        ax.errorbar(places + 0.1 * side, middle, half, color=color, label=label, **style)
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_xticks(places, names, rotation=90 if max(map(len, names)) * len(names) > 40 else 0)
    reach = [y for y in reach if np.isfinite(y)]
    low, high = min(reach, default=0.0), max(reach, default=1.0)
    room = high - low or 1.0
    ax.set_ylim(low - 0.04 * room, high + 0.14 * room)
    ax.legend(fontsize="x-small", loc="upper center", ncols=2, framealpha=0.9)


def _scaled(sampled: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether one scale would show some of them as a point."""
    spreads = sampled[1][sampled[1] > 0]
    return spreads.size > 1 and spreads.max() > 10 * spreads.min()


def _broad(masses: np.ndarray) -> float:
    """A mass that fills the width: the largest one, but for a few cells that tower over all others (atoms)."""
    seen = masses[masses > 1e-3 * max(masses.max(), 1e-300)]
    return max(min(float(seen.max()), 1.5 * float(np.quantile(seen, 0.9))), 1e-300) if seen.size else 1.0

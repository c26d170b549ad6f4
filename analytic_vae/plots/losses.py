"""Losses: what every step had, terms, rates."""

from typing import TYPE_CHECKING

import numpy as np

from .style import BLUE, GREEN, GREY, NATS, ORANGE, PURPLE, TERMS, count_ticks, dress, few_ticks, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EACH = 40  # features that have a bar each

WITHIN = {"S": "", "T": " of S2", "U": " of T1"}

DEPTHS = (ORANGE, PURPLE, GREEN)  # of parts, and parts of parts


def draw_history(ax: "Axes", history: np.ndarray, said: str) -> None:
    """How far the loss of every step is above its last value, on a log scale; what is not above it is left out."""
    above, steps = history - history[-1], np.arange(1, history.size + 1)
    dress(ax, f"loss, above its last value ({said})", "step", NATS, grid="both")
    ax.plot(steps, np.where(above > 0, above, np.nan), ".-", color=BLUE, lw=1.2, ms=4)
    ax.set_xlim(0.5, history.size + 0.5)
    if np.any(above > 0):
        ax.set_yscale("log")
    ax.locator_params(axis="x", integer=True)


def draw_trade(ax: "Axes", terms: np.ndarray) -> None:
    """Rate, R2 and distortion `[steps, 3]` of every step, less their last values: what is traded for what."""
    dress(ax, "terms, less their last values", "step", NATS, grid="both")
    steps = np.arange(1, len(terms) + 1)
    for name, values, style in zip(("rate", "R2", "distortion"), terms.T, ("-", "--", "-."), strict=True):
        label = f"{name}, at last {number(values[-1])}"
        ax.plot(steps, values - values[-1], style, color=TERMS[name], lw=1.4, label=label)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xlim(0.5, len(terms) + 0.5)
    ax.locator_params(axis="x", integer=True)
    ax.legend(fontsize="x-small", loc="best")


def draw_loss(ax: "Axes", terms: dict[str, float], bounds: dict[str, float] | None = None) -> None:
    """A bar for `loss`, `rate`, `R2`, `distortion`, with bounds of their errors if there are any."""
    dress(ax, "the loss and its terms", NATS, grid="x")
    names, values = list(terms), np.array(list(terms.values()))
    errors = None if bounds is None else [min(bounds[name], 1e300) for name in names]
    ax.barh(_numbered(names, values), values, 0.6, color=[TERMS[name] for name in names], xerr=errors, capsize=3)
    _from_above(ax)


def draw_parts(ax: "Axes", parts: dict[str, float]) -> None:
    """A bar for each part of the distortion; `T1` to `T3` are parts of `S2`, `U1` to `U3` of `T1`."""
    dress(ax, "parts of the distortion", NATS, grid="x")
    depth = {"S": 0, "T": 1, "U": 2}
    names, values = [name + WITHIN[name[0]] for name in parts], np.array(list(parts.values()))
    ax.barh(_numbered(names, values), values, 0.7, color=[DEPTHS[depth[name[0]]] for name in parts])
    _from_above(ax)


def draw_rates(ax: "Axes", rates: np.ndarray, unused: float) -> None:
    """The rate of every feature: in their order if they are few, else sorted. Those below `unused` are grey."""
    count = rates.size
    few = count <= EACH
    values = rates if few else np.sort(rates)[::-1]
    idle = int(np.count_nonzero(rates < unused))
    unit = ("feature" if few else f"{count}, sorted") + (f" ({idle} unused)" if idle else "")
    dress(ax, "rates of features", unit, NATS, grid="y")
    places = np.arange(count)
    if few:
        ax.bar(places, values, 0.7, color=[GREEN if value >= unused else GREY for value in values])
    else:
        ax.fill_between(places, 0, values, step="mid", color=GREEN, alpha=0.4, lw=0)
        ax.step(places, values, where="mid", color=GREEN, lw=1.2)
    count_ticks(ax, count)
    ax.set_xlim(-0.6, count - 0.4)
    ax.set_ylim(min(0, 1.1 * values.min()), 1.1 * max(values.max(), 1e-9))


def _numbered(names: list[str], values: np.ndarray) -> list[str]:
    """Numbers beside the names: at the ends of bars they would touch something in a narrow picture."""
    return [f"{name}: {number(value)}" for name, value in zip(names, values, strict=True)]


def _from_above(ax: "Axes") -> None:
    ax.axvline(0, color=GREY, lw=0.8)
    ax.invert_yaxis()
    few_ticks(ax, "x")

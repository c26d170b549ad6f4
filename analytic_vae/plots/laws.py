"""Laws: density and atoms, tails, joint laws of two."""

from typing import TYPE_CHECKING

import numpy as np

from .style import AMOUNTS, ATOMS, DENSITY, GREY, SMALL, dress, few_ticks, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEMS = 60  # atoms of which each has a head

LEAST = 1e-16  # probability below which no tail is drawn

BELOW = 1e4  # times the accuracy: from there on its line is left to the legend

RINGS = 400  # atoms drawn in a joint law: the largest

DEEP = 1e-5  # of the largest cell: what a joint law is drawn down to


def draw_density(
    ax: "Axes", edges: np.ndarray, heights: np.ndarray | None, atoms: np.ndarray, masses: np.ndarray, title: str
) -> None:
    """The mean density of each cell, None if there is none; and atoms, whose masses have an axis of their own.

    A density has the unit 1 / Y and a mass has none: the height of one says nothing about the other.
    """
    dress(ax, title, "Y", "")
    stems = ax
    if heights is not None:
        ax.stairs(heights, edges, fill=True, color=DENSITY, alpha=0.35, lw=0)
        ax.stairs(heights, edges, color=DENSITY, lw=1.2, baseline=None)
        ax.set_ylabel("density", color=DENSITY, fontsize=SMALL)
        ax.tick_params(axis="y", colors=DENSITY)
        ax.set_ylim(0, 1.08 * max(heights.max(), 1e-300))
        if masses.size:
            stems = ax.twinx()
            stems.spines[["top", "left"]].set_visible(False)
            stems.yaxis.set_label_position("right")
    if masses.size:
        stems.vlines(atoms, 0, masses, color=ATOMS, lw=1.6 if masses.size <= STEMS else 0.8)
        if masses.size <= STEMS:
            stems.plot(atoms, masses, "o", color=ATOMS, ms=4)
        stems.set_ylabel("mass of an atom", color=ATOMS, fontsize=SMALL)
        stems.tick_params(axis="y", colors=ATOMS, labelsize=SMALL)
        stems.set_ylim(0, 1.08 * masses.max())
    ax.set_xlim(edges[0], edges[-1])
    few_ticks(ax, "x")


def draw_tails(ax: "Axes", places: np.ndarray, above: np.ndarray, accuracy: float) -> None:
    """`P(Y > t)` and `P(Y <= t)` on a log scale, down to the law's accuracy, where there is a line.

    `places` never fall; a place twice is one where the tail jumps.
    """
    dress(ax, "tails", "t", "probability", grid="both")
    known = min(max(accuracy, LEAST), 0.1) if np.isfinite(accuracy) else LEAST
    for values, label, style in ((above, "P(Y > t)", "-"), (1 - above, "P(Y ≤ t)", "--")):
        ax.plot(places, np.where(values >= known, values, np.nan), style, color=DENSITY, lw=1.4, label=label)
    ax.set_yscale("log")
    seen = places[(above >= known) & (1 - above >= known)]
    low, high = (seen.min(), seen.max()) if seen.size else (places[0], places[-1])
    room = 0.04 * (high - low) or 1e-3 * max(abs(low), 1.0)
    ax.set_xlim(low - room, high + room)
    few_ticks(ax, "x")
    both = np.concatenate([above, 1 - above])
    far = min(both[both >= known], default=known) > BELOW * known  # a law of few atoms has no tails
    ax.set_ylim(min(both[both >= known]) / 10 if far else known / 3, 2)
    if np.isfinite(accuracy):
        ax.axhline(known, color=GREY, lw=1, ls=":", label=f"accuracy, {accuracy:.0e}" + (", below" if far else ""))
    ax.legend(fontsize="x-small", loc="lower center", framealpha=0.9)


def draw_joint(
    ax: "Axes",
    names: tuple[str, str],
    cells: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    points: np.ndarray,
    masses: np.ndarray,
    accuracy: float,
    title: str,
) -> None:
    """The mass of every cell, `(edges, edges, masses)`, in colour on a log scale, and rings about atoms `[A, 2]`.

    Rings are as large as their mass. Without cells (None) there are atoms only, filled.
    """
    from matplotlib.colors import LogNorm

    dress(ax, title, *names)
    if cells is not None:
        across, up, mass = cells
        most = max(mass.max(), 1e-300)
        least = min(max(DEEP * most, accuracy / len(mass) if np.isfinite(accuracy) else 0), most / 10)
        seen = np.ma.masked_less(mass.T, least)
        mesh = ax.pcolormesh(across, up, seen, cmap=AMOUNTS, norm=LogNorm(least, most), rasterized=True)
        for side, axis, limit in ((across, 0, ax.set_xlim), (up, 1, ax.set_ylim)):
            shown = np.flatnonzero(~np.ma.getmaskarray(seen).all(axis=axis))
            first, last = side[shown[0]], side[shown[-1] + 1]
            limit(first - 0.03 * (last - first), last + 0.03 * (last - first))
        bar = ax.figure.colorbar(mesh, ax=ax, aspect=30, pad=0.02)
        bar.set_label("mass of a cell", fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL)
    if masses.size:
        largest = np.argsort(-masses, kind="stable")[:RINGS]
        sizes = 12 + 250 * masses[largest] / masses.max()
        face = "none" if cells is not None else ATOMS
        ax.scatter(*points[largest].T, s=sizes, facecolors=face, edgecolors=ATOMS, alpha=0.8, lw=1.2)
        top = largest[: 3 if cells is not None else 0]
        for i in top[masses[top] > 0.01]:
            ax.annotate(
                f"mass {number(masses[i])}", points[i], (10, 10), textcoords="offset points", fontsize="x-small",
                color=ATOMS, bbox={"fc": "w", "ec": "none", "alpha": 0.8, "pad": 1},
            )  # fmt: skip
        if cells is None:
            ax.margins(0.12)

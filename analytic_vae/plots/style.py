"""Colours and words that all pictures share. Nothing global is changed: every picture dresses its own axes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart with any kind of colour blindness, and in grey (Okabe and Ito).
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.55"

LEARNT, SAMPLED = BLUE, ORANGE  # what was computed, and what it is compared with
DENSITY, ATOMS = BLUE, ORANGE
MEANS, SPREADS, CORRELATIONS = BLUE, ORANGE, GREEN
TERMS = {"rate": GREEN, "R2": PURPLE, "distortion": ORANGE, "loss": BLUE}

SIGNED, AMOUNTS = "RdBu_r", "Blues"  # colour maps of numbers about zero, and of masses

SMALL = "small"  # of all words but titles, in units of the user's own font

NATS = "nats"


def dress(ax: "Axes", title: str, xlabel: str = "", ylabel: str = "", grid: str = "") -> None:
    """Title and labels; no frame where there is no axis; lines along `x`, `y` or `both` if asked for."""
    ax.set_title(title, fontsize="medium")
    ax.set_xlabel(xlabel, fontsize=SMALL)
    ax.set_ylabel(ylabel, fontsize=SMALL)
    ax.tick_params(labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(axis=grid, alpha=0.25, lw=0.6)
        ax.set_axisbelow(True)


def say(ax: "Axes", text: str) -> None:
    """A sentence where there is nothing to be drawn."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", wrap=True, fontsize=SMALL, transform=ax.transAxes)


def number(value: float) -> str:
    """Three digits; whole numbers as they are."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def few_ticks(ax: "Axes", axis: str) -> None:
    """Few numbers along `x` or `y`, which then do not touch each other in a narrow picture."""
    ax.locator_params(axis=axis, nbins=4)


def count_ticks(ax: "Axes", count: int, most: int = 6) -> None:
    """Whole numbers below `count` along x: all if they are at most `most`, else some."""
    step = -(-count // most)
    tens = 10 ** (len(str(step)) - 1)
    ax.set_xticks(range(0, count, -(-step // tens) * tens))

"""Features: how much of the variance each has, its atoms, its direction."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._repr import short_repr
from .style import BLUE, GREY, SIGNED, SMALL, count_ticks, dress, few_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 12  # features in a picture: those with the largest share of the variance

EACH = 16  # neurons that have a label each


class MainDirections(NamedTuple):
    """Of every feature of a model: the line along which it moves the activations most.

    - `shares [m]` of the variance, noise included
    - `directions [n, m]`: what one spread (standard deviation) of the feature along its line adds
    - `places [m, K]`: where its states are on the line, in spreads from their mean

    A direction that atoms scale is that line itself. Vectors per atom have one as near as can be: the first principal
    component of the feature's vectors. It points to where the atoms' values are larger.
    """

    __repr__ = short_repr

    shares: np.ndarray
    directions: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, atoms: np.ndarray, masses: np.ndarray, decoder: np.ndarray, noise: np.ndarray) -> "MainDirections":
        """Of atoms and masses `[m, K]`, a decoder `[n, m]` or `[n, m, K]`, and a noise as a `FeatureModel` has it."""
        atoms, masses, decoder, noise = (np.asarray(one, np.float64) for one in (atoms, masses, decoder, noise))
        vectors = decoder if decoder.ndim == 3 else decoder[:, :, None] * atoms[None]
        centred = vectors - np.einsum("nmk,mk->nm", vectors, masses)[:, :, None]
        gram = np.einsum("nmk,nml->mkl", centred, centred, optimize=True)
        root = np.sqrt(masses)
        variances, components = np.linalg.eigh(root[:, :, None] * gram * root[:, None, :])
        spreads = np.sqrt(np.maximum(variances[:, -1], 0))
        directions = np.einsum("nmk,mk->nm", centred, root * components[:, :, -1])
        square = np.where(spreads > 0, spreads**2, 1)
        places = np.einsum("nm,nmk->mk", directions, centred) / square[:, None]
        rising = np.sum(masses * places * (atoms - np.sum(masses * atoms, axis=1)[:, None]), axis=1)
        sign = np.where(rising < 0, -1.0, 1.0)
        shares = np.einsum("mkk,mk->m", gram, masses)
        whole = shares.sum() + (decoder.shape[0] * noise**2 if noise.ndim == 0 else np.sum(noise**2))
        return cls(shares / (whole if whole > 0 else 1), directions * sign, places * sign[:, None])

    def largest(self, count: int = SHOWN) -> "Largest":
        """The features with the largest shares, the largest first."""
        chosen = np.argsort(-self.shares, kind="stable")[:count]
        left = self.shares.size - chosen.size
        return Largest(chosen, self.shares[chosen], self.directions[:, chosen], self.places[chosen], left)


class Largest(NamedTuple):
    """The features of a picture: their numbers, and of each what `MainDirections` has; how many are left out."""

    numbers: np.ndarray
    shares: np.ndarray
    directions: np.ndarray
    places: np.ndarray
    left: int


def draw_atoms(ax: "Axes", shown: Largest, masses: np.ndarray) -> None:
    """A row for each feature: its atoms on its line, as large as their masses `[m, K]`."""
    dress(ax, "atoms, as large as their mass", "spreads from the mean", grid="x")
    rows = np.broadcast_to(np.arange(len(shown.numbers))[:, None], shown.places.shape)
    seen = masses > 0
    ax.scatter(shown.places[seen], rows[seen], s=4 + 160 * masses[seen], color=BLUE, alpha=0.6, lw=0)
    ax.axvline(0, color=GREY, lw=0.8)
    ax.margins(x=0.08)
    _rows(ax, shown)


def draw_directions(ax: "Axes", shown: Largest, what: str = "neuron") -> None:
    """A row for each feature: its direction in colour; bars, where there is but one neuron."""
    directions, n, rows = shown.directions, len(shown.directions), np.arange(len(shown.numbers))
    title = f"the largest {len(rows)} of {len(rows) + shown.left} features" if shown.left else "features"
    if n == 1:
        dress(ax, title, f"one spread adds to the {what}", grid="x")
        ax.barh(rows, directions[0], 0.7, color=BLUE)
        few_ticks(ax, "x")
        ax.axvline(0, color=GREY, lw=0.8)
    else:
        dress(ax, title, what)
        most = max(float(np.abs(directions).max()), 1e-300)
        image = ax.imshow(directions.T, cmap=SIGNED, vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
        bar = ax.figure.colorbar(image, ax=ax, aspect=30, pad=0.02)
        bar.set_label("added by one spread", fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL)
        count_ticks(ax, n, EACH if n <= EACH else 6)
    _rows(ax, shown)


def _rows(ax: "Axes", shown: Largest) -> None:
    """The number of each feature and its share of the variance; the largest above."""
    labels = [f"{number}: {_percent(share)}" for number, share in zip(shown.numbers, shown.shares, strict=True)]
    ax.set_yticks(np.arange(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_ylabel("feature: share of the variance", fontsize=SMALL)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.095 else f"{share:.1%}" if share >= 0.0005 else "<0.1%"

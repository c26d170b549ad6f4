"""What a picture of a law shows: numbers for `plots/laws.py`."""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._check import require_drawable
from ..plots.axes import one_panel, panels
from ..plots.laws import draw_density, draw_joint, draw_tails
from ..plots.style import number
from .histogram import histogram

CELLS = 256  # of a density

SEEN = 1e-4  # probability at either side that a density leaves out: boxes reach far

JOINT = 48, 96  # cells an axis of a joint law: by quadrature, by a Fourier series (of the whole box)

REACH = 4.5  # spreads to either side of the mean that a joint law shows, or the box

JUMPS = 256  # atoms at which tails jump, the largest

NONE = 1e-9  # mass of what is no atom, below which there is no density


def draw_law(law: Any, ax: Any) -> Any:
    """As `Law.plot` says."""
    require_drawable("law", law.mean, 1)
    points, masses = (np.asarray(part, np.float64) for part in law.atoms)
    accuracy = float(law.accuracy)
    if law.dimension > 1:
        return _draw_joint(law, points, masses, accuracy, ax)
    pair = ax is None or np.size(ax) > 1
    axes = panels(ax, 2) if pair else np.array([one_panel(ax)])
    atoms = points[:, 0]
    wide, edges, tails = _edges(law, atoms, masses)
    heights = None if _only_atoms(masses, accuracy) else _heights(edges, tails[-edges.size :], atoms, masses)
    spread = max(float(law.covariance[0, 0]), 0) ** 0.5
    draw_density(axes[0], edges, heights, atoms, masses, f"mean {number(float(law.mean[0]))}, spread {number(spread)}")
    if pair:
        draw_tails(axes[1], *_tails(law, np.concatenate([wide, edges]), tails, atoms, masses), accuracy)
    return axes if pair else axes[0]


def _only_atoms(masses: np.ndarray, accuracy: float) -> bool:
    return bool(1 - masses.sum() <= max(NONE, min(accuracy, 1e-3)))


def _edges(law: Any, atoms: np.ndarray, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of cells of the box and of the part that is seen, and `P(Y > .)` at all of them."""
    low, high = float(law.low[0]), float(law.low[0] + law.length[0])
    size = max(abs(low), abs(high)) or 1.0
    room = max(0.02 * (high - low), 1e-3 * size if high - low <= 1e-6 * size else 0)
    wide = np.linspace(low - room, high + room, CELLS + 1)
    tails = _above(law, wide)
    left, right = wide[tails >= 1 - SEEN], wide[tails <= SEEN]
    seen_low, seen_high = (left.max() if left.size else wide[0]), (right.min() if right.size else wide[-1])
    margin = 0.02 * (seen_high - seen_low)
    if seen_high - seen_low <= 2 * (wide[1] - wide[0]) and np.max(masses, initial=0) >= 1 - SEEN:  # a point
        margin = 0.05 * size
    edges = np.linspace(seen_low - margin, seen_high + margin, CELLS + 1)
    if 0 < masses.size <= CELLS:  # an edge upon an atom: rounding would decide in which cell that is
        width = edges[1] - edges[0]
        near = np.abs(edges[:, None] - atoms[None]).min(axis=1) < 0.01 * width
        edges = edges + 0.03 * width * near
    return wide, edges, np.concatenate([tails, _above(law, edges)])


def _above(law: Any, places: np.ndarray, inclusive: bool = False) -> np.ndarray:
    return np.asarray(law.tail(places, inclusive), np.float64)


def _heights(edges: np.ndarray, tails: np.ndarray, atoms: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Mean density of every cell: its mass less that of the atoms in it, over its width."""
    order = np.argsort(atoms)
    below = np.concatenate([[0.0], np.cumsum(masses[order])])
    own = np.diff(below[np.searchsorted(atoms[order], edges, side="right")])
    return np.maximum(-np.diff(tails) - own, 0) / np.diff(edges)


def _tails(law: Any, places, tails, atoms, masses) -> tuple[np.ndarray, np.ndarray]:
    """Places that rise and `P(Y > .)` there; at an atom two values, with it and without."""
    jumps = atoms[np.argsort(-masses, kind="stable")[:JUMPS]]
    if not jumps.size:
        order = np.argsort(places, kind="stable")
        return places[order], tails[order]
    # As many places whatever the number of atoms, so that few programs are compiled.
    asked = np.concatenate([jumps, np.full(JUMPS - jumps.size, jumps[0])])
    closed, opened = (_above(law, asked, inclusive)[: jumps.size] for inclusive in (True, False))
    t, kind = np.concatenate([jumps, jumps, places]), np.repeat([0, 1, 2], [jumps.size, jumps.size, places.size])
    order = np.lexsort((kind, t))
    return t[order], np.concatenate([closed, opened, tails])[order]


def _draw_joint(law: Any, points: np.ndarray, masses: np.ndarray, accuracy: float, ax: Any) -> Any:
    pairs = list(itertools.combinations(range(law.dimension), 2))
    axes = [one_panel(ax)] if len(pairs) == 1 else panels(ax, len(pairs))
    cells = None if _only_atoms(masses, accuracy) else _cells(law, points, masses)
    covariance = np.asarray(law.covariance, np.float64)
    for one, (d, e) in zip(axes, pairs, strict=True):
        scale = max(covariance[d, d] * covariance[e, e], 0) ** 0.5
        title = f"correlation {number(covariance[d, e] / scale)}" if scale > 0 else "joint law"
        shown = None
        if cells is not None:
            edges, mass = cells
            others = tuple(axis for axis in range(law.dimension) if axis not in (d, e))
            shown = edges[d], edges[e], np.maximum(mass.sum(axis=others), 0)
        names = f"Y{d}", f"Y{e}"
        draw_joint(one, names, shown, points[:, [d, e]], masses, accuracy, title)
    return axes[0] if len(pairs) == 1 else axes


def _cells(law: Any, points: np.ndarray, masses: np.ndarray) -> tuple[Any, np.ndarray]:
    """Edges `[D, points + 1]` and masses of the cells that are seen (about the mean), less those of atoms."""
    spread = np.sqrt(np.maximum(np.diagonal(np.asarray(law.covariance, np.float64)), 0))
    mean, low, length = (np.asarray(part, np.float64) for part in (law.mean, law.low, law.length))
    room = 0.02 * np.where(length > 0, length, np.maximum(np.abs(low), 1))
    first, last = np.maximum(mean - REACH * spread, low) - room, np.minimum(mean + REACH * spread, low + length) + room
    if law.image is None:
        steps = np.arange(JOINT[1] + 1) / JOINT[1]
        edges, mass = low[:, None] + length[:, None] * steps, np.asarray(law.grid(JOINT[1]).masses, np.float64)
        seen = [np.flatnonzero((side[1:] > a) & (side[:-1] < b)) for side, a, b in zip(edges, first, last, strict=True)]
        kept = [side[np.append(one, one[-1] + 1)] for side, one in zip(edges, seen, strict=True)]
        return kept, mass[np.ix_(*seen)]
    edges = np.linspace(first, last, JOINT[0] + 1, axis=1)
    own = np.histogramdd(points, list(edges), weights=masses)[0]
    return edges, np.asarray(histogram(law.image, jnp.asarray(edges, law.mean.dtype)), np.float64) - own

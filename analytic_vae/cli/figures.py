"""Pictures of a report: is it right, where not, what are the features."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from ..plots.axes import matplotlib
from ..plots.deviations import draw_deviations, draw_outputs
from ..plots.features import Largest, draw_directions

QUESTIONS = {"right": "Is it right?", "where": "Where not?", "features": "What are the features?"}

SIZE = 3.7, 3.5  # inches of one picture


def figure(report: dict[str, Any]) -> bytes | None:
    """The pictures of a report side by side, a PNG; None if matplotlib is not installed."""
    return _png(list(_drawn(report)), dpi=150)


def pictures(report: dict[str, Any]) -> dict[str, bytes]:
    """Each picture of a report, a PNG, by the name of its question; none if matplotlib is not installed."""
    found = {name: _png([(name, draw)], dpi=150, scale=1.5) for name, draw in _drawn(report)}
    return {name: picture for name, picture in found.items() if picture is not None}


def _drawn(report: dict[str, Any]) -> list[tuple[str, Callable]]:
    """Those that a report has the numbers of."""
    draw = {"right": _outputs, "where": _deviations, "features": _features}
    known = {"right": True, "where": all("off" in row for row in report["layers"]), "features": "features" in report}
    return [(name, lambda ax, one=draw[name]: one(ax, report)) for name in QUESTIONS if known[name]]


def _png(drawn: list[tuple[str, Callable]], dpi: int, scale: float = 1.0) -> bytes | None:
    """Drawn in memory, without pyplot: no window, and nothing global."""
    try:
        package = matplotlib()
    except ImportError:
        return None
    drawing = package.figure.Figure((SIZE[0] * len(drawn) * scale, SIZE[1] * scale), layout="constrained")
    for ax, (name, draw) in zip(drawing.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        draw(ax)
        if len(drawn) > 1:  # else the question is that of the page
            ax.set_title(f"{QUESTIONS[name]}\n{ax.get_title()}", fontsize="medium")
    stream = io.BytesIO()
    drawing.savefig(stream, dpi=dpi, format="png")
    return stream.getvalue()


def _outputs(ax: Any, report: dict[str, Any]) -> None:
    """Laws, means and spreads; where there are many outputs, of those that are furthest off."""
    rows, laws = report["outputs"], report.get("laws", [])
    chosen = [law["output"] for law in laws] if laws else list(range(min(len(rows), 16)))
    shown = [rows[i] for i in chosen]
    own, sampled = (
        (np.array([r[mean] for r in shown]), np.array([r[spread] for r in shown]))
        for mean, spread in (("mean", "spread"), ("sampled_mean", "sampled_spread"))
    )
    halves = [tuple(np.array(law[name]) for name in ("edges", "masses", "sampled")) for law in laws]
    draw_outputs(ax, [str(i) for i in chosen], own, sampled, halves)
    ax.set_title(f"{len(chosen)} of {len(rows)} outputs, those furthest off" if len(chosen) < len(rows) else "outputs")


def _deviations(ax: Any, report: dict[str, Any]) -> None:
    """Every neuron of every layer."""
    layers = [
        {name: np.array(row["off"][name]) for name in ("means", "spreads", "correlations")} for row in report["layers"]
    ]
    draw_deviations(ax, layers, report["samples"], [f"neuron {row['worst_neuron']}" for row in report["layers"]])
    left = sum(row["off"]["left_out"] for row in report["layers"])
    ax.set_title(f"against {report['samples']} samples" + (f", {left} closer neurons left out" if left else ""))


def _features(ax: Any, report: dict[str, Any]) -> None:
    """Those of the output with the largest shares of its variance."""
    kept = report["features"]
    shares, directions = np.array(kept["shares"]), np.array(kept["directions"])
    draw_directions(ax, Largest(kept["numbers"], shares, directions, np.zeros((0, 0)), kept["left_out"]), "output")

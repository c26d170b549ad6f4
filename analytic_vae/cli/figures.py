"""Figures of the reports."""

import os
from pathlib import Path
from typing import Any

import numpy as np


def figure(report: dict[str, Any], path: Path) -> bool:
    """Draw a report; False (and nothing drawn) if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    drawing = Figure(figsize=(13, 3.8), layout="constrained")
    left, middle, right = drawing.subplots(1, 3)
    outputs = report["outputs"]
    places = np.arange(len(outputs))
    for shift, mean, spread, label in (
        (-0.12, "mean", "spread", "learnt model"),
        (0.12, "sampled_mean", "sampled_spread", f"{report['samples']} samples"),
    ):
        left.errorbar(
            places + shift,
            [r[mean] for r in outputs],
            [r[spread] for r in outputs],
            fmt="o",
            ms=4,
            capsize=2,
            label=label,
        )
    for place, law in zip(places, report.get("laws", []), strict=False):  # each law, as wide as its largest mass
        nodes, masses = np.asarray(law["nodes"]), np.asarray(law["masses"])
        shown = masses > 1e-3 * masses.max()  # boxes reach far into tails that nobody could see
        nodes, width = nodes[shown], 0.4 * masses[shown] / max(masses.max(), 1e-300)
        left.fill_betweenx(nodes, place - width, place + width, color="C0", alpha=0.2, lw=0)
    left.set(title="outputs: law, mean and spread", xlabel="output", xticks=places)
    left.legend(fontsize=8)
    width = 0.8 / len(report["classes"])
    titles = {"model": "learnt model", "sampled": "source samples", "real": "real data"}
    for i, (name, shares) in enumerate(report["classes"].items()):
        middle.bar(places + (i - 1) * width, shares, width, label=titles[name])
    middle.set(title="share of each class", xlabel="largest output", xticks=places)
    middle.set_ylim(top=1.15 * middle.get_ylim()[1])  # room for the legend
    middle.legend(fontsize=8, loc="upper center", ncols=3)
    layers = report["layers"]
    numbers = [row["layer"] for row in layers]
    right.plot(numbers, [max(row["mean_error"], 1e-5) for row in layers], "o-", ms=4, label="means")
    right.plot(numbers, [max(row["spread_error"], 1e-5) for row in layers], "s-", ms=4, label="spreads")
    right.plot(
        numbers, [max(row.get("correlation_error", 0), 1e-5) for row in layers], "^-", ms=4, label="correlations"
    )
    right.set(title="largest error, in sampled spreads", xlabel="layer", yscale="log", xticks=numbers)
    right.legend(fontsize=8)
    temporary = path.with_name(f".{path.name}.tmp")
    drawing.savefig(temporary, dpi=120, format="png")
    os.replace(temporary, path)
    return True

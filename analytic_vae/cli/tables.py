"""Tables of a report: a short one for the terminal, long ones for its files."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

CLASSES = {"model": "learnt model", "sampled": "source samples", "real": "real data"}

WIDTH = 100  # characters of a terminal

MOST = 40  # layers that a terminal is shown: of more, the first ones and the last


class Table(NamedTuple):
    """A title, sentences before it, names of columns and cells."""

    title: str
    said: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    after: str = ""


def short(report: dict[str, Any]) -> str:
    """What a terminal shows: a line a layer, at most 100 characters wide, and what it comes to."""
    columns = (
        "layer",
        "neurons",
        "found",
        "loss, nats",
        "in features",
        "means off (se)",
        "spreads off (se)",
        "seconds",
    )
    rows = [
        [
            *_named(row)[:2],
            row.get("how", "").removeprefix("in "),
            _number(row["loss"]),
            f"{row['explained']:.1%}",
            f"{row['mean_error']:.1e} ({row['mean_error_se']:.2g})",
            f"{row['spread_error']:.1e} ({row['spread_error_se']:.2g})",
            f"{row['seconds']:.1f}",
        ]
        for row in report["layers"]
    ]
    lines = [*report.get("about", []), ""]
    if len(rows) > MOST:
        lines[-1:] = [f"Layers {MOST // 2} to {len(rows) - MOST // 2 - 1} of {len(rows)} are left out here.", ""]
        rows = [*rows[: MOST // 2], ["..."] * len(columns), *rows[-MOST // 2 :]]
    lines += [*aligned(columns, rows), ""]
    lines.append(
        f"Off: the largest over the neurons, in spreads of {report['samples']} samples (se: in their standard errors)."
    )
    lines += summary(report)
    return (
        "\n".join(part for line in lines for part in (textwrap.wrap(line, WIDTH) if len(line) > WIDTH else [line]))
        + "\n"
    )


def summary(report: dict[str, Any]) -> list[str]:
    """What the numbers come to, in sentences."""
    last, classes = report["layers"][-1], report["classes"]
    said = f"Outputs: means off by {last['mean_error']:.1e} spreads at most, spreads by {last['spread_error']:.1e}"
    if len(classes["model"]) > 1:
        said += f"; shares of classes by {total_variation(classes['model'], classes['sampled']):.3f} (total variation)"
    return [said + ".", *doubts(report)]


def doubts(report: dict[str, Any]) -> list[str]:
    """A sentence, if losses are not to be trusted."""
    doubtful = [str(row["layer"]) for row in report["layers"] if not (row["error_estimate"] or 0) <= 0.01]
    return [f"Too coarse in layers {', '.join(doubtful)}: raise --frequencies."] if doubtful else []


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need; words at the left, numbers at the right."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows)]


def total_variation(first: list[float], second: list[float]) -> float:
    """`1/2 sum |p_i - q_i|`."""
    return float(np.abs(np.subtract(first, second)).sum() / 2)


def tables(report: dict[str, Any]) -> list[Table]:
    """All that a report has numbers of."""
    found = [_losses(report), _against_samples(report), _outputs(report["outputs"])]
    return [*found, _classes(report["classes"])] if len(report["outputs"]) > 1 else found


def markdown(report: dict[str, Any]) -> str:
    """The tables of a report as text that one reads as it is."""
    lines = ["# What was learnt", "", *report.get("about", []), "", *summary(report), ""]
    for one in tables(report):
        lines += [f"## {one.title}", "", *([one.said, ""] if one.said else [])]
        lines += ["| " + " | ".join(row) + " |" for row in (one.columns, ["---"] * len(one.columns), *one.rows)]
        lines += ["", *([one.after, ""] if one.after else [])]
    return "\n".join(lines)


def _losses(report: dict[str, Any]) -> Table:
    said = (
        "In nats. The estimate is how far the loss moves at 1.5 times the frequencies; the bound, where it was asked "
        "for (`--certify`), is proved. *In features* is the share of the variance that the features explain, the rest "
        "is the model's noise; *least* the smallest eigenvalue of its covariance, where it is the remainder."
    )
    columns = ("layer", "neurons", "found", "loss", "estimate", "bound", "rate", "distortion", "in features", "least")
    names = ("loss", "error_estimate", "error_bound", "rate", "distortion", "explained", "least_remainder", "seconds")
    rows = [[*_named(row), *(_number(row.get(name)) for name in names)] for row in report["layers"]]
    return Table("Layer by layer: losses", said, (*columns, "seconds"), rows, " ".join(doubts(report)))


def _against_samples(report: dict[str, Any]) -> Table:
    said = (
        f"Errors of the learnt model's means and spreads (standard deviations) against {report['samples']} samples of "
        "the source pushed through the true network: the largest over the neurons, in units of the neuron's sampled "
        "spread (at least 1% of the layer's mean spread), and in standard errors of the samples, too (of spreads, "
        "those of the variance); of correlations over all pairs. A dense layer's means and covariances are those of "
        "its source, to the engine's accuracy, and a linear layer's law is; what is lost of the law beside its moments "
        "adds up from layer to layer."
    )
    columns = ("layer", "neurons", "mean error", "in standard errors", "of neuron")
    columns = (*columns, "spread error", "variance's, in them", "correlation error")
    rows = [
        [
            *_named(row)[:2],
            f"{row['mean_error']:.4f}",
            f"{row['mean_error_se']:.1f}",
            str(row.get("worst_neuron", "")),
            f"{row['spread_error']:.4f}",
            *(_number(row.get(name)) for name in ("spread_error_se", "correlation_error")),
        ]
        for row in report["layers"]
    ]
    return Table("Layer by layer: against samples", said, columns, rows)


def _outputs(outputs: list[dict[str, Any]]) -> Table:
    names = ("mean", "sampled_mean", "standard_error", "spread", "sampled_spread")
    rows = [[str(r["output"]), *(f"{r[name]:.4f}" for name in names)] for r in outputs]
    return Table("Outputs", "", ("output", "mean", "sampled", "se", "spread", "sampled"), rows)


def _classes(classes: dict[str, list[float]]) -> Table:
    rows = [[str(i), *(f"{s:.4f}" for s in shares)] for i, shares in enumerate(zip(*classes.values(), strict=True))]
    after = f"Total variation, learnt model to source samples: {_between(classes, 'model', 'sampled')}."
    if "real" in classes:
        after += (
            f" Source samples to real data: {_between(classes, 'sampled', 'real')} (the features of the source are "
            f"independent, those of the data are not). Learnt model to real data: {_between(classes, 'model', 'real')}."
        )
    return Table("Largest output: share of each class", "", ("class", *(CLASSES[n] for n in classes)), rows, after)


def _named(row: dict[str, Any]) -> list[str]:
    return [str(row["layer"]), str(row["neurons"]), str(row.get("how", ""))]


def _between(classes: dict[str, list[float]], first: str, second: str) -> str:
    return f"{total_variation(classes[first], classes[second]):.4f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1e}" if 0 < abs(value) < 1e-2 else f"{value:.3f}"

"""Tables: what was learnt, beside samples pushed through the true network."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..fitting.result import Fit, Stop
from ..io.atomic import write_text
from ..learn import Trajectory
from ..samples import Deviations, SampledMoments, largest_counts, sampled_moments
from ..types import Array, PRNGKeyArray
from .figures import figure

SHOWN, CELLS = 16, 64  # outputs whose laws are drawn, and cells of each


def compare(
    trajectory: Trajectory, *, samples: int = 200_000, data: Array | None = None, key: PRNGKeyArray
) -> dict[str, Any]:
    """The learnt models beside samples of the source pushed through the true network, layer by layer.

    Arguments:
        trajectory: what `learn` returned.
        samples: how many draws of the source to push through the network; at least 2.
        data: `[rows, n]` real inputs, pushed through the network as well, if given.
        key: for the draws.

    Returns plain numbers and lists, ready for JSON: `layers` (a row each), `outputs` (a row per output neuron),
    `classes` (shares of the largest output: learnt model, sampled, real data), `samples`.
    """
    if samples < 2:
        raise ValueError(f"samples: expected at least 2, got {samples}.")
    source_key, model_key = jax.random.split(key)
    moments, counts = sampled_moments(trajectory.source, trajectory.network, samples, source_key)
    layers = []
    for index, fit in enumerate(trajectory.fits):
        layers.append(_layer_row(index, fit, moments[index]))
    mean, covariance = (np.asarray(a) for a in trajectory.models[-1].moments())
    sampled_mean, sampled_spread = moments[-1].mean, np.sqrt(np.diagonal(moments[-1].covariance))
    outputs = [
        {
            "output": i,
            "mean": float(mean[i]),
            "sampled_mean": float(sampled_mean[i]),
            "standard_error": float(sampled_spread[i] / samples**0.5),
            "spread": float(covariance[i, i] ** 0.5),
            "sampled_spread": float(sampled_spread[i]),
        }
        for i in range(mean.size)
    ]
    own = largest_counts(trajectory.models[-1], samples, model_key)
    classes = {"model": own / samples, "sampled": counts / samples}
    if data is not None:
        real = jax.vmap(trajectory.network)(jnp.asarray(data, trajectory.source.mean.dtype))
        classes["real"] = _shares(real)
    return {
        "samples": samples,
        "layers": layers,
        "outputs": outputs,
        "classes": {name: [float(s) for s in share] for name, share in classes.items()},
    }


def laws_of_outputs(trajectory: Trajectory) -> list[dict[str, list[float]]]:
    """The law of each of the first `SHOWN` outputs: masses of cells about nodes."""
    rows = np.eye(trajectory.network.outputs)[:SHOWN]
    grids = [trajectory.law(row[None]).grid(CELLS) for row in rows]
    return [{"nodes": np.asarray(one.nodes[0]).tolist(), "masses": np.asarray(one.masses).tolist()} for one in grids]


def total_variation(first: list[float], second: list[float]) -> float:
    """`1/2 sum |p_i - q_i|`."""
    return float(np.abs(np.subtract(first, second)).sum() / 2)


def markdown(report: dict[str, Any]) -> str:
    """The tables of a report as text that one reads as it is."""
    lines = ["# What was learnt", "", *report.get("about", []), "", *_layer_table(report), ""]
    return "\n".join([*lines, *_output_table(report["outputs"]), "", *_class_table(report["classes"])]) + "\n"


def _layer_table(report: dict[str, Any]) -> list[str]:
    lines = ["## Layer by layer", ""]
    lines += [
        "Errors are of the learnt model's means and spreads (standard deviations) against "
        f"{report['samples']} samples of the source pushed through the true network: the largest over the neurons, in "
        "units of the neuron's sampled spread (at least 1% of the layer's mean spread), and in standard errors of the "
        "samples, too (of spreads, those of the variance); of correlations over all pairs. *In features* is the share "
        "of the variance that the features explain, the rest is the model's noise; *least* the smallest eigenvalue of "
        "its covariance, where it is the remainder. A dense layer's means and covariances are those of its source, to "
        "the engine's accuracy, and a linear layer's law is; what is lost of the law beside its moments adds up from "
        "layer to layer.",
        "",
        "| layer | neurons | found | loss (nats) | estimate | bound | rate | distortion | in features | least "
        "| seconds | mean error | in standard errors | spread error | variance's, in them | correlation error |",
        "|---" * 16 + "|",
    ]
    for row in report["layers"]:
        cells = [str(row["layer"]), str(row["neurons"]), row.get("how", "")]
        numbers = ("loss", "error_estimate", "error_bound", "rate", "distortion")
        cells += [_number(row.get(name)) for name in (*numbers, "explained", "least_remainder", "seconds")]
        cells += [f"{row['mean_error']:.4f}", f"{row['mean_error_se']:.1f}", f"{row['spread_error']:.4f}"]
        cells += [_number(row.get(name)) for name in ("spread_error_se", "correlation_error")]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Of the loss's error: the estimate is how far it moves at 1.5 times the frequencies; the bound, where it was "
        "asked for (`--certify`), is proved.",
    ]
    doubtful = [str(row["layer"]) for row in report["layers"] if not (row["error_estimate"] or 0) <= 0.01]
    if doubtful:
        lines[-1] += f" **Too coarse in layers {', '.join(doubtful)}: raise --frequencies.**"
    return lines


def _output_table(outputs: list[dict[str, Any]]) -> list[str]:
    lines = ["## Outputs", "", "| output | mean | sampled | se | spread | sampled |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r['output']} | {r['mean']:.4f} | {r['sampled_mean']:.4f} | {r['standard_error']:.4f} | {r['spread']:.4f} "
        f"| {r['sampled_spread']:.4f} |"
        for r in outputs
    ]
    return lines


def _class_table(classes: dict[str, list[float]]) -> list[str]:
    titles = {"model": "learnt model", "sampled": "source samples", "real": "real data"}
    lines = ["## Largest output: share of each class", "", "| class | " + " | ".join(titles[n] for n in classes)]
    lines[-1] += " |"
    lines.append("|---" * (len(classes) + 1) + "|")
    for i, shares in enumerate(zip(*classes.values(), strict=True)):
        lines.append(f"| {i} | " + " | ".join(f"{share:.4f}" for share in shares) + " |")
    lines += ["", f"Total variation, learnt model to source samples: {_between(classes, 'model', 'sampled'):.4f}."]
    if "real" in classes:
        lines[-1] += (
            f" Source samples to real data: {_between(classes, 'sampled', 'real'):.4f} (the features of the source are "
            f"independent, those of the data are not). Learnt model to real data: "
            f"{_between(classes, 'model', 'real'):.4f}."
        )
    return lines


def save_report(folder: str | os.PathLike[str], report: dict[str, Any]) -> list[Path]:
    """Write `report.json`, `report.md` and, if matplotlib is there, `report.png`; returns the files."""
    folder = Path(folder)
    files = [folder / "report.json", folder / "report.md"]
    write_text(files[0], json.dumps(report, indent=1) + "\n")
    write_text(files[1], markdown(report))
    picture = folder / "report.png"
    if figure(report, picture):
        files.append(picture)
    return files


def _layer_row(index: int, fit: Fit, sampled: SampledMoments) -> dict[str, Any]:
    errors = Deviations.of(fit.target, sampled)
    return {
        "layer": index,
        "neurons": fit.target.neurons,
        "how": {Stop.EXACT: "exact", Stop.CLOSED: "in closed form"}.get(fit.stop, "learnt"),
        "loss": fit.loss,
        "error_estimate": fit.error_estimate,
        "error_bound": None if fit.elbo is None or fit.elbo.bounds is None else float(fit.elbo.error_bound),
        "rate": None if fit.elbo is None else float(fit.elbo.rate),
        "distortion": None if fit.elbo is None else float(fit.elbo.distortion),
        "seconds": fit.seconds,
        "stop": fit.stop.value,
        "mean_error": float(errors.means.max()),
        "mean_error_se": float((errors.means / errors.means_error).max()),
        "spread_error": float(errors.spreads.max()),
        "spread_error_se": float((errors.spreads / errors.spreads_error).max()),
        "correlation_error": float(errors.correlations.max(initial=0)),
        "explained": fit.explained,
        "least_remainder": fit.least_remainder,
    }


def _shares(outputs: Array) -> np.ndarray:
    winners = np.asarray(jnp.argmax(outputs, axis=1))
    return np.bincount(winners, minlength=outputs.shape[1]) / winners.size


def _between(classes: dict[str, list[float]], first: str, second: str) -> float:
    return total_variation(classes[first], classes[second])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1e}" if 0 < abs(value) < 1e-2 else f"{value:.3f}"

"""What was learnt, beside samples pushed through the true network: plain numbers, and the files that show them."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..fitting.result import Fit, Stop
from ..io.atomic import write_bytes, write_text
from ..learn import Trajectory
from ..model.feature_model import FeatureModel
from ..samples import Deviations, SampledMoments, counts_in_cells, largest_counts, sampled_moments
from ..types import Array, PRNGKeyArray
from .figures import figure, pictures
from .page import page
from .tables import markdown

SHOWN, CELLS = 16, 64  # outputs whose laws are drawn, and cells of each

REACH = 4.0  # spreads to either side of the mean that these have

UNITS = 500  # neurons of a layer whose deviations are kept: those that are furthest off

COUNTED = 200_000  # samples for the laws, at most


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
    `classes` (shares of the largest output: learnt model, sampled, real data), `features` (of the output), `samples`.
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
        "features": _features(trajectory.models[-1]),
    }


def laws_of_outputs(trajectory: Trajectory, report: dict[str, Any], *, key: PRNGKeyArray) -> list[dict[str, Any]]:
    """The laws of the `SHOWN` outputs that are furthest off: masses of cells, and the samples' shares of them."""
    chosen = _furthest(report)
    rows = np.eye(trajectory.network.outputs)
    edges = np.array([_edges(report["outputs"][i]) for i in chosen])
    samples = min(report["samples"], COUNTED)
    counts = counts_in_cells(trajectory.source, trajectory.network, samples, chosen, edges, key)
    found = []
    for index, places, count in zip(chosen, edges, counts, strict=True):
        tails = np.asarray(trajectory.law(rows[index : index + 1]).tail(places), np.float64)
        law = {"edges": places, "masses": -np.diff(tails), "sampled": count / samples}
        found.append({"output": int(index)} | {name: values.tolist() for name, values in law.items()})
    return found


def _furthest(report: dict[str, Any]) -> np.ndarray:
    """Numbers of outputs, in order."""
    outputs = report["outputs"]
    own, sampled = (np.array([[r[a], r[b]] for r in outputs]) for a, b in (("mean", "spread"), _SAMPLED))
    off = np.abs(own - sampled).max(axis=1) / np.maximum(sampled[:, 1], 1e-2 * sampled[:, 1].mean() + 1e-300)
    return np.sort(np.argsort(-off, kind="stable")[:SHOWN])


_SAMPLED = "sampled_mean", "sampled_spread"


def _edges(row: dict[str, float]) -> np.ndarray:
    """Of the cells of an output's law: about the sampled mean."""
    centre, half = row["sampled_mean"], REACH * max(row["spread"], row["sampled_spread"])
    half = half if half > 1e-6 * abs(centre) else 1e-3 * (abs(centre) or 1.0)
    return np.linspace(centre - half, centre + half, CELLS + 1)


def _features(model: FeatureModel) -> dict[str, Any]:
    """Shares of the variance and directions of the largest features of a model."""
    found = model.main_directions().largest()
    numbers = {name: getattr(found, name).tolist() for name in ("numbers", "shares", "directions")}
    return numbers | {"left_out": found.left}


def save_report(folder: str | os.PathLike[str], report: dict[str, Any]) -> list[Path]:
    """Write `report.json`, `report.md`, `report.html` and, if matplotlib is there, `report.png`; returns the files."""
    folder = Path(folder)
    files = [folder / f"report.{suffix}" for suffix in ("json", "md", "html")]
    write_text(files[0], json.dumps(report, indent=1) + "\n")
    write_text(files[1], markdown(report))
    write_text(files[2], page(report, pictures(report)))
    picture = figure(report)
    if picture is not None:
        files.append(folder / "report.png")
        write_bytes(files[-1], picture)
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
        "worst_neuron": int(np.argmax(errors.means)),
        "off": _off(errors, sampled.samples),
    }


def _off(errors: Deviations, samples: int) -> dict[str, Any]:
    """How far neurons are off, in standard errors, three digits each; of pairs the median and the worst."""
    found = errors.in_standard_errors(samples)
    kept = np.argsort(-np.maximum(found["means"], found["spreads"]), kind="stable")[:UNITS]
    pairs = found["correlations"]
    numbers = {name: found[name][kept] for name in ("means", "spreads")}
    numbers["correlations"] = np.array([np.median(pairs), pairs.max()]) if pairs.size else pairs
    off = {name: [float(f"{value:.3g}") for value in values] for name, values in numbers.items()}
    return off | {"left_out": int(errors.means.size - kept.size)}


def _shares(outputs: Array) -> np.ndarray:
    winners = np.asarray(jnp.argmax(outputs, axis=1))
    return np.bincount(winners, minlength=outputs.shape[1]) / winners.size

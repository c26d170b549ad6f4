"""Draws `results/*.json` as pictures, one per question; `python benchmarks/figures.py`, after the benchmarks.

`results/digits.png` is the `report.png` of the main job, `python -m analytic_vae learn`.
"""

import json

import matplotlib
import numpy as np
from harness import HERE

matplotlib.use("Agg")
import matplotlib.pyplot as plt

plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
                 "grid.alpha": 0.3, "legend.frameon": False, "figure.constrained_layout.use": True}  # fmt: skip


def rows(name):
    """The rows of one results file."""
    return json.loads((HERE / "results" / f"{name}.json").read_text())["rows"]


def save(figure, name):
    """`results/<name>.png`."""
    figure.savefig(HERE / "results" / f"{name}.png", dpi=150)
    plt.close(figure)


def accuracy():
    """Relative error of the loss against seconds, per method."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    titles = {"small": "3 binary features, against enumeration", "large": "16 features of 32 atoms"}
    found = rows("loss_accuracy")
    for axis, (case, title) in zip(axes, titles.items(), strict=True):
        methods = [row["method"] for row in found if row["case"] == case]
        for method in dict.fromkeys(methods):
            if "oracle" in method:
                continue
            points = [(r["median_s"], r["error"]) for r in found if r["case"] == case and r["method"] == method]
            name = "analytic_vae" if method == "this" else method
            axis.loglog(*np.array(points).T, "o-", label=name, lw=2.5 if method == "this" else 1, ms=4)
        axis.set(title=title, xlabel="seconds")
    axes[0].set_ylabel("relative error of the loss")
    axes[0].legend()
    save(figure, "accuracy")


def training():
    """Nats above the best loss against seconds, best setting of every method, one panel per seed."""
    found = rows("training")[0]
    best = {str((row["method"], row["rate"], row["batch"])): row for row in found["headline"] if row["within"] == 0.01}
    figure, axes = plt.subplots(1, len(found["traces"]), figsize=(9, 2.8), sharey=True, squeeze=False)
    for seed, (axis, traces) in enumerate(zip(axes[0], found["traces"], strict=True)):
        least = min(loss for trace in traces.values() for _, loss in trace)
        for name, row in best.items():
            seconds, losses = np.array(traces[name]).T
            label = row["method"] + (f", rate {row['rate']}" if row["rate"] else "")
            axis.loglog(seconds, np.maximum(np.minimum.accumulate(losses) - least, 1e-5), ".-", ms=3, label=label)
        axis.axhline(0.01, color="0.6", lw=0.8, ls="--")
        axis.set(title=f"problem {seed}", xlabel="seconds")
    axes[0, 0].set_ylabel("nats above the best")
    axes[0, -1].legend(fontsize=7)
    save(figure, "training")


def growth():
    """Seconds of loss and of loss and gradient against each size."""
    found = [row for row in rows("scaling") if "loss_s" in row and row["axis"] != "t"]
    names = list(dict.fromkeys(row["axis"] for row in found))
    figure, axes = plt.subplots(1, len(names), figsize=(9, 2.8), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        chosen = sorted((row[name], row["loss_s"], row["grad_s"]) for row in found if row["axis"] == name)
        x, loss, gradient = np.array(chosen).T
        axis.loglog(x, loss, "o-", label="loss")
        axis.loglog(x, gradient, "s-", label="loss and gradient")
        axis.set_xticks(x, [str(int(value)) for value in x])
        axis.minorticks_off()
        axis.set_xlabel(name)
    axes[0].set_ylabel("seconds")
    axes[0].legend()
    save(figure, "growth")


def engine():
    """How many times faster than direct sums."""
    found = rows("engine")
    figure, axis = plt.subplots(figsize=(6, 3))
    names = {"loss_ratio": "loss", "grad_ratio": "loss and gradient"}
    for index, (key, label) in enumerate(names.items()):
        bars = axis.bar(
            np.arange(len(found)) + 0.4 * (index - 0.5), [row.get(key) or 0 for row in found], 0.38, label=label
        )
        axis.bar_label(bars, [f"{row[key]:.3g}" if row.get(key) else "" for row in found], fontsize=7)
    axis.set(ylabel="times faster than direct sums")
    axis.set_xticks(range(len(found)), [f"m = {row['m']}, K = {row['K']}" for row in found])
    axis.legend(loc="upper left", ncols=2, fontsize=7)
    axis.set_ylim(top=axis.get_ylim()[1] * 1.2)
    save(figure, "engine")


def sampling():
    """Relative errors against seconds: lines of samples, dots of the engine."""
    found = rows("monte_carlo")
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    for axis, name in zip(axes, ("loss", "gradient"), strict=True):
        for index, row in enumerate(found):
            least = row[f"{name}_s"]
            seconds = np.array([least, row[f"samples_{name}_s_for_1e-5"]])
            errors = row[f"same_time_{name}_error"] * (least / seconds) ** 0.5
            axis.loglog(seconds, errors, color=f"C{index}", lw=1, label=f"samples, m = {row['m']}")
            axis.loglog(least, row[f"{name}_error"], "o", color=f"C{index}", label=f"analytic_vae, m = {row['m']}")
        axis.set(title=name, xlabel="seconds")
    axes[0].set_ylabel("relative error")
    axes[0].legend(fontsize=7, loc="lower right")
    save(figure, "sampling")


def large():
    """Seconds of large layers, single and double precision; and of one process against two."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), width_ratios=(2, 1))
    for name, label, style in (("accelerator_cpu", "float32", "o-"), ("accelerator_cpu_float64", "float64", "s--")):
        for key, what, color in (("loss_s", "loss", "C0"), ("grad_s", "loss and gradient", "C1")):
            points = np.array([(row["m"], row[key]) for row in rows(name)])
            axes[0].loglog(*points.T, style, color=color, label=f"{what}, {label}")
    sizes = [row["m"] for row in rows("accelerator_cpu")]
    axes[0].set_xticks(sizes, [str(size) for size in sizes])
    axes[0].minorticks_off()
    axes[0].set(xlabel="features, neurons", ylabel="seconds")
    axes[0].legend(fontsize=7)
    (row,) = rows("processes")
    bars = axes[1].bar(["one process", "two"], [row["one_s"], row["two_s"]], 0.5)
    axes[1].bar_label(bars, [f"{row['one_s']:.3g}", f"{row['two_s']:.3g}"], fontsize=7)
    axes[1].set(ylabel="seconds, m = 64")
    save(figure, "large")


DRAWN = {
    accuracy: "loss_accuracy",
    training: "training",
    growth: "scaling",
    engine: "engine",
    sampling: "monte_carlo",
    large: "processes",
}

if __name__ == "__main__":
    for draw, name in DRAWN.items():
        if (HERE / "results" / f"{name}.json").exists():
            draw()

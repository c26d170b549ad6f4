"""Puts the tables of `results/*.json` into `README.md`, between `<!-- name -->` and `<!-- end -->`.

`python benchmarks/tables.py`, after the benchmarks; the text around the tables is written by hand.
"""

import json
import re

import loss_accuracy
import scaling
from harness import HERE, table

ENGINE = (
    "m",
    "K",
    "loss_s",
    "step_s",
    "error",
    "grad_error",
    "gemm_s",
    "step_in_gemms",
    "loss_compile_s",
    "step_compile_s",
    "peak_gib",
)
DIRECT = "m", "K", "direct_s", "direct_grad_s", "direct_error", "loss_ratio", "grad_ratio"
SAMPLED = "m", "{}_s", "{}_error", "samples_{}_s_for_1e-5", "samples_over_{}", "same_time_{}_error", "{}_off_by"


def rows(name):
    """The rows of one results file."""
    return json.loads((HERE / "results" / f"{name}.json").read_text())["rows"]


def columns(found, *names):
    """Only these columns of the rows."""
    return [{name: row.get(name) for name in names} for row in found]


def tables():
    """Markdown by marker, of the results that are there."""
    out, there = {}, {file.stem for file in (HERE / "results").glob("*.json")}
    if "loss_accuracy" in there:
        loss_accuracy.ROWS[:] = rows("loss_accuracy")
        shown = "method", "size", "error", "worst_error", "median_s", "min_s", "max_s", "compile_s"
        for case in ("small", "large"):
            out[case] = table(columns([row for row in loss_accuracy.ROWS if row["case"] == case], *shown))
            ratios = loss_accuracy.ratios(case)
            out[f"{case} ratios"] = table(
                columns(ratios, "method", "size", "error_ratio_at_equal_time", "time_ratio_at_equal_error")
            )
    if "scaling" in there:
        grown = rows("scaling")
        out["growth"] = table([{k: v for k, v in row.items() if k not in ("loss", "finite")} for row in grown])
        axes = {row["axis"] for row in grown if "loss_s" in row} - {"t"}
        out["exponents"] = table([scaling.exponents(grown, axis) for axis in sorted(axes)])
    if "training" in there:
        trained = rows("training")[0]
        out |= {"training": table(trained["summary"]), "training best": table(trained["headline"])}
    if "seconds" in there:
        out["seconds"] = table(rows("seconds"))
    if "equations" in there:
        out["equations"] = table(rows("equations"))
    if "engine" in there:
        names = {"engine": ENGINE, "engine direct": DIRECT}
        out |= {name: table(columns(rows("engine"), *shown)) for name, shown in names.items()}
    if "monte_carlo" in there:
        for name in ("loss", "gradient"):
            out[f"sampled {name}"] = table(columns(rows("monte_carlo"), *[column.format(name) for column in SAMPLED]))
    for name in there & {
        "processes",
        "bounds",
        "elbo_bounds",
        "dense_bounds",
        "campaigns",
        "resolutions",
        "killed_runs",
        "mutated_files",
    } | {name for name in there if name.startswith(("accelerator", "whole_layers"))}:
        out[name] = table(rows(name))
    return out


def machine():
    """One line a results file: cpu, load and versions."""
    names = "cpu", "cores", "load", "jax", "jaxlib", "numpy", "python", "date"
    files = sorted((HERE / "results").glob("*.json"))
    found = [{"file": file.stem} | json.loads(file.read_text())["environment"] for file in files]
    return table(columns(found, "file", "device", *names))


if __name__ == "__main__":
    path = HERE / "README.md"
    text = path.read_text()
    for name, markdown in (tables() | {"machine": machine()}).items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            print(f"README.md: no place for the table {name!r} (<!-- {name} --> and <!-- end -->)")
        text = pattern.sub(lambda match, new=markdown: match[1] + new + "\n" + match[2], text)
    path.write_text(text)

"""Error and time of the loss against resolution, beside direct sums, binned convolution and Monte Carlo.

`small`: n1 = 2, m1 = 3, K1 = 2 (n2 = m2 = K2 = 3): the error is against enumeration and quadrature
(`tests/reference.py`).
`large`: n = m = 16, K = 32: the states cannot be listed; the error is against the package at `N = 96`.
Noise is 20% of the spread in both. `--only small|large|samples` (the Monte Carlo of `large` alone) with `--resume`.
"""

import json
import sys
import time

import binned
import direct
import harness
import jax
import numpy as np
import reference
from harness import av, compile_for, problem, save, table, timed
from sampled import sampled_loss

SEEDS, KEYS = 5, 8
FREQUENCIES = (12, 24, 48, 96, 192)
ROWS = []


def add(case, method, size, error, timing, **more):
    row = {"case": case, "method": method, "size": size, "error": float(error)}
    row |= {"median_s": timing["median_s"], "min_s": timing["min_s"], "max_s": timing["max_s"]}
    ROWS.append(row | {"compile_s": timing.get("compile_s")} | more)
    print(ROWS[-1], flush=True)
    save("loss_accuracy", ROWS)


def exact(source, layer, target, encoder):
    """The parts as the oracle's own objects."""
    model = lambda m: reference.Model(m.prior.atoms, m.prior.masses, m.decoder, m.noise**2, m.mean)  # noqa: E731
    ridge = reference.Ridge(layer.linear, layer.output, layer.direction, float(layer.bias))
    log_q = reference.softmax_encoder(np.asarray(encoder.statistics), np.asarray(encoder.base))
    return model(source), ridge, model(target), np.asarray(encoder.readout), log_q


def jax_engine(case, method, size, fn, problems, references):
    """Rows of the median relative error over the problems, and the time of the first."""
    compiled, compile_s = compile_for(fn, *problems[0])
    errors = [abs(float(compiled(*p)) / r - 1) for p, r in zip(problems, references, strict=True)]
    timing = timed(lambda: compiled(*problems[0])) | {"compile_s": compile_s}
    add(case, method, size, np.median(errors), timing, worst_error=max(errors))


def monte_carlo(case, problems, references, sizes):
    for samples in sizes:

        def fn(key, *p, samples=samples):
            return sampled_loss(key, *p, samples, min(samples, 5000))

        run, compile_s = compile_for(fn, jax.random.key(0), *problems[0])
        timing = timed(lambda run=run: run(jax.random.key(0), *problems[0]), 5) | {"compile_s": compile_s}
        rms = []
        for p, r in zip(problems, references, strict=True):
            values = np.array([float(run(jax.random.key(i), *p)[0]) for i in range(KEYS)])
            rms.append(np.sqrt(np.mean((values / r - 1) ** 2)))
        add(case, "Monte Carlo", samples, np.median(rms), timing, worst_error=max(rms))


def small():
    problems = [problem(2, 3, 2, seed=seed, n2=3, m2=3, K2=3) for seed in range(SEEDS)]
    begun = time.perf_counter()
    references = [reference.elbo_terms(*exact(*p))["loss"] for p in problems]
    seconds = (time.perf_counter() - begun) / SEEDS
    finer = reference.elbo_terms(*exact(*problems[0]), rule=reference.Rule(36, 16))["loss"]
    nothing = {"median_s": seconds, "min_s": seconds, "max_s": seconds}
    add("small", "enumeration (oracle)", 24, abs(finer / references[0] - 1), nothing)
    for N in FREQUENCIES:
        jax_engine("small", "this", N, lambda *p, N=N: av.elbo(*p, av.Resolution(N)).loss, problems, references)
    for F in (24, 48, 96):
        jax_engine("small", "direct", F, lambda *p, F=F: direct.loss(*p, frequencies=F), problems, references)
    monte_carlo("small", problems, references, (1000, 10_000, 100_000, 1_000_000))
    given = [exact(*p) for p in problems]
    for bins in (64, 128):
        for split in (False, True):
            timing = timed(lambda bins=bins, split=split: binned.loss(*given[0], bins, split), repeats=3)
            errors = [abs(binned.loss(*g, bins, split) / r - 1) for g, r in zip(given, references, strict=True)]
            name = "binned, split" if split else "binned"
            add("small", name, bins, np.median(errors), timing, worst_error=max(errors))


def large():
    problems = [problem(16, 16, 32)]
    fine = jax.jit(lambda *p: av.elbo(*p, av.Resolution(96)).loss)
    references = [float(fine(*p)) for p in problems]
    for N in (12, 24, 48):
        jax_engine("large", "this", N, lambda *p, N=N: av.elbo(*p, av.Resolution(N)).loss, problems, references)
    jax_engine("large", "direct", 24, direct.loss, problems, references)
    large_samples(problems, references)


def large_samples(problems=None, references=None):
    problems = problems or [problem(16, 16, 32)]
    references = references or [float(jax.jit(lambda *p: av.elbo(*p, av.Resolution(96)).loss)(*p)) for p in problems]
    monte_carlo("large", problems, references, (1000, 10_000, 100_000))


def ratios(case):
    """Error at equal time and time at equal error of every other method, against this package, from the rows."""
    mine = [row for row in ROWS if row["case"] == case and row["method"] == "this"]
    out = []
    for row in ROWS:
        if row["case"] != case or row["method"].split(",")[0] not in ("direct", "Monte Carlo", "binned"):
            continue
        in_time = [r for r in mine if r["median_s"] <= row["median_s"]]
        as_good = [r for r in mine if r["error"] <= row["error"]]
        out.append({
            "case": case, "method": row["method"], "size": row["size"],
            "error_ratio_at_equal_time": row["error"] / min(r["error"] for r in in_time) if in_time else None,
            "time_ratio_at_equal_error": row["median_s"] / min(r["median_s"] for r in as_good) if as_good else None,
        })  # fmt: skip
    walks = [row for row in ROWS if row["case"] == case and row["method"] == "Monte Carlo"]
    if walks:
        # Monte Carlo beyond the sizes run: error falls as the square root of the time of the largest.
        last = walks[-1]
        for r in mine:
            out.append({
                "case": case, "method": f"Monte Carlo, extrapolated to N = {r['size']}", "size": None,
                "error_ratio_at_equal_time": last["error"] * (last["median_s"] / r["median_s"]) ** 0.5 / r["error"],
                "time_ratio_at_equal_error": last["median_s"] * (last["error"] / r["error"]) ** 2 / r["median_s"],
            })  # fmt: skip
    return out


if __name__ == "__main__":
    if "--resume" in sys.argv:  # keep the rows of the other case
        ROWS.extend(json.loads((harness.HERE / "results" / "loss_accuracy.json").read_text())["rows"])
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else "small,large"
    print(harness.environment(), flush=True)
    if "samples" in only:
        large_samples()
    if "large" in only:
        large()
    if "small" in only:
        small()
    print(table(ROWS))
    for case in ("small", "large"):
        print(table(ratios(case)))

"""How time and memory of the loss, and of loss and gradient, grow with m, n, K, t and N.

One child process per case, so that peak memory is the case's own. Times are the least of several runs, errors relative,
against 96 frequencies (64 if t = 2). `--case JSON` runs one case, `--only m` one axis, `--resume` keeps the cases that
the results file has.
"""

import json
import subprocess
import sys
import time

import harness
import jax
import numpy as np
from harness import av, measure, peak_gib, problem, save, table

BASE = {"m": 16, "n": 16, "K": 32, "t": 1, "N": 24}
AXES = {
    "m": [{"m": m} for m in (4, 8, 16, 32, 64)],
    "t": [{"t": t, "m": 4, "n": 4, "K": 8, "N": N} for N in (16, 24) for t in (1, 2)],
    "N": [{"N": N} for N in (12, 24, 48)],
    "K": [{"K": K} for K in (2, 32, 128, 256)],
    "n": [{"n": n} for n in (8, 16, 64)],
}


def run_case(case):
    """Times, memory and the loss of one case."""
    m, n, K, t, N = (case[name] for name in BASE)
    source, layer, target, encoder = problem(n, m, K, t)
    resolution = av.Resolution(N)

    def loss(prior, decoder, target, encoder, resolution=resolution):
        model = av.FeatureModel(prior, decoder, source.noise, source.mean)
        return av.elbo(model, layer, target, encoder, resolution).loss

    args = source.prior, source.decoder, target, encoder
    long = m > 32 or N > 48
    forward, value = measure(loss, *args, repeats=3 if long else 7)
    forward_gib = peak_gib()
    both, (_, gradient) = measure(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)), *args, repeats=2 if long else 5)
    leaves = jax.tree.leaves(gradient)
    found = {
        "loss_s": forward["min_s"],
        "loss_max_s": forward["max_s"],
        "grad_s": both["min_s"],
        "grad_max_s": both["max_s"],
        "loss_compile_s": forward["compile_s"],
        "grad_compile_s": both["compile_s"],
        "loss_peak_gib": forward_gib,
        "grad_peak_gib": peak_gib(),
        "loss": float(value),
        "finite": all(bool(np.all(np.isfinite(leaf))) for leaf in leaves),
    }
    exact = float(jax.jit(lambda *args: loss(*args, resolution=av.Resolution(96 if t == 1 else 64)))(*args))
    return case | found | {"error": abs(float(value) / exact - 1)}


def child(case, limit=300):
    """`run_case` in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return case | {"failed": f"more than {limit} s"}
    if done.returncode:
        return case | {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def exponents(rows, axis):
    """Least-squares slopes of log time against log of the axis, over the last three cases."""
    good = [row for row in rows if row["axis"] == axis and "loss_s" in row]
    good = sorted(good, key=lambda row: row[axis])[-3:]
    if len(good) < 3:
        return {"axis": axis}
    x = np.log([row[axis] for row in good])
    fit = {name: float(np.polyfit(x, np.log([row[name] for row in good]), 1)[0]) for name in ("loss_s", "grad_s")}
    return {"axis": axis, "from": good[0][axis], "to": good[-1][axis]} | fit


def main():
    if "--case" in sys.argv:
        print(json.dumps(run_case(json.loads(sys.argv[-1]))))
        return
    only = sys.argv[sys.argv.index("--only") + 1].split(",") if "--only" in sys.argv else list(AXES)
    rows, done, begun = [], {}, time.time()
    path = harness.HERE / "results" / "scaling.json"
    if "--resume" in sys.argv and path.exists():
        for row in json.loads(path.read_text())["rows"]:
            if "loss" in row and "error" in row and "grad_max_s" in row:
                done[json.dumps({name: row[name] for name in BASE})] = {k: v for k, v in row.items() if k != "axis"}
    for axis in only:
        for change in AXES[axis]:
            case = BASE | change
            key = json.dumps(case)
            done[key] = done.get(key) or child(case)
            rows.append({"axis": axis} | done[key])
            print(f"{time.time() - begun:6.0f} s", rows[-1], flush=True)
            save("scaling" if "--only" not in sys.argv else f"scaling-{'-'.join(only)}", rows)
    print(json.dumps(harness.environment()))
    print(table([{k: v for k, v in row.items() if k not in ("loss", "finite")} for row in rows]))
    print(table([exponents(rows, axis) for axis in only if axis != "t"]))


if __name__ == "__main__":
    main()

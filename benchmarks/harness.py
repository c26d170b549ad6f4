"""What every benchmark shares: the problem, timing, memory, the machine, tables and files.

Run a script as `python benchmarks/<script>.py`; it prints its tables and writes `benchmarks/results/<script>.json`.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import jax  # noqa: E402
import jaxlib  # noqa: E402
import numpy as np  # noqa: E402

jax.config.update("jax_enable_x64", True)

import analytic_vae as av  # noqa: E402


def problem(n=16, m=16, K=32, t=1, seed=0, noise=0.2, sharpness=1.0, n2=None, m2=None, K2=None):
    """Source, ReLU ridge layer, target and softmax encoder, `n1 = n, m1 = m`; the target the same unless given.

    `noise` is relative to the spread: the mean over neurons of the standard deviation that the features cause.
    """
    rng = np.random.default_rng(seed)
    n2, m2, K2 = n2 or n, m2 or m, K2 or K
    atoms = np.sort(rng.normal(size=(m, K)), axis=1)
    prior, decoder = av.Prior(atoms, rng.normal(size=(m, K))), rng.normal(size=(n, m)) / np.sqrt(m)
    spread = float(np.mean(np.sqrt(decoder**2 @ np.asarray(prior.variance))))
    source = av.FeatureModel(prior, decoder, noise * spread, 0.3 * rng.normal(size=n))
    linear, output = rng.normal(size=(n2, n)) / np.sqrt(n), rng.normal(size=n2) / np.sqrt(n2)
    layer = av.RidgeLayer(linear, output, rng.normal(size=n2) / np.sqrt(n2), 0.3, "relu")
    atoms2 = atoms if (m2, K2) == (m, K) else np.sort(rng.normal(size=(m2, K2)), axis=1)
    decoder2, mean2 = rng.normal(size=(n2, m2)) / np.sqrt(m2), 0.1 * rng.normal(size=n2)
    target = av.FeatureModel(av.Prior(atoms2, -(atoms2**2) / 2), decoder2, 0.7, mean2)
    readout = 2 * sharpness * rng.normal(size=(m2, t, n2)) / np.sqrt(n2)
    statistics = np.stack([atoms2, (atoms2**2 - 1) / 2][:t], axis=1)
    return source, layer, target, av.SoftmaxEncoder(readout, statistics, -0.75 * atoms2**2)


def measure(fn, *args, repeats=7, seconds=20.0):
    """Compile `fn` for `args`, then run it; `compile_s`, `median_s`, `min_s`, `max_s`, `runs`, and the last value.

    Runs are waited for with `block_until_ready`; the first is a warm-up. About two to `seconds` seconds in all.
    """
    compiled, compile_s = compile_for(fn, *args)
    value = jax.block_until_ready(compiled(*args))
    return {"compile_s": compile_s} | timed(lambda: compiled(*args), repeats, seconds), value


def compile_for(fn, *args):
    """`fn` compiled for `args`, and the seconds that took."""
    begun = time.perf_counter()
    compiled = jax.jit(fn).lower(*args).compile()
    return compiled, time.perf_counter() - begun


def timed(call, repeats=7, seconds=20.0, least=2.0):
    """Median, least and largest wall time of `call()`: at least two seconds, as others' work comes in bursts."""
    times = []
    while not times or (sum(times) < seconds and (len(times) < repeats or sum(times) < least)):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begun)
    return {"median_s": float(np.median(times)), "min_s": min(times), "max_s": max(times), "runs": len(times)}


def in_process(*arguments):
    """The last line, as JSON, that this script prints in a process of its own with these arguments."""
    done = subprocess.run([sys.executable, sys.argv[0], *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_gib():
    """Largest resident memory of this process so far, in GiB (`VmHWM`: unlike `ru_maxrss` not inherited)."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def environment():
    """The machine and the versions."""
    with open("/proc/cpuinfo") as lines:
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "device": jax.devices()[0].device_kind,
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
    }


def table(rows):
    """Rows (dicts) as a Markdown table, numbers to three digits."""

    def cell(value):
        if isinstance(value, float):
            return f"{value:.3g}"
        return "" if value is None else str(value)

    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def forget_compiled():
    """Forgets compiled programs before their memory maps reach Linux's limit of 65530, at which XLA crashes."""
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()


def earlier(name, rows, keys):
    """The rows of `results/<name>.json` that differ from all of these in the keys: what another run measured."""
    path = HERE / "results" / f"{name}.json"
    found = json.loads(path.read_text())["rows"] if path.exists() else []
    now = {tuple(row[key] for key in keys) for row in rows}
    return [row for row in found if tuple(row[key] for key in keys) not in now]


def save(name, rows):
    """Write `results/<name>.json`: the machine and the rows, in one step."""
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")
    part.replace(path)

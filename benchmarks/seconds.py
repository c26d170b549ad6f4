"""Seconds to the first number: CPU seconds of whole processes, which do not depend on what else the machine does.

- `ten lines`: three features, two neurons, a law and a tail of it, a fit, its loss once more (`--run ten_lines`).
- `carried`: `learn(encoder="carried")` through five matrices of width 64 at 24 frequencies.
- `svi`: numpyro's SVI on a model of three latents and as many steps, if numpyro is installed.

`cold` is a fresh process without any cache, `warm` one that finds everything compiled. `--beside FOLDER` measures the
same lines with another checkout of the package, in turns. A row says what the process computed, so that nothing faster
is taken for it that is something else. `python benchmarks/seconds.py --rounds 3`.
"""

import argparse
import inspect
import json
import os
import resource
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent

parser = argparse.ArgumentParser()
parser.add_argument("--run", help="in this process")
parser.add_argument("--beside", type=Path, help="another checkout")
parser.add_argument("--rounds", type=int, default=3)


def ten_lines():
    """The loss of a small layer, twice."""
    import jax
    import jax.numpy as jnp

    import analytic_vae as av

    jax.config.update("jax_enable_x64", True)
    source = av.FeatureModel(av.Prior.bernoulli([0.3, 0.1, 0.4]), jnp.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]]), 0.3)
    layer = av.RidgeLayer(jnp.eye(2), output=[0.5, -1.0], direction=[1.0, 1.0], bias=-0.2, activation="relu")
    law = av.pushforward(source, layer, readout=[[1.0, -1.0]])
    tail = float(law.tail(2.0))
    resolution = av.Resolution(24)
    result = av.fit(source, layer, noise="full", resolution=resolution)
    str(result), result.target.prior.masses
    loss = av.elbo(source, layer, result.target, result.encoder, resolution).loss
    return {"mean": float(law.mean[0]), "tail": tail, "loss": float(loss)}


def carried():
    """The mean of the outputs of a sparse network."""
    import jax
    import numpy as np

    import analytic_vae as av

    jax.config.update("jax_enable_x64", True)
    rng, p, width = np.random.default_rng(0), 0.05, 64
    atoms = (np.array([0.0, 1.0]) - p) / np.sqrt(p * (1 - p))
    prior = av.Prior(np.tile(atoms, (width, 1)), np.log(np.tile([1 - p, p], (width, 1))))
    weights = [rng.normal(size=(width, width)) * np.sqrt(2 / width) for _ in range(5)]
    network = av.from_weights([(weight, None) for weight in weights], "relu")
    learnt = av.learn(
        av.FeatureModel(prior, np.eye(width), 0.0),
        network,
        encoder="carried",
        resolution=av.Resolution(24),
        check=False,
        **({"samples": 0} if "samples" in inspect.signature(av.learn).parameters else {}),
    )
    return {"mean": float(np.mean(np.asarray(learnt.models[-1].moments()[0])))}


def svi():
    """The evidence bound of numpyro's SVI: three Gaussian latents, two neurons, 100 steps on 1000 samples."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoNormal

    def model(x):
        decoder = numpyro.param("decoder", 0.1 * jnp.ones((2, 3)))
        noise = numpyro.param("noise", jnp.ones(2), constraint=dist.constraints.positive)
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(3), 1).to_event(1))
            numpyro.sample("x", dist.Normal(z @ decoder.T, noise).to_event(1), obs=x)

    x = jax.random.normal(jax.random.key(0), (1000, 2))
    found = SVI(model, AutoNormal(model), numpyro.optim.Adam(0.01), Trace_ELBO()).run(
        jax.random.key(1), 100, x, progress_bar=False
    )
    return {"loss": float(found.losses[-1]) / 1000}


def measured(name: str, root: Path, cache: str | None) -> tuple[float, dict]:
    """CPU seconds of a fresh process, and what it computed."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    env["PYTHONPATH"] = str(root)
    if cache is not None:
        env |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--run", name],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, json.loads(done.stdout.splitlines()[-1])


def row(what: str, name: str, root: Path, rounds: int) -> dict:
    """The least of a few rounds, cold and warm."""
    cold, warm = [], []
    for _ in range(rounds):
        cold.append(measured(name, root, None))
        with tempfile.TemporaryDirectory() as cache:
            measured(name, root, cache)
            warm.append(measured(name, root, cache))
    least = min(cold)
    return {"what": what, "cold_cpu_s": least[0], "warm_cpu_s": min(warm)[0], "runs": rounds} | least[1]


if __name__ == "__main__":
    options = parser.parse_args()
    if options.run:
        print(json.dumps(globals()[options.run]()))
        sys.exit()
    from harness import save, table

    asked = [(name, name, HERE.parent) for name in ("ten_lines", "carried")]
    if options.beside:
        asked += [(f"{name}, {options.beside.name}", name, options.beside) for _, name, _ in asked]
    if find_spec("numpyro"):
        asked.append(("svi", "svi", HERE.parent))
    rows = []
    for one in asked:
        rows.append(row(*one, options.rounds))
        rows[-1]["cold_over_ten_lines"] = rows[-1]["cold_cpu_s"] / rows[0]["cold_cpu_s"]
        print(table(rows[-1:]), flush=True)
    save("seconds", rows)

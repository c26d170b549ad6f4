"""Against Monte Carlo of the same loss and gradient: how long it takes to 1e-5, and where sampling is cheaper.

n = m = 8, 16, 32, 64, K = 32, default resolution, each in a process of its own. x1 is sampled, everything given x1 is
exact. The gradient is that of target and encoder, as in training (samples give none in the source's prior). Errors are
relative (of the gradient in the Euclidean norm): the engine's against 64 frequencies, those of samples are standard
errors from their own spread, falling as one over the square root of the time. `.._off_by` is how far the mean of the
samples is from the engine's at 64 frequencies, in standard errors. `--sizes 8 16` runs only those.
"""

import argparse
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from harness import av, in_process, measure, problem, save, table
from jax.flatten_util import ravel_pytree
from sampled import sampled_loss

SAMPLES, CHUNK = 1 << 16, 1 << 12
ASKED = 1e-5
REFERENCE = av.Resolution(64)


def loss(parts, resolution=None):
    return av.elbo(*parts, resolution).loss


def gradient(parts, resolution=None):
    """The gradient in target and encoder, as one vector."""
    source, layer, *learnt = parts
    slope = jax.grad(lambda learnt: loss((source, layer, *learnt), resolution))
    return ravel_pytree(slope(learnt))[0]


def sampled_gradients(parts):
    """One gradient of every CHUNK samples: `[SAMPLES / CHUNK, parameters]`."""
    source, layer, *learnt = parts

    def one(key):
        return ravel_pytree(jax.grad(lambda learnt: sampled_loss(key, source, layer, *learnt, CHUNK)[0])(learnt))[0]

    return jax.lax.map(one, jax.random.split(jax.random.key(0), SAMPLES // CHUNK))


def compared(name, engine, exact, walk_s, walk_error):
    """Columns of one quantity: `engine` as `measure` gives it, SAMPLES samples in `walk_s` with a relative error."""
    timing, value = engine
    return {
        f"{name}_s": timing["median_s"],
        f"{name}_error": float(np.linalg.norm(value - exact) / np.linalg.norm(exact)),
        f"samples_{name}_s_for_1e-5": walk_s * (walk_error / ASKED) ** 2,
        f"samples_over_{name}": walk_s * (walk_error / ASKED) ** 2 / timing["median_s"],
        f"same_time_{name}_error": walk_error * (walk_s / timing["median_s"]) ** 0.5,
    }


def run_case(m):
    parts = problem(m, m, 32)
    exact = float(jax.jit(lambda p: loss(p, REFERENCE))(parts))
    walk, (mean, error) = measure(lambda p: sampled_loss(jax.random.key(0), *p, SAMPLES, CHUNK), parts, repeats=5)
    row = {"m": m} | compared("loss", measure(loss, parts), exact, walk["median_s"], float(error / abs(mean)))
    row["loss_off_by"] = abs(float(mean) - exact) / float(error)
    exact = np.asarray(jax.jit(lambda p: gradient(p, REFERENCE))(parts))
    walk, found = measure(sampled_gradients, parts, repeats=3)
    spread = float(jnp.sqrt(found.var(axis=0, ddof=1).sum() / len(found)))
    error = spread / float(np.linalg.norm(exact))
    off = float(np.linalg.norm(found.mean(axis=0) - exact)) / spread
    return (
        row | compared("gradient", measure(gradient, parts), exact, walk["median_s"], error) | {"gradient_off_by": off}
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_case(options.child)))
        sys.exit()
    rows = []
    for m in options.sizes:
        rows.append(in_process("--child", str(m)))
        print(table(rows[-1:]), flush=True)
    save("monte_carlo", rows)

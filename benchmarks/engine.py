"""The engine against direct sums and the machine's matrix products, at the default resolution.

Per case, each in a process of its own: seconds of the loss with its plan; of loss and gradient, ten steps of gradient
descent in one scan on one plan, per step; the same of `direct.py` (its loss, and its loss and gradient); and of one
product of two 2048 x 2048 matrices. Errors are against the engine at 64 frequencies: of the loss in nats, of the
gradient (at the first step) relative, in the Euclidean norm, the largest of source, layer, target and encoder. Times
are medians of runs of at least two seconds in all. `--only 16,32` runs one case, `--no-direct` leaves out the direct
sums (minutes at m = 64), `--no-reference` the error, `--devices 2` shares the work among so many devices (set as JAX
starts). Only a run without options is saved, so that the table is of one run.
"""

import argparse
import json
import os
import sys

parser = argparse.ArgumentParser()
CASES = "16,2 16,32 32,32 64,32"
parser.add_argument("--only", default=CASES)
parser.add_argument("--no-direct", action="store_true")
parser.add_argument("--no-reference", action="store_true")
parser.add_argument("--devices", type=int, default=1)
parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
options = parser.parse_args()
if options.devices > 1:
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={options.devices}"
    )

import direct  # noqa: E402
import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from harness import av, in_process, measure, peak_gib, problem, save, table  # noqa: E402

STEPS = 10
RESOLUTION = av.Resolution()
REFERENCE = av.Resolution(64)
MESH = None if options.devices == 1 else jax.sharding.Mesh(np.array(jax.devices()), ("devices",))


def loss(*parts, plan=None, resolution=RESOLUTION):
    return av.elbo(*parts, resolution, plan=plan, mesh=MESH).loss


def ten_steps(*parts):
    """The parameters after ten small steps down the gradient, on one plan; the losses and gradients of all."""
    source, layer, _, encoder = parts
    plan = av.plan(source, layer, encoder, RESOLUTION)
    arrays, static = eqx.partition(parts, eqx.is_inexact_array)

    def step(arrays, _):
        value, slope = jax.value_and_grad(lambda a: loss(*eqx.combine(a, static), plan=plan))(arrays)
        return jax.tree.map(lambda a, g: a - 1e-7 * g, arrays, slope), (value, slope)

    return jax.lax.scan(step, arrays, None, length=STEPS)


def both(function):
    return lambda *parts: eqx.filter_value_and_grad(lambda p: function(*p))(parts)


def gradient_error(slopes, parts):
    """How far the gradient is from that at 64 frequencies, relative, in the argument where that is most."""
    arrays, static = eqx.partition(parts, eqx.is_inexact_array)
    exact = jax.jit(jax.grad(lambda a: loss(*eqx.combine(a, static), resolution=REFERENCE)))(arrays)
    apart = jax.tree.map(jnp.subtract, slopes, exact)
    norm = optax.tree.norm
    return float(np.max([norm(one) / norm(whole) for one, whole in zip(apart, exact, strict=True)]))


def run_case(m, K):
    parts = problem(m, m, K)
    steps, (_, (_, slopes)) = measure(ten_steps, *parts, repeats=3)
    peak = peak_gib()  # of a process that trains: nearly all of it is the compiler's
    ours, value = measure(loss, *parts)
    square = jnp.ones((2048, 2048))
    gemm, _ = measure(lambda a: a @ a, square, repeats=3)
    row = {
        "m": m,
        "K": K,
        "loss_s": ours["median_s"],
        "step_s": steps["median_s"] / STEPS,
        "loss_compile_s": ours["compile_s"],
        "step_compile_s": steps["compile_s"],
        "peak_gib": peak,
        "gemm_s": gemm["median_s"],
        "step_in_gemms": steps["median_s"] / STEPS / gemm["median_s"],
    }
    if not options.no_reference:
        exact = jax.jit(lambda *p: loss(*p, resolution=REFERENCE))(*parts)
        row |= {"loss": float(value), "error": abs(float(value - exact))}
        row |= {"grad_error": gradient_error(jax.tree.map(lambda leaf: leaf[0], slopes), parts)}
    if not options.no_direct:
        plain, found = measure(direct.loss, *parts, repeats=3)
        both_s, _ = measure(both(direct.loss), *parts, repeats=3 if m < 32 else 2)
        row |= {
            "direct_s": plain["median_s"],
            "direct_grad_s": both_s["median_s"],
            "loss_ratio": plain["median_s"] / ours["median_s"],
        }
        row |= {"grad_ratio": both_s["median_s"] / row["step_s"]}
        if not options.no_reference:
            row |= {"direct_error": abs(float(found - exact))}
    return row


if __name__ == "__main__":
    cases, rows = options.only.split(), []
    if options.child:
        print(json.dumps(run_case(*(int(number) for number in cases[0].split(",")))))
        sys.exit()
    for case in cases:
        rows.append(in_process(*sys.argv[1:], "--child", "--only", case))
        print(table(rows[-1:]), flush=True)
    if options == parser.parse_args([]):
        save("engine", rows)

"""Large layers: loss and gradient on this machine's device, against its own rate of matrix products.

n = m = 64, 256 and 1024, K = 32, float32. Per size: seconds of the loss, of loss and gradient on a given plan, the
share of the device's measured product rate (4096 x 4096, full precision) that the arithmetic of the pair terms is (of
the gradient: three times it), and the error of float32 against float64. `--float64` computes in float64, for the memory
and time that it takes; the error is then against 32 frequencies (64 take minutes). On a machine with a GPU:

    python benchmarks/accelerator.py                            # the GPU
    JAX_PLATFORMS=cpu python benchmarks/accelerator.py --sizes 64 256
    python benchmarks/accelerator.py --sizes 64 --profile DIR   # a trace for Perfetto or XProf: where the time goes
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
from harness import av, compile_for, environment, peak_gib, problem, save, table, timed

from analytic_vae.spectral.gauss_rule import kept_atoms

parser = argparse.ArgumentParser()
parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1024])
parser.add_argument("--profile", help="folder for a trace of one loss and gradient of each size")
parser.add_argument("--no-error", action="store_true", help="leave out the error")
parser.add_argument("--float64", action="store_true", help="compute in float64")


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def loss(parts, plan=None, resolution=None):
    return av.elbo(*parts, resolution, plan=plan).loss


def product_rate(dtype, size=4096):
    """Floating-point operations a second of a matrix product in full precision."""
    square = jnp.ones((size, size), dtype)
    run, _ = compile_for(lambda a: jnp.matmul(a, a, precision="highest"), square)
    return 2 * size**3 / timed(lambda: run(square), repeats=5)["min_s"]


def counted(parts):
    """Multiplications and additions of the pair terms' matrix products and products over features, forwards."""
    source, _, _, encoder = parts
    resolution = av.Resolution()
    half, ridge = resolution.series_order(1, False), 2 * resolution.series_ridge_order + 1
    kept = kept_atoms(source, resolution.atoms) - 1
    points = half * 2 * half * ridge
    pairs = encoder.features * (encoder.features // 2)
    nodes = 16 * (resolution.pair_panels + 1)  # of the ridge axis, one panel more for the kink
    return pairs * points * (source.features * (8 * kept + 8) + 8 * nodes)


def run_case(m, rate, dtype, options):
    wide = problem(m, m, 32)
    parts = cast(wide, dtype)
    plan = jax.jit(lambda parts: av.plan(parts[0], parts[1], parts[3]))(parts)
    forward, forward_s = compile_for(loss, parts)
    both, both_s = compile_for(jax.value_and_grad(loss), parts, plan)
    first, second = (timed(lambda: forward(parts), repeats=3), timed(lambda: both(parts, plan), repeats=3))
    row = {
        "m": m, "loss_s": first["min_s"], "grad_s": second["min_s"], "loss_compile_s": forward_s,
        "grad_compile_s": both_s, "loss_share_of_products": counted(parts) / first["min_s"] / rate,
        "grad_share_of_products": 3 * counted(parts) / second["min_s"] / rate, "host_peak_gib": peak_gib(),
    }  # fmt: skip
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        row["device_peak_gib"] = stats["peak_bytes_in_use"] / 2**30
    if not options.no_error:
        finer = av.Resolution(32) if options.float64 else None
        value, exact = float(forward(parts)), float(jax.jit(lambda parts: loss(parts, resolution=finer))(wide))
        row |= {"loss": value, "error" if options.float64 else "error_of_float32": abs(value - exact)}
    if options.profile:
        with jax.profiler.trace(f"{options.profile}/m{m}"):
            jax.block_until_ready(both(parts, plan))
    return row


if __name__ == "__main__":
    options = parser.parse_args()
    dtype = jnp.float64 if options.float64 else jnp.float32
    rate, rows = product_rate(dtype), []
    print(environment(), f"products at {rate / 1e9:.0f} GFLOP/s", flush=True)
    for m in options.sizes:
        rows.append(run_case(m, rate, dtype, options) | {"product_gflops": rate / 1e9})
        print(table(rows[-1:]), flush=True)
        save(f"accelerator_{jax.devices()[0].platform}" + "_float64" * options.float64, rows)

"""One against two single-threaded processes: loss and gradient at (m, K) = (64, 32), shared by `jax.distributed`.

Each process is pinned to a core of its own and talks over loopback (gloo). Also prints how far both answers are apart.
`--size 16,32` for another size. One and two processes take turns `--rounds` times; the least of each counts.
"""

import argparse
import json
import os
import socket
import subprocess
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--size", default="64,32")
parser.add_argument("--rounds", type=int, default=4)
parser.add_argument("--rank", type=int)
parser.add_argument("--count", type=int)
parser.add_argument("--port")
options = parser.parse_args()
if options.rank is not None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[options.rank]})  # before JAX counts its threads

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
from harness import av, compile_for, problem, save, table, timed  # noqa: E402


def work():
    """Seconds of loss and gradient in this process, and the loss; of `--count` processes together if more than one."""
    parts, mesh = problem(*(int(options.size.split(",")[i]) for i in (0, 0, 1))), None
    plan = eqx.filter_jit(av.plan)(parts[0], parts[1], parts[3])
    if options.count > 1:
        mesh = jax.make_mesh((options.count,), ("pairs",))
        parts, plan = av.replicate((parts, plan), mesh)

    def loss(parts, plan):
        return av.elbo(*parts, plan=plan, mesh=mesh).loss

    run, _ = compile_for(jax.value_and_grad(loss), parts, plan)
    value, slope = jax.block_until_ready(run(parts, plan))
    # As many runs in every process: they wait for each other.
    measured = timed(lambda: run(parts, plan), repeats=7, seconds=float("inf"), least=0)
    return measured | {"loss": float(value), "slope": float(slope[3].readout.sum())}


def together(count):
    """What the first of so many processes measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, __file__, "--size", options.size, "--count", str(count), "--port", port, "--rank"]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen([*command, str(rank)], stdout=pipe, text=True) for rank in range(count)]
    said = [process.communicate()[0] for process in processes]
    return json.loads(said[0].splitlines()[-1])


if __name__ == "__main__":
    if options.rank is not None:
        if options.count > 1:
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            jax.distributed.initialize(f"127.0.0.1:{options.port}", options.count, options.rank)
        print(json.dumps(work()))
    else:
        # In turns, and the least of each: other work on the machine comes and goes.
        rounds = [(together(1), together(2)) for _ in range(options.rounds)]
        one, two = (min(tries, key=lambda found: found["min_s"]) for tries in zip(*rounds, strict=True))
        row = {
            "size": options.size, "one_s": one["min_s"], "two_s": two["min_s"], "speedup": one["min_s"] / two["min_s"],
            "apart": abs(one["loss"] - two["loss"]), "slopes_apart": abs(one["slope"] - two["slope"]),
        }  # fmt: skip
        print(table([row]))
        if options.size == parser.get_default("size"):
            save("processes", [row])

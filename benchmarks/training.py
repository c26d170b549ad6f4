"""(b) Seconds to come within 0.01 nats of the best loss: profiled L-BFGS, Adam on the exact loss, Adam on samples.

n = m = 8, K = 8, ReLU ridge, source noise at 20% of the spread; four features and scalar noise are learnt. All three
start from the same encoder, the two Adams with the closed-form best target for it. L-BFGS is `av.fit`'s own, one start,
and the same in plain coordinates instead of those of the Fisher metric.
Parameters are kept along every run, about every 5% of its time, and judged afterwards by the exact loss at N = 96, so
that no method gains from an error of the loss it minimises. Compile time and the judging are outside the clock.
`--seeds 3 --seconds 20` (of clock per run).
"""

import argparse
import sys
import time

import equinox as eqx
import harness
import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import av, problem, save, table
from sampled import conditional_loss

from analytic_vae import optimise

fit = sys.modules["analytic_vae.fit"]
WITHIN, RESOLUTION, FINER, NOISE, FLOOR = 0.01, av.Resolution(48), av.Resolution(96), "scalar", 1e-6
FEATURES = 4
EXACT_RATES = (0.03,)
SAMPLED = [(0.01, 256), (0.01, 1024), (0.03, 1024)]
STEPS = {"Adam, exact loss": 10, "Adam, sampled loss": 50}  # a look; L-BFGS looks after every evaluation


class Watch:
    """Parameters kept along a run with their seconds on the clock, which stands still outside of `go` to `look`."""

    def __init__(self, seconds):
        self.limit, self.spent, self.kept, self.looks = seconds, 0.0, [], 0
        self.go()

    def go(self):
        self.since = time.perf_counter()

    def look(self, parameters):
        """Stop the clock and keep the parameters if it is time to. False when the time is up."""
        self.spent += time.perf_counter() - self.since
        self.looks += 1
        more = self.spent < self.limit
        if not self.kept or not more or self.spent > self.kept[-1][0] * 1.05 + 0.02:
            self.kept.append((self.spent, parameters))
        return more


def plain_directions(source, layer, atoms, encoder):
    """The coordinates as they are, in place of `optimise.coordinates`."""
    size = sum(leaf[0].size for leaf in jax.tree.leaves(eqx.filter(encoder, eqx.is_inexact_array)))
    return jnp.broadcast_to(jnp.eye(size), (encoder.features, size, size))


def lbfgs(source, layer, atoms, encoder, seconds, plain=False):
    """`av.fit`'s L-BFGS with a clock around every evaluation of the loss and its gradient."""
    metric = optimise.coordinates
    optimise.coordinates = plain_directions if plain else metric
    evaluate = optimise.profiled_value_and_grad
    columns = optimise.coordinates(source, layer, atoms, encoder)
    rest = source, layer, atoms, NOISE, FLOOR, RESOLUTION
    begun = time.perf_counter()
    jax.block_until_ready(evaluate(jnp.zeros(columns.shape[:2]), columns, encoder, *rest))
    compile_s = time.perf_counter() - begun
    watch, best = Watch(seconds), (np.inf, encoder)

    def watched(step, columns, begin, *rest):
        nonlocal best
        loss, gradient = jax.block_until_ready(evaluate(step, columns, begin, *rest))
        more = watch.look(best[1])
        if loss < best[0]:
            best = float(loss), optimise.moved(begin, columns, step)
        if not more:
            raise StopIteration
        watch.go()
        return loss, gradient

    optimise.profiled_value_and_grad = watched
    try:
        optimise.profiled_lbfgs(
            source, layer, atoms, encoder, NOISE, FLOOR, 10**6, 1e-7, RESOLUTION, lambda step, loss: None
        )
    except StopIteration:
        pass
    finally:
        optimise.profiled_value_and_grad, optimise.coordinates = evaluate, metric
    watch.kept.append((watch.spent, best[1]))
    judge = jax.jit(
        lambda encoder: av.profiled_loss(source, layer, atoms, encoder, FINER, noise=NOISE, floor=FLOOR)[0].loss
    )
    return watch, judge, compile_s


_LOOPS = {}


def loops(static):
    """Compiled: ten Adam steps on the exact loss; fifty on fresh samples; the judging loss. Learning rates are traced.

    All take the problem `(source, layer, atoms)` first, so that one compilation serves every seed.
    """
    if "loops" in _LOOPS:
        return _LOOPS["loops"]

    def exact(p, problem, resolution=RESOLUTION):
        source, layer, atoms = problem
        encoder, target = eqx.combine(p, static)
        return av.elbo(source, layer, target.model(atoms), encoder, resolution).loss

    def adam(rate, gradient, state):
        updates, state = optax.scale_by_adam().update(gradient, state)
        return jax.tree.map(lambda u: -rate * u, updates), state

    @jax.jit
    def exact_steps(problem, p, state, rate):
        def step(carry, _):
            loss, gradient = jax.value_and_grad(exact)(carry[0], problem)
            updates, s = adam(rate, gradient, carry[1])
            return (optax.apply_updates(carry[0], updates), s), loss

        return jax.lax.scan(step, (p, state), None, length=10)

    def sampled_steps(problem, p, state, rate, key, batch):
        source, layer, atoms = problem

        def step(carry, key):
            def loss(p):
                encoder, target = eqx.combine(p, static)
                x = source.sample(key, (batch,))
                return jnp.mean(jax.vmap(lambda x: conditional_loss(x, layer, target.model(atoms), encoder))(x))

            updates, s = adam(rate, jax.grad(loss)(carry[0]), carry[1])
            return (optax.apply_updates(carry[0], updates), s), None

        return jax.lax.scan(step, (p, state), jax.random.split(key, 50))[0]

    judge = jax.jit(lambda problem, p: exact(p, problem, FINER))
    _LOOPS["loops"] = exact_steps, jax.jit(sampled_steps, static_argnums=5), judge
    return _LOOPS["loops"]


def one_seed(seed, seconds):
    """Traces `[(seconds, judged loss)]` of all the runs of one problem, by name; with looks and seconds to compile."""
    source, layer, _, _ = problem(8, 8, 8, seed=seed)
    encoder, atoms = fit._start(source, layer, FEATURES, None, "softmax", RESOLUTION, FINER, None, jax.random.key(0))
    traces = {}

    def judged(name, watch, judge, compile_s):
        traces[name] = [(seconds, float(judge(p))) for seconds, p in watch.kept], watch.looks, compile_s
        print(seed, name, f"{watch.spent:.1f} s, {watch.looks} looks, loss {min(x[1] for x in traces[name][0]):.5f}")

    judged(("profiled L-BFGS", "", ""), *lbfgs(source, layer, atoms, encoder, seconds))
    judged(("plain L-BFGS", "", ""), *lbfgs(source, layer, atoms, encoder, seconds, plain=True))
    target = optimise.compiled_target(source, layer, atoms, encoder, NOISE, FLOOR, RESOLUTION)
    p, static = eqx.partition((encoder, optimise.FreeTarget.of(target)), eqx.is_inexact_array)
    exact_steps, sampled_steps, judge = loops(static)
    given = source, layer, atoms
    first = optax.scale_by_adam().init(p)

    begun = time.perf_counter()
    jax.block_until_ready(exact_steps(given, p, first, 0.0))
    compile_s = time.perf_counter() - begun
    for rate in EXACT_RATES:
        watch, q, state = Watch(seconds), p, first
        while True:
            (q, state), losses = jax.block_until_ready(exact_steps(given, q, state, rate))
            if not watch.look(q) or not np.isfinite(losses[-1]):
                break
            watch.go()
        judged(("Adam, exact loss", rate, ""), watch, lambda q: judge(given, q), compile_s)

    compiled = {}
    for rate, batch in SAMPLED:
        if batch not in compiled:
            begun = time.perf_counter()
            jax.block_until_ready(sampled_steps(given, p, first, 0.0, jax.random.key(0), batch))
            compiled[batch] = time.perf_counter() - begun
        watch, q, state = Watch(seconds), p, first
        key = jax.random.key(seed)
        for i in range(10**6):
            q, state = jax.block_until_ready(sampled_steps(given, q, state, rate, jax.random.fold_in(key, i), batch))
            if not watch.look(q):
                break
            watch.go()
        judged(("Adam, sampled loss", rate, batch), watch, lambda q: judge(given, q), compiled[batch])
    return traces


def time_within(trace, best):
    """First time on the clock at which the loss is within `WITHIN` of `best`; infinite if never."""
    return next((seconds for seconds, loss in trace if loss <= best + WITHIN), float("inf"))


def summary(all_traces):
    """One row per setting: median, least and largest time over the seeds."""
    rows = []
    bests = [min(loss for trace, *_ in traces.values() for _, loss in trace) for traces in all_traces]
    for name in all_traces[0]:
        times = [time_within(traces[name][0], best) for traces, best in zip(all_traces, bests, strict=True)]
        above = [min(loss for _, loss in t[name][0]) - best for t, best in zip(all_traces, bests, strict=True)]
        rows.append({
            "method": name[0], "rate": name[1], "batch": name[2],
            "seconds": float(np.median(times)), "least": min(times), "largest": max(times),
            "reached": f"{sum(np.isfinite(times))}/{len(times)}",
            "nats above best": ", ".join(f"{value:.2g}" for value in above),
            "ms per step": float(np.median([1e3 * t[name][0][-1][0] / t[name][1] for t in all_traces]))
            / STEPS.get(name[0], 1),
            "compile_s": all_traces[0][name][2],
        })  # fmt: skip
    return rows


def headline(rows):
    """The best setting of each method, and its time over that of L-BFGS (None unless both reached the best loss)."""
    best = {}
    for row in rows:
        if row["method"] not in best or row["seconds"] < best[row["method"]]["seconds"]:
            best[row["method"]] = row
    base = best["profiled L-BFGS"]["seconds"]
    ratio = lambda seconds: seconds / base if np.isfinite(seconds) and np.isfinite(base) else None  # noqa: E731
    return [row | {"over L-BFGS": ratio(row["seconds"])} for row in best.values()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    print(harness.environment(), flush=True)
    found = []
    for seed in range(options.seeds):
        found.append(one_seed(seed, options.seconds))
        rows = summary(found)
        print(table(rows), flush=True)
        traces = [{str(name): trace for name, (trace, *_) in one.items()} for one in found]
        save("training", [{"summary": rows, "headline": headline(rows), "traces": traces}])
    print(table(headline(rows)))

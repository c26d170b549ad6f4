"""(b) Seconds to come within 0.01 nats of the best loss: profiled L-BFGS, Adam on the exact loss, Adam on samples.

n = m = 8, K = 8, ReLU ridge, source noise at 20% of the spread; four features and scalar noise are learnt. All three
start from the same encoder, the two Adams with the closed-form best target for it; when L-BFGS stops, it starts again
as `av.fit(starts=...)` does, until its time is up. Compile time and, for the sampled loss, the exact losses evaluated
to watch it are outside the clock. The clock of a run is that of its own steps only. The final loss of every method is
evaluated once more at twice the frequencies. `--seeds 3 --seconds 20` (of clock per run).
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
from jax.flatten_util import ravel_pytree
from sampled import conditional_loss
from scipy.optimize import minimize

fit = sys.modules["analytic_vae.fit"]
WITHIN, RESOLUTION, FINER, NOISE, FLOOR = 0.01, av.Resolution(32), av.Resolution(64), "scalar", 1e-6
FEATURES = 4
EXACT_RATES = (0.01, 0.03)
SAMPLED = [(0.01, 256), (0.01, 1024), (0.03, 1024), (0.03, 4096)]


class Watch:
    """(seconds on the clock, exact loss) along a run, and the best parameters; `pause` stops the clock."""

    def __init__(self, seconds):
        self.limit, self.trace, self.spent, self.since = seconds, [], 0.0, time.perf_counter()
        self.best = (np.inf, None)

    def pause(self):
        self.spent += time.perf_counter() - self.since

    def go(self):
        self.since = time.perf_counter()

    def note(self, loss, parameters):
        """Note a loss; the clock must be paused. False when the time is up."""
        self.trace.append((self.spent, float(loss)))
        if loss < self.best[0]:
            self.best = (float(loss), parameters)
        return self.spent < self.limit


def lbfgs(source, layer, atoms, encoder, seconds):
    """SciPy's L-BFGS on the profiled loss, as `av.fit` does it, with a clock."""
    parameters, static = eqx.partition(encoder, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(parameters)
    evaluate = lambda p: fit._profiled_value_and_grad(p, static, source, layer, atoms, NOISE, FLOOR, RESOLUTION)  # noqa: E731
    begun = time.perf_counter()
    jax.block_until_ready(evaluate(parameters))
    compile_s = time.perf_counter() - begun
    watch = Watch(seconds)

    def value_and_grad(x):
        point = unravel(jnp.asarray(x))
        loss, gradient = evaluate(point)
        loss, gradient = float(loss), np.asarray(ravel_pytree(gradient)[0])
        watch.pause()
        if not (np.isfinite(loss) and np.all(np.isfinite(gradient))):  # as `av.fit` does
            if watch.spent > watch.limit:
                raise StopIteration
            watch.go()
            return np.inf, np.zeros_like(gradient)
        if not watch.note(loss, point):
            raise StopIteration
        recent.append(min(loss, recent[-1] if recent else loss))
        watch.go()
        return loss, gradient

    def stop_when_flat(_):  # the stopping rule of `av.fit`, counted in evaluations
        if len(recent) > 12 and recent[-13] - recent[-1] < 1e-7:
            raise GeneratorExit

    starts = 0
    try:
        while True:
            recent = []
            begin = encoder if starts == 0 else fit.perturbed(
                encoder, 0.25 * 2 ** (starts % 4), key=jax.random.fold_in(jax.random.key(0), starts)
            )  # fmt: skip
            starts += 1
            options = {"maxiter": 500, "maxfun": 10000, "maxcor": 20, "ftol": 0.0, "gtol": 1e-12}
            flat = np.asarray(ravel_pytree(eqx.partition(begin, eqx.is_inexact_array)[0])[0])
            try:
                minimize(value_and_grad, flat, jac=True, method="L-BFGS-B", callback=stop_when_flat, options=options)
            except GeneratorExit:
                pass
    except StopIteration:
        pass
    print(f"L-BFGS: {starts} starts", flush=True)
    final = eqx.combine(watch.best[1], static)
    finer = float(av.profiled_loss(source, layer, atoms, final, FINER, noise=NOISE, floor=FLOOR)[0].loss)
    return watch.trace, compile_s, abs(finer - watch.best[0])


_LOOPS = {}


def loops(static):
    """Compiled: ten Adam steps on the exact loss; fifty on fresh samples; the exact loss. Learning rates are traced.

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

    evaluate = jax.jit(lambda problem, p: exact(p, problem))
    finer = jax.jit(lambda problem, p: exact(p, problem, FINER))
    _LOOPS["loops"] = exact_steps, jax.jit(sampled_steps, static_argnums=5), evaluate, finer
    return _LOOPS["loops"]


def one_seed(seed, seconds):
    """Traces of all the runs of one problem, by name."""
    source, layer, _, _ = problem(8, 8, 8, seed=seed)
    encoder, atoms = fit._start(source, layer, FEATURES, None, "softmax", RESOLUTION, None, jax.random.key(0))
    traces = {}
    traces["profiled L-BFGS", "", ""] = lbfgs(source, layer, atoms, encoder, seconds)
    target = fit._best_target(source, layer, atoms, encoder, NOISE, FLOOR, RESOLUTION)
    p, static = eqx.partition((encoder, fit._Target.of(target)), eqx.is_inexact_array)
    exact_steps, sampled_steps, evaluate, finer = loops(static)
    given = source, layer, atoms
    first = optax.scale_by_adam().init(p)

    def error(watch):
        return abs(float(finer(given, watch.best[1])) - watch.best[0])

    begun = time.perf_counter()
    jax.block_until_ready(exact_steps(given, p, first, 0.0))
    compile_s = time.perf_counter() - begun
    for rate in EXACT_RATES:
        watch, q, state = Watch(seconds), p, first
        while True:
            before = q
            (q, state), losses = jax.block_until_ready(exact_steps(given, q, state, rate))
            watch.pause()
            # The first of the ten losses is that of `before`, noted ten steps late: a small handicap of this method.
            if not watch.note(losses[0], before) or not np.isfinite(losses[-1]):
                break
            watch.go()
        traces["Adam, exact loss", rate, ""] = watch.trace, compile_s, error(watch)

    compiled = {}
    for rate, batch in SAMPLED:
        if batch not in compiled:
            begun = time.perf_counter()
            jax.block_until_ready((sampled_steps(given, p, first, 0.0, jax.random.key(0), batch), evaluate(given, p)))
            compiled[batch] = time.perf_counter() - begun
        watch, q, state = Watch(seconds), p, first
        key = jax.random.key(seed)
        for i in range(10**6):
            q, state = jax.block_until_ready(sampled_steps(given, q, state, rate, jax.random.fold_in(key, i), batch))
            watch.pause()
            # Look about as often as the clock can tell apart: every step at first, then every 2% of the time.
            late = watch.trace and watch.spent < watch.trace[-1][0] * 1.05 + 0.02
            if not late and not watch.note(evaluate(given, q), q):
                break
            watch.go()
        traces["Adam, sampled loss", rate, batch] = watch.trace, compiled[batch], error(watch)
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
            "error of the final loss": max(traces[name][2] for traces in all_traces),
            "looks": int(np.median([len(traces[name][0]) for traces in all_traces])),
            "ms per look": float(np.median([1e3 * t[name][0][-1][0] / len(t[name][0]) for t in all_traces])),
            "compile_s": all_traces[0][name][1],
        })  # fmt: skip
    return rows


def headline(rows):
    """The best setting of each method, and its time over that of L-BFGS."""
    best = {}
    for row in rows:
        if row["method"] not in best or row["seconds"] < best[row["method"]]["seconds"]:
            best[row["method"]] = row
    base = best["profiled L-BFGS"]["seconds"]
    return [row | {"over L-BFGS": row["seconds"] / base} for row in best.values()]


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

"""Seconds to come within 0.01 and 0.001 nats of the best loss: `av.fit`, Adam on samples, numpyro's SVI.

n = m = 8, K = 8, ReLU ridge, source noise at 20% of the spread; four features and scalar noise are learnt. All methods
start from one encoder and target. `av.fit` runs as a user runs it, its check and the finer grids that it may call for
included, for more and more steps from the start each time, then with more starts, until one takes longer than the
clock has, or two minutes more with its compilation. Adam on the exact loss too, in runs of more and more steps, as an
optax optimiser is not begun anew: its rate falls to zero along a cosine, and gradients without noise need no long
memory (`b2` of 0.95). The sampled methods draw fresh samples of the layer's output at every step; given a sample, Adam
has the loss exactly (no variance from the latents), numpyro (an optional extra: `pip install numpyro`) samples the
latents with its graph estimator, as it must for a discrete guide.
Parameters are kept along every run and judged by the exact loss at N = 64, outside the clock, as is compilation.
`--seeds 3 --seconds 20` (of clock per run); `--resume` goes on with the problems that the results file lacks.
"""

import argparse
import json
import time
from functools import partial

import equinox as eqx
import harness
import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import av, problem, save, table
from sampled import conditional_loss

WITHIN = 0.01, 0.001
RESOLUTION, FINER, FEATURES = av.Resolution(), av.Resolution(64), 4
RATES, BATCHES, SVI_RATES, SVI_BATCH = (0.003, 0.01), (64, 256), (0.003, 0.01), 256
EXACT_RATE, EXACT_DECAY, EXACT_STEPS = 0.1, 0.95, (500, 1000, 1500, 2000, 3000)
LOOK, STARTS = 50, 4
COMPILING = 120.0  # seconds that a fit may take beside its clock
STEPS = [10 * round(2 * 1.4**k) for k in range(20)]


class Late(Exception):
    """Raised in a fit that the clock will not see the end of."""


class Free(eqx.Module):
    """Everything that is learnt, without constraints."""

    encoder: eqx.Module
    logits: jax.Array
    decoder: jax.Array
    mean: jax.Array
    log_noise: jax.Array

    @classmethod
    def of(cls, encoder, target):
        return cls(encoder, target.prior.logits, target.decoder, target.mean, jnp.log(target.noise))

    def target(self, atoms):
        return av.FeatureModel(av.Prior(atoms, self.logits), self.decoder, jnp.exp(self.log_noise), self.mean)


@jax.jit
def judge(source, layer, target, encoder):
    """The exact loss that all are measured by."""
    return av.elbo(source, layer, target, encoder, FINER).loss


def exact_adam(seconds, source, layer, begin):
    """Adam on the exact loss: one run for each number of steps, as its rate knows how many there will be."""
    kept = []
    for steps in EXACT_STEPS:
        optimizer = optax.adam(optax.cosine_decay_schedule(EXACT_RATE, steps), b2=EXACT_DECAY)
        given = {"atoms": begin.target.prior.atoms, "encoder": begin.encoder, "target": begin.target}
        run = partial(av.fit, source, layer, optimizer=optimizer, tolerance=0.0, **given)
        run(steps=10)  # compiles, which is not counted
        kept.append(run(steps=steps))
        if kept[-1].seconds > seconds:
            break
    kept = [one for one in kept if one.seconds <= seconds] or kept
    return [(one.seconds, one.target, one.encoder) for one in kept]


def fits(seconds, source, layer, begin):
    """`(seconds, target, encoder)` of fits of more and more steps, then of more starts."""
    compiled = set()

    def run(steps, starts=1):
        begun = time.perf_counter()

        def watch(_):
            if time.perf_counter() - begun > seconds + COMPILING:
                raise Late

        result = av.fit(
            source, layer, atoms=begin.target.prior.atoms, encoder=begin.encoder, noise="scalar",
            steps=steps, starts=starts, log=watch,
        )  # fmt: skip
        if result.resolution in compiled:
            return result
        compiled.add(result.resolution)  # the first run with these grids has compiled them: not counted
        return run(steps, starts)

    kept = []
    try:
        for steps in STEPS:
            kept.append(run(steps))
            if kept[-1].stop is not av.Stop.STEPS or kept[-1].seconds > seconds:
                break
        for starts in range(2, STARTS + 1):
            if kept[-1].seconds > seconds:
                break
            kept.append(run(500, starts))
    except Late:
        pass
    return [(one.seconds, one.target, one.encoder) for one in kept if one.seconds <= seconds] or [
        (kept[0].seconds, kept[0].target, kept[0].encoder)
    ]


def clocked(seconds, advance, state, parameters):
    """`(seconds, target, encoder)` along a loop of `state = advance(state, i)`, kept about every 5% of its time."""
    jax.block_until_ready(advance(state, 0))
    spent, kept, i = 0.0, [], 0
    while spent < seconds:
        begun = time.perf_counter()
        state = jax.block_until_ready(advance(state, i))
        spent, i = spent + time.perf_counter() - begun, i + 1
        if not kept or spent > 1.05 * kept[-1][0] + 0.01:
            kept.append((spent, *parameters(state)))
    return [*kept, (spent, *parameters(state))]


def sampled_adam(seconds, source, layer, begin, rate, batch):
    """Adam on fresh samples, everything given a sample exact."""
    atoms = begin.target.prior.atoms
    first, static = eqx.partition(Free.of(begin.encoder, begin.target), eqx.is_inexact_array)
    optimizer = optax.adam(rate)

    def loss(p, key):
        free = eqx.combine(p, static)
        x = source.sample(key, (batch,))
        return jnp.mean(jax.vmap(lambda x: conditional_loss(x, layer, free.target(atoms), free.encoder))(x))

    @jax.jit
    def advance(carry, i):
        def step(carry, key):
            updates, state = optimizer.update(jax.grad(loss)(carry[0], key), carry[1])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, carry, jax.random.split(jax.random.fold_in(jax.random.key(1), i), LOOK))[0]

    def parameters(carry):
        free = eqx.combine(carry[0], static)
        return free.target(atoms), free.encoder

    return clocked(seconds, advance, (first, optimizer.init(first)), parameters)


def svi(seconds, source, layer, begin, rate, batch):
    """Numpyro's SVI: one categorical latent per feature, guide and model with the parameters of the others."""
    import numpyro
    from numpyro.distributions import Categorical, Normal
    from numpyro.infer import SVI, TraceGraph_ELBO

    atoms = begin.target.prior.atoms
    first, static = eqx.partition(Free.of(begin.encoder, begin.target), eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(first)

    def free():
        given = [numpyro.param(f"leaf{i}", leaf) for i, leaf in enumerate(leaves)]
        return eqx.combine(jax.tree.unflatten(structure, given), static)

    def model(f):
        target = free().target(atoms)
        with numpyro.plate("batch", batch):
            index = [numpyro.sample(f"z{j}", Categorical(logits=target.prior.logits[j])) for j in range(len(atoms))]
            z = jnp.stack([atoms[j, k] for j, k in enumerate(index)], axis=-1)
            law = Normal(target.mean + z @ target.decoder.T, target.noise).to_event(1)
            numpyro.sample("f", law, obs=f)

    def guide(f):
        encoder = free().encoder
        y = jnp.einsum("jtn,bn->bjt", encoder.readout, f)
        log_q = jax.vmap(lambda y: jax.vmap(lambda one, y, a: one.log_masses(y, a))(encoder, y, atoms))(y)
        with numpyro.plate("batch", batch):
            for j in range(len(atoms)):
                numpyro.sample(f"z{j}", Categorical(logits=log_q[:, j]))

    inference = SVI(model, guide, numpyro.optim.Adam(rate), TraceGraph_ELBO())
    draw = lambda key: jax.vmap(layer)(source.sample(key, (batch,)))  # noqa: E731

    @jax.jit
    def advance(state, i):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), i), LOOK)
        return jax.lax.scan(lambda state, key: (inference.update(state, draw(key))[0], None), state, keys)[0]

    def parameters(state):
        found = inference.get_params(state)
        learnt = eqx.combine(jax.tree.unflatten(structure, [found[f"leaf{i}"] for i in range(len(leaves))]), static)
        return learnt.target(atoms), learnt.encoder

    return clocked(seconds, advance, inference.init(jax.random.key(0), draw(jax.random.key(0))), parameters)


def methods():
    """`(name, rate, batch) -> a run`."""
    found = {("av.fit", "", ""): fits, ("Adam, exact loss", EXACT_RATE, ""): exact_adam}
    for rate in RATES:
        for batch in BATCHES:
            found["Adam, samples", rate, batch] = lambda *given, rate=rate, batch=batch: sampled_adam(
                *given, rate, batch
            )
    try:
        import numpyro  # noqa: F401
    except ImportError:
        print("numpyro is not installed: no SVI")
        return found
    for rate in SVI_RATES:
        found["numpyro SVI", rate, SVI_BATCH] = lambda *given, rate=rate: svi(*given, rate, SVI_BATCH)
    return found


def one_seed(seed, seconds):
    """Traces `[(seconds, judged loss)]` of all runs of one problem."""
    source, layer, _, _ = problem(8, 8, 8, seed=seed)
    begin = av.fit(source, layer, features=FEATURES, noise="scalar", steps=1, check=False, resolution=RESOLUTION)
    traces = {}
    for name, run in methods().items():
        kept = run(seconds, source, layer, begin)
        losses = [(spent, float(judge(source, layer, target, encoder))) for spent, target, encoder in kept]
        traces[name] = [(spent, loss) for spent, loss in losses if np.isfinite(loss)]
        print(seed, name, f"{losses[-1][0]:.1f} s, best {np.nanmin([loss for _, loss in losses]):.5f}", flush=True)
    return traces


def time_within(trace, loss):
    """First time on the clock at or below a loss; infinite if never."""
    return next((seconds for seconds, found in trace if found <= loss), float("inf"))


def summary(all_traces):
    """One row per setting: median time (and how many of the seeds) to within each distance of the best loss."""
    bests = [min(loss for trace in traces.values() for _, loss in trace) for traces in all_traces]
    rows = []
    for name in all_traces[0]:
        runs = [traces[name] for traces in all_traces]
        row = dict(zip(("method", "rate", "batch"), name, strict=True))
        for within in WITHIN:
            times = [time_within(trace, best + within) for trace, best in zip(runs, bests, strict=True)]
            row[f"s to {within}"] = float(np.median(times))
            row[f"reached {within}"] = f"{sum(np.isfinite(times))}/{len(times)}"
        least = [min((loss for _, loss in trace), default=np.inf) for trace in runs]
        above = np.subtract(least, bests)
        rows.append(row | {"above": float(np.median(above)), "nats above best": ", ".join(f"{a:.2g}" for a in above)})
    return rows


def headline(rows):
    """For each method and distance the setting that is first within it; of those that never are, the lowest loss."""
    best = []
    for method in dict.fromkeys(row["method"] for row in rows):
        for within in WITHIN:
            seconds, reached = f"s to {within}", f"reached {within}"
            row = min((row for row in rows if row["method"] == method), key=lambda row: (row[seconds], row["above"]))
            found = {name: row[name] for name in ("method", "rate", "batch")}
            best.append(found | {"within": within, "s": row[seconds], "reached": row[reached]})
    return best


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    print(harness.environment(), flush=True)
    found, path = [], harness.HERE / "results" / "training.json"
    if options.resume and path.exists():
        names = {str(name): name for name in methods()}
        before = json.loads(path.read_text())["rows"][0]["traces"]
        found = [{names[name]: trace for name, trace in one.items()} for one in before]
    for seed in range(len(found), options.seeds):
        found.append(one_seed(seed, options.seconds))
        rows = summary(found)
        print(table(rows), flush=True)
        traces = [{str(name): trace for name, trace in one.items()} for one in found]
        save("training", [{"summary": rows, "headline": headline(rows), "traces": traces}])
    print(table(headline(rows)))

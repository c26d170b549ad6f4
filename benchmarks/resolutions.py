"""Does `av.resolve` reach its tolerance wherever it can be reached? Random models, tolerances from 1e-2 to 1e-10.

`python benchmarks/resolutions.py --cases 500 --losses 5`: so many expectations of one or two activations (noise 0 and
0.001 to 1), and of losses of ridge layers, each against enumeration with quadrature.
"""

import argparse
from collections import Counter

from harness import av, forget_compiled, save, table  # isort: skip (it sets the path)

import bounds
import cases
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import reference
from functions import FUNCTIONS

NAMES = sorted(FUNCTIONS)


def expectation(rng, case):
    """A computation for `resolve`, and the exact value, of one (five in six) or two activations."""
    dimension = 2 if case % 6 == 5 else 1
    kind = ("sparse", "rare", "wide")[case % 3]
    source, law, _ = bounds.model(rng, np.float64, dimension, kind)
    chosen = tuple(NAMES[(case + 3 * d) % len(NAMES)] for d in range(dimension))
    layer, readout = av.LinearLayer(np.eye(dimension)), np.eye(dimension)
    call = bounds.BOUNDED
    if case % 7 == 0 and dimension == 1:  # without noise: values are listed
        source = eqx.tree_at(lambda one: one.noise, source, jnp.zeros_like(source.noise))
        law[3], call = 1e-300 * np.eye(1), av.bounded_expectation
    exact = bounds.exact([FUNCTIONS[name] for name in chosen], law, readout)
    return lambda r: call(source, layer, readout, activations=chosen, resolution=r), lambda found: found.value, exact


def loss(rng, case):
    """The same of the loss of a ridge layer of the tests."""
    parts = cases.problem(case, "softmax", "relu", m2=2)
    noise = jnp.asarray(10 ** rng.uniform(-1.5, 0))
    parts = (eqx.tree_at(lambda one: one.noise, parts[0], noise), *parts[1:])
    exact = reference.elbo_terms(*cases.oracle_parts(*parts, "relu"))["loss"]
    return lambda r: av.elbo(*parts, r, certify=True), lambda found: found.loss, exact


def run(make, count, tolerances, finest):
    """How many were attained or not and why, and those of which that was wrong."""
    rng, outcomes, wrong = np.random.default_rng(7), Counter(), []
    for case in range(count):
        forget_compiled()
        compute, value, exact = make(rng, case)
        tolerance = float(tolerances[case % len(tolerances)])
        found = av.resolve(compute, tolerance, finest=finest)
        error = abs(float(value(found.result)) - exact)
        reasons = ("not attainable in", "up to", "memory")
        why = "attained" if found.attained else next(reason for reason in reasons if reason in found.reason)
        outcomes[why] += 1
        limit = tolerance if found.attained else found.error_bound
        if not error <= limit + 2e-15 * (1 + abs(exact)) or found.attained != (found.error_bound <= tolerance):
            wrong.append((case, tolerance, str(found), error))
    return outcomes, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--losses", type=int, default=12)
    options = parser.parse_args()
    rows = []
    sets = (
        ("expectations", expectation, options.cases, np.geomspace(1e-2, 1e-10, 9), 512),
        ("losses", loss, options.losses, np.geomspace(1e-2, 1e-6, 5), 48),
    )
    for name, make, count, tolerances, finest in sets:
        if not count:
            continue
        outcomes, wrong = run(make, count, tolerances, finest)
        for line in wrong:
            print("WRONG", *line, flush=True)
        rows.append({"of": name, "cases": count, "wrong": len(wrong)} | dict(outcomes))
        print(table(rows[-1:]), flush=True)
        save("resolutions", rows)

"""Is every bound of `av.bounded_expectation` true, and how tight? Random models against enumeration with quadrature.

`python benchmarks/bounds.py --models 1000 --products 100`: that many of one projection and of two, in each dtype.
Among them rare features far from a kink, kinks off the law, and readouts that cancel.
"""

import argparse
import functools

from harness import av, save, table  # isort: skip (it sets the path)

import jax
import numpy as np
import reference
import reference_dense
from functions import FUNCTIONS

NOISES = (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0)
BOUNDED = jax.jit(av.bounded_expectation, static_argnames=("activations", "resolution"))
RULE = reference.Rule(48, 16)


def model(rng, dtype, neurons, kind):
    """A random source and its law in float64: atoms' places, masses, decoder, factor of the noise, mean."""
    m, K = {"sparse": (8 // neurons, 2), "rare": (2, 2), "wide": (2 if neurons == 1 else 1, 32)}[kind]
    rate = 10 ** rng.uniform(-4, -2, m) if kind == "rare" else rng.uniform(0.001, 0.5, m)
    places = np.tile([0.0, 1.0], (m, 1)) if K == 2 else np.sort(rng.normal(size=(m, K)), axis=1)
    masses = np.stack([1 - rate, rate], axis=1) if K == 2 else rng.dirichlet(np.ones(K), m)
    decoder, noise = rng.normal(size=(neurons, m)), NOISES[rng.integers(len(NOISES))]
    factor = noise * (np.eye(neurons) + np.tril(rng.normal(size=(neurons, neurons)), -1))
    shift = rng.choice([0.5, 5.0, 9.0]) * rng.normal(size=neurons)
    places, logits, decoder, factor, mean = (
        np.asarray(a, dtype) for a in (places, np.log(masses), decoder, factor, shift)
    )
    masses = np.exp(logits.astype(float))
    masses /= masses.sum(axis=1, keepdims=True)
    source = av.FeatureModel(av.Prior(places, logits), decoder, factor, mean)
    law = [a.astype(float) for a in (places, masses, decoder, factor, mean)]
    return source, law, float(factor[0, 0])


def exact(chosen, law, readout):
    """The expectation for `readout @ x`, by enumeration."""
    places, masses, decoder, factor, mean = law
    lower = np.linalg.qr((readout @ factor).T, mode="r").T
    _, z, mass = reference.states(reference.Model(places, masses, decoder, 1.0))
    centres = (z @ decoder.T + mean) @ readout.T
    given = functools.partial(reference_dense.given_centre, chosen, factor=lower, rule=RULE)
    return sum(p * given(centre) for p, centre in zip(mass, centres, strict=True))


def run(dtype, count, dimension, rng):
    """Decades of bound over error where the error exceeds 1e-12, and the violations."""
    decades, wrong, names = [], [], sorted(FUNCTIONS)
    for trial in range(count):
        kind = ("sparse", "rare", "wide")[trial % 3]
        source, law, noise = model(rng, dtype, dimension, kind)
        chosen = tuple(names[(trial + 3 * d * trial + d) % len(names)] for d in range(dimension))
        weight = rng.choice([1.0, 100.0]) * np.ones((2, dimension)) + np.eye(2, dimension)
        layer = av.LinearLayer(np.asarray(weight, dtype))
        readout = np.asarray([[1, -1], [0.5, 0.5]], dtype)[:dimension]
        resolution = av.Resolution(int(rng.choice([8, 16, 24] if dimension == 2 else [8, 16, 24, 48])))
        found = BOUNDED(source, layer, readout, activations=chosen, resolution=resolution)
        rows = readout.astype(float) @ weight.astype(dtype).astype(float)
        true = exact([FUNCTIONS[name] for name in chosen], law, rows)
        error, bound = abs(float(found.value) - true), float(found.error_bound)
        if not error <= bound + 2e-15 * (1 + abs(true)):
            wrong.append((kind, chosen, noise, resolution.frequencies, error, bound))
        if error > 1e-12 and np.isfinite(bound):
            decades.append(np.log10(bound / error))
    return decades, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--products", type=int, default=100)
    options = parser.parse_args()
    found = []
    for dimension, count in ((1, options.models), (2, options.products)):
        for dtype in (np.float64, np.float32):
            decades, wrong = run(dtype, count, dimension, np.random.default_rng(dimension))
            for line in wrong:
                print("VIOLATED", np.dtype(dtype).name, *line)
            row = {"projections": dimension, "dtype": np.dtype(dtype).name, "models": count, "violations": len(wrong)}
            quartiles = np.percentile(decades, [25, 50, 75]) if decades else [np.nan] * 3
            row |= dict(zip(("quarter", "median", "three_quarters"), map(float, quartiles), strict=True))
            row |= {"errors_above_1e-12": len(decades), "at_most_3": float(np.mean(np.asarray(decades) <= 3))}
            found.append(row)
            print(table(found[-1:]), flush=True)
            save("bounds", found)

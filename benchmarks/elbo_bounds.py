"""Are the bounds of `elbo(certify=True)` true, and how tight? Random ridge layers against enumeration with quadrature.

`python benchmarks/elbo_bounds.py --models 300 --two 50`: so many with encoders of one statistic and of two, in each
dtype. Sources of three features of two atoms, eight rare ones (Bernoulli 0.001 to 0.5), or two of 32 atoms; noise 0 and
0.001 to 1; every shipped activation and encoder.
"""

import argparse
import itertools

from harness import av, earlier, forget_compiled, save, table  # isort: skip (it sets the path)

import cases
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import reference

NOISES = (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0)
NAMES = ("relu", "leaky_relu", "gelu", "sigmoid", "tanh", "softplus", "identity")
KINDS = ("small", "rare", "wide")
TERMS = ("R1", "S1", "T2", "T3", "U2", "U3", "loss")


def problem(seed, encoder, activation, kind):
    """`(source, layer, target, encoder)`: small ones as the tests have them, others of one input."""
    rng = np.random.default_rng(seed)
    source, layer, target, encode = cases.problem(seed, encoder, activation, m2=2)
    if kind != "small":
        m, K = (8, 2) if kind == "rare" else (2, 32)
        rate = rng.uniform(0.001, 0.5, m)
        places = np.tile([0.0, 1.0], (m, 1)) if K == 2 else np.sort(rng.normal(size=(m, K)), axis=1)
        masses = np.stack([1 - rate, rate], axis=1) if K == 2 else rng.dirichlet(np.ones(K), m)
        source = av.FeatureModel(av.Prior(places, np.log(masses)), rng.normal(size=(1, m)), 0.1, rng.normal(size=1))
        layer = eqx.tree_at(lambda one: one.linear, layer, layer.linear[:, :1])
    noise = NOISES[rng.integers(len(NOISES))]
    return eqx.tree_at(lambda one: one.noise, source, jnp.asarray(noise)), layer, target, encode


def run(dtype, count, kinds, frequencies, first):
    """Decades of bound over error of all terms and of the loss alone, models with an infinite bound, violations."""
    terms, losses, infinite, wrong = [], [], 0, []
    # Every encoder with every kind of source, and all activations in turn; models of one group need one compilation.
    groups = [(*pair, NAMES[i % len(NAMES)]) for i, pair in enumerate(itertools.product(kinds, KINDS))]
    for model in range(count):
        encoder, kind, activation = groups[model * len(groups) // count]
        forget_compiled()
        parts = problem(first + model, encoder, activation, kind)
        parts = cases.cast(parts, dtype)
        found = av.elbo(*parts, av.Resolution(frequencies), certify=True)
        rule = None if kind == "small" else reference.Rule(40, 16)
        exact = reference.elbo_terms(*cases.oracle_parts(*parts, activation), rule)
        infinite += not np.isfinite(found.error_bound)
        for name in TERMS:
            error, bound = abs(float(getattr(found, name)) - exact[name]), float(getattr(found.bounds, name))
            if not error <= bound + 1e-13 * (1 + abs(exact[name])):
                wrong.append((first + model, encoder, activation, kind, float(parts[0].noise), name, error, bound))
            if error > 1e-12 and np.isfinite(bound):
                terms.append(np.log10(bound / error))
                losses += [terms[-1]] if name == "loss" else []
    return terms, losses, infinite, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--two", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--dtype", nargs="*", default=["float64", "float32"])
    options = parser.parse_args()
    rows = []
    for dtype in options.dtype:
        sets = ((1, options.models, cases.READ_ONE, 16), (2, options.two, cases.READ_TWO, 12))
        for statistics, count, kinds, frequencies in sets:
            if not count:
                continue
            terms, losses, infinite, wrong = run(jnp.dtype(dtype), count, kinds, frequencies, options.first)
            for line in wrong:
                print("VIOLATED", dtype, *line, flush=True)
            row = {"statistics": statistics, "dtype": dtype, "models": count, "violations": len(wrong)}
            row |= {"median_of_terms": float(np.median(terms)), "median_of_losses": float(np.median(losses))}
            row |= {"errors_above_1e-12": len(terms), "at_most_3": float(np.mean(np.asarray(terms) <= 3))}
            rows.append(row | {"infinite": infinite})
            print(table(rows[-1:]), flush=True)
            save("elbo_bounds", earlier("elbo_bounds", rows, ("statistics", "dtype")) + rows)

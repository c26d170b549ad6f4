"""Are the bounds of `elbo(certify=True)` true for dense layers, and how tight? Against enumeration with quadrature.

`python benchmarks/dense_bounds.py --models 300`: so many random dense layers in each dtype, features carried, learnt,
or both; with and without a linear map beside the units, a direction per feature or a vector per atom. Sources of
eight rare features (Bernoulli 0.001 to 0.5) or two of 32 atoms on one input, where units may have kinks, or three of
three atoms on two, where they are smooth; noise 0 and 0.001 to 1.
"""

import argparse
import itertools

from harness import av, earlier, forget_compiled, save, table  # isort: skip (it sets the path)

import cases
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import reference
import test_dense

NOISES = (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0)
KINKED = (("relu", "relu", "leaky_relu"), ("tanh", "softplus", "relu"))
SMOOTH = (("gelu", "sigmoid", "tanh"),)
TERMS = ("R1", "S1", "S2", "loss")


def random_source(rng, kind):
    """A source of one input, or of two."""
    if kind == "small":
        return cases.model(rng, 2, 3, 3)
    m, K = (8, 2) if kind == "rare" else (2, 32)
    rate = rng.uniform(0.001, 0.5, m)
    places = np.tile([0.0, 1.0], (m, 1)) if K == 2 else np.sort(rng.normal(size=(m, K)), axis=1)
    masses = np.stack([1 - rate, rate], axis=1) if K == 2 else rng.dirichlet(np.ones(K), m)
    return av.FeatureModel(av.Prior(places, np.log(masses)), rng.normal(size=(1, m)), 0.1, rng.normal(size=1))


def random_encoder(rng, how, features, K, inputs):
    """Two features' encoder, of three kinds in turn, alone or beside carried ones; or those alone."""
    if how == "carried":
        return av.CarriedEncoder(features)
    readout = rng.normal(size=(2, 1, inputs))
    made = (
        av.SoftmaxEncoder(readout, rng.normal(size=(2, 1, K)), rng.normal(size=(2, K)) / 2),
        av.GaussianEncoder(readout, rng.normal(size=2) / 2, rng.uniform(0, 0.3, 2)),
        av.ExponentialEncoder(readout, rng.normal(size=2)),
    )[rng.integers(3)]
    return made if how == "learnt" else av.CarriedEncoder(features, made)


def problem(seed, kind, names, how, dtype):
    """`(source, layer, target, encoder)` and the layer's oracle, from numbers as the dtype has them."""
    rng = np.random.default_rng(seed)
    source = random_source(rng, kind)
    source = eqx.tree_at(lambda one: one.noise, source, jnp.asarray(NOISES[rng.integers(len(NOISES))]))
    layer, _ = test_dense.layer_of(rng, source.neurons, names)
    if seed % 2:
        layer = eqx.tree_at(lambda one: one.skip, layer, None)
    n2, K = layer.outputs, source.prior.atoms.shape[1]
    encoder = random_encoder(rng, how, source.features, K, source.neurons)
    m = encoder.features
    diagonal, lower = rng.uniform(0.3, 1, n2), np.tril(rng.normal(size=(n2, n2)) / 4, -1)
    noise = (0.5, diagonal, lower + np.diag(diagonal))
    vectors = seed % 3 and (how == "carried" or K == 2)
    decoder = rng.normal(size=(n2, m, K) if vectors else (n2, m))
    prior = av.Prior(rng.normal(size=(m, K)), rng.normal(size=(m, K)))
    target = av.FeatureModel(prior, decoder, noise[seed % len(noise)], rng.normal(size=n2))
    parts = cases.cast((source, layer, target, encoder), dtype)
    layer = parts[1]
    skip = np.zeros((n2, source.neurons)) if layer.skip is None else layer.skip
    arrays = (np.asarray(array, float) for array in (layer.weight, layer.bias, layer.output, skip))
    return parts, reference.Dense(*arrays, [cases.ACTIVATIONS[name][1:] for name in names])


def run(dtype, count, frequencies, first):
    """Decades of bound over error of all terms and of the loss alone, models with an infinite bound, violations."""
    terms, losses, infinite, wrong = [], [], 0, []
    groups = [(kind, names) for kind in ("rare", "wide") for names in KINKED] + [("small", names) for names in SMOOTH]
    groups = list(itertools.product(("carried", "learnt", "both"), groups))
    for model in range(count):
        how, (kind, names) = groups[model * len(groups) // count]
        forget_compiled()
        parts, oracle = problem(first + model, kind, names, how, dtype)
        found = av.elbo(*parts, av.Resolution(frequencies), certify=True)
        rule = test_dense.RULE if kind == "small" else reference.Rule(40, 16)
        exact = test_dense.exact_terms(cases.cast(parts, np.float64), oracle, rule)
        infinite += not np.isfinite(found.error_bound)
        scale = 2 * float(found.R3) / float(found.S1 + found.S2)  # the oracle's are in units of the noise
        for name in TERMS:
            by = scale if name in ("S1", "S2") else 1
            error, bound = abs(by * float(getattr(found, name)) - exact[name]), by * float(getattr(found.bounds, name))
            if not error <= bound + 1e-13 * (1 + abs(exact[name])):
                wrong.append((first + model, how, kind, names, float(parts[0].noise), name, error, bound))
                print("VIOLATED", dtype, *wrong[-1], flush=True)
            if error > 1e-12 and np.isfinite(bound):
                terms.append(np.log10(bound / error))
                losses += [terms[-1]] if name == "loss" else []
    return terms, losses, infinite, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--frequencies", type=int, default=16)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--dtype", nargs="*", default=["float64", "float32"])
    options = parser.parse_args()
    rows = []
    for dtype in options.dtype:
        terms, losses, infinite, wrong = run(jnp.dtype(dtype), options.models, options.frequencies, options.first)
        row = {"dtype": dtype, "models": options.models, "violations": len(wrong)}
        row |= {"median_of_terms": float(np.median(terms)), "median_of_losses": float(np.median(losses))}
        row |= {"errors_above_1e-12": len(terms), "at_most_3": float(np.mean(np.asarray(terms) <= 3))}
        rows.append(row | {"infinite": infinite})
        print(table(rows[-1:]), flush=True)
        save("dense_bounds", earlier("dense_bounds", rows, ("dtype",)) + rows)

"""Are the bounds of `elbo(certify=True)` true for dense layers, and how tight? Against enumeration with quadrature.

`python benchmarks/dense_bounds.py --models 300`: so many random dense layers in each dtype, features carried, learnt,
or both; with and without a linear map beside the units, a direction per feature or a vector per atom. Sources of
eight rare features (Bernoulli 0.001 to 0.5) or two of 32 atoms on one input, where units may have kinks, or three of
three atoms on two, where they are smooth; noise 0 and 0.001 to 1.
"""

import argparse
import itertools

from harness import av, forget_compiled  # isort: skip (it sets the path)

import cases
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import reference
import reference_dense
import test_dense
from coverage import NOISES, Tally, one_input_source, progress, save_row

KINKED = (("relu", "relu", "leaky_relu"), ("tanh", "softplus", "relu"))
SMOOTH = ("gelu", "sigmoid", "tanh")
VARIANTS = 2  # of each kind of source, layer and features, in other kinds of encoders, noise and decoders
TERMS = ("R1", "S1", "S2", "loss")


def random_encoder(rng, how, which, features, K, inputs):
    """Two features' encoder, one of three kinds, alone or beside carried ones; or those alone."""
    if how == "carried":
        return av.CarriedEncoder(features)
    readout = rng.normal(size=(2, 1, inputs))
    made = (
        av.SoftmaxEncoder(readout, rng.normal(size=(2, 1, K)), rng.normal(size=(2, K)) / 2),
        av.GaussianEncoder(readout, rng.normal(size=2) / 2, rng.uniform(0, 0.3, 2)),
        av.ExponentialEncoder(readout, rng.normal(size=2)),
    )[which]
    return made if how == "learnt" else av.CarriedEncoder(features, made)


def problem(seed, group, how, kind, names, dtype):
    """`(source, layer, target, encoder)` and the layer's oracle, from numbers as the dtype has them.

    Shapes depend on the group alone: it takes kinds of encoders, of noise and of decoders in turn.
    """
    rng = np.random.default_rng(seed)
    source = cases.model(rng, 2, 3, 3) if kind == "small" else one_input_source(rng, kind)
    source = eqx.tree_at(lambda one: one.noise, source, jnp.asarray(NOISES[rng.integers(len(NOISES))]))
    layer, _ = test_dense.layer_of(rng, source.neurons, names)
    if group % 2:
        layer = eqx.tree_at(lambda one: one.skip, layer, None)
    n2, K = layer.outputs, source.prior.atoms.shape[1]
    encoder = random_encoder(rng, how, group % 3, source.features, K, source.neurons)
    m = encoder.features
    diagonal, lower = rng.uniform(0.3, 1, n2), np.tril(rng.normal(size=(n2, n2)) / 4, -1)
    noise = (0.5, diagonal, lower + np.diag(diagonal))[group // 3 % 3]
    vectors = group % 4 > 1
    decoder = rng.normal(size=(n2, m, K) if vectors else (n2, m))
    prior = av.Prior(rng.normal(size=(m, K)), rng.normal(size=(m, K)))
    target = av.FeatureModel(prior, decoder, noise, rng.normal(size=n2))
    parts = cases.cast((source, layer, target, encoder), dtype)
    layer = parts[1]
    skip = np.zeros((n2, source.neurons)) if layer.skip is None else layer.skip
    arrays = (np.asarray(array, float) for array in (layer.weight, layer.bias, layer.output, skip))
    return parts, reference_dense.Dense(*arrays, [cases.ACTIVATIONS[name][1:] for name in names])


def run(dtype, count, frequencies, first):
    """The tally of so many models, from the seed `first` on; models of one group need one compilation."""
    tally = Tally()
    kinds = [*itertools.product(("rare", "wide"), KINKED), ("small", SMOOTH)]
    groups = list(enumerate(itertools.product(("carried", "learnt", "both"), kinds, range(VARIANTS))))
    for model in range(count):
        group, (how, (kind, names), _) = groups[model * len(groups) // count]
        forget_compiled()
        progress(model, count)
        parts, oracle = problem(first + model, group, how, kind, names, dtype)
        found = av.elbo(*parts, av.Resolution(frequencies), certify=True)
        rule = test_dense.RULE if kind == "small" else reference.Rule(40, 16)
        exact = test_dense.exact_terms(cases.cast(parts, np.float64), oracle, rule)
        scale = 2 * float(found.R3) / float(found.S1 + found.S2)  # the oracle's are in units of the noise
        label = dtype, first + model, how, kind, names, float(parts[0].noise)
        for name in TERMS:
            by = scale if name in ("S1", "S2") else 1
            error, bound = abs(by * float(getattr(found, name)) - exact[name]), by * float(getattr(found.bounds, name))
            tally.add(name, error, bound, exact[name], *label)
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--frequencies", type=int, default=16)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--dtype", nargs="*", default=["float64", "float32"])
    options = parser.parse_args()
    for dtype in options.dtype:
        tally = run(jnp.dtype(dtype), options.models, options.frequencies, options.first)
        save_row("dense_bounds", {"dtype": dtype, "models": options.models} | tally.row(), ("dtype",))

"""Are the bounds of `elbo(certify=True)` true, and how tight? Random ridge layers against enumeration with quadrature.

`python benchmarks/elbo_bounds.py --models 300 --two 50`: so many with encoders of one statistic and of two, in each
dtype. Sources of three features of two atoms, eight rare ones (Bernoulli 0.001 to 0.5), or two of 32 atoms; noise 0 and
0.001 to 1; every shipped activation and encoder.
"""

import argparse
import itertools

from harness import av, forget_compiled  # isort: skip (it sets the path)

import cases
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import reference
from coverage import NOISES, Tally, one_input_source, progress, save_row

NAMES = ("relu", "leaky_relu", "gelu", "sigmoid", "tanh", "softplus", "identity")
KINDS = ("small", "rare", "wide")
TERMS = ("R1", "S1", "T2", "T3", "U2", "U3", "loss")


def problem(seed, encoder, activation, kind):
    """`(source, layer, target, encoder)`: small ones as the tests have them, others of one input."""
    rng = np.random.default_rng(seed)
    source, layer, target, encode = cases.problem(seed, encoder, activation, m2=2)
    if kind != "small":
        source = one_input_source(rng, kind)
        layer = eqx.tree_at(lambda one: one.linear, layer, layer.linear[:, :1])
    noise = NOISES[rng.integers(len(NOISES))]
    return eqx.tree_at(lambda one: one.noise, source, jnp.asarray(noise)), layer, target, encode


def run(dtype, count, kinds, frequencies, first):
    """The tally of so many models, from the seed `first` on."""
    tally = Tally()
    # Every encoder with every kind of source, and all activations in turn; models of one group need one compilation.
    groups = [(*pair, NAMES[i % len(NAMES)]) for i, pair in enumerate(itertools.product(kinds, KINDS))]
    for model in range(count):
        encoder, kind, activation = groups[model * len(groups) // count]
        forget_compiled()
        progress(model, count)
        parts = problem(first + model, encoder, activation, kind)
        parts = cases.cast(parts, dtype)
        found = av.elbo(*parts, av.Resolution(frequencies), certify=True)
        rule = None if kind == "small" else reference.Rule(40, 16)
        exact = reference.elbo_terms(*cases.oracle_parts(*parts, activation), rule)
        label = dtype, first + model, encoder, activation, kind, float(parts[0].noise)
        for name in TERMS:
            error, bound = abs(float(getattr(found, name)) - exact[name]), float(getattr(found.bounds, name))
            tally.add(name, error, bound, exact[name], *label)
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--two", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--dtype", nargs="*", default=["float64", "float32"])
    options = parser.parse_args()
    for dtype in options.dtype:
        sets = ((1, options.models, cases.READ_ONE, 16), (2, options.two, cases.READ_TWO, 12))
        for statistics, count, kinds, frequencies in sets:
            if count:
                tally = run(jnp.dtype(dtype), count, kinds, frequencies, options.first)
                row = {"statistics": statistics, "dtype": dtype, "models": count} | tally.row()
                save_row("elbo_bounds", row, ("statistics", "dtype"))

"""Every named activation against quadrature and exact tails: moments, gradients, laws, bounds, in both precisions.

The largest errors: of mean and variance in units of the spread, of the mean's slope by the bias (relative), of six
tails, of the masses of atoms; and the bound of the mean that `bounded_expectation` gives at 32 frequencies, where there
is one. `--only silu mish` takes some.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from harness import av, environment, save, table

from functions import BIAS, FUNCTIONS, NAMES, SCALE, exact_moments, exact_tail, layer_of, source  # isort: skip

RESOLUTION = av.Resolution(32)
THRESHOLDS = np.array([-1.3, -0.1, 0.0, 0.3, 0.9, 4.0])
DTYPES = np.float64, np.float32


def moments(names, dtype):
    """Errors of mean, variance, and slope: `[3, names]`."""
    chosen = [NAMES.index(name) for name in names]
    weight, bias = (part[chosen] for part in layer_of(NAMES, dtype))
    mean, variance, slope = exact_moments()[:, chosen]

    def means(bias):
        found = av.dense_moments(source(dtype), av.DenseLayer(weight, bias, names), RESOLUTION).output()
        return jnp.sum(found[0]), found

    (_, (found, covariance)), gradient = jax.value_and_grad(means, has_aux=True)(jnp.asarray(bias))
    spread = np.sqrt(variance)
    errors = (found - mean) / spread, (jnp.diagonal(covariance) - variance) / variance, (gradient - slope) / slope
    return np.abs(np.array(errors))


def law(name, dtype):
    """Errors of tails and of masses of atoms."""
    function, kinks = FUNCTIONS[name]
    layer = av.DenseLayer(np.ones((1, 1), dtype), dtype([BIAS]), name)
    found = av.pushforward(source(dtype), layer, dtype([[SCALE]]))
    exact = np.array([exact_tail(function, kinks, one) for one in THRESHOLDS])
    points, masses = found.atoms
    own = [exact_tail(function, kinks, y - 1e-5) - exact_tail(function, kinks, y + 1e-5) for y in points[:, 0]]
    return np.abs(found.tail(dtype(THRESHOLDS)) - exact).max(), np.abs(np.subtract(masses, own)).max(initial=0)


def bound(name, dtype):
    """The bound of the mean's error, None where there is none."""
    layer = av.LinearLayer(np.ones((1, 1), dtype), dtype([BIAS]))
    if av.DenseLayer(np.ones((1, 1)), activation=name).activations[0].regularity is None:
        return None
    return float(av.bounded_expectation(source(dtype), layer, np.ones((1, 1), dtype), [name], RESOLUTION).error_bound)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=NAMES, choices=NAMES)
    names = parser.parse_args().only
    print(environment(), flush=True)
    rows = []
    for dtype in DTYPES:
        errors = moments(names, dtype)
        for name, (mean, variance, slope) in zip(names, errors.T, strict=True):
            tails, atoms = law(name, dtype)
            row = {"activation": name, "dtype": dtype.__name__, "mean": mean, "variance": variance, "slope": slope}
            rows.append(row | {"tails": tails, "atoms": atoms, "bound of the mean": bound(name, dtype)})
            print(name, dtype.__name__, flush=True)
    print(table(rows))
    if names == NAMES:
        save("activations", rows)

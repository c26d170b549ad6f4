"""Whole layers in one step: a sparse network of width 64, widths from 16 to 256, and two features at an angle.

`python benchmarks/whole_layers.py`: everything; `sparse`, `first`, `widths` or `angles` one part.
"""

import argparse
import itertools
import time

from harness import av, save, table  # isort: skip (it sets the path)

import jax
import numpy as np
import reference
from harness import HERE

CASES = np.load(HERE.parents[1] / "shared" / "cases" / "sparse_mlp.npz")
ENTROPY = {  # of the two features at an angle, from shared/cases/README.md
    90: 0.809479267, 75: 0.808880249, 60: 0.804112151, 45: 0.782252157, 30: 0.716610481, 20: 0.641751151,
    10: 0.563463678, 5: 0.537128327,
}  # fmt: skip
RATES = {"b05": 0.05, "b01": 0.01, "sign": 0.5}


def source(name, width=64):
    """Independent inputs of mean 0 and variance 1: standard Gaussian, or standardised Bernoulli without noise."""
    if name == "gauss":
        return av.FeatureModel(av.Prior(np.zeros((1, 2)), np.zeros((1, 2))), np.zeros((width, 1)), 1.0)
    p = RATES[name]
    atoms = (np.array([0.0, 1.0]) - p) / np.sqrt(p * (1 - p))
    prior = av.Prior(np.tile(atoms, (width, 1)), np.log(np.tile([1 - p, p], (width, 1))))
    return av.FeatureModel(prior, np.eye(width), 0.0)


def without_features(model, layer, resolution):
    """The Gaussian model of a layer's output with its exact mean and covariance: no features."""
    mean, covariance = av.dense_moments(model, layer, resolution).output()
    values, vectors = np.linalg.eigh(np.asarray(covariance))
    root = vectors * np.sqrt(np.maximum(values, 1e-12))
    lower = np.linalg.qr(root.T, mode="r").T
    prior = av.Prior(np.zeros((1, 2)), np.zeros((1, 2)))
    return av.FeatureModel(prior, np.zeros((mean.size, 1)), lower * np.sign(np.diag(lower)), mean)


def sparse(resolution):
    """Mean squared error of the means of the network's 64 outputs, against 4e7 samples."""
    *hidden, last = av.from_weights([(weight, None) for weight in CASES["weights"]], "relu").layers
    rows = []
    for name in ("b05", "b01", "gauss", "sign"):
        for features in ("none", "carried", "split") if name != "gauss" else ("none",):
            model, seconds = source(name), []
            for layer in hidden:
                begun = time.perf_counter()
                if features == "none":
                    model = without_features(model, layer, resolution)
                else:
                    carried = dict(resolution=resolution, check=False, split=features == "split")
                    model = av.fit(model, layer, **carried).target
                seconds.append(time.perf_counter() - begun)
            mean = np.asarray(av.linear_pushforward(model, last).moments()[0])
            error = float(np.mean((mean - CASES[f"mean_{name}"]) ** 2))
            floor = float(np.mean(CASES[f"se_{name}"] ** 2))
            kprop = {f"kprop_{k}": float(v) for k, v in published(name).items()}
            row = {"input": name, "features": features, "mse": error, "of_samples": floor} | kprop
            rows.append(row | {"slowest_layer_s": max(seconds), "fastest_layer_s": min(seconds)})
            print(table(rows[-1:]), flush=True)
    return rows


def published(name):
    """Mean squared errors of cumulant propagation of order 2 and 3, from the case's file."""
    return dict(zip((2, 3), np.ravel(CASES[f"kprop_{name}"])[:2], strict=False)) if f"kprop_{name}" in CASES else {}


def first(resolution, samples=10_000_000, seed=1, size=100_000):
    """The first hidden layer against NumPy's samples: largest deviation of means and covariances in standard errors."""
    rows, weight = [], np.asarray(CASES["weights"][0])
    for (name, noise), activation in itertools.product(
        (("b05", 0.0), ("b01", 0.0), ("b05", 0.3)), ("relu", "gelu", "tanh")
    ):
        model = source(name)
        model = av.FeatureModel(model.prior, model.decoder, noise)
        begun = time.perf_counter()
        moments = av.dense_moments(model, av.DenseLayer(weight, None, activation), resolution)
        mean, covariance = (np.asarray(a) for a in moments.output())
        seconds = time.perf_counter() - begun
        psi, rng, p = reference.ACTIVATIONS[activation][0], np.random.default_rng(seed), RATES[name]
        total, second, fourth = 0, 0, 0
        for _ in range(samples // size):
            x = ((rng.random((size, 64)) < p) - p) / np.sqrt(p * (1 - p)) + noise * rng.normal(size=(size, 64))
            y = psi(x @ weight.T) - mean
            total, second, fourth = total + y.sum(axis=0), second + y.T @ y, fourth + (y**2).T @ y**2
        error = total / samples
        sampled = second / samples - np.outer(error, error)
        of_mean = np.abs(error) / np.sqrt(np.diag(sampled) / samples)
        of_second = np.abs(covariance - sampled) / np.sqrt((fourth / samples - sampled**2) / samples)
        row = {"input": name, "noise": noise, "activation": activation, "samples": samples, "seed": seed}
        row |= {"mean_in_se": float(of_mean.max()), "covariance_in_se": float(of_second.max())}
        rows.append(row | {"covariance_error": float(np.abs(covariance - sampled).max()), "seconds": seconds})
        print(table(rows[-1:]), flush=True)
    return rows


def widths(resolution, sizes):
    """Seconds of a carried layer by its width, compilation apart; the exponent between neighbours."""
    rows = []
    for width in sizes:
        rng = np.random.default_rng(width)
        model = source("b05", width)
        layer = av.DenseLayer(rng.normal(size=(width, width)) * (2 / width) ** 0.5, None, "relu")
        times = []
        for _ in range(2 if width < 200 else 1):
            begun = time.perf_counter()
            fit = av.fit(model, layer, resolution=resolution, check=False)
            times.append(time.perf_counter() - begun)
        second = times[-1] if width < 200 else None
        if second is None:  # too long to do twice: compilation, of the same programs, is as long as at the width before
            second = times[0] - (rows[-1]["first_s"] - rows[-1]["seconds"])
        row = {"width": width, "first_s": times[0], "seconds": second, "least_remainder": fit.least_remainder}
        if rows:
            row["exponent"] = float(np.log(second / rows[-1]["seconds"]) / np.log(width / rows[-1]["width"]))
        rows.append(row)
        print(table(rows[-1:]), flush=True)
    return rows


def angles(coarse, resolution, steps=60):
    """Two features at an angle as one of four atoms with their own vectors, by both paths: what is left of the gap.

    A coarse fit, then one at `resolution` from where it ended. Both losses less the entropy, and how far the last
    moves at half as many frequencies again.
    """
    rows = []
    for angle, entropy in ENTROPY.items():
        a = np.deg2rad(angle)
        directions = np.array([[1, np.cos(a)], [0, np.sin(a)]])
        model = av.FeatureModel(av.Prior.bernoulli([0.3, 0.3]), directions, 0.2)
        # From the posterior's own statistics, moved by 10% at random; from 30% away some fits end in worse minima.
        points = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ directions.T / 0.2**2
        base = -np.sum((points * 0.2) ** 2, axis=1) / 2 + np.log([0.49, 0.21, 0.21, 0.09])
        rng = np.random.default_rng(angle)
        start = [array * (1 + 0.1 * rng.normal(size=array.shape)) for array in (points.T[None], base[None])]
        options = dict(atoms=4, features=1, vectors=True, noise="scalar", floor=0.0, steps=steps)
        layers = {"linear": av.LinearLayer(np.eye(2)), "dense": av.DenseLayer(np.eye(2), None, "identity")}
        for name, layer in layers.items():
            begun, encoder = time.perf_counter(), av.SoftmaxEncoder(np.eye(2)[None], *start)
            first = av.fit(model, layer, encoder=encoder, resolution=coarse, check=False, **options)
            fit = av.fit(model, layer, encoder=first.encoder, resolution=resolution, **options)
            row = {
                "angle": angle,
                "layer": name,
                "coarse": first.loss - entropy,
                "loss_less_entropy": fit.loss - entropy,
            }
            row |= {"moves_by": fit.error_estimate, "steps": first.history.size + fit.history.size}
            rows.append(row | {"seconds": time.perf_counter() - begun})
            print(table(rows[-1:]), flush=True)
    return rows


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["sparse", "first", "widths", "angles"])
    parser.add_argument("--frequencies", type=int, default=24)
    parser.add_argument("--widths", type=int, nargs="*", default=[16, 32, 64, 128, 256])
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1, help="of the samples")
    options = parser.parse_args()
    resolution = av.Resolution(options.frequencies)
    measure = {
        "sparse": lambda: sparse(resolution),
        "first": lambda: first(resolution, options.samples, options.seed),
        "widths": lambda: widths(resolution, options.widths),
        "angles": lambda: angles(av.Resolution(16), av.Resolution(32)),
    }
    for part in options.parts:
        save(f"whole_layers_{part}", measure[part]())

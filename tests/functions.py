"""The named activations, written down once more in NumPy, and their kinks; exact moments and tails of them.

Of one neuron of three features and noise, `x`: `psi(weight x + bias)`.
"""

from functools import cache

import numpy as np
from scipy.special import erf, expit, ndtr

import analytic_vae as av

SQRT = np.sqrt(2 / np.pi)


def _elu(b, alpha=1.0):
    return np.where(b > 0, b, alpha * np.expm1(np.minimum(b, 0)))


BOUNDED = {  # those with bounds of their errors
    "relu": (lambda b: np.maximum(b, 0), (0.0,)),
    "leaky_relu": (lambda b: np.where(b > 0, b, 0.01 * b), (0.0,)),
    "gelu": (lambda b: b * (1 + erf(b / np.sqrt(2))) / 2, ()),
    "sigmoid": (expit, ()),
    "tanh": (np.tanh, ()),
    "softplus": (lambda b: np.logaddexp(0, b), ()),
    "identity": (lambda b: b, ()),
    "relu6": (lambda b: np.clip(b, 0, 6), (0.0, 6.0)),
    "hardtanh": (lambda b: np.clip(b, -1, 1), (-1.0, 1.0)),
    "hard_sigmoid": (lambda b: np.clip(b / 6 + 0.5, 0, 1), (-3.0, 3.0)),
    "abs": (np.abs, (0.0,)),
    "silu": (lambda b: b * expit(b), ()),
    "mish": (lambda b: b * np.tanh(np.logaddexp(0, b)), ()),
    "gelu_tanh": (lambda b: b * (1 + np.tanh(SQRT * (b + 0.044715 * b**3))) / 2, ()),
    "quick_gelu": (lambda b: b * expit(1.702 * b), ()),
    "square": (lambda b: b**2, ()),
    "leaky_relu(0.3)": (lambda b: np.where(b > 0, b, 0.3 * b), (0.0,)),
    "softplus(2.0)": (lambda b: np.logaddexp(0, 2 * b) / 2, ()),
}

FUNCTIONS = BOUNDED | {
    "elu": (_elu, (0.0,)),
    "selu": (lambda b: 1.0507009873554805 * _elu(b, 1.6732632423543772), (0.0,)),
    "celu": (_elu, (0.0,)),
    "hard_swish": (lambda b: b * np.clip(b / 6 + 0.5, 0, 1), (-3.0, 3.0)),
    "softsign": (lambda b: b / (1 + np.abs(b)), (0.0,)),
    "step": (lambda b: np.heaviside(b, 0.0), (0.0,)),
    "elu(0.5)": (lambda b: _elu(b, 0.5), (0.0,)),
    "celu(0.5)": (lambda b: np.where(b > 0, b, 0.5 * np.expm1(np.minimum(b, 0) / 0.5)), (0.0,)),
}

NAMES = list(FUNCTIONS)
P, DECODER, NOISE, BIAS, SCALE = np.array([0.3, 0.1, 0.4]), np.array([[1.3, -0.8, 0.5]]), 1.1, -0.2, 1.5
STATES = np.array(list(np.ndindex(2, 2, 2)))
MASSES = np.prod(np.where(STATES == 1, P, 1 - P), axis=1)
POINTS = STATES @ DECODER[0]


def source(dtype=np.float64):
    """One neuron of three features and noise."""
    return av.FeatureModel(av.Prior.bernoulli(P.astype(dtype)), DECODER.astype(dtype), dtype(NOISE))


def mean_of(function, kinks, weight, bias, power=1):
    """`E psi(weight x + bias)^power` by Gauss-Legendre panels that end at kinks, state by state."""
    x, w = np.polynomial.legendre.leggauss(20)
    total, deviation = 0.0, NOISE * abs(weight)
    for point, mass in zip(weight * POINTS + bias, MASSES, strict=True):
        ends = point + 9 * deviation * np.linspace(-1, 1, 41)
        ends = np.unique(np.clip([*ends, *kinks], ends[0], ends[-1]))
        half = np.diff(ends)[:, None] / 2
        b = (ends[1:] + ends[:-1])[:, None] / 2 + half * x
        density = np.exp(-(((b - point) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
        total += mass * np.sum(half * w * density * function(b) ** power)
    return total


def layer_of(names, dtype=np.float64):
    weight = np.linspace(0.6, 1.4, len(names)).astype(dtype)[:, None]
    return weight, np.linspace(-0.9, 1.1, len(names)).astype(dtype)


@cache
def exact_moments():
    """Mean, variance, and slope of the mean by the bias, of every activation."""
    rows = []
    for name, weight, bias in zip(NAMES, *layer_of(NAMES), strict=True):
        given = (*FUNCTIONS[name], weight[0])
        mean, square = mean_of(*given, bias), mean_of(*given, bias, 2)
        slope = (mean_of(*given, bias + 1e-5) - mean_of(*given, bias - 1e-5)) / 2e-5
        rows.append((mean, square - mean**2, slope))
    return np.array(rows).T


def exact_tail(function, kinks, threshold):
    """`P(SCALE psi(x + BIAS) > threshold)`: the ends of the set above the level, by halving."""
    inside = lambda b: SCALE * function(b) > threshold  # noqa: E731
    grid = np.unique([*np.linspace(-15, 15, 1501) + 1e-3, *kinks, *np.add(kinks, 1e-13), *np.subtract(kinks, 1e-13)])
    (changes,) = np.nonzero(np.diff(inside(grid)))
    low, high, first = grid[changes], grid[changes + 1], inside(grid)[changes]
    for _ in range(50):
        middle = (low + high) / 2
        same = inside(middle) == first
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    ends = np.array([grid[0], *low, grid[-1]])
    cdf = MASSES @ ndtr((ends[None] - (POINTS + BIAS)[:, None]) / NOISE)
    return float(np.sum(np.diff(cdf)[0 if inside(grid)[0] else 1 :: 2]))

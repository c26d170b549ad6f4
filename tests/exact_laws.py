"""Exact probabilities of laws with point masses: every state listed, and for each the Gaussian law in closed form.

NumPy and SciPy only, and no idea in common with the package: thresholds are carried back through the inverse of each
activation, and where two random variables meet, SciPy integrates or has the bivariate normal law.
"""

import itertools

import numpy as np
from scipy.integrate import quad
from scipy.special import logit, ndtr
from scipy.stats import multivariate_normal

INFINITE = np.inf


def _relu(v):
    return -INFINITE if v < 0 else v


def _leaky(v):
    return v if v > 0 else 100 * v


def _hard(v):
    return -INFINITE if v < -1 else INFINITE if v >= 1 else v


def _tanh(v):
    return -INFINITE if v <= -1 else INFINITE if v >= 1 else np.arctanh(v)


def _sigmoid(v):
    return -INFINITE if v <= 0 else INFINITE if v >= 1 else logit(v)


# name -> (psi, and from v the largest b with psi(b) <= v: psi > v just above it)
UNITS = {
    "identity": (lambda b: b, lambda v: v),
    "relu": (lambda b: np.maximum(b, 0), _relu),
    "leaky_relu": (lambda b: np.where(b > 0, b, 0.01 * b), _leaky),
    "hard": (lambda b: np.clip(b, -1, 1), _hard),
    "tanh": (np.tanh, _tanh),
    "sigmoid": (lambda b: 1 / (1 + np.exp(-b)), _sigmoid),
}


def states(atoms, masses):
    """Every state's values `[S, m]` and probability `[S]`."""
    m, K = atoms.shape
    index = np.array(list(itertools.product(range(K), repeat=m)))
    return atoms[np.arange(m), index], masses[np.arange(m), index].prod(axis=1)


def _above(name, factor, level, inclusive):
    """The set `{b: factor psi(b) > level}` (or >=), as an interval `(low, high)`; psi rises."""
    _, inverse = UNITS[name]
    tiny = 1e-13 * (1 + abs(level))
    level = level - tiny if inclusive else level + tiny
    if factor == 0:
        return (-INFINITE, INFINITE) if level < 0 else (INFINITE, INFINITE)
    if factor > 0:
        return inverse(level / factor), INFINITE
    # psi(b) < v: below the least b with psi(b) >= v, and psi rises strictly but on flat pieces
    v = level / factor
    return -INFINITE, inverse(v - tiny)


def _between(low, high, mean, deviation):
    if low >= high:
        return 0.0
    if deviation == 0:
        return float(low < mean <= high)
    return ndtr((high - mean) / deviation) - ndtr((low - mean) / deviation)


def one(name, factor, t, means, masses, deviation, inclusive):
    """P(factor psi(b) > t) of a mixture of Gaussians."""
    if deviation == 0:
        return listed(factor * UNITS[name][0](means)[:, None], np.array([t]), masses, inclusive)
    low, high = _above(name, factor, t, inclusive)
    return sum(p * _between(low, high, mean, deviation) for p, mean in zip(masses, means, strict=True))


def listed(y, t, masses, inclusive):
    """P(y > t) of points."""
    tiny = 1e-11 * (1 + np.abs(t))
    inside = np.all(y >= t - tiny if inclusive else y > t + tiny, axis=1)
    return float(masses @ inside)


def two(names, t, means, masses, covariance, inclusive):
    """P(psi_1(b_1) > t_1, psi_2(b_2) > t_2), by the bivariate normal law; rising psi, factors of 1."""
    low = np.array([_above(name, 1.0, level, inclusive)[0] for name, level in zip(names, t, strict=True)])
    if np.any(low == INFINITE):
        return 0.0
    low = np.maximum(low, means.min() - 60 * np.sqrt(np.diagonal(covariance).max()) - 1)
    exact = {"abseps": 1e-12, "releps": 1e-12, "maxpts": 10**6, "allow_singular": True}
    return sum(
        p * multivariate_normal.cdf(mean, low, covariance, **exact) for p, mean in zip(masses, means, strict=True)
    )


def mixed(names, factors, t, means, masses, covariance, inclusive):
    """P(f_1 psi_1(b_1) + f_2 psi_2(b_2) > t): the law of b_2 given b_1 in closed form, b_1 by adaptive quadrature."""
    first = np.sqrt(covariance[0, 0])
    slope = covariance[0, 1] / covariance[0, 0]
    second = np.sqrt(max(covariance[1, 1] - slope * covariance[0, 1], 0))
    psi, inverse = UNITS[names[0]]
    total = 0.0
    # Where the set of b_2 changes its shape: where what is left for it passes a value of a kink or a limit.
    special = [(t - factors[1] * v) / factors[0] for v in (0.0, -1.0, 1.0)]
    places = [b for v in special for b in (inverse(v),) if np.isfinite(b)] + [0.0, -1.0, 1.0]
    for p, mean in zip(masses, means, strict=True):
        grid = np.linspace(-8.5, 8.5, 35)
        points = sorted({u for u in [*grid, *((b - mean[0]) / first for b in places)] if -8.5 <= u <= 8.5})

        def integrand(u, mean=mean):
            b = mean[0] + first * u
            low, high = _above(names[1], factors[1], t - factors[0] * psi(b), inclusive)
            inside = _between(low, high, mean[1] + slope * first * u, second)
            return np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi) * inside

        for left, right in itertools.pairwise(points):
            total += p * quad(integrand, left, right, epsabs=1e-11, epsrel=1e-9, limit=200)[0]
    return total

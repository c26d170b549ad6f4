"""Small laws of one and two projections, and their expectations by listing all states, with quadrature of the noise."""

import itertools
from typing import NamedTuple
from unittest import mock

import jax.numpy as jnp
import numpy as np
import reference
from scipy.special import ndtr

from analytic_vae.certify import domain
from analytic_vae.certify.domain import Domain
from analytic_vae.moments.statistic import Statistic
from analytic_vae.spectral.projected_law import Projection

RULE = reference.Rule(24, 16)


class States(NamedTuple):
    """Values `[S, D]` and masses `[S]` of the features' part, and the covariance `[D, D]` of the noise."""

    values: np.ndarray
    masses: np.ndarray
    covariance: np.ndarray


def projection(masses, atoms, covariance, mean) -> Projection:
    """Of `masses: [m, K]`, `atoms: [D, m, K]`, whose first are taken into the mean."""
    atoms, mean = np.asarray(atoms, float), np.asarray(mean, float)
    first = atoms[:, :, 0]
    given = mean + first.sum(axis=1), atoms - first[:, :, None], masses, covariance
    return Projection(*(jnp.asarray(array, float) for array in given))


def single(p, sizes, noise, mean=0.0) -> Projection:
    """`mean + sum_j sizes_j Bernoulli(p_j) + noise N`."""
    p, sizes = np.asarray(p, float), np.asarray(sizes, float)
    masses = np.stack([1 - p, p], axis=1)
    return projection(masses, np.stack([0 * sizes, sizes], axis=1)[None], [[noise**2]], [mean])


def random_law(rng, D, noise, features=3, atoms=2) -> Projection:
    """A random one; `noise` is about the standard deviation of its Gaussian part."""
    factor = noise * (np.eye(D) + np.tril(rng.normal(size=(D, D)) / 2, -1))
    masses = rng.dirichlet(np.ones(atoms), features)
    return projection(masses, rng.normal(size=(D, features, atoms)), factor @ factor.T, rng.normal(size=D))


def statistic(basis, centre) -> Statistic:
    """`y = centre + basis y''`, of which nothing else is asked."""
    t = len(centre)
    none, law = jnp.zeros(t), random_law(np.random.default_rng(0), t, 1.0)
    return Statistic(
        centre=jnp.asarray(centre),
        basis=jnp.asarray(basis),
        low=none,
        length=none,
        law=law,
        cross=none,
        shear=none,
        coefficient=none,
        middle=none,
        rows=jnp.zeros((t, 1)),
        still=jnp.zeros(t, bool),
    )


def boxed(law, low: float, high: float, order: int = 32, noise: float = 0.0) -> Domain:
    """The axis with that inner box, which may be too small: what `Domain.of` does once the box is chosen."""
    with mock.patch.object(domain, "interval", lambda *_: (jnp.asarray(low), jnp.asarray(high))):
        return Domain.of(law, jnp.asarray(noise), order)


def states(law: Projection) -> States:
    """All of them."""
    atoms, masses = np.asarray(law.atoms), np.asarray(law.masses)
    (_, m, K), feature = atoms.shape, np.arange(masses.shape[0])
    index = np.array(list(itertools.product(range(K), repeat=m)))
    values = np.asarray(law.mean) + atoms[:, feature, index].sum(axis=2).T
    return States(values, masses[feature, index].prod(axis=1), np.asarray(law.covariance))


def points(law: Projection, splits=((), ())) -> tuple[np.ndarray, np.ndarray]:
    """The law as a list of points `[P, D]` and weights, D = 1 or 2; the noise is cut where a coordinate is in `splits`.

    Of two, only the second coordinate is cut.
    """
    values, masses, covariance = states(law)
    D = values.shape[1]
    everything, weights = [], []
    # The last coordinate is the innermost: it is that plus a multiple of the others, with noise of its own.
    spread = np.linalg.cholesky(covariance + 1e-300 * np.eye(D))
    outer, outer_weight = reference.normal_axis(RULE) if D == 2 else (np.zeros(1), np.ones(1))
    for value, mass in zip(values, masses, strict=True):
        for x, weight in zip(outer, outer_weight, strict=True):
            centre = value[-1] + (spread[1, 0] * x if D == 2 else 0.0)
            own = spread[-1, -1]
            if own < 1e-100:
                node, inner = np.zeros(1), np.ones(1)
            else:
                node, inner = reference.normal_axis(RULE, [(split - centre) / own for split in splits[-1]])
            last = centre + own * node
            first = np.full_like(last, value[0] + spread[0, 0] * x)
            everything.append(np.stack([first, last][-D:] if D == 2 else [last], axis=1))
            weights.append(mass * weight * inner)
    return np.concatenate(everything), np.concatenate(weights)


def above(law: Projection, heights) -> np.ndarray:
    """`P(Y >= h)`, exactly."""
    values, masses, covariance = states(law)
    gap, deviation = values[:, 0][:, None] - np.asarray(heights)[None], np.sqrt(covariance[0, 0])
    each = (gap >= 0) * 1.0 if deviation == 0 else ndtr(gap / deviation)
    return masses @ each


def characteristic(law: Projection, frequency) -> np.ndarray:
    """`E exp(i <w, Y>)` at `[W, D]`, state by state."""
    values, masses, covariance = states(law)
    frequency = np.asarray(frequency)
    quadratic = np.einsum("wd,de,we->w", frequency, covariance, frequency)
    return (np.exp(1j * frequency @ values.T) @ masses) * np.exp(-quadratic / 2)

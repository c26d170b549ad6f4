"""The law of projections without Gaussian noise, state by state, where there are few enough different values."""

import numpy as np

from .projected_law import Projection

MOST = 200_000  # different values


def support(law: Projection) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Values `[S, D]` and masses `[S]` of a law, and how far merging moved them, `[D]`; None if there are too many.

    Feature by feature, and values that differ by rounding are taken together: sums of many features on a lattice have
    few, and so have those of a few features. For concrete arrays only. The Gaussian part is not looked at.
    """
    atoms, masses = np.asarray(law.atoms, float), np.asarray(law.masses, float)
    values, mass = np.asarray(law.mean, float)[None], np.ones(1)
    apart = 16 * np.finfo(law.mean.dtype).eps * (np.abs(atoms).max(axis=2).sum(axis=1) + np.abs(values[0]))
    apart = np.maximum(apart, np.finfo(float).tiny)
    for feature in range(masses.shape[0]):
        kept = masses[feature] > 0
        if values.shape[0] * kept.sum() > 64 * MOST:
            return None
        values = (values[:, None] + atoms[:, feature, kept].T[None]).reshape(-1, values.shape[1])
        mass = np.outer(mass, masses[feature, kept]).ravel()
        _, which = np.unique(np.round(values / apart), axis=0, return_inverse=True)
        merged = np.bincount(which.ravel(), mass)
        if merged.size > MOST:
            return None
        weight = mass / merged[which.ravel()]
        values = np.stack([np.bincount(which.ravel(), weight * column) for column in values.T], axis=1)
        mass = merged
    return values, mass, apart * masses.shape[0]

"""Slow, obvious oracles of densities: the evidence that the loss bounds, and entropies. NumPy, as `reference.py`."""

import math

import numpy as np
from reference import CHUNK, REACH, Model, Ridge, Rule, composite, expectation, states
from scipy.special import logsumexp


def log_density(model: Model, x: np.ndarray) -> np.ndarray:
    """`log P(x) = log sum_z P(z) N(x; mean + B z, S)` at every row of `x: [P, n]`; needs noise."""
    _, z, mass = states(model)
    whiten = np.linalg.inv(np.linalg.cholesky(model.covariance_matrix))
    centres = (model.mean + z @ model.decoder.T) @ whiten.T
    white = x @ whiten.T
    squared_distance = sum(np.subtract.outer(white[:, i], centres[:, i]) ** 2 for i in range(white.shape[1]))
    log_normaliser = model.mean.size / 2 * math.log(2 * math.pi) - np.log(np.diag(whiten)).sum()
    return logsumexp(-squared_distance / 2, b=mass, axis=1) - log_normaliser


def log_evidence(source: Model, layer: Ridge, target: Model, rule: Rule | None = None) -> float:
    """`E log P2(f(x1))`, the number whose negative the loss bounds from above; the target's mixture is written out."""
    return float(expectation(source, layer, lambda x: log_density(target, layer(x)), rule))


def entropy(source: Model, nodes: int = 16, panel: float = 0.75) -> float:
    """The differential entropy `-int p log p` of x1 in nats, for n1 = 1 or 2.

    One composite grid over the box that holds every component and `REACH` sds around it. The grid is laid in the
    coordinates `L^-1 x`, `S = L L'`, where all components are round; its panels are `panel` sds wide.
    """
    n1 = source.mean.size
    if n1 > 2:
        raise ValueError(f"source: the grid is for n1 = 1 or 2, got n1 = {n1}")
    factor = np.linalg.cholesky(source.covariance_matrix)
    centres = (source.mean + states(source)[1] @ source.decoder.T) @ np.linalg.inv(factor).T
    low, high = centres.min(axis=0) - REACH, centres.max(axis=0) + REACH
    counts = np.ceil((high - low) / panel).astype(int)
    if np.prod(counts * nodes) > 5e7:
        raise ValueError(f"source: its box takes {counts * nodes} grid points; the noise is too small beside the atoms")
    axes = [composite(np.linspace(*ends, n + 1), nodes) for *ends, n in zip(low, high, counts, strict=True)]

    rest, rest_weight = (axes[1][0][:, None], axes[1][1]) if n1 == 2 else (np.zeros((1, 0)), np.ones(1))
    total = 0.0
    step = max(1, CHUNK // rest_weight.size)
    for i in range(0, axes[0][0].size, step):
        first, weight = axes[0][0][i : i + step], axes[0][1][i : i + step]
        white = np.column_stack([np.repeat(first, len(rest)), np.tile(rest, (first.size, 1))])
        log_p = log_density(source, white @ factor.T)
        total -= np.outer(weight, rest_weight).ravel() @ (np.exp(log_p) * log_p)
    return float(total * np.prod(np.diag(factor)))

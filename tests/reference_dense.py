"""Slow, obvious oracles for whole layers: every state listed, any noise by nested quadrature split at the kinks.

As `reference.py`, whose points and rules these are; nothing here is shared with the package.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from reference import Model, Rule, normal_axis, states
from scipy.special import xlogy


@dataclass(frozen=True)
class Dense:
    """`f(x) = skip x + output psi(weight x + bias)`, a NumPy function and its kinks for each unit."""

    weight: np.ndarray
    bias: np.ndarray
    output: np.ndarray
    skip: np.ndarray
    functions: list[tuple[Callable, tuple[float, ...]]]

    def units(self, x: np.ndarray) -> np.ndarray:
        """`psi: [P, h]` at inputs `[P, n1]`."""
        argument = x @ self.weight.T + self.bias
        psi = [f(argument[:, i]) for i, (f, _) in enumerate(self.functions)]
        return np.stack(psi, axis=1) if psi else argument

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x @ self.skip.T + self.units(x) @ self.output.T


def input_points(source: Model, layer: Dense, rule: Rule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points `[P, n1]` of the input, their weights, and the state `[P, m1]` of each: every state, nodes of any noise.

    With one input the nodes are split at the kinks of all units; with more nothing is, and units must be smooth.
    """
    index, z, mass = states(source)
    if not source.covariance.any():
        return z @ source.decoder.T + source.mean, mass, index
    factor = np.linalg.cholesky(source.covariance_matrix)
    n1, points, weights, which = len(factor), [], [], []
    for state, values, p in zip(index, z, mass, strict=True):
        centre, splits = source.decoder @ values + source.mean, []
        if n1 == 1:
            argument = layer.weight[:, 0] * centre[0] + layer.bias
            splits = [
                (kink - argument[i]) / (layer.weight[i, 0] * factor[0, 0])
                for i, (_, kinks) in enumerate(layer.functions)
                for kink in kinks
                if layer.weight[i, 0] != 0
            ]
        node, weight = normal_axis(rule, splits)
        grid = np.stack(np.meshgrid(*[node] * n1, indexing="ij"), axis=-1).reshape(-1, n1)
        points.append(centre + grid @ factor.T)
        weights.append(p * functools.reduce(np.multiply.outer, [weight] * n1).ravel())
        which.append(np.broadcast_to(state, (len(grid), len(state))))
    return np.concatenate(points), np.concatenate(weights), np.concatenate(which)


def dense_terms(points, weights, f, tables, vectors, log_masses, mean, noise) -> dict[str, float]:
    """Terms of the loss from tables `q_j: [P, K]` of every feature and a vector `[n2, K]` for each of its atoms."""
    n2 = f.shape[1]
    sigma = np.exp(np.linalg.slogdet(noise)[1] / n2)
    whitened = sigma * np.linalg.solve(noise, np.eye(n2))
    rate = sum(
        weights @ np.sum(np.where(q > 0, xlogy(q, q) - q * log_p, 0), axis=1)
        for q, log_p in zip(tables, log_masses, strict=True)
    )
    rest, within = (f - mean) @ whitened.T, 0.0
    for q, own in zip(tables, vectors, strict=True):
        own = whitened @ own
        predicted = q @ own.T
        rest = rest - predicted
        within += weights @ (q @ np.sum(own**2, axis=0) - np.sum(predicted**2, axis=1))
    R2 = n2 / 2 * math.log(2 * math.pi) + np.linalg.slogdet(noise)[1]
    S2 = weights @ np.sum(rest**2, axis=1)
    return {"R1": rate, "R2": R2, "S1": within, "S2": S2, "loss": rate + R2 + (within + S2) / (2 * sigma**2)}


def unit_pair(source: Model, layer: Dense, i: int, k: int, rule: Rule) -> float:
    """`E psi_i psi_k` by enumeration and nested quadrature, each axis split at its kinks."""
    rows = layer.weight[[i, k]]
    lower = np.linalg.cholesky(rows @ source.covariance_matrix @ rows.T)
    _, z, mass = states(source)
    centres = (z @ source.decoder.T + source.mean) @ rows.T + layer.bias[[i, k]]
    pair = [layer.functions[i], layer.functions[k]]
    return sum(p * given_centre(pair, centre, lower, rule) for p, centre in zip(mass, centres, strict=True))


def given_centre(functions, centre: np.ndarray, factor: np.ndarray, rule: Rule) -> float:
    """`E prod_d g_d(centre_d + (factor e)_d)`, e standard normal: nested quadrature split at the kinks."""
    (first, kinks), *rest = functions
    node, weight = np.zeros(1), np.ones(1)
    if factor[0, 0]:
        node, weight = normal_axis(rule, [(kink - centre[0]) / factor[0, 0] for kink in kinks])
    values = first(centre[0] + factor[0, 0] * node)
    if rest:
        inner = [given_centre(rest, centre[1:] + factor[1:, 0] * x, factor[1:, 1:], rule) for x in node]
        values = values * np.array(inner)
    return weight @ values

"""Priors of many atoms replaced by the few that have the same moments: Gauss quadrature of a discrete law.

Every expectation of the engine is one of a smooth function of each feature, and the Gauss rule of `r` nodes is exact
for polynomials of degree `2 r - 1`: its error falls faster than exponentially in `r`.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._jit import exact_products
from ..model.feature_model import FeatureModel
from ..types import Array, Float


def compress(source: FeatureModel, count: int) -> FeatureModel:
    """The model with at most `count` atoms a feature whose first `2 count - 1` moments, of each feature, are the same.

    Unchanged if there are not more than twice as many atoms (with nearly as many nodes as atoms, the derivatives are
    those of interpolation at high degree: useless), or if a feature adds a vector per atom.
    """
    atoms = source.prior.atoms
    if kept_atoms(source, count) == atoms.shape[1]:
        return source
    nodes, masses = jax.vmap(lambda a, p: gauss_rule(a, p, count))(atoms, source.prior.masses)
    positive = masses > 0
    logits = jnp.where(positive, jnp.log(jnp.where(positive, masses, 1)), -jnp.inf)
    return eqx.tree_at(lambda model: (model.prior.atoms, model.prior.logits), source, (nodes, logits))


def kept_atoms(source: FeatureModel, count: int) -> int:
    """Atoms a feature that `compress` leaves."""
    atoms = source.prior.atoms.shape[1]
    return atoms if atoms <= 2 * count or source.decoder.ndim == 3 else count


def gauss_rule(points: Float[Array, " K"], masses: Float[Array, " K"], count: int) -> tuple[Array, Array]:
    """`count` nodes and weights with `sum_r w_r f(g_r) = sum_k p_k f(a_k)` for polynomials of degree `2 count - 1`.

    Derivatives need none of the eigenvalues: a change of the law moves `sum_r w_r f(g_r)` by that of
    `sum_k p_k f(a_k)` for those polynomials, which is the Hermite interpolation of `f` at the nodes.
    """

    @jax.custom_jvp
    def rule(points, masses):
        return _rule(points, masses, count)

    @rule.defjvp
    @exact_products
    def rule_jvp(primals, tangents):
        nodes, weights = rule(*primals)
        (points, masses), (moved_points, moved_masses) = primals, tangents
        # Lagrange polynomials `[r, K]` at the atoms, and their derivatives there and at their own nodes.
        apart = nodes[:, None] - nodes[None]
        inverse = jnp.where(jnp.eye(count, dtype=bool), 0, 1 / jnp.where(apart == 0, 1, apart))
        distance = points[None] - nodes[:, None]
        ratio = jnp.where(
            jnp.eye(count, dtype=bool)[:, :, None], 1, distance[None] * inverse[:, :, None]
        )  # [r, s, K]: (a_k - g_s) / (g_r - g_s)
        lagrange = jnp.prod(ratio, axis=1)
        others = jnp.stack([jnp.prod(jnp.delete(ratio, s, axis=1), axis=1) for s in range(count)], axis=1)
        slope = jnp.sum(inverse[:, :, None] * others, axis=1)
        own = jnp.sum(inverse, axis=1)[:, None]
        value = (1 - 2 * own * distance) * lagrange**2
        value_slope = -2 * own * lagrange**2 + (1 - 2 * own * distance) * 2 * lagrange * slope
        shift = distance * lagrange**2
        shift_slope = lagrange**2 + distance * 2 * lagrange * slope
        moved_weights = value @ moved_masses + value_slope @ (masses * moved_points)
        moved = shift @ moved_masses + shift_slope @ (masses * moved_points)
        least = jnp.finfo(weights.dtype).eps
        moved_nodes = jnp.where(weights > least, moved / jnp.maximum(weights, least), 0)
        return (nodes, weights), (moved_nodes, moved_weights)

    return rule(points, masses)


def _rule(points, masses, count):
    # Lanczos' three-term recurrence. Where fewer points have mass than nodes are asked for, it breaks down: the rest of
    # the matrix is then put beyond all points, hardly linked to what is before, and its nodes get no weight.
    eps = jnp.finfo(points.dtype).eps
    centre = points @ masses
    scale = jnp.maximum(jnp.max(points) - jnp.min(points), eps * (1 + jnp.abs(centre)))
    a = (points - centre) / scale
    start = jnp.sqrt(masses / jnp.sum(masses))
    basis = [start]
    alphas, betas = [], []
    for _ in range(count):
        q = basis[-1]
        alpha = jnp.sum(a * q * q)
        w = a * q
        for v in basis + basis:  # twice: once is not orthogonal to rounding
            w = w - (w @ v) * v
        beta = jnp.sqrt(w @ w)
        alive = beta > eps**0.5
        basis.append(jnp.where(alive, w / jnp.where(alive, beta, 1), 0))
        dead = q @ q < 0.5
        alphas.append(jnp.where(dead, 3.0, alpha))
        betas.append(jnp.where(dead, 0.5, jnp.maximum(beta, eps**0.5)))
    alpha, beta = jnp.stack(alphas), jnp.stack(betas[:-1])
    eigenvalues = partial(jax.scipy.linalg.eigh_tridiagonal, eigvals_only=True)
    nodes = eigenvalues(alpha, beta)
    inner = eigenvalues(alpha[1:], beta[1:]) if count > 2 else alpha[1:]
    # First components of the eigenvectors, squared: `prod_i (g_r - mu_i) / prod_s (g_r - g_s)`, where the mu_i lie
    # between the nodes. Recurrences for the eigenvectors themselves are unstable.
    others = np.array([[s for s in range(count) if s != r] for r in range(count)]).reshape(count, count - 1)
    apart = nodes[:, None] - nodes[others]
    ratio = (nodes[:, None] - inner[None]) / jnp.where(apart == 0, 1, apart)
    weights = jnp.prod(jnp.maximum(ratio, 0), axis=1)
    return centre + scale * nodes, weights / jnp.sum(weights)

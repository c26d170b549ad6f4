"""Gauss-Legendre rules on panels that end where a function has a kink."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from ..types import Array, Float

NODES_PER_PANEL = 16


def panel_count(oscillations: int) -> int:
    """Panels so that a function with that many oscillations is resolved to rounding (16 nodes for 2.5 of them)."""
    return max(2, int(np.ceil(oscillations / 2.5)))


def split_panels(
    low: Array, high: Array, kinks: Float[Array, " kinks"], panels: int, order: int = NODES_PER_PANEL
) -> tuple[Float[Array, " Q"], Float[Array, " Q"]]:
    """Nodes and weights of composite Gauss-Legendre quadrature on `[low, high]`, split at the kinks.

    Equal panels, each cut once more where a kink falls into it: `panels + len(kinks)` panels of `order` nodes. Kinks
    outside the interval make empty panels of weight zero. Shapes are static, the places are traced.
    """
    edges = panel_edges(low, high, kinks, panels)
    reference, weight = unit_rule(1, order)
    length = edges[1:] - edges[:-1]
    nodes = edges[:-1, None] + jnp.tensordot(length, reference.astype(edges.dtype), 0)
    return nodes.reshape(-1), jnp.tensordot(length, weight.astype(edges.dtype), 0).reshape(-1)


def panel_edges(low: Array, high: Array, kinks: Float[Array, " kinks"], panels: int) -> Float[Array, " edges"]:
    """Ends of equal panels on `[low, high]`, each cut once more where a kink falls into it."""
    edges = low + (high - low) * np.linspace(0, 1, panels + 1, dtype=low.dtype)
    return jnp.sort(jnp.concatenate([edges, jnp.minimum(jnp.maximum(kinks, low), high)])) if kinks.size else edges


def panel_interpolation(
    edges: Float[Array, " edges"], points: Float[Array, " P"], order: int = NODES_PER_PANEL
) -> tuple[Float[Array, " Q"], Float[Array, "P Q"]]:
    """Gauss nodes of panels, and the matrix from values there to their Legendre interpolants at `points`.

    `sum_n (n + 1/2) w_q P_n(x_q) P_n(x)`, in the panel that holds `x`: spectral for functions smooth on each panel. The
    matrix has no derivatives.
    """
    node, expand = _interpolation(order)
    length = edges[1:] - edges[:-1]
    nodes = (edges[:-1, None] + jnp.tensordot(length, ((node + 1) / 2).astype(edges.dtype), 0)).reshape(-1)
    points, edges, length = jax.lax.stop_gradient((points[:, None], edges, length))
    panel = jnp.sum(points >= edges[None, 1:-1], axis=1, keepdims=True)
    inside = (panel == np.arange(length.size)[None]).astype(edges.dtype)
    x = 2 * (points - inside @ edges[:-1, None]) / (inside @ jnp.where(length > 0, length, 1)[:, None]) - 1
    angle = jnp.arccos(jnp.maximum(jnp.minimum(x, 1), -1))
    values = jnp.cos(angle * np.arange(order, dtype=x.dtype)[None]) @ expand.astype(x.dtype)
    return nodes, jnp.einsum("pe,pn->pen", inside, values).reshape(points.size, -1)


@cache
def _interpolation(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes, and `[n, q]` with `sum_n cos(n arccos x) [n, q]` the weight of the value at node q."""
    node, weight = np.polynomial.legendre.leggauss(order)
    expand = np.polynomial.legendre.legvander(node, order - 1) * weight[:, None] * (np.arange(order) + 0.5)
    at = lambda x: np.polynomial.legendre.legvander(x, order - 1) @ expand.T  # noqa: E731
    return node, np.polynomial.chebyshev.chebinterpolate(at, order - 1)


def unit_rule(panels: int, order: int = NODES_PER_PANEL) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of `panels` equal Gauss-Legendre panels on `[0, 1]`."""
    node, weight = np.polynomial.legendre.leggauss(order)
    left = np.arange(panels)[:, None] / panels
    return (left + (node + 1) / (2 * panels)).ravel(), np.tile(weight / (2 * panels), panels)


def even_steps(nodes: Float[Array, " P"], values: Float[Array, " P"], count: int) -> Float[Array, " places"]:
    """Places between which the function moves equally far in sum."""
    step = jnp.abs(values[1:] - values[:-1])
    travelled = jnp.concatenate([jnp.zeros_like(nodes[:1]), jnp.cumsum(jnp.where(jnp.isfinite(step), step, 0))])
    wanted = travelled[-1] * np.linspace(0, 1, count + 2, dtype=nodes.dtype)[1:-1]
    return jax.lax.stop_gradient(nodes[jnp.clip(jnp.searchsorted(travelled, wanted), 0, nodes.size - 1)])

"""Gauss-Legendre rules on panels that end where a function has a kink."""

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
    edges = low + (high - low) * jnp.linspace(0, 1, panels + 1, dtype=low.dtype)
    edges = jnp.sort(jnp.concatenate([edges, jnp.clip(kinks, low, high)]))
    reference, weight = unit_rule(1, order)
    length = edges[1:] - edges[:-1]
    nodes = edges[:-1, None] + length[:, None] * reference.astype(edges.dtype)[None]
    return nodes.ravel(), (length[:, None] * weight.astype(edges.dtype)[None]).ravel()


def unit_rule(panels: int, order: int = NODES_PER_PANEL) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of `panels` equal Gauss-Legendre panels on `[0, 1]`."""
    node, weight = np.polynomial.legendre.leggauss(order)
    left = np.arange(panels)[:, None] / panels
    return (left + (node + 1) / (2 * panels)).ravel(), np.tile(weight / (2 * panels), panels)

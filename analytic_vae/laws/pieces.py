"""Where a function of one coordinate is above a level, and where it is flat."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model.activation import Activation
from ..spectral.projected_law import Projection
from ..types import Array, Float
from .crossings import Cells


def _told_apart(law: Projection) -> Projection:
    """The law with a hint of noise in a first coordinate that does not vary, as far as can be told beside its mean.

    Given a constant the second coordinate has no regression on it, and so the derivative with respect to a row of
    zeros would be lost.
    """
    variance = law.covariance[0, 0]
    deviation = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
    size = jnp.abs(law.atoms[0]).max(axis=1).sum() + deviation
    mean = jnp.abs(law.mean[0])
    hint = jnp.finfo(mean.dtype).eps ** 0.5 * jnp.where(mean > 0, mean, 1)
    more = jax.lax.stop_gradient(jnp.where(size > hint * (mean > 0), 0, hint**2))
    return eqx.tree_at(lambda one: one.covariance, law, law.covariance.at[0, 0].add(more))


def _intervals(cells: Cells, factors: Float[Array, " D"], levels: Float[Array, " D"]) -> tuple[Array, Array]:
    """Ends of intervals of an axis, `[M]`, and whether all of `factors psi > levels` holds in each, `[M + 1]`."""
    found = jax.vmap(cells.crossings)(factors, levels)
    edges = jnp.sort(found.ravel())
    ends = jnp.concatenate([cells.nodes[:1], edges, cells.nodes[-1:]])
    middle = jax.lax.stop_gradient((ends[1:] + ends[:-1]) / 2)
    inside = jnp.all(factors[:, None] * cells.activation(middle)[None] > levels[:, None], axis=0)
    return edges, inside


def _signs(dimension: int) -> list[tuple[float, ...]]:
    return list(itertools.product((-1.0, 0.0, 1.0), repeat=dimension))


def _flat_pieces(activation: Activation, dtype) -> list[tuple[float, float, Array]]:
    """Ends and value of every piece between kinks on which an activation is constant, as far as that can be seen."""
    if not activation.kinks:
        return []
    ends = [-np.inf, *activation.kinks, np.inf]
    pieces = []
    for low, high in itertools.pairwise(ends):
        # From next to each kink to far away: a function that only saturates is no flat piece.
        near = np.geomspace(1e-8, 0.5, 24) if np.isfinite(high - low) else np.geomspace(1e-8, 1e8, 48)
        length = high - low if np.isfinite(high - low) else 1.0
        ends_in = [end + sign * length * near for end, sign in ((low, 1), (high, -1)) if np.isfinite(end)]
        inside = np.concatenate(ends_in)
        try:
            with jax.ensure_compile_time_eval():
                values = np.asarray(activation(jnp.asarray(inside, dtype)))
        except Exception:  # a function of something that is traced
            return []
        if np.all(values == values[0]):
            pieces.append((low, high, jnp.asarray(values[0], dtype)))
    return pieces

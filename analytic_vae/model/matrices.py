"""Matrices: diagonals, and a triangular factor. `jnp.diagonal` and `jnp.diag` are programs of twenty operations."""

import jax
import jax.numpy as jnp
import numpy as np

from ..types import Array, Float


def diagonal(matrix: Float[Array, "n n"]) -> Float[Array, " n"]:
    """Of a square matrix."""
    return matrix.reshape(-1)[:: matrix.shape[0] + 1]


def with_diagonal(values: Array, size: int) -> Float[Array, "n n"]:
    """The diagonal matrix of `values: [size]`, or of one value."""
    return jnp.where(np.eye(size, dtype=bool), jnp.atleast_2d(values), 0)


def lower_triangular(factor: Float[Array, "D n"]) -> Float[Array, "D D"]:
    """A lower-triangular `L: [D, D]` with `L L' = F F'`, by the QR decomposition of `F'`.

    If `D > n` the last columns of `L` are zero. There the rotation is held fixed under differentiation, which leaves
    every derivative of `L L'` right (a rotation cancels in it).
    """
    rows, columns = factor.shape
    if rows <= columns:
        lower = jnp.linalg.qr(factor.T, mode="r").T
        return lower * jnp.where(jnp.diagonal(lower) < 0, -1, 1)[None].astype(lower.dtype)
    rotation = jnp.linalg.qr(jax.lax.stop_gradient(factor).T[:, :columns], mode="complete")[0]
    rotated = jnp.pad(factor @ rotation, ((0, 0), (0, rows - columns)))
    # What stands above the diagonal is zero up to rounding, but its derivative is not: it must not be cut away.
    rotated = rotated * jnp.where(jnp.diagonal(rotated) < 0, -1, 1)[None].astype(rotated.dtype)
    return rotated + jax.lax.stop_gradient(jnp.tril(rotated) - rotated)

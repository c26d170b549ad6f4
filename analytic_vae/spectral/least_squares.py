"""Least-squares exponentials on a box."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from .._jit import exact_products
from ..model.matrices import diagonal
from ..types import Array, Float, Scalar


def least_squares(
    basis: Float[Array, "Q F"], weight: Float[Array, " Q"], least: Scalar | float = 0.0
) -> Float[Array, "F Q"]:
    """The operator from values at nodes to coefficients: `c = (A' W A)^+ A' W g`, differentiable.

    With the weights of a law it is the orthogonal projection onto the span under that law, so what is left of `g` is
    uncorrelated with the span, and in `E[g h]` only the product of two remainders is lost. Because the operator is
    differentiated with the law, that holds for every derivative of `E[g h]` too: with the operator held fixed a
    gradient would lose a remainder, not a product of two. The weights may be signed (a law that its frequencies do
    not resolve): the Gram matrix only holds inner products of exponentials, which such a law still has right. Those
    with `g` it does not: a direction with a share of variance below `least` would get a coefficient made of errors.
    """
    least = jnp.maximum(jax.lax.stop_gradient(jnp.asarray(least, basis.dtype)), jnp.finfo(basis.dtype).eps ** (3 / 4))
    return _normal_operator(basis, weight, least) * weight[None]


def left_out(
    weight: Float[Array, " Q"],
    operator: Float[Array, "E Q"],
    coefficients: Float[Array, " E"],
    last: np.ndarray,
) -> Float[Array, " E"]:
    """The coefficients of the fit without the columns `last` (which get zero), from those of all columns.

    `c_s - K_sl K_ll^-1 c_l` with the inverse K of the Gram matrix: no second elimination. Where columns were dropped,
    as others span them, it is no longer the best fit.
    """
    rows = operator * jnp.where(weight == 0, 0, 1 / jnp.where(weight == 0, 1, weight))[None]  # H of `operator = H W`
    gone = np.eye(last.size, dtype=operator.dtype)[last]
    inverse = operator @ (gone @ rows).T
    block = gone @ inverse
    block = block + np.eye(len(gone), dtype=block.dtype) * (diagonal(block) == 0)[None]
    share = jnp.linalg.solve(block, gone @ coefficients)
    return jnp.where(last, 0, coefficients - inverse @ share)


@jax.custom_jvp
def _normal_operator(basis: Float[Array, "Q F"], weight: Float[Array, " Q"], share: Scalar) -> Float[Array, "F Q"]:
    """`H = (A' W A)^+ A'`, by Gauss-Jordan elimination with diagonal pivoting.

    An exponential that the others already span gets the coefficient zero: to rounding, or to the error of the law. The
    law is not known exactly, so the Gram matrix is not quite positive, and the most negative diagonal entry left tells
    by how much it is wrong; a direction of less than ten times that variance would get a coefficient made of errors.
    Rounding is amplified by the inverse of the least variance kept in derivatives, by its root in values: `eps^(3/4)`
    keeps both small.

    It is plain array code because LAPACK calls in a vmapped loop are slow on GPUs, and on CPUs their threads fight
    those of XLA (measured 100 times slower on two busy cores).
    """
    gram = (basis.T * weight[None]) @ basis
    size = gram.shape[0]
    least = jnp.max(diagonal(gram)) * size * share
    index = np.arange(size)

    def eliminate(_, carry):
        both, used = carry
        left = jnp.where(used, -jnp.inf, diagonal(both[:, :size]))
        largest, wrong = left.max(), -jnp.min(left, where=~used, initial=0)
        useful = largest > jnp.maximum(least, 10 * wrong)
        k = jnp.argmax(left).astype(np.uint32)
        here = (index == k) & useful
        row = jax.lax.dynamic_index_in_dim(both, k, keepdims=False) * jnp.where(useful, 1 / largest, 0)
        column = jnp.where(here, -1, jax.lax.dynamic_index_in_dim(both[:, :size], k, 1, keepdims=False))
        return jnp.where(here[:, None], 0, both) - jnp.einsum("e,q->eq", column, row), used | here

    start = jnp.concatenate([gram, basis.T], axis=1), jnp.zeros(size, bool)
    solved, used = jax.lax.fori_loop(0, size, eliminate, start)
    return jnp.where(used[:, None], solved[:, size:], 0)


@partial(_normal_operator.defjvp, symbolic_zeros=True)
@exact_products
def _normal_operator_jvp(primals, tangents):
    # dH = G^+ dA' - G^+ dG H with G^+ = H W H': no second elimination, and exact on the exponentials in use.
    basis, weight, share = primals
    moved_basis, moved_weight, _ = tangents
    operator = _normal_operator(basis, weight, share)
    change = jnp.zeros_like(operator)
    if not isinstance(moved_weight, SymbolicZero):
        change = change - ((operator * moved_weight[None]) @ basis) @ operator
    if not isinstance(moved_basis, SymbolicZero):
        weighted, moved = operator * weight[None], moved_basis.T
        change = change + (weighted @ operator.T) @ (moved - ((moved * weight[None]) @ basis) @ operator)
        change = change - (weighted @ moved_basis) @ operator
    return operator, change

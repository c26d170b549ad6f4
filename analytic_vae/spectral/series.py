"""Fourier series on a box and least-squares exponentials: every frequency convention of the package stands here.

Conventions. A box `[low, low + length]` has the coordinate `v = (y - low) / length` in `[0, 1]` and the frequencies
`w_k = 2 pi k / length`. Characteristic functions are `phi(w) = E exp(+i w y)`; a density is
`rho(y) = (1 / length) sum_k phi(w_k) exp(-i w_k y)`. All functions of y are real, so only the half-space of
frequencies (`half_space`) is kept: `g(y) = Re sum_{p in half} gamma_p exp(i w_p y)`. In shapes, `F` counts the
half-space and `E = 2 F - 1` the whole one, or as many real functions `1, cos, sin`.
"""

import itertools
from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from ..precision import exact_products
from ..types import Array, Complex, Float, Scalar
from .characteristic import waves

MARGIN = 0.12  # of the box, per side, in which the window falls from 1 to 0


class Series(eqx.Module):
    """A function of the standardised statistics as `g(y'') ~ Re sum_p coefficients_p exp(i <frequency_p, y''>)`.

    `shorter`, where it is wanted, are the coefficients of the series without the highest frequencies.
    """

    frequency: Float[Array, "F t"]
    coefficients: Complex[Array, " F"]
    shorter: Complex[Array, " F"] | None = None


@cache
def half_space(order: int, dimension: int) -> np.ndarray:
    """Integer vectors `[F, dimension]` of length at most `order`, one of each pair `+p, -p`, the zero vector first."""
    vectors = itertools.product(range(-order, order + 1), repeat=dimension)
    inside = [v for v in vectors if v > (0,) * dimension and sum(p * p for p in v) <= order * order]
    return np.array([(0,) * dimension, *sorted(inside, key=lambda v: sum(p * p for p in v))], dtype=float)


@cache
def half_grid(order: int, dimension: int) -> np.ndarray:
    """Integer vectors `[.., dimension]` of the tensor grid with the last index not negative."""
    axes = [np.arange(-order, order + 1)] * (dimension - 1) + [np.arange(order + 1)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dimension).astype(float)


def real_basis(phase: Float[Array, "Q F"]) -> Float[Array, "Q E"]:
    """`1, cos, sin` of the phases of a half-space whose first frequency is zero."""
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase[:, 1:])], axis=1)


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
    least = jnp.max(jnp.diagonal(gram)) * size * share
    index = jnp.arange(size)

    def eliminate(_, carry):
        matrix, right, used = carry
        diagonal = jnp.where(used, -jnp.inf, jnp.diagonal(matrix))
        k = jnp.argmax(diagonal)
        wrong = -jnp.min(jnp.where(used, 0, diagonal))
        useful = diagonal[k] > jnp.maximum(least, 10 * wrong)
        pivot = jnp.where(useful, diagonal[k], 1)
        row, right_row = matrix[k] / pivot, right[k] / pivot
        column = jnp.where(index == k, 0, matrix[:, k])
        reduced = (matrix - jnp.outer(column, row)).at[k].set(row)
        right_reduced = (right - jnp.outer(column, right_row)).at[k].set(right_row)
        done = used | ((index == k) & useful)
        return jnp.where(useful, reduced, matrix), jnp.where(useful, right_reduced, right), done

    start = (gram, basis.T, jnp.zeros(size, bool))
    _, solution, used = jax.lax.fori_loop(0, size, eliminate, start)
    return jnp.where(used[:, None], solution, 0)


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


def half_coefficients(real: Float[Array, "E *rest"]) -> Complex[Array, "F *rest"]:
    """Coefficients of `1, cos, sin` as the `gamma_p` of `Re sum gamma_p exp(i w_p y)`."""
    order = (real.shape[0] - 1) // 2
    cosine, sine = real[: order + 1], real[order + 1 :]
    return cosine - 1j * jnp.concatenate([jnp.zeros_like(real[:1]), sine])


def full_coefficients(half: Complex[Array, "F *rest"]) -> Complex[Array, "E *rest"]:
    """The same series over all frequencies, in the order of `full_frequencies`: `sum_q gamma_q exp(i w_q y)`."""
    return jnp.concatenate([half[:1], half[1:] / 2, jnp.conj(half[1:]) / 2])


def full_frequencies(half: Float[Array, "F *rest"]) -> Float[Array, "E *rest"]:
    """A half-space and the negatives of all but its first, zero, frequency."""
    return jnp.concatenate([half, -half[1:]])


def full_operator(real: Float[Array, "E Q"]) -> Complex[Array, "E Q"]:
    """From values (also complex ones) at nodes to the coefficients of `exp(i w_q y)`, all frequencies."""
    return full_coefficients(half_coefficients(real))


def window(v: Float[Array, " Q"], order: int) -> Float[Array, " Q"]:
    """1 on the inner part of the box `[0, 1]`, falling smoothly to 0 over `MARGIN` at each end.

    It makes the periodic continuation smooth, so a series converges even where no noise makes `phi` decay. The fall
    is an error function whose steepness balances the jump left at the end of the box, `exp(-s^2)`, against what lies
    beyond the highest frequency, `exp(-(pi MARGIN order / s)^2 / 4)`.
    """
    steepness = float(np.clip(np.pi * MARGIN * order / 2, 3, 32)) ** 0.5
    left = jax.scipy.special.erf(steepness * (2 * v / MARGIN - 1))
    right = jax.scipy.special.erf(steepness * (2 * (1 - v) / MARGIN - 1))
    return (1 + left) * (1 + right) / 4


def widen(low: Array, high: Array) -> tuple[Array, Array]:
    """The box whose inner part, where the window is 1, is `[low, high]`; returns its low end and its length."""
    length = (high - low) / (1 - 2 * MARGIN)
    return low - MARGIN * length, length


def density_weights(
    characteristic: Complex[Array, " F"], v: Float[Array, " Q"], weight: Float[Array, " Q"]
) -> Float[Array, " Q"]:
    """Quadrature weights of a law at nodes `v` of its box, from `phi(w_k) exp(-i w_k low)`, `k = 0 .. F - 1`.

    `omega_n = weight_n window(v_n) Re sum_k' phi_k exp(-2 pi i k v_n)`: then `E[g] = sum_n omega_n g(y_n)`.
    """
    k = jnp.arange(characteristic.shape[0], dtype=v.dtype)
    wave = waves(2 * jnp.pi * k[:, None], v[None])
    factor = jnp.where(k == 0, 1, 2).astype(v.dtype)
    density = (factor * characteristic.real) @ wave.real + (factor * characteristic.imag) @ wave.imag
    return density * weight * window(v, characteristic.shape[0] - 1)


@cache
def periodic_rule(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Equal nodes and weights on `[0, 1]` for a windowed function times a law with frequencies up to `order`.

    The trapezoidal rule of a periodic smooth function: exact for all frequencies that the law can meet.
    """
    count = int(np.ceil(2.5 * order))
    return np.arange(count) / count, np.full(count, 1 / count)

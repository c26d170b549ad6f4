"""Characteristic functions on grids: a product over features of matrix products over atoms.

For frequencies `(w, omega)`, `w` on some axes and `omega` on one more (the ridge axis), a feature contributes
`p_0 + sum_k>0 p_k exp(i <w, e_k>) exp(i omega e_k)` (atoms are measured from the first): on a tensor grid a matrix
product over its atoms. All of the engine's time goes into these products and into multiplying them over features.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..types import Array, Complex, Float

MANY = 16  # frequencies, from which on powers are cheaper than sines


def cis(phase: Float[Array, "*s"]) -> Complex[Array, "*s"]:
    """`exp(i phase)`."""
    return lax.complex(jnp.cos(phase), jnp.sin(phase))


def matmul(left: Complex[Array, "*s W J"], right: Complex[Array, "*s J O"]) -> Complex[Array, "*s W O"]:
    """`left @ right` as one real matrix product: on a CPU twice as fast as XLA's complex one."""
    # Of the smaller factor real and imaginary parts are written twice.
    if left.shape[-2] > right.shape[-1]:
        return jnp.swapaxes(matmul(jnp.swapaxes(right, -2, -1), jnp.swapaxes(left, -2, -1)), -2, -1)
    real, imag = left.real, left.imag
    rows = jnp.concatenate([jnp.concatenate([real, -imag], -1), jnp.concatenate([imag, real], -1)], -2)
    both = rows @ jnp.concatenate([right.real, right.imag], -2)
    return lax.complex(*jnp.split(both, 2, axis=-2))


def waves(frequency: Float[Array, "W D"], values: Float[Array, "D *s"]) -> Complex[Array, "W *s"]:
    """`exp(i <w, v>)` for every frequency and value. If `D = 1`, the frequencies must be equally spaced.

    Then each is the product of one before it and a power: one cosine and sine for all frequencies of a value. Of one
    value, or few frequencies, there is little to save.
    """
    if frequency.shape[1] > 1 or frequency.shape[0] < MANY or values.ndim == 1:
        return cis(jnp.tensordot(frequency, values, axes=1))
    return _powers(frequency[:, 0], values[0])


@jax.custom_jvp
def _powers(frequency, values):
    # Index k = a width + b: an outer product of two short tables. As a matrix product, because XLA fuses an elementwise
    # one with the sines and computes them once for every entry.
    width = math.isqrt(frequency.size - 1) + 1
    short = cis(jnp.tensordot(values, frequency[:width], 0))
    long = cis(jnp.tensordot(values, frequency[::width] - frequency[0], 0))
    table = matmul(long[..., None], short[..., None, :]).reshape(*values.shape, long.shape[-1] * width)
    return jnp.moveaxis(table[..., : frequency.size], -1, 0)


@_powers.defjvp
def _powers_jvp(primals, tangents):
    (frequency, values), table = primals, _powers(*primals)
    moved = jnp.tensordot(tangents[0], values, 0) + jnp.tensordot(frequency, tangents[1], 0)
    return table, table * lax.complex(jnp.zeros_like(moved), moved)


def phases(frequency: Float[Array, "W D"], atoms: Float[Array, "D m K"]) -> Complex[Array, "m W J"]:
    """`exp(i <w, e_jk>)` for all atoms but the first, `J = K - 1`."""
    return jnp.swapaxes(waves(frequency, atoms[:, :, 1:]), 0, 1)


def ridge_table(
    frequency: Float[Array, " O"], atoms: Float[Array, "m K"], masses: Float[Array, "m K"]
) -> Complex[Array, "m J O"]:
    """`p_k exp(i omega e_k)` for all atoms but the first."""
    return masses[:, 1:, None] * cis(atoms[:, 1:, None] * frequency[None, None])


def product_over_features(
    first: Float[Array, " m"], left: Complex[Array, "m W J"], right: Complex[Array, "m J O"]
) -> Complex[Array, "W O"]:
    """`prod_j (first_j + sum_k left_jwk right_jkr)`."""
    return jnp.prod(matmul(left, right) + first[:, None, None], axis=0)


def _others(factors: Complex[Array, "m *s"], weight: Complex[Array, "*s"]) -> Complex[Array, "m *s"]:
    """For each factor the product of all others, and of the weight, by halves."""
    count = factors.shape[0]
    if count == 1:
        return weight[None]
    sizes = [count // 2] * 2 + [1] * (count % 2)
    first, second, *last = lax.split(factors, sizes)
    outer, *rest = lax.split(_others(jnp.concatenate([first * second, *last]), weight), sizes[1:])
    return jnp.concatenate([outer * second, outer * first, *rest])


def gaussian_factor(
    frequency: Float[Array, "W D"],
    omega: Float[Array, " O"],
    mean: Float[Array, " D"],
    ridge_mean: Array,
    covariance: Float[Array, "D D"],
    cross: Float[Array, " D"],
    ridge_variance: Array,
) -> Complex[Array, "W O"]:
    """`exp(i (<w, mean> + omega mean_b) - quadratic / 2)` of the Gaussian part of `(Y, b)`."""
    own = jnp.einsum("wd,de,we->w", frequency, covariance, frequency)
    both = jnp.einsum("w,o->wo", frequency @ cross, omega)
    size = jnp.exp(-(own[:, None] + 2 * both + (ridge_variance * omega**2)[None]) / 2)
    return jnp.einsum("w,o->wo", cis(frequency @ mean), cis(omega * ridge_mean)) * size


class Factors(NamedTuple):
    """`E exp(i <w, y> + i omega b)` on a grid, as what each feature and the Gaussian part put into the product.

    A feature is `first_j + sum_k left_jwk right_jkr`, with its masses in `first` and `right`; `each` are these.
    """

    first: Float[Array, " m"]
    left: Complex[Array, "m W J"]
    right: Complex[Array, "m J O"]
    gaussian: Complex[Array, "W O"]
    each: Complex[Array, "m W O"]

    @classmethod
    def of(cls, first, left, right, gaussian) -> "Factors":
        """From all but `each`."""
        return cls(first, left, right, gaussian, matmul(left, right) + first[:, None, None])

    def product(self) -> Complex[Array, "W O"]:
        """The expectation itself."""
        return jnp.prod(self.each, axis=0) * self.gaussian

    def pinned(self, weight: Complex[Array, "W O"]) -> Float[Array, "m K"]:
        """`Re sum_wr weight_wr E[1{z_j = a_jk} exp(i <w, y> + i omega b)]`: one term of one feature, all others."""
        others = _others(self.each, weight * self.gaussian)
        first = self.first * others.real.sum(axis=(1, 2))
        rest = jnp.sum((matmul(others, jnp.swapaxes(self.right, 1, 2)) * self.left).real, axis=1)
        return jnp.concatenate([first[:, None], rest], axis=1)

"""Characteristic functions on grids: a product over features of matrix products over atoms.

For frequencies `(w, omega)`, `w` on some axes and `omega` on one more (the ridge axis), a feature contributes
`p_0 + sum_k>0 p_k exp(i <w, e_k>) exp(i omega e_k)` (atoms are measured from the first): on a tensor grid a matrix
product over its atoms. All of the engine's time goes into these products and into multiplying them over features.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ..types import Array, Complex, Float


def cis(phase: Float[Array, "*s"]) -> Complex[Array, "*s"]:
    """`exp(i phase)`; the complex exponential of XLA is four times slower on a CPU."""
    return lax.complex(jnp.cos(phase), jnp.sin(phase))


def times(a: Complex[Array, "*s"], b: Complex[Array, "*z"]) -> Complex[Array, "*y"]:
    """`a b` with broadcasting, in real arithmetic: on a CPU several times faster than XLA's complex product."""
    return lax.complex(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)


def matmul(left: Complex[Array, "*s W J"], right: Complex[Array, "*s J O"]) -> Complex[Array, "*s W O"]:
    """`left @ right` as two real matrix products."""
    stacked = jnp.concatenate([left.real, left.imag], axis=-1)
    real = stacked @ jnp.concatenate([right.real, -right.imag], axis=-2)
    return lax.complex(real, stacked @ jnp.concatenate([right.imag, right.real], axis=-2))


def waves(frequency: Float[Array, "W D"], values: Float[Array, "D *s"]) -> Complex[Array, "W *s"]:
    """`exp(i <w, v>)` for every frequency and value. If `D = 1`, the frequencies must be equally spaced.

    Then each is the product of one before it and a power: one cosine and sine for all frequencies of a value. Of one
    value there is little to save.
    """
    if frequency.shape[1] > 1 or frequency.shape[0] < 4 or values.ndim == 1:
        return cis(jnp.tensordot(frequency, values, axes=1))
    start, step = frequency[0, 0], frequency[1, 0] - frequency[0, 0]
    return _powers(start * values[0], step * values[0], frequency.shape[0])


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _powers(start, step, count):
    # Index k = a width + b: an outer product of two short tables. As a matrix product over (cos, sin), because XLA
    # fuses an elementwise one with the sines and computes them once for every entry.
    width = math.isqrt(count - 1) + 1
    short = start[..., None] + step[..., None] * jnp.arange(width, dtype=step.dtype).reshape(*[1] * step.ndim, -1)
    long = step[..., None] * jnp.arange(0, count, width, dtype=step.dtype).reshape(*[1] * step.ndim, -1)
    cosine, sine = jnp.cos(short), jnp.sin(short)
    left = jnp.stack([jnp.cos(long), jnp.sin(long)], axis=-1)
    table = lax.complex(left @ jnp.stack([cosine, -sine], axis=-2), left @ jnp.stack([sine, cosine], axis=-2))
    return jnp.moveaxis(table.reshape(*step.shape, -1)[..., :count], -1, 0)


@_powers.defjvp
def _powers_jvp(count, primals, tangents):
    table = _powers(*primals, count)
    index = jnp.arange(count, dtype=primals[0].dtype).reshape(-1, *[1] * primals[0].ndim)
    moved = tangents[0][None] + index * tangents[1][None]
    return table, lax.complex(-table.imag * moved, table.real * moved)


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
    """`prod_j (first_j + sum_k left_jwk right_jkr)`: real matrix products, then a halving tree of products."""
    factors = matmul(left, right)
    real, imag = factors.real + first[:, None, None], factors.imag
    odd = []
    # `split`, because its transpose is one concatenation; that of slices is a sum of padded arrays.
    while real.shape[0] > 1:
        half = real.shape[0] // 2
        a, c, last = lax.split(real, (half, half, real.shape[0] % 2))
        b, d, last_imag = lax.split(imag, (half, half, real.shape[0] % 2))
        odd += list(zip(last, last_imag, strict=True))
        real, imag = a * c - b * d, a * d + b * c
    real, imag = real[0], imag[0]
    for c, d in odd:
        real, imag = real * c - imag * d, real * d + imag * c
    return lax.complex(real, imag)


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
    quadratic = jnp.einsum("wd,de,we->w", frequency, covariance, frequency)[:, None]
    quadratic = quadratic + 2 * jnp.outer(frequency @ cross, omega) + (ridge_variance * omega**2)[None]
    phase, size = times(cis(frequency @ mean)[:, None], cis(omega * ridge_mean)[None]), jnp.exp(-quadratic / 2)
    return lax.complex(phase.real * size, phase.imag * size)

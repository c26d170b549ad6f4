"""Characteristic functions on grids: a product over features of matrix products over atoms.

For frequencies `(w, omega)`, `w` on some axes and `omega` on one more (the ridge axis), a feature contributes
`sum_k p_k exp(i <w, e_k>) exp(i omega e_k)`: on a tensor grid a matrix product over its atoms. All of the engine's
time goes into these products and into multiplying them over features.
"""

import jax.numpy as jnp

from ..types import Array, Complex, Float


def phases(frequency: Float[Array, "W D"], atoms: Float[Array, "D m K"]) -> Complex[Array, "m W K"]:
    """`exp(i <w, e_jk>)`."""
    return jnp.exp(1j * jnp.einsum("wd,dmk->mwk", frequency, atoms))


def ridge_table(
    frequency: Float[Array, " R"], atoms: Float[Array, "m K"], masses: Float[Array, "m K"]
) -> Float[Array, "m KK RR"]:
    """`p_k exp(i omega e_k)` as the real matrix that multiplies `[Re | Im]` from the right."""
    table = masses[:, :, None] * jnp.exp(1j * atoms[:, :, None] * frequency[None, None])
    real, imag = table.real, table.imag
    return jnp.concatenate([jnp.concatenate([real, imag], 2), jnp.concatenate([-imag, real], 2)], 1)


def product_over_features(left: Complex[Array, "m W K"], right: Float[Array, "m KK RR"]) -> Complex[Array, "W R"]:
    """`prod_j sum_k left_jwk p_jk exp(i omega_r e_jk)`, as real matrix products and a halving tree of products."""
    stacked = jnp.concatenate([left.real, left.imag], axis=2)
    factors = jnp.einsum("mwk,mkr->mwr", stacked, right)
    width = right.shape[2] // 2
    real, imag = factors[..., :width], factors[..., width:]
    while real.shape[0] > 1:
        half = real.shape[0] // 2
        a, b, c, d = real[:half], imag[:half], real[half : 2 * half], imag[half : 2 * half]
        real, imag = (
            jnp.concatenate([a * c - b * d, real[2 * half :]]),
            jnp.concatenate([a * d + b * c, imag[2 * half :]]),
        )
    return real[0] + 1j * imag[0]


def gaussian_factor(
    frequency: Float[Array, "W D"],
    omega: Float[Array, " R"],
    mean: Float[Array, " D"],
    ridge_mean: Array,
    covariance: Float[Array, "D D"],
    cross: Float[Array, " D"],
    ridge_variance: Array,
) -> Complex[Array, "W R"]:
    """`exp(i (<w, mean> + omega mean_b) - quadratic / 2)` of the Gaussian part of `(Y, b)`."""
    quadratic = jnp.einsum("wd,de,we->w", frequency, covariance, frequency)[:, None]
    quadratic = quadratic + 2 * jnp.outer(frequency @ cross, omega) + (ridge_variance * omega**2)[None]
    return jnp.exp(1j * ((frequency @ mean)[:, None] + (omega * ridge_mean)[None]) - quadratic / 2)

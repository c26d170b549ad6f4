"""Functions of a feature's statistics that the loss needs, and how large they are off the real axis."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..model.encoder import AbstractEncoder
from ..moments.statistic import Statistic
from ..spectral.characteristic import cis
from ..spectral.fourier import Series
from ..types import Array, Float
from .domain import Domain
from .functions import Analytic

FEW = 4  # with two statistics every so many-th strip is tried on each axis (B63: a choice)

WIDEST = 0.98 * math.pi  # of the spreads of logits that are used, all below pi (B63: a choice)


class Bounds(NamedTuple):
    """Bounds of functions `g_f` of statistics.

    `log_sup: [V, rho]` of their sizes in `strips: [rho, t]` of half-widths; `sup: [V]` at real y, `slope: [V, t]` of
    their derivatives there (B28); and `rounding: [V]` of their values, point by point.
    """

    strips: Float[Array, "rho t"]
    log_sup: Float[Array, "V rho"]
    sup: Float[Array, " V"]
    slope: Float[Array, "V t"]
    rounding: Float[Array, " V"]


class CodeTables(NamedTuple):
    """What belongs to one code of a feature: atoms, the code, all codes of the feature, log masses of the target."""

    atoms: Float[Array, " K"]
    code: Float[Array, " K"]
    siblings: Float[Array, "R K"]
    log_masses: Float[Array, " K"]


RATE, MEAN = 0, 1  # which functions of `encoder_functions` these are


def middle_and_half(code: Float[Array, "*m K"]) -> tuple[Float[Array, "*m"], Float[Array, "*m"]]:
    """The middle of a code's range, and half of its length."""
    least, most = code.min(axis=-1), code.max(axis=-1)
    return (most + least) / 2, (most - least) / 2


def latent_mean(encoder: AbstractEncoder, atoms: Float[Array, " K"], code: Float[Array, " K"]) -> Analytic:
    """The mean of the code less its middle, of a feature that reads one statistic: a function of that."""
    middle, half = middle_and_half(code)

    def value(y):
        """`sum_k q_k(y) (code_k - middle)`."""
        log_q = jax.vmap(lambda point: encoder.log_masses(point[None], atoms))(jnp.ravel(y))
        return (jnp.exp(log_q) @ (code - middle)).reshape(y.shape)

    def regularity(low, high, width):
        return encoder.regularity(low[None], high[None], width[None], atoms)

    def sup(low, high, width):
        """B61; at real y half of the range."""
        imag_spread = regularity(low, high, width).imag_spread
        known = imag_spread < WIDEST
        grown = jnp.where(known, half / jnp.cos(jnp.where(known, imag_spread, 0) / 2), jnp.inf)
        return jnp.where(width == 0, half, grown)

    def rounding(low, high):
        """B4: of logits of that size."""
        return half * (8 + 2 * regularity(low, high, jnp.zeros_like(low)).size)

    return Analytic(value, sup, jnp.zeros_like(half), rounding=rounding)


def encoder_functions(
    encoder: AbstractEncoder,
    tables: CodeTables,
    statistic: Statistic,
    axes: tuple[Domain, ...],
    series: Series | None = None,
) -> tuple[Callable, Bounds]:
    """Of one code of a feature, functions of y'': `KL(Q || prior)`, its mean s, and R covariances and products.

    A code is a number for each atom; its mean is less the middle of the code. The covariances given y, and the products
    of means, are those with each of the `siblings`: all codes of the feature. With a series for s there is one more,
    the square of what that leaves out.
    Returns values and their bounds (B61, B62).
    """
    reference = jnp.where(jnp.isfinite(tables.log_masses), tables.log_masses, 0)  # B67
    return (
        _values(encoder, tables, reference, statistic, series),
        _bounds(encoder, tables, reference, statistic, axes, series),
    )


def _values(encoder: AbstractEncoder, tables: CodeTables, reference, statistic: Statistic, series) -> Callable:
    """The functions of `encoder_functions` at points of `y''`."""
    atoms, code, siblings, _ = tables
    (middle, _), (middles, _) = middle_and_half(code), middle_and_half(siblings)
    basis = statistic.basis

    def values(points):
        """`[Q, t] -> [F, Q]`."""
        log_q = jax.vmap(lambda y: encoder.log_masses(y, atoms))(statistic.centre[None] + points @ basis.T)
        q = jnp.exp(log_q)
        own, others = code - middle, siblings - middles[:, None]
        mean, means = q @ own, q @ others.T
        weighted = q * (own[None] - mean[:, None])
        covariances = jnp.einsum("qk,qrk->rq", weighted, others[None] - means[:, :, None])
        rate = jnp.sum(jnp.where(q > 0, q * (log_q - reference[None]), 0), axis=1)
        found = [jnp.stack([rate, mean]), covariances, mean[None] * means.T]
        if series is not None:
            found.append((mean - (cis(points @ series.frequency.T) @ series.coefficients).real)[None] ** 2)
        return jnp.concatenate(found)

    return values


def _bounds(
    encoder: AbstractEncoder, tables: CodeTables, reference, statistic: Statistic, axes: tuple[Domain, ...], series
) -> Bounds:
    """Bounds of the functions of `encoder_functions` (B62).

    If `l_k` are logits with `|Im (l_k - l_k')| <= theta < pi`, then `|q_k| <= sec(theta / 2) p_k` with masses `p` of
    the real parts, as `|sum_k exp(l_k)| >= cos(theta / 2) sum_k |exp(l_k)|` (B61).
    """
    atoms, code, siblings, _ = tables
    (_, half), (_, halves) = middle_and_half(code), middle_and_half(siblings)
    t, basis = statistic.dimension, statistic.basis
    low, high = (jnp.stack(ends) for ends in zip(*[axis.extended for axis in axes], strict=True))
    corners = jnp.stack([low, high])
    centre, span = (corners[0] + corners[1]) / 2, (corners[1] - corners[0]) / 2
    y, around = statistic.centre + basis @ centre, jnp.abs(basis) @ span
    every = slice(None) if t == 1 else slice(None, None, FEW)
    strips = jnp.stack(jnp.meshgrid(*[axis.strips[every] for axis in axes], indexing="ij"), axis=-1).reshape(-1, t)
    regularity = jax.vmap(lambda rho: encoder.regularity(y - around, y + around, jnp.abs(basis) @ rho, atoms))(strips)
    known = regularity.imag_spread < WIDEST
    imag_spread = jnp.where(known, regularity.imag_spread, 0)
    sec = 1 / jnp.cos(imag_spread / 2)
    states, prior = math.log(atoms.shape[0]), jnp.abs(reference).max()

    def sups(sec, imag_spread, rho):
        """B62."""
        rate = sec * (states + jnp.log(sec) + imag_spread + prior)
        both = half * halves
        found = [jnp.stack([rate, half * sec]), jnp.outer(both, sec + sec**2), jnp.outer(both, sec**2)]
        if series is not None:
            grown = jnp.exp(rho @ jnp.abs(series.frequency.T)) @ jnp.abs(series.coefficients)
            found.append((half * sec + grown)[None] ** 2)
        return jnp.concatenate(found)

    log_sup = jnp.where(known[None], jnp.log(sups(sec, imag_spread, strips)), jnp.inf)
    sup = sups(jnp.ones(1, half.dtype), jnp.zeros(1, half.dtype), jnp.zeros((1, t), half.dtype))[:, 0]
    eps = jnp.finfo(atoms.dtype).eps
    # Slopes by Cauchy's estimate (B28), and what rounding y and the logits does (B4).
    slope = jnp.min(jnp.exp(log_sup)[:, :, None] / strips[None], axis=1)
    farther = jnp.maximum(jnp.abs(low), jnp.abs(high)) + jnp.abs(statistic.centre) / jnp.abs(jnp.diagonal(basis))
    size = regularity.size.max()
    rounding = eps * (slope @ farther + sup * (8 + 2 * size))
    return Bounds(strips, log_sup, sup, slope, rounding)

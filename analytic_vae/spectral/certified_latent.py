"""Expectations of functions of a feature's statistics with bounds of their errors.

A bounded function g of `y''`, analytic in a strip, is windowed and made periodic on the box (`axis.py`): with its
coefficients `c_k` and `phi` of `certified_law.py`, `E g = sum_k c_k phi(w_k)` up to what is bounded here.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..encoder import AbstractEncoder
from ..types import Array, Complex, Float
from .axis import Axis, log_geometric, periodic
from .certified import SIGMAS, Analytic, Bounded, bounded
from .certified_law import LARGEST, Joint, Waves
from .characteristic import cis
from .series import Series
from .statistic import Statistic

FEW = 4  # with two statistics every so many-th strip is tried on each axis


class Bounds(NamedTuple):
    """Of functions `g_f`: `log_sup: [F, S]` of their sizes in `strips: [S, t]` of half-widths; `sup: [F]` at real y,
    `slope: [F, t]` of their derivatives there; and `rounding: [F]` of their values, point by point.
    """

    strips: Float[Array, "S t"]
    log_sup: Float[Array, "F S"]
    sup: Float[Array, " F"]
    slope: Float[Array, "F t"]
    rounding: Float[Array, " F"]


class Coefficients(eqx.Module):
    """Windowed functions `g_f` on the box of `y''` as `sum_k c_k exp(i <w_k, y'' - low>)`, all k or half of them.

    `index: [W, t]` of the `kept: [F, W]` (the last not negative; `twice: [W]` is 2 where `-k` counts). `slack: [F]`
    bounds each coefficient's error, `jitter: [F]` its rounding. `dropped: [F, V]` are sizes of those at `dropped_index:
    [V, t]` (all signs counted), and `beyond: [F, t]` of all beyond on each axis, from k = `first` on, without damping.
    `sup` and `slope` are those of `Bounds`.
    """

    index: Float[Array, "W t"]
    twice: Float[Array, " W"]
    kept: Complex[Array, "F W"]
    slack: Float[Array, " F"]
    jitter: Float[Array, " F"]
    dropped_index: Float[Array, "V t"]
    dropped: Float[Array, "F V"]
    beyond: Float[Array, "F t"]
    sup: Float[Array, " F"]
    slope: Float[Array, "F t"]
    first: int = eqx.field(static=True)


def box_coefficients(axes: tuple[Axis, ...], values: Callable, bounds: Bounds) -> Coefficients:
    """The coefficients of `values: [Q, t] -> [F, Q]`, functions of `y''` with those bounds."""
    t, order, dtype = len(axes), axes[0].order, axes[0].low.dtype
    nodes, known = 8 * order, 3 * order  # coefficients beyond the order are computed for their sizes only
    v = axes[0].nodes(nodes)
    grid = jnp.stack(jnp.meshgrid(*[axis.low + axis.length * v for axis in axes], indexing="ij"), axis=-1)
    window = axes[0].window(v)
    for axis in axes[1:]:
        window = window[:, None] * axis.window(v)[None]
    found = (values(grid.reshape(-1, t)) * window.ravel()[None]).reshape(-1, *[v.size] * t)
    for d in range(t):
        found = periodic(found, nodes, axis=1 + d)
    spectrum = jnp.fft.fftn(found, axes=tuple(range(1, t + 1))) / nodes**t
    size = jnp.sqrt(jnp.mean(found**2, axis=tuple(range(1, t + 1))))
    eps = jnp.finfo(dtype).eps

    log = (
        bounds.log_sup + sum(jnp.interp(bounds.strips[:, d], axes[d].strips, axes[d].log_share) for d in range(t))[None]
    )
    least = lambda exponent: jnp.exp(jnp.min(_no_nan(log + exponent[None]), axis=1))  # noqa: E731
    step = [axis.step * bounds.strips[:, d] for d, axis in enumerate(axes)]
    aliases = [2 * jnp.exp(-(nodes - known) * x) / -jnp.expm1(-nodes * x) for x in step]
    more = aliases[0] if t == 1 else aliases[0] + aliases[1] + aliases[0] * aliases[1]
    slack = least(jnp.log(more))
    jitter = (eps * (4 + 2 * t * math.log2(nodes)) * size + bounds.rounding) / math.sqrt(nodes**t)

    whole = [1 + 2 / jnp.expm1(x) for x in step]
    beyond = []
    for d in range(t):
        others = sum((jnp.log(whole[e]) for e in range(t) if e != d), jnp.zeros_like(step[d]))
        beyond.append(2 * least(-(known + 1) * step[d] - log_geometric(step[d]) + others))

    box = itertools.product(*[range(-known, known + 1)] * (t - 1), range(known + 1))
    index = np.array(list(box))
    inside = np.all(np.abs(index) <= order, axis=1)
    twice = np.where(index[:, -1] > 0, 2.0, 1.0)
    picked = spectrum[(slice(None), *(index.T % nodes))]
    return Coefficients(
        index=jnp.asarray(index[inside], dtype),
        twice=jnp.asarray(twice[inside], dtype),
        kept=picked[:, inside],
        slack=slack,
        jitter=jitter,
        dropped_index=jnp.asarray(index[~inside], dtype),
        dropped=(jnp.abs(picked[:, ~inside]) + slack[:, None]) * jnp.asarray(twice[~inside], dtype)[None],
        beyond=jnp.stack(beyond, axis=1),
        sup=bounds.sup,
        slope=bounds.slope,
        first=known + 1,
    )


def frequencies(axes: tuple[Axis, ...], index: Float[Array, "W t"]) -> Float[Array, "W t"]:
    """`w_k`."""
    return index * jnp.stack([axis.step for axis in axes])[None]


def _tail(joint: Joint, given: Coefficients, share: float = 1.0) -> Float[Array, " F"]:
    """Bound of what the dropped coefficients add, each times what the noise leaves of phi."""
    known = given.dropped @ joint.damping(frequencies(joint.axes, given.dropped_index), share)
    last = jnp.stack([jnp.exp(-share * (axis.noise * axis.step * given.first) ** 2 / 2) for axis in joint.axes])
    return known + given.beyond @ last


def expectations(joint: Joint, found: Waves, given: Coefficients, weighted: int) -> tuple[Bounded, Bounded]:
    """`E g_f`, and `E F g` for the function of index `weighted`."""
    kept, twice = given.kept, given.twice
    size = jnp.abs(kept) * twice[None]
    eps, missed = jnp.finfo(twice.dtype).eps, joint.axes[0].missed
    for axis in joint.axes[1:]:
        missed = missed + axis.missed
    moved, weight_moved = joint.moved
    summed = eps * math.log2(twice.size + 1)

    def total(coefficients, phi):
        return (coefficients.real * phi.real[None] - coefficients.imag * phi.imag[None]) @ twice

    def rounding(size, jitter, phi, phi_jitter):
        squares = (size * (phi_jitter + summed * jnp.abs(phi))[None]) ** 2
        squares = squares + jitter[:, None] ** 2 * ((twice * jnp.abs(phi)) ** 2)[None]
        return SIGMAS * jnp.sqrt(squares.sum(axis=1))

    plain, over = total(kept, found.plain), twice @ jnp.abs(found.plain)
    error = (size + given.slack[:, None] * twice[None]) @ found.plain_error + given.slack * over
    error = error + rounding(size, given.jitter, found.plain, found.plain_jitter)
    error = error + _tail(joint, given) + 2 * missed * given.sup + given.slope @ moved
    error = jnp.fmin(error, given.sup + jnp.abs(plain))  # no expectation is larger than the function
    one = slice(weighted, weighted + 1)
    value, over = total(kept[one], found.weighted), twice @ jnp.abs(found.weighted)
    _, high = joint.weight_norm
    more = (size[one] + given.slack[one, None] * twice[None]) @ found.weighted_error + given.slack[one] * over
    more = more + rounding(size[one], given.jitter[one], found.weighted, found.weighted_jitter)
    more = more + high * _tail(joint, given)[one] + LARGEST * joint.weight_deviation * _tail(joint, given, 0.5)[one]
    more = more + 2 * missed ** (7 / 8) * high * given.sup[one]
    more = more + high * (given.slope[one] @ moved) + weight_moved * given.sup[one]
    more = jnp.fmin(more, high * given.sup[one] + jnp.abs(value))
    return bounded(plain, error), bounded(value[0], more[0])


def _no_nan(log: Array) -> Array:
    return jnp.where(jnp.isnan(log), jnp.inf, log)


# ------------------------------------------------------------------------------------------------ functions of encoders

RATE, MEAN = 0, 1  # which functions of `encoder_functions` these are


def middle_and_half(code: Float[Array, "*m K"]) -> tuple[Float[Array, "*m"], Float[Array, "*m"]]:
    """The middle of a code's range, and half of its length."""
    least, most = code.min(axis=-1), code.max(axis=-1)
    return (most + least) / 2, (most - least) / 2


def latent_mean(encoder: AbstractEncoder, atoms: Float[Array, " K"], code: Float[Array, " K"]) -> Analytic:
    """The mean of the code less its middle, of a feature that reads one statistic: a function of that."""
    middle, half = middle_and_half(code)

    def value(y):
        log_q = jax.vmap(lambda point: encoder.log_masses(point[None], atoms))(jnp.ravel(y))
        return (jnp.exp(log_q) @ (code - middle)).reshape(y.shape)

    def strip(low, high, width):
        return encoder.strip(low[None], high[None], width[None], atoms)

    def sup(low, high, width):
        turn = strip(low, high, width).turn
        known = turn < 0.98 * jnp.pi
        grown = jnp.where(known, half / jnp.cos(jnp.where(known, turn, 0) / 2), jnp.inf)
        return jnp.where(width == 0, half, grown)

    def rounding(low, high):
        return half * (8 + 2 * strip(low, high, jnp.zeros_like(low)).size)

    return Analytic(value, sup, jnp.zeros_like(half), rounding=rounding)


def encoder_functions(
    encoder: AbstractEncoder,
    atoms: Float[Array, " K"],
    code: Float[Array, " K"],
    siblings: Float[Array, "R K"],
    log_masses: Float[Array, " K"],
    statistic: Statistic,
    axes: tuple[Axis, ...],
    series: Series | None = None,
) -> tuple[Callable, Bounds]:
    """Of one code of a feature, functions of y'': `KL(Q || prior)`, its mean s, and R covariances and products.

    A code is a number for each atom; its mean is less the middle of the code. The covariances given y, and the products
    of means, are those with each of the `siblings`: all codes of the feature. With a series for s there is one more,
    the square of what that leaves out.
    Returns values and their bounds.
    If `l_k` are logits with `|Im (l_k - l_k')| <= theta < pi`, then `|q_k| <= sec(theta / 2) p_k` with masses `p` of
    the real parts, as `|sum_k exp(l_k)| >= cos(theta / 2) sum_k |exp(l_k)|`.
    """
    (middle, half), (middles, halves) = middle_and_half(code), middle_and_half(siblings)
    reference = jnp.where(jnp.isfinite(log_masses), log_masses, 0)
    t, basis = statistic.dimension, statistic.basis

    def values(points):
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

    low, high = (jnp.stack(ends) for ends in zip(*[axis.extended for axis in axes], strict=True))
    corners = jnp.stack([low, high])
    centre, span = (corners[0] + corners[1]) / 2, (corners[1] - corners[0]) / 2
    y, around = statistic.centre + basis @ centre, jnp.abs(basis) @ span
    every = slice(None) if t == 1 else slice(None, None, FEW)
    strips = jnp.stack(jnp.meshgrid(*[axis.strips[every] for axis in axes], indexing="ij"), axis=-1).reshape(-1, t)
    strip = jax.vmap(lambda rho: encoder.strip(y - around, y + around, jnp.abs(basis) @ rho, atoms))(strips)
    known = strip.turn < 0.98 * jnp.pi
    turn = jnp.where(known, strip.turn, 0)
    sec = 1 / jnp.cos(turn / 2)
    states, prior = math.log(atoms.shape[0]), jnp.abs(reference).max()

    def sups(sec, turn, rho):
        rate = sec * (states + jnp.log(sec) + turn + prior)
        both = half * halves
        found = [jnp.stack([rate, half * sec]), jnp.outer(both, sec + sec**2), jnp.outer(both, sec**2)]
        if series is not None:
            grown = jnp.exp(rho @ jnp.abs(series.frequency.T)) @ jnp.abs(series.coefficients)
            found.append((half * sec + grown)[None] ** 2)
        return jnp.concatenate(found)

    log_sup = jnp.where(known[None], jnp.log(sups(sec, turn, strips)), jnp.inf)
    sup = sups(jnp.ones(1, half.dtype), jnp.zeros(1, half.dtype), jnp.zeros((1, t), half.dtype))[:, 0]
    eps = jnp.finfo(atoms.dtype).eps
    # Slopes by Cauchy's estimate, and what rounding y and the logits does.
    slope = jnp.min(jnp.exp(log_sup)[:, :, None] / strips[None], axis=1)
    farther = jnp.maximum(jnp.abs(low), jnp.abs(high)) + jnp.abs(statistic.centre) / jnp.abs(jnp.diagonal(basis))
    size = strip.size.max()
    rounding = eps * (slope @ farther + sup * (8 + 2 * size))
    return values, Bounds(strips, log_sup, sup, slope, rounding)

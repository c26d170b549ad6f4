"""Expectations of functions of a feature's statistics, and of products of two latent means, with bounds of the errors.

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
from ..types import Array, Complex, Float, Scalar
from .axis import Axis, log_geometric
from .certified import SAFETY, Bounded
from .certified_law import LARGEST, Joint, Waves
from .statistic import Statistic

FEW = 4  # with two statistics every so many-th strip is tried on each axis


class Bounds(NamedTuple):
    """Of functions `g_f`: `log_sup: [F, S]` of their sizes in `strips: [S, t]` of half-widths; `sup: [F]` at real y."""

    strips: Float[Array, "S t"]
    log_sup: Float[Array, "F S"]
    sup: Float[Array, " F"]


class Coefficients(eqx.Module):
    """Windowed functions `g_f` on the box of `y''` as `sum_k c_k exp(i <w_k, y'' - low>)`, all k or half of them.

    `index: [W, t]` of the kept k (the last index not negative; `twice: [W]` is 2 where `-k` counts, too), `kept: [F, W]`;
    `slack: [F]` bounds each coefficient's error; `dropped: [F, V]` are sizes of those at `dropped_index: [V, t]` (all
    signs counted), and `beyond: [F, t]` those beyond on each axis, without damping, of which k = `first` is the first.
    """

    index: Float[Array, "W t"]
    twice: Float[Array, " W"]
    kept: Complex[Array, "F W"]
    slack: Float[Array, " F"]
    dropped_index: Float[Array, "V t"]
    dropped: Float[Array, "F V"]
    beyond: Float[Array, "F t"]
    sup: Float[Array, " F"]
    first: int = eqx.field(static=True)


def box_coefficients(
    axes: tuple[Axis, ...], values: Callable, bounds: Bounds, rounding: Float[Array, " F"]
) -> Coefficients:
    """The coefficients of `values: [Q, t] -> [F, Q]`, functions of `y''`; `rounding` is how wrong a value may be."""
    t, order, dtype = len(axes), axes[0].order, axes[0].low.dtype
    nodes, known = (8, 3) if t == 1 else (4, 1.5)
    nodes, known = int(nodes * order), int(known * order)
    v = jnp.arange(nodes, dtype=dtype) / nodes
    copies = jnp.concatenate([v - 1, v, v + 1])
    grid = jnp.stack(jnp.meshgrid(*[axis.low + axis.length * copies for axis in axes], indexing="ij"), axis=-1)
    window = axes[0].window(copies)
    for axis in axes[1:]:
        window = window[:, None] * axis.window(copies)[None]
    found = values(grid.reshape(-1, t)) * window.ravel()[None]
    found = found.reshape(-1, *[3, nodes] * t).sum(axis=tuple(range(1, 2 * t, 2)))
    spectrum = jnp.fft.fftn(found, axes=tuple(range(1, t + 1))) / nodes**t
    size = jnp.sqrt(jnp.mean(found**2, axis=tuple(range(1, t + 1))))
    eps = jnp.finfo(dtype).eps

    log = bounds.log_sup + sum(jnp.interp(bounds.strips[:, d], axes[d].strips, axes[d].log_share) for d in range(t))[None]
    least = lambda exponent: jnp.exp(jnp.min(_no_nan(log + exponent[None]), axis=1))  # noqa: E731
    step = [axis.step * bounds.strips[:, d] for d, axis in enumerate(axes)]
    aliases = [2 * jnp.exp(-(nodes - known) * x) / -jnp.expm1(-nodes * x) for x in step]
    more = aliases[0] if t == 1 else aliases[0] + aliases[1] + aliases[0] * aliases[1]
    slack = least(jnp.log(more)) + eps * (16 + 2 * t * math.log2(nodes)) * size + rounding

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
        dropped_index=jnp.asarray(index[~inside], dtype),
        dropped=(jnp.abs(picked[:, ~inside]) + slack[:, None]) * jnp.asarray(twice[~inside], dtype)[None],
        beyond=jnp.stack(beyond, axis=1),
        sup=bounds.sup,
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
    size = (jnp.abs(kept) + given.slack[:, None]) * twice[None]
    eps, missed = jnp.finfo(twice.dtype).eps, joint.axes[0].missed
    for axis in joint.axes[1:]:
        missed = missed + axis.missed
    root = 4 * eps * math.sqrt(twice.size)

    def total(coefficients, phi):
        return (coefficients.real * phi.real[None] - coefficients.imag * phi.imag[None]) @ twice

    plain = total(kept, found.plain)
    over = jnp.abs(found.plain)
    error = size @ found.plain_error + given.slack * (twice @ over) + root * (size @ over)
    error = error + _tail(joint, given) + 2 * missed * given.sup
    _, high = joint.weight_norm
    one = slice(weighted, weighted + 1)
    over = jnp.abs(found.weighted)
    more = size[one] @ found.weighted_error + given.slack[one] * (twice @ over) + root * (size[one] @ over)
    more = more + high * _tail(joint, given)[one] + LARGEST * joint.weight_deviation * _tail(joint, given, 0.5)[one]
    more = more + 2 * missed ** (7 / 8) * high * given.sup[one]
    return _bounded(plain, error), _bounded(total(kept[one], found.weighted)[0], more[0])


def product(
    joint: Joint, found: Waves, left: Coefficients, right: Coefficients, f: int, index: np.ndarray
) -> Bounded:
    """`E g_f(y_1) g_f(y_2)` of two features of one statistic each; `found` stands at `index: [W, 2]`, half of the grid."""
    order = joint.axes[0].order
    whole = lambda one: jnp.concatenate([jnp.conj(one.kept[f, :0:-1]), one.kept[f]])  # noqa: E731
    a, b = whole(left)[index[:, 0] + order], right.kept[f][index[:, 1]]
    twice = jnp.asarray(np.where(index[:, 1] > 0, 2.0, 1.0), a.real.dtype)
    size_a, size_b = jnp.abs(a) + left.slack[f], jnp.abs(b) + right.slack[f]
    size = size_a * size_b * twice
    coefficients = a * b * twice
    value = jnp.sum((coefficients * found.plain).real)
    over = jnp.abs(found.plain)
    eps = jnp.finfo(over.dtype).eps
    error = size @ found.plain_error + (left.slack[f] * size_b + right.slack[f] * size_a) * twice @ over
    error = error + 4 * eps * math.sqrt(over.size) * size @ over

    # Dropped are all pairs of which one is beyond the order: of known sizes up to `first`, of bounded ones from there.
    known_a, known_b = _known(left, f), _known(right, f)
    k = jnp.arange(left.first, dtype=over.dtype)
    grid = jnp.stack(jnp.meshgrid(jnp.concatenate([-k[:0:-1], k]), k, indexing="ij"), axis=-1).reshape(-1, 2)
    sizes = jnp.outer(jnp.concatenate([known_a[:0:-1], known_a]), known_b * jnp.where(k > 0, 2, 1)).ravel()
    outside = jnp.any(jnp.abs(grid) > order, axis=1)
    error = error + jnp.where(outside, sizes, 0) @ joint.damping(frequencies(joint.axes, grid))
    ends = [one.beyond[f, 0] * jnp.exp(-((axis.noise * axis.step * one.first) ** 2) / 2)
            for one, axis in zip((left, right), joint.axes, strict=True)]  # fmt: skip
    sums = [2 * jnp.sum(known) + one.beyond[f, 0] for known, one in zip((known_a, known_b), (left, right), strict=True)]
    error = error + ends[0] * sums[1] + ends[1] * sums[0]
    error = error + 3 * (joint.axes[0].missed + joint.axes[1].missed) * left.sup[f] * right.sup[f]
    return _bounded(value, error)


def _known(one: Coefficients, f: int) -> Float[Array, " V"]:
    """Sizes of all known coefficients of a function of one statistic, `k = 0 .. first - 1`, from above."""
    return jnp.concatenate([jnp.abs(one.kept[f]) + one.slack[f], one.dropped[f] / 2])


def _bounded(value: Array, error: Array) -> Bounded:
    return Bounded(value, jnp.where(jnp.isnan(error), jnp.inf, SAFETY * error))


def _no_nan(log: Array) -> Array:
    return jnp.where(jnp.isnan(log), jnp.inf, log)


# ------------------------------------------------------------------------------------------------ functions of encoders

NAMES = ("rate", "variance", "mean", "square")  # the functions g_f of `encoder_functions`


def encoder_functions(
    encoder: AbstractEncoder, atoms: Float[Array, " K"], log_masses: Float[Array, " K"], statistic: Statistic, axes
) -> tuple[Callable, Bounds, Float[Array, " F"]]:
    """Of one feature, the functions of y'' (`NAMES`): `KL(Q || prior)`, the variance and the mean of Q, its square.

    The mean is less the middle of the atoms. Returns values, their bounds, and how wrong a value may be by rounding.
    If `l_k` are logits with `|Im (l_k - l_k')| <= theta < pi`, then `|q_k| <= sec(theta / 2) p_k` with masses `p` of the
    real parts: `|sum_k exp(l_k)| >= cos(theta / 2) sum_k |exp(l_k)|`.
    """
    middle = (jnp.max(atoms) + jnp.min(atoms)) / 2
    half = (jnp.max(atoms) - jnp.min(atoms)) / 2
    reference = jnp.where(jnp.isfinite(log_masses), log_masses, 0)
    t, basis = statistic.dimension, statistic.basis

    def values(points):
        log_q = jax.vmap(lambda y: encoder.log_masses(y, atoms))(statistic.centre[None] + points @ basis.T)
        q = jnp.exp(log_q)
        mean = q @ (atoms - middle)
        variance = jnp.sum(q * (atoms[None] - middle - mean[:, None]) ** 2, axis=1)
        rate = jnp.sum(jnp.where(q > 0, q * (log_q - reference[None]), 0), axis=1)
        return jnp.stack([rate, variance, mean, mean**2])

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

    def sups(sec, turn):
        rate = sec * (states + jnp.log(sec) + turn + prior)
        return jnp.stack([rate, half**2 * (sec + sec**2), half * sec, (half * sec) ** 2])

    log_sup = jnp.where(known[None], jnp.log(sups(sec, turn)), jnp.inf)
    sup = sups(jnp.ones_like(half), jnp.zeros_like(half)).ravel()
    eps = jnp.finfo(atoms.dtype).eps
    # Slopes by Cauchy's estimate, and what rounding y and the logits does.
    slope = jnp.min(jnp.exp(log_sup)[:, :, None] / strips[None], axis=1)
    farther = jnp.maximum(jnp.abs(low), jnp.abs(high)) + jnp.abs(statistic.centre) / jnp.abs(jnp.diagonal(basis))
    size = strip.size.max()
    rounding = eps * (4 * slope @ farther + sup * (16 + 8 * size))
    return values, Bounds(strips, log_sup, sup), rounding

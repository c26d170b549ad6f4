"""Second moments of two features' latent means with bounds of their errors.

A short series `g` stands for each latent mean `s = g + r`; what it leaves out is known by its L2 norm. For features of
one statistic each (`by_parts`), `E s_j s_k = E g_j (s_k - g_k) + E s_j g_k + E r_j r_k`: the first two from the series
of one and all coefficients of the other; the third is at most the product of two norms. For two statistics each that
would be grids of six axes: there (`by_series`) it is `E g_j g_k`, and the bound of the first order in what is left out.
"""

import math

import equinox as eqx
import jax.numpy as jnp

from ..spectral.characteristic import cis
from ..spectral.fourier import Series, full_coefficients, full_frequencies
from ..types import Array, Float, Scalar
from .ball import SIGMAS, Bounded, bounded
from .box_series import Coefficients
from .joint_law import Joint, waves


class Parts(eqx.Module):
    """A latent mean of one statistic: its series g, the coefficients of `encoder_functions`, and `|r|` in L2."""

    series: Series
    whole: Coefficients
    rest: Scalar


def by_parts(joint: Joint, left: Parts, right: Parts, f: int) -> Bounded:
    """`E s_j s_k`; the coefficients of `s` are those of index f, on the axes of `joint` (B64)."""
    first, second = _with_series(joint, left, right, f, 0), _with_series(joint, right, left, f, 1)
    sup = left.whole.sup[f] * right.whole.sup[f]
    value = first.value + second.value
    error = first.error_bound + second.error_bound + left.rest * right.rest
    return bounded(value, jnp.fmin(error, sup + jnp.abs(value)))


def _with_series(joint: Joint, one: Parts, other: Parts, f: int, side: int) -> Bounded:
    """`E g_j (s_k - g_k)` for side 0, j on the first axis of `joint`; `E g_k s_j` for side 1 (B64)."""
    axis, given = joint.axes[1 - side], other.whole
    k = jnp.arange(-axis.order, axis.order + 1, dtype=axis.low.dtype)
    frequency = (axis.step * k)[:, None]
    b = jnp.concatenate([jnp.conj(given.kept[f, :0:-1]), given.kept[f]])
    aliasing, roundoff = jnp.full(k.shape, given.aliasing[f]), jnp.full(k.shape, given.roundoff[f])
    if side == 0:
        far = full_frequencies(other.series.frequency)
        more = -full_coefficients(other.series.coefficients) * cis(far[:, 0] * axis.low)
        frequency, b = jnp.concatenate([frequency, far]), jnp.concatenate([b, more])
        aliasing = jnp.concatenate([aliasing, jnp.zeros_like(far[:, 0])])
        roundoff = jnp.concatenate(
            [roundoff, jnp.abs(more) * jnp.finfo(k.dtype).eps * (8 + jnp.abs(far[:, 0] * axis.low))]
        )
    mine = one.series.frequency[:, 0]
    a = one.series.coefficients * cis(mine * joint.axes[side].low)
    F, E = mine.size, b.size
    pair = [jnp.repeat(mine, E), jnp.tile(frequency[:, 0], F)]
    at = jnp.stack(pair if side == 0 else pair[::-1], axis=1)
    found = waves(joint, at, weighted=False)
    product, over = jnp.outer(a, b).ravel(), jnp.abs(found.plain)
    size = jnp.abs(product)
    error = (size + jnp.outer(jnp.abs(a), aliasing).ravel()) @ found.plain_error + jnp.outer(
        jnp.abs(a), aliasing
    ).ravel() @ over
    eps = jnp.finfo(k.dtype).eps
    turned = 8 + math.log2(over.size) + jnp.repeat(jnp.abs(mine * joint.axes[side].low), E)
    rounding = jnp.hypot(
        size * (found.plain_jitter + eps * turned * over), jnp.outer(jnp.abs(a), roundoff).ravel() * over
    )
    error = error + SIGMAS * jnp.sqrt(jnp.sum(rounding**2))
    # Rounding that moves both statistics alike (B5); dropped coefficients (B58); what is outside of the box (B18).
    moved, _ = joint.moved
    total = jnp.sum(jnp.abs(a))
    slope = given.slope[f, 0] + (
        jnp.abs(other.series.coefficients) @ jnp.abs(other.series.frequency[:, 0]) if side == 0 else 0
    )
    error = error + total * slope * moved[1 - side] + (jnp.abs(a) @ jnp.abs(mine)) * 2 * given.sup[f] * moved[side]
    dropped = axis.step * given.dropped_index[:, 0]
    both = [jnp.repeat(mine, 2 * dropped.size), jnp.tile(jnp.concatenate([dropped, -dropped]), F)]
    damping = joint.damping(jnp.stack(both if side == 0 else both[::-1], axis=1)).reshape(F, -1)
    error = error + jnp.abs(a) @ damping @ jnp.concatenate([given.dropped[f], given.dropped[f]]) / 2
    last = jnp.exp(-((axis.noise * axis.step * given.first) ** 2) / 2)
    error = error + total * (given.beyond[f, 0] * last + 2 * axis.missed * given.sup[f])
    return bounded(jnp.sum((product * found.plain).real), error)


def by_series(joint: Joint, left: Series, right: Series, sizes: Float[Array, "2 2"]) -> Bounded:
    """`E s_j s_k` from series for both; `sizes[i]`: L2 norms of the mean and of what its series leaves out (B65)."""
    t = left.frequency.shape[1]
    far = full_frequencies(right.frequency)
    F, E = left.frequency.shape[0], far.shape[0]
    frequency = jnp.concatenate([jnp.repeat(left.frequency, E, axis=0), jnp.tile(far, (F, 1))], axis=1)
    found = waves(joint, frequency, weighted=False)
    a = left.coefficients * cis(left.frequency @ joint.low[:t])
    b = full_coefficients(right.coefficients) * cis(far @ joint.low[t:])
    product = jnp.outer(a, b).ravel()
    value = jnp.sum((product * found.plain).real)
    size, over = jnp.abs(product), jnp.abs(found.plain)
    eps = jnp.finfo(over.dtype).eps
    turned = jnp.abs(frequency) @ jnp.abs(joint.low) + 8 + math.log2(over.size)
    rounding = size * (found.plain_jitter + eps * turned * over)
    moved, _ = joint.moved
    error = size @ found.plain_error + SIGMAS * jnp.sqrt(jnp.sum(rounding**2)) + size @ (jnp.abs(frequency) @ moved)
    (mean_j, rest_j), (mean_k, rest_k) = sizes
    return bounded(value, error + rest_j * mean_k + (mean_j + rest_j) * rest_k)

"""Second moments of two features' latent means with bounds of their errors: by grids, or by short series.

Of features of one statistic each, all coefficients of both are multiplied (`by_grid`). For two statistics each that
would be a grid of four axes; there short series stand for the means (`by_series`), and what they leave out is bounded
by Cauchy and Schwarz' inequality, so that the bound is of the first order in it while the error is of the second.
"""

import math

import jax.numpy as jnp
import numpy as np

from ..types import Array, Float
from .certified import SIGMAS, Bounded, bounded
from .certified_latent import Coefficients, frequencies
from .certified_law import Joint, Waves, waves
from .characteristic import cis
from .series import Series, full_coefficients, full_frequencies


def by_grid(joint: Joint, found: Waves, left: Coefficients, right: Coefficients, f: int, index: np.ndarray) -> Bounded:
    """`E g_f(y_1) g_f(y_2)` of two features of one statistic each; `found` is at `index: [W, 2]`, half of a grid."""
    order = joint.axes[0].order
    whole = lambda one: jnp.concatenate([jnp.conj(one.kept[f, :0:-1]), one.kept[f]])  # noqa: E731
    a, b = whole(left)[index[:, 0] + order], right.kept[f][index[:, 1]]
    twice = jnp.asarray(np.where(index[:, 1] > 0, 2.0, 1.0), a.real.dtype)
    size_a, size_b = jnp.abs(a), jnp.abs(b)
    coefficients = a * b * twice
    value = jnp.sum((coefficients * found.plain).real)
    size, over = jnp.abs(coefficients), jnp.abs(found.plain)
    eps = jnp.finfo(over.dtype).eps
    slack = (left.slack[f] * (size_b + right.slack[f]) + right.slack[f] * size_a) * twice
    error = (size + slack) @ found.plain_error + slack @ over
    jitter = jnp.hypot(left.jitter[f] * size_b, right.jitter[f] * size_a) * twice
    rounding = jnp.hypot(size * (found.plain_jitter + eps * math.log2(over.size) * over), jitter * over)
    moved, _ = joint.moved
    error = error + SIGMAS * jnp.sqrt(jnp.sum(rounding**2))
    error = error + left.slope[f, 0] * moved[0] * right.sup[f] + right.slope[f, 0] * moved[1] * left.sup[f]
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
    sup = left.sup[f] * right.sup[f]
    error = error + 3 * (joint.axes[0].missed + joint.axes[1].missed) * sup
    return bounded(value, jnp.fmin(error, sup + jnp.abs(value)))


def by_series(joint: Joint, left: Series, right: Series, sizes: Float[Array, "2 2"]) -> Bounded:
    """`E s_j s_k` from series for both; `sizes[i]`: L2 norms of the mean and of what its series leaves out."""
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


def _known(one: Coefficients, f: int) -> Float[Array, " V"]:
    """Sizes of all known coefficients of a function of one statistic, `k = 0 .. first - 1`, from above."""
    return jnp.concatenate([jnp.abs(one.kept[f]) + one.slack[f], one.dropped[f] / 2])

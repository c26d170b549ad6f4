"""Expectations of functions of a feature's statistics with bounds of their errors.

A bounded function g of `y''`, analytic in a strip, is windowed and made periodic on the box (`domain.py`): with its
coefficients `c_k` and `phi` of `joint_law.py`, `E g = sum_k c_k phi(w_k)` up to what is bounded here.
"""

import itertools
import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..types import Array, Complex, Float
from .ball import SIGMAS, Bounded, bounded
from .domain import KNOWN, NODES, Domain, log_geometric, periodic
from .encoder_functions import Bounds
from .joint_law import LARGEST, Joint, Waves


class Coefficients(eqx.Module):
    """Windowed functions `g_f` on the box of `y''` as `sum_k c_k exp(i <w_k, y'' - low>)`, all k or half of them.

    `index: [W, t]` of the `kept: [V, W]` (the last not negative; `twice: [W]` is 2 where `-k` counts). `aliasing: [V]`
    bounds each coefficient's error, `roundoff: [V]` its rounding. `dropped: [V, W2]` are sizes of those at
    `dropped_index: [W2, t]` (all signs counted), and `beyond: [V, t]` of all beyond on each axis, from k = `first` on,
    without damping. `sup` and `slope` are those of `Bounds`.
    """

    index: Float[Array, "W t"]
    twice: Float[Array, " W"]
    kept: Complex[Array, "V W"]
    aliasing: Float[Array, " V"]
    roundoff: Float[Array, " V"]
    dropped_index: Float[Array, "W2 t"]
    dropped: Float[Array, "V W2"]
    beyond: Float[Array, "V t"]
    sup: Float[Array, " V"]
    slope: Float[Array, "V t"]
    first: int = eqx.field(static=True)


def box_coefficients(axes: tuple[Domain, ...], values: Callable, bounds: Bounds) -> Coefficients:
    """The coefficients of `values: [Q, t] -> [V, Q]`, functions of `y''` with those bounds (B57)."""
    t, order, dtype = len(axes), axes[0].order, axes[0].low.dtype
    nodes, known = NODES * order, KNOWN * order  # coefficients beyond the order are computed for their sizes only
    spectrum, size = _spectrum(axes, values, nodes)
    roundoff = (jnp.finfo(dtype).eps * (4 + 2 * t * math.log2(nodes)) * size + bounds.rounding) / math.sqrt(nodes**t)
    aliasing, beyond = _aliasing_and_beyond(axes, bounds, nodes, known)

    box = itertools.product(*[range(-known, known + 1)] * (t - 1), range(known + 1))
    index = np.array(list(box))
    inside = np.all(np.abs(index) <= order, axis=1)
    twice = np.where(index[:, -1] > 0, 2.0, 1.0)
    picked = spectrum[(slice(None), *(index.T % nodes))]
    return Coefficients(
        index=jnp.asarray(index[inside], dtype),
        twice=jnp.asarray(twice[inside], dtype),
        kept=picked[:, inside],
        aliasing=aliasing,
        roundoff=roundoff,
        dropped_index=jnp.asarray(index[~inside], dtype),
        dropped=(jnp.abs(picked[:, ~inside]) + aliasing[:, None]) * jnp.asarray(twice[~inside], dtype)[None],
        beyond=beyond,
        sup=bounds.sup,
        slope=bounds.slope,
        first=known + 1,
    )


def _spectrum(axes: tuple[Domain, ...], values: Callable, nodes: int) -> tuple[Complex[Array, "V *n"], Array]:
    """Discrete coefficients of the windowed, periodic functions, and root mean squares of those."""
    t = len(axes)
    v = axes[0].nodes(nodes)
    grid = jnp.stack(jnp.meshgrid(*[axis.low + axis.length * v for axis in axes], indexing="ij"), axis=-1)
    window = axes[0].window(v)
    for axis in axes[1:]:
        window = window[:, None] * axis.window(v)[None]
    found = (values(grid.reshape(-1, t)) * window.ravel()[None]).reshape(-1, *[v.size] * t)
    for d in range(t):
        found = periodic(found, nodes, axis=1 + d)
    spectrum = jnp.fft.fftn(found, axes=tuple(range(1, t + 1))) / nodes**t
    return spectrum, jnp.sqrt(jnp.mean(found**2, axis=tuple(range(1, t + 1))))


def _aliasing_and_beyond(
    axes: tuple[Domain, ...], bounds: Bounds, nodes: int, known: int
) -> tuple[Float[Array, " V"], Float[Array, "V t"]]:
    """Bounds of each coefficient's error (B57), and of the sum of all beyond `known` on each axis (B58)."""
    t = len(axes)
    shares = [jnp.interp(bounds.strips[:, d], axes[d].strips, axes[d].log_share) for d in range(t)]
    log = bounds.log_sup + jnp.sum(jnp.stack(shares), axis=0)[None]
    least = lambda exponent: jnp.exp(jnp.min(_no_nan(log + exponent[None]), axis=1))  # noqa: E731
    step = [axis.step * bounds.strips[:, d] for d, axis in enumerate(axes)]
    aliases = [2 * jnp.exp(-(nodes - known) * x) / -jnp.expm1(-nodes * x) for x in step]
    more = aliases[0] if t == 1 else aliases[0] + aliases[1] + aliases[0] * aliases[1]
    aliasing = least(jnp.log(more))

    whole = [1 + 2 / jnp.expm1(x) for x in step]
    beyond = []
    for d in range(t):
        others = sum((jnp.log(whole[e]) for e in range(t) if e != d), jnp.zeros_like(step[d]))
        beyond.append(2 * least(-(known + 1) * step[d] - log_geometric(step[d]) + others))
    return aliasing, jnp.stack(beyond, axis=1)


def frequencies(axes: tuple[Domain, ...], index: Float[Array, "W t"]) -> Float[Array, "W t"]:
    """`w_k`."""
    return index * jnp.stack([axis.step for axis in axes])[None]


def _tail(joint: Joint, given: Coefficients, share: float = 1.0) -> Float[Array, " V"]:
    """Bound of what the dropped coefficients add, each times what the noise leaves of phi (B58)."""
    known = given.dropped @ joint.damping(frequencies(joint.axes, given.dropped_index), share)
    last = jnp.stack([jnp.exp(-share * (axis.noise * axis.step * given.first) ** 2 / 2) for axis in joint.axes])
    return known + given.beyond @ last


def expectations(joint: Joint, found: Waves, given: Coefficients, weighted: int) -> tuple[Bounded, Bounded]:
    """`E g_f` (B59), and `E F g` for the function of index `weighted` (B60)."""
    kept, twice = given.kept, given.twice
    size = jnp.abs(kept) * twice[None]
    eps, missed = jnp.finfo(twice.dtype).eps, joint.axes[0].missed
    for axis in joint.axes[1:]:
        missed = missed + axis.missed
    moved, weight_moved = joint.moved
    summed = eps * math.log2(twice.size + 1)  # B36

    def total(coefficients, phi):
        """`Re sum_k c_k phi(w_k)`."""
        return (coefficients.real * phi.real[None] - coefficients.imag * phi.imag[None]) @ twice

    def rounding(size, roundoff, phi, phi_jitter):
        """B2."""
        squares = (size * (phi_jitter + summed * jnp.abs(phi))[None]) ** 2
        squares = squares + roundoff[:, None] ** 2 * ((twice * jnp.abs(phi)) ** 2)[None]
        return SIGMAS * jnp.sqrt(squares.sum(axis=1))

    plain, over = total(kept, found.plain), twice @ jnp.abs(found.plain)
    error = (size + given.aliasing[:, None] * twice[None]) @ found.plain_error + given.aliasing * over
    error = error + rounding(size, given.roundoff, found.plain, found.plain_jitter)
    error = error + _tail(joint, given) + 2 * missed * given.sup + given.slope @ moved  # B58, B18, B5
    error = jnp.fmin(error, given.sup + jnp.abs(plain))  # no expectation is larger than the function
    one = slice(weighted, weighted + 1)
    value, over = total(kept[one], found.weighted), twice @ jnp.abs(found.weighted)
    _, high = joint.weight_norm
    more = (size[one] + given.aliasing[one, None] * twice[None]) @ found.weighted_error + given.aliasing[one] * over
    more = more + rounding(size[one], given.roundoff[one], found.weighted, found.weighted_jitter)
    # B60: the tail by B37, what is outside of the box by B14, rounding by B5.
    more = more + high * _tail(joint, given)[one] + LARGEST * joint.weight_deviation * _tail(joint, given, 0.5)[one]
    more = more + 2 * missed ** (7 / 8) * high * given.sup[one]
    more = more + high * (given.slope[one] @ moved) + weight_moved * given.sup[one]
    more = jnp.fmin(more, high * given.sup[one] + jnp.abs(value))
    return bounded(plain, error), bounded(value[0], more[0])


def _no_nan(log: Array) -> Array:
    """A bound that is not a number is none."""
    return jnp.where(jnp.isnan(log), jnp.inf, log)

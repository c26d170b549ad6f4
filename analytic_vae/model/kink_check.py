"""Kinks of a user's activation that were not declared: looked for once, when it is made."""

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import maximum_filter1d

from ..types import Array

REACH, STEPS = 10.0, 2048  # where kinks are looked for, and in how many cells

SHIFT = 0.0137  # of the grid: kinks at round numbers are to lie within cells

HALVINGS = {"float32": 10, "float64": 24}  # of a cell, until rounding of places would count

LEFT = {
    "float32": 0.1,
    "float64": 0.02,
}  # of its change within a cell, what a function keeps over next to nothing to jump

JUMP, ROUNDING = 2e-3, 1e4  # of its size nearby, and in units of rounding of the function and its slope: less is none

NEARBY = 64  # cells

MANY = 64  # places: more are oscillations that the dtype cannot tell from jumps

ORDERS = 3  # the function, its slope, and the slope of that


def undeclared_kinks(function: Callable[[Array], Array], kinks: tuple[float, ...]) -> tuple[float, ...]:
    """Places within 10 of 0 where a function, its first or its second derivative jumps, but for the declared ones.

    None are found of a function that cannot be looked at (it is traced, or has no second derivative), nor where they
    are closer to each other than a hundredth.
    """
    try:
        found = _remembered(function, bool(jax.config.jax_enable_x64))
    except TypeError:  # not hashable
        found = _jumps(function)
    return tuple(place for place in found if all(abs(place - kink) > 1e-3 * (1 + abs(kink)) for kink in kinks))


@lru_cache(maxsize=256)
def _remembered(function: Callable[[Array], Array], double: bool) -> tuple[float, ...]:
    del double
    return _jumps(function)


def _jumps(function: Callable[[Array], Array]) -> tuple[float, ...]:
    grid = np.linspace(-REACH, REACH, STEPS + 1) + SHIFT
    try:
        with jax.ensure_compile_time_eval():
            found = _halved(function, jnp.asarray(grid))
            places, most, last, sizes = (np.asarray(part, float) for part in found)
    except Exception:  # what is wrong with the function is said where it is called
        return ()
    dtype, sizes = found[0].dtype, np.nan_to_num(sizes, posinf=0, neginf=0)
    nearby, farther = (maximum_filter1d(sizes, cells, axis=1) for cells in (NEARBY, STEPS))
    least = JUMP * nearby + ROUNDING * np.finfo(dtype).eps * farther[:2].max(axis=0)
    with np.errstate(invalid="ignore"):
        jumps = (last > LEFT[dtype.name] * most) & (last > least) & np.isfinite(last)
    apart = _apart(np.sort(places[jumps]))
    return apart if len(apart) <= MANY else ()


@partial(jax.jit, static_argnums=0)
def _halved(function: Callable[[Array], Array], grid: Array) -> tuple[Array, Array, Array, Array]:
    """Of every derivative and cell, `[3, STEPS]`: where it changes most, the largest change seen, that there, size."""

    def derivatives(b):
        slope = lambda b: jax.jvp(function, (b,), (jnp.ones_like(b),))[1]  # noqa: E731
        return jnp.stack([function(b[0]), slope(b[1]), jax.jvp(slope, (b[2],), (jnp.ones_like(b[2]),))[1]])

    values = derivatives(jnp.broadcast_to(grid, (ORDERS, *grid.shape)))
    low, high = (jnp.broadcast_to(part, (ORDERS, part.size)) for part in (grid[:-1], grid[1:]))
    ends = low, high, values[:, :-1], values[:, 1:], jnp.zeros_like(low)

    def halve(_, ends):
        low, high, at_low, at_high, most = ends
        middle = low + (high - low) / 2
        at_middle = derivatives(middle)
        above, below = jnp.abs(at_high - at_middle), jnp.abs(at_middle - at_low)
        upper, most = above > below, jnp.maximum(most, jnp.maximum(above, below))
        pick = lambda one, other: jnp.where(upper, one, other)  # noqa: E731
        return pick(middle, low), pick(high, middle), pick(at_middle, at_low), pick(at_high, at_middle), most

    low, high, at_low, at_high, most = jax.lax.fori_loop(0, HALVINGS[grid.dtype.name], halve, ends)
    return (low + high) / 2, most, jnp.abs(at_high - at_low), jnp.abs(values[:, 1:])


def _apart(places: np.ndarray) -> tuple[float, ...]:
    """One of those that belong together, rounded to what can be told."""
    found: list[float] = []
    for place in places:
        if not found or place - found[-1] > 1e-3:
            found.append(float(place))
    return tuple(float(f"{place:.4g}") if abs(place) > 1e-4 else 0.0 for place in found)

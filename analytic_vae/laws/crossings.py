"""Where a function of one coordinate crosses a level: cells on which it rises or falls, and a root in each."""

from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model.activation import Activation
from ..spectral.quadrature import even_steps
from ..types import Array, Float, Scalar

BREAKS = 64  # places at which quadrature is split where nobody says where a function bends

TURNS = 128  # turning points that are looked for where nobody says where they are

MANY = 32  # turning points up to which they are found beforehand, and the cells between them are few

FINE = 1024, 256  # nodes between which they are looked for: on the whole axis, and in each window

HALVINGS = {"float32": 32, "float64": 62}


class Cells(eqx.Module):
    """A function on nodes between which it is monotone, at most `roots` of which a level crosses.

    `breaks` are places at which quadrature over the axis had better be split; `fine` are nodes at which to look whether
    turns were missed, none where they are declared.
    """

    nodes: Float[Array, " P"]
    values: Float[Array, " P"]
    breaks: Float[Array, " breaks"]
    fine: Float[Array, " F"]
    activation: Activation
    roots: int = eqx.field(static=True)

    @classmethod
    def of(cls, activation: Activation, low: Scalar, high: Scalar, windows: Float[Array, "w 2"]) -> "Cells":
        """On `[low, high]`; the windows are where most of the mass is."""
        low, high, windows = jax.lax.stop_gradient((low, high, windows))
        if activation.turns is not None:
            breaks = jnp.asarray((*activation.turns, *activation.breaks), low.dtype)
            few, roots = _few(activation, activation.turns, low, high), len(activation.turns) + 1
            return cls(*few, breaks, low[None][:0], activation, roots)
        kinks = jnp.clip(jnp.asarray(activation.kinks, low.dtype), low, high)
        whole, near = (jnp.linspace(0, 1, count, dtype=low.dtype) for count in FINE)
        near = windows[:, :1] + (windows[:, 1:] - windows[:, :1]) * near[None]
        fine = jnp.sort(jnp.concatenate([low + (high - low) * whole, near.ravel(), kinks]))
        breaks = jnp.concatenate([kinks, even_steps(fine, activation(fine), BREAKS)])
        turns = _found_turns(activation)
        if turns is not None:
            return cls(*_few(activation, turns, low, high), breaks, fine, activation, len(turns) + 1)
        nodes = jnp.sort(jnp.concatenate([fine, _turns(activation, fine)]))
        return cls(nodes, activation(nodes), breaks, low[None][:0], activation, TURNS)

    @property
    def special(self) -> Float[Array, " breaks"]:
        """Values at the places where the set above a level changes its shape: ends, turns, bends."""
        if self.activation.turns is not None:
            return jnp.concatenate(
                [self.values, self.activation(jnp.asarray(self.activation.breaks, self.nodes.dtype))]
            )
        kinks = jnp.asarray(self.activation.kinks, self.nodes.dtype)
        return jnp.concatenate([self.values[:1], self.values[-1:], self.activation(kinks)])

    def crossings(self, factor: Scalar, level: Scalar) -> Float[Array, " roots"]:
        """Where `factor psi(z)` crosses the level, in order; what is not used stands at the end of the axis.

        Differentiable in the factor and the level.
        """
        nodes, inside = self.nodes, factor * self.values > level
        changes = inside[1:] != inside[:-1]
        if self.roots < changes.size:
            place = jnp.sort(jax.lax.top_k(changes.astype(nodes.dtype), self.roots)[1])
        else:
            place = jnp.arange(changes.size)
        low, high, rising, used = nodes[place], nodes[place + 1], inside[place + 1], changes[place]
        still = jax.lax.stop_gradient((factor, level))

        def halve(_, ends):
            low, high = ends
            middle = low + (high - low) / 2
            upper = (still[0] * self.activation(middle) > still[1]) == rising
            return jnp.where(upper, low, middle), jnp.where(upper, middle, high)

        low, high = jax.lax.fori_loop(0, HALVINGS[nodes.dtype.name], halve, (low, high))
        # The side on which the level is exceeded, so that a function with a kink there has the slope of that side.
        root = jax.lax.stop_gradient(jnp.where(rising, high, low))
        value, slope = jax.jvp(self.activation, (root,), (jnp.ones_like(root),))
        slope = jax.lax.stop_gradient(factor * slope)
        change = factor * value - level
        change = change - jax.lax.stop_gradient(change)
        safe = jnp.abs(slope) > jnp.finfo(nodes.dtype).tiny ** 0.5
        root = root - jnp.where(safe & used, change / jnp.where(safe, slope, 1), 0)
        return jnp.sort(jnp.where(used, root, nodes[-1]))

    @property
    def more(self) -> Float[Array, ""]:
        """The share of the cells in which a level may be crossed unseen: where the function turns within a cell."""
        if self.fine.size:
            seen, known = (_changes(self.activation, z) for z in (self.fine, (self.nodes[1:] + self.nodes[:-1]) / 2))
            return (seen > known).astype(self.nodes.dtype)
        middle = self.activation((self.nodes[1:] + self.nodes[:-1]) / 2)
        low, high = jnp.minimum(self.values[1:], self.values[:-1]), jnp.maximum(self.values[1:], self.values[:-1])
        rounding = 8 * jnp.finfo(low.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
        outside = (middle < low - rounding) | (middle > high + rounding)
        return jnp.mean(outside.astype(low.dtype))


def _few(activation: Activation, turns: tuple[float, ...], low: Scalar, high: Scalar) -> tuple[Array, Array]:
    """The ends of the axis and the turns between, and the values there."""
    between = jnp.clip(jnp.asarray(turns, low.dtype), low, high)
    nodes = jnp.concatenate([low[None], between, high[None]])
    return nodes, activation(nodes)


def _found_turns(activation: Activation) -> tuple[float, ...] | None:
    """Kinks and turning points of a function that declares no turns; None if there are many, or jumps, or it is traced.

    They are remembered where the function can be told from others.
    """
    try:
        return _remembered(activation, bool(jax.config.jax_enable_x64))
    except TypeError:  # not hashable
        return _looked_for(activation)


@lru_cache(maxsize=256)
def _remembered(activation: Activation, double: bool) -> tuple[float, ...] | None:
    del double
    return _looked_for(activation)


def _looked_for(activation: Activation) -> tuple[float, ...] | None:
    steps, kinks = np.geomspace(1e-5, 1e5, 4001), np.asarray(activation.kinks)
    beside = 1e-5 * (1 + np.abs(kinks))
    middle = np.unique(np.concatenate([np.linspace(-40, 40, 8001), kinks, kinks - beside, kinks + beside]))
    grid = np.unique(np.concatenate([-steps, middle, steps]))
    try:
        with jax.ensure_compile_time_eval():
            slope = lambda z: np.asarray(_slope(activation, jnp.asarray(z)))  # noqa: E731
            if _jumps(middle, np.asarray(activation(jnp.asarray(middle))), np.abs(slope(middle))):
                return None
            up = slope(grid) > 0
            (place,) = np.nonzero(up[1:] != up[:-1])
            if place.size > MANY:
                return None
            low, high, first = grid[place], grid[place + 1], up[place]
            for _ in range(HALVINGS["float64"]):
                between = (low + high) / 2
                same = (slope(between) > 0) == first
                low, high = np.where(same, between, low), np.where(same, high, between)
    except Exception:  # of something that is traced; what else is wrong with it is said where it is called
        return None
    new = [one for one in low if np.all(np.abs(one - kinks) > 1e-6 * (1 + abs(one)))]
    return tuple(sorted(map(float, [*kinks, *new])))


def _jumps(z: np.ndarray, values: np.ndarray, slopes: np.ndarray) -> bool:
    """Whether a function moves further between two places than three times its slopes there say."""
    step = 3 * np.maximum(slopes[1:], slopes[:-1]) * np.diff(z)
    rounding = 64 * np.finfo(values.dtype).eps * np.maximum(np.abs(values[1:]), np.abs(values[:-1]))
    return bool(np.any(~(np.abs(np.diff(values)) <= step + rounding + 1e-6)))


def _changes(activation: Activation, z: Float[Array, " P"]) -> Array:
    """How often the slope changes its sign from one place to the next."""
    rising = _slope(activation, z) > 0
    return jnp.sum(rising[1:] != rising[:-1])


def _slope(activation: Activation, z: Array) -> Array:
    return jax.jvp(activation, (z,), (jnp.ones_like(z),))[1]


def _turns(activation: Activation, nodes: Float[Array, " P"]) -> Float[Array, " turns"]:
    """Turning points between nodes, by halving on the sign of the slope."""
    rising = _slope(activation, nodes) > 0
    changes = rising[1:] != rising[:-1]
    place = jax.lax.top_k(changes.astype(nodes.dtype), min(TURNS, changes.size))[1]
    low, high, first = nodes[place], nodes[place + 1], rising[place]

    def halve(_, ends):
        low, high = ends
        middle = low + (high - low) / 2
        same = (_slope(activation, middle) > 0) == first
        return jnp.where(same, middle, low), jnp.where(same, high, middle)

    return jax.lax.stop_gradient(jax.lax.fori_loop(0, HALVINGS[nodes.dtype.name], halve, (low, high))[0])

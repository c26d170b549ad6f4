"""Where a function of one coordinate crosses a level: cells on which it rises or falls, and a root in each."""

import equinox as eqx
import jax
import jax.numpy as jnp

from ..model.activation import Activation
from ..spectral.quadrature import even_steps
from ..types import Array, Float, Scalar

BREAKS = 64  # places at which quadrature is split where nobody says where a function bends

TURNS = 128  # turning points that are looked for where nobody says where they are

FINE = 1024, 256  # nodes between which they are looked for: on the whole axis, and in each window

HALVINGS = {"float32": 32, "float64": 62}


class Cells(eqx.Module):
    """A function on nodes between which it is monotone, at most `roots` of which a level crosses.

    `breaks` are places at which quadrature over the axis had better be split.
    """

    nodes: Float[Array, " P"]
    values: Float[Array, " P"]
    breaks: Float[Array, " breaks"]
    activation: Activation
    roots: int = eqx.field(static=True)

    @classmethod
    def of(cls, activation: Activation, low: Scalar, high: Scalar, windows: Float[Array, "w 2"]) -> "Cells":
        """On `[low, high]`; the windows are where most of the mass is."""
        low, high, windows = jax.lax.stop_gradient((low, high, windows))
        if activation.turns is not None:
            turns = jnp.asarray(activation.turns, low.dtype)
            breaks = jnp.asarray((*activation.turns, *activation.breaks), low.dtype)
            nodes = jnp.concatenate([low[None], jnp.clip(turns, low, high), high[None]])
            return cls(nodes, activation(nodes), breaks, activation, nodes.size - 1)
        kinks = jnp.clip(jnp.asarray(activation.kinks, low.dtype), low, high)
        whole, near = (jnp.linspace(0, 1, count, dtype=low.dtype) for count in FINE)
        near = windows[:, :1] + (windows[:, 1:] - windows[:, :1]) * near[None]
        nodes = jnp.sort(jnp.concatenate([low + (high - low) * whole, near.ravel(), kinks]))
        nodes = jnp.sort(jnp.concatenate([nodes, _turns(activation, nodes)]))
        values = activation(nodes)
        return cls(nodes, values, jnp.concatenate([kinks, even_steps(nodes, values, BREAKS)]), activation, TURNS)

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
        middle = self.activation((self.nodes[1:] + self.nodes[:-1]) / 2)
        low, high = jnp.minimum(self.values[1:], self.values[:-1]), jnp.maximum(self.values[1:], self.values[:-1])
        rounding = 8 * jnp.finfo(low.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
        outside = (middle < low - rounding) | (middle > high + rounding)
        return jnp.mean(outside.astype(low.dtype))


def _turns(activation: Activation, nodes: Float[Array, " P"]) -> Float[Array, " turns"]:
    """Turning points between nodes, by halving on the sign of the slope."""
    slope = lambda z: jax.jvp(activation, (z,), (jnp.ones_like(z),))[1]  # noqa: E731
    rising = slope(nodes) > 0
    changes = rising[1:] != rising[:-1]
    place = jax.lax.top_k(changes.astype(nodes.dtype), min(TURNS, changes.size))[1]
    low, high, first = nodes[place], nodes[place + 1], rising[place]

    def halve(_, ends):
        low, high = ends
        middle = low + (high - low) / 2
        same = (slope(middle) > 0) == first
        return jnp.where(same, middle, low), jnp.where(same, high, middle)

    return jax.lax.stop_gradient(jax.lax.fori_loop(0, HALVINGS[nodes.dtype.name], halve, (low, high))[0])

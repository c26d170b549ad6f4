"""The law of `Y = a psi(Z)` for `Z` of one or two coordinates: tails and expectations, jumps and atoms included.

`Z` are linear projections of a feature model, `psi` acts on each (the identity, where `Y` is linear in it). A law of
`Y` may have atoms and a density with jumps; that of `Z` has neither beside its noise. So nothing of `Y` is expanded:
`{z: a psi(z) > t}` is found, cell by cell on which psi is monotone, and the law of `Z` gives its probability:

    D = E = 1   sum over states s and cells of the axis: P(rest > lower end - point_s) - P(rest > upper end - point_s)
    E = 2       the same for the second coordinate, given the first, which is integrated over by Gauss-Legendre panels
                that end where the set changes its shape
"""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from ..model.activation import Activation
from ..spectral.projected_law import Projection
from ..types import Array, Float, Scalar
from .crossings import Cells
from .pieces import _flat_pieces, _intervals, _signs, _told_apart
from .rest import GaussianRest, SeriesRest, rest_of
from .states import States, counted

MOST = {1: 2**15, 2: 2**10}  # states that are all listed, by E

EXTRA = {1: 2**8, 2: 2**4}  # states listed beside a series

ORDERS = {1: 64, 2: 3}  # frequencies of the series, in units of the resolution's

FINEST = 2**13  # frequencies

WINDOWS = 16  # states about which cells are looked for

AT_ONCE = 16  # states whose second coordinate is integrated over together

HELD = 2**23  # numbers of cells that are held together

FEW = 2**14  # nodes at a time; where there can be no more, one state at a time

LINES = 4  # crossings along the line of regression that are looked for, in each state

ABOUT = (-8.0, -3.0, -1.0, 0.0, 1.0, 3.0, 8.0)  # widths about them at which panels end


def values_of(law: Projection) -> States | None:
    """The different values of a law without noise of so many states that they cannot all be listed.

    Sums of many features on a lattice have few. None if there are many, or if the numbers are not at hand.
    """
    return counted(law, MOST[min(law.mean.size, 2)])


class Image(eqx.Module):
    """`Y_d = sum_e factors_de psi_e(Z_e)`: [D], as its states, the rest, and cells of every axis.

    With more than two coordinates the law must be a list of values (`discrete`).
    """

    factors: Float[Array, "D D2"]
    states: States
    rest: GaussianRest | SeriesRest | None
    cells: tuple[Cells, ...]
    low: Float[Array, " D2"]
    high: Float[Array, " D2"]
    functions: tuple[Activation, ...]
    discrete: bool = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        law: Projection,
        factors: Float[Array, "D D2"],
        functions,
        frequencies: int,
        still: bool,
        values: States | None = None,
    ) -> "Image | None":
        """The image of a law of Z; None if there are more than two coordinates and too many values, or noise.

        `still` says whether it is known that there is no noise; `values` are what was counted then (`values_of`).
        """
        E = law.mean.size
        law = _told_apart(law) if E == 2 and not still else law
        states = States.of(law, MOST[min(E, 2)], EXTRA[min(E, 2)]) if values is None else values
        discrete = states.listed and still
        if E > 2 and not discrete:
            return None
        rest = None if discrete else rest_of(states, min(ORDERS[E] * frequencies, FINEST))
        points = jax.lax.stop_gradient(states.points)
        low, high, cells = points.min(axis=0), points.max(axis=0), ()
        if rest is not None:
            ends = jax.lax.stop_gradient([rest.window(e) for e in range(E)])
            reach = jnp.stack([jnp.stack(pair) for pair in ends])
            low, high = low + reach[:, 0], high + reach[:, 1]
            _, likely = jax.lax.top_k(states.masses, min(WINDOWS, states.masses.size))
            windows = points[likely].T[:, :, None] + reach[:, None, :]
            cells = tuple(Cells.of(*given) for given in zip(functions, low, high, windows, strict=True))
        return cls(factors, states, rest, cells, low, high, tuple(functions), discrete)

    @property
    def dimension(self) -> int:
        """`E`."""
        return self.states.points.shape[1]

    @property
    def accuracy(self) -> Scalar:
        """An estimate of how far probabilities may be off."""
        if self.discrete:
            return 8 * jnp.finfo(self.low.dtype).eps * jnp.ones_like(self.low[0])
        return self.rest.accuracy + sum(0.1 * one.more for one in self.cells)

    def values(self, z: Float[Array, "*s D2"]) -> Float[Array, "*s D"]:
        """`a psi(z)`."""
        psi = jnp.stack([one(z[..., e]) for e, one in enumerate(self.functions)], axis=-1)
        return psi @ self.factors.T

    def box(self) -> tuple[Float[Array, " D"], Float[Array, " D"]]:
        """An interval for each of Y that holds all but a negligible mass."""
        if self.discrete:
            y = self.values(self.states.points)
            return y.min(axis=0), y.max(axis=0)
        ends = [(one.values.min(), one.values.max()) for one in self.cells]
        low, high = (jnp.stack(side) for side in zip(*ends, strict=True))
        one, other = self.factors * low[None], self.factors * high[None]
        return jnp.minimum(one, other).sum(axis=1), jnp.maximum(one, other).sum(axis=1)

    def tail(self, t: Float[Array, " D"], inclusive: bool) -> Scalar:
        """P(Y_d > t_d for all d), or with `inclusive` P(Y_d >= t_d for all d)."""
        if self.discrete:
            return self._listed_tail(t, inclusive)
        rounding = 4 * jnp.finfo(t.dtype).eps * jnp.abs(jax.lax.stop_gradient(t))
        # A flat piece at t counts, or does not, whatever the rounding of its value.
        level = t - jax.lax.stop_gradient(rounding + jnp.finfo(t.dtype).tiny) if inclusive else t + rounding
        probability = self._above_one(level) if self.dimension == 1 else self._above_two(level)
        # Where there may be no noise, but nobody could say so before.
        if self.states.listed:
            still = jnp.all(jax.lax.stop_gradient(self._noise()) == 0)
            probability = jnp.where(still, self._listed_tail(t, inclusive), probability)
        return jnp.clip(probability, 0, 1)

    def _noise(self) -> Array:
        return jnp.stack([self.rest.first, self.rest.second])

    def _listed_tail(self, t, inclusive) -> Scalar:
        points, dtype = self.states.points, t.dtype
        moved = 16 * jnp.finfo(dtype).eps * self.states.sizes
        sides = jnp.stack([points + jnp.asarray(side, dtype)[None] * moved for side in _signs(self.dimension)])
        psi = jnp.stack([one(points[:, e]) for e, one in enumerate(self.functions)], axis=1)
        sizes = jnp.abs(t)[None] + jnp.abs(psi) @ jnp.abs(self.factors).T  # of what each of Y is summed from
        y, rounding = self.values(sides), 16 * jnp.finfo(dtype).eps * sizes
        if inclusive:
            inside = jnp.any(y >= (t[None] - rounding)[None], axis=0)
        else:
            inside = jnp.all(y > (t[None] + rounding)[None], axis=0)
        return jnp.clip(self.states.masses @ jnp.all(inside, axis=1).astype(dtype), 0, 1)  # of rounding

    def _above_one(self, level: Float[Array, " D"]) -> Scalar:
        cells = self.cells[0]
        edges, inside = _intervals(cells, self.factors[:, 0], level)
        tails = self.states.masses @ self.rest.tail(edges[None] - self.states.points)
        ends = jnp.ones_like(tails[:1]), jnp.zeros_like(tails[:1])
        tails = jnp.concatenate([ends[0], tails, ends[1]])
        return jnp.sum(jnp.where(inside, tails[:-1] - tails[1:], 0))

    def _above_two(self, level: Float[Array, " D"]) -> Scalar:
        outer, inner = self.cells
        splits = jnp.concatenate([outer.breaks, self._shape_changes(level)])
        psi, (a, b) = outer.activation, self.factors.T
        # Of a function with many turns there are thousands of cells, beside few nodes at a time.
        together = max(1, HELD // (2 * self.dimension * inner.nodes.size))

        def one_state(given):
            point, mass = given
            own = jnp.concatenate([splits - point[0], self._line(point, level, splits)])
            x, weight = self.rest.rule(own)

            def region(z):
                return _intervals(inner, b, level - a * psi(z))

            edges, inside = jax.lax.map(region, point[0] + x, batch_size=min(x.size, together))
            tails = self.rest.inner_tail(x, weight, edges - point[1])
            tails = jnp.concatenate([weight[:, None], tails, jnp.zeros_like(weight)[:, None]], axis=1)
            return mass * jnp.sum(jnp.where(inside, tails[:, :-1] - tails[:, 1:], 0))

        return self._over_states(one_state, AT_ONCE if together > FEW else 1)

    def _over_states(self, function: Callable, together: int = AT_ONCE):
        """The sum over states of what the function gives for one, so many of them together."""
        given = self.states.points, self.states.masses
        size = min(together, given[1].size)
        return jax.tree.map(
            lambda leaf: leaf.sum(axis=0), jax.lax.map(jax.checkpoint(function), given, batch_size=size)
        )

    def _shape_changes(self, level: Float[Array, " D"]) -> Float[Array, " k"]:
        """Where, along the first coordinate, the set of the second changes its shape."""
        outer, inner = self.cells
        rest = level[:, None] - self.factors[:, 1:] * inner.special[None]
        one = lambda factor, levels: jax.vmap(lambda v: outer.crossings(factor, v))(levels)  # noqa: E731
        return jax.vmap(one)(self.factors[:, 0], rest).ravel()

    def _line(self, point, level, splits) -> Float[Array, " k"]:
        """Where the line of regression of the second coordinate on the first crosses the level, and panels about it.

        Where the second hardly varies given the first, the probability is nearly a step there.
        """
        low, high = self.rest.window(0)
        fine = low + (high - low) * jnp.linspace(0, 1, 64, dtype=low.dtype)
        nodes = jax.lax.stop_gradient(jnp.sort(jnp.concatenate([fine, jnp.clip(splits - point[0], low, high)])))
        slope = self.rest.slope

        def above(x, shift=0.0):
            z = jnp.stack([point[0] + x, point[1] + slope * x + shift], axis=-1)
            return jnp.min(self.values(z) - level.reshape(*[1] * x.ndim, -1), axis=-1)

        still = jax.lax.stop_gradient
        inside = still(above(nodes)) > 0
        changes = inside[1:] != inside[:-1]
        place = jax.lax.top_k(changes.astype(nodes.dtype), LINES)[1]
        left, right, rising, used = nodes[place], nodes[place + 1], inside[place + 1], changes[place]

        def halve(_, ends):
            left, right = ends
            middle = (left + right) / 2
            upper = (still(above(middle)) > 0) == rising
            return jnp.where(upper, left, middle), jnp.where(upper, middle, right)

        left, right = jax.lax.fori_loop(0, 50, halve, (left, right))
        root = still(jnp.where(rising, right, left))
        gap = above(root)
        along = still(jax.vmap(jax.grad(above))(root))
        across = still(jax.vmap(jax.grad(above, argnums=1))(root, jnp.zeros_like(root)))
        safe = jnp.abs(along) > jnp.finfo(root.dtype).tiny ** 0.5
        divided = jnp.where(safe, along, 1)
        root = root - jnp.where(safe & used, (gap - still(gap)) / divided, 0)
        width = still(jnp.where(safe & used, jnp.abs(across / divided) * self.rest.second, 0))
        return (root[:, None] + width[:, None] * jnp.asarray(ABOUT, root.dtype)[None]).ravel()

    def expectation(self, function: Callable[[Array], Array], kinks=None) -> Array:
        """`E[function(Y)]`, of any shape; `kinks` are a row of places for each of Y."""
        if self.discrete:
            return jnp.tensordot(self.states.masses, jax.vmap(function)(self.values(self.states.points)), axes=1)
        kinks = [jnp.zeros(0, self.low.dtype)] * self.factors.shape[0] if kinks is None else kinks
        outer = self.cells[0]
        splits, special = outer.breaks, self._places(0, kinks)
        splits = jnp.concatenate([splits, special]) if special.size else splits

        def weighted(z, weights):
            return jnp.tensordot(weights, jax.vmap(function)(self.values(z)), axes=1)

        def one_state(given):
            point, mass = given
            x, weight = self.rest.rule(splits - point[0])
            if self.dimension == 1:
                return weighted(point[0] + x[:, None], mass * weight)

            def extra(x, weight):
                inner = self.cells[1]
                own = jnp.concatenate([inner.breaks, self._inner_places(point[0] + x, kinks)]) - point[1]
                return self.rest.inner_rule(x, weight, own)

            y, both = jax.vmap(extra)(x, weight)
            first = jnp.broadcast_to((point[0] + x)[:, None], y.shape)
            z = jnp.stack([first, point[1] + y], axis=-1).reshape(-1, 2)
            return weighted(z, mass * both.ravel())

        return self._over_states(one_state)

    def _places(self, axis: int, kinks) -> Float[Array, " k"]:
        """Where, along the first coordinate, kinks of a function of Y stand, or change their number beside it."""
        levels = [(d, place) for d, places in enumerate(kinks) for place in places]
        if not levels:
            return jnp.zeros(0, self.low.dtype)
        if self.dimension == 1:
            return jnp.concatenate([self.cells[0].crossings(self.factors[d, 0], place) for d, place in levels])
        found = []
        for d, place in levels:
            rest = place - self.factors[d, 1] * self.cells[1].special
            found.append(jax.vmap(lambda v, d=d: self.cells[0].crossings(self.factors[d, 0], v))(rest).ravel())
        return jnp.concatenate(found)

    def _inner_places(self, first: Scalar, kinks) -> Float[Array, " k"]:
        levels = [(d, place) for d, places in enumerate(kinks) for place in places]
        rest = [place - self.factors[d, 0] * self.functions[0](first) for d, place in levels]
        found = [self.cells[1].crossings(self.factors[d, 1], v) for (d, _), v in zip(levels, rest, strict=True)]
        return jnp.concatenate([jnp.zeros(0, self.low.dtype), *found])

    def moments(self) -> tuple[Float[Array, " D"], Float[Array, "D D"]]:
        """Mean and covariance of Y."""
        if self.discrete:
            y = self.values(self.states.points)
            mean = self.states.masses @ y
            centred = y - mean[None]
            return mean, (centred.T * self.states.masses[None]) @ centred
        centre = jax.lax.stop_gradient(self.expectation(lambda y: y))

        def powers(y):
            return jnp.concatenate([y - centre, jnp.outer(y - centre, y - centre).ravel()])

        found = self.expectation(powers)
        first, second = found[: centre.size], found[centre.size :].reshape(centre.size, -1)
        return centre + first, second - jnp.outer(first, first)

    def atoms(self) -> tuple[Float[Array, "A D"], Float[Array, " A"]]:
        """Points of Y that have a mass, and their masses: where every coordinate rests on a flat piece of its psi."""
        if self.discrete:
            return self.values(self.states.points), self.states.masses
        pieces = [_flat_pieces(one, self.low.dtype) for one in self.functions]
        if not all(pieces):
            return jnp.zeros((0, self.factors.shape[0]), self.low.dtype), jnp.zeros(0, self.low.dtype)
        points, masses = [], []
        for chosen in itertools.product(*pieces):
            points.append(self.factors @ jnp.stack([value for *_, value in chosen]))
            masses.append(self._rectangle([(low, high) for low, high, _ in chosen]))
        return jnp.stack(points), jnp.stack(masses)

    def _rectangle(self, sides) -> Scalar:
        """P(every coordinate between its two ends)."""
        edges = jnp.stack([jnp.stack([jnp.asarray(end, self.low.dtype) for end in side]) for side in sides])
        edges = jnp.clip(edges, 2 * self.low[:, None] - self.high[:, None], 2 * self.high[:, None] - self.low[:, None])
        if self.dimension == 1:
            tails = self.states.masses @ self.rest.tail(edges[0][None] - self.states.points)
            return tails[0] - tails[1]

        def one_state(given):
            point, mass = given
            x, weight = self.rest.rule(edges[0] - point[0])
            inside = (point[0] + x > edges[0, 0]) & (point[0] + x < edges[0, 1])
            extra = jnp.broadcast_to(edges[1][None] - point[1], (x.size, 2))
            tails = self.rest.inner_tail(x, jnp.where(inside, weight, 0), extra)
            return mass * jnp.sum(tails[:, 0] - tails[:, 1])

        return self._over_states(one_state)

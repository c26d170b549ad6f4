"""The law of a few projections: mean, covariance, atoms, density, cells, expectations, tails."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._check import as_dtype, is_concrete, require_count, require_finite
from .._jit import compiled, exact_products
from .._repr import short_repr
from ..types import Array, ArrayLike, Float, Scalar
from .image import Image
from .pictures import draw_law
from .series import LawSeries

EDGE = 1e-6  # of a cell, and what rounding needs: how far the lowest edges of a grid are moved outwards


class LawBounds(eqx.Module):
    """How far `mean: [D]` and `covariance: [D, D]` of a `Law` may be from the exact ones."""

    __repr__ = short_repr

    mean: Float[Array, " D"]
    covariance: Float[Array, "D D"]


class LawGrid(eqx.Module):
    """A law on equally spaced cells of its box: `masses: [points] * D` about `nodes: [D, points]`, atoms included.

    A cell is open below and closed above. `outside` is the mass of no cell: what the box leaves out, and what the
    numbers have wrong; nothing is normalised away.

    Source: Lemma 3.4 of "Analytically Learning Variational Auto-Encoders".
    """

    __repr__ = short_repr

    nodes: Float[Array, "D points"]
    masses: Array
    outside: Scalar


class Law(eqx.Module):
    """The law of `Y = V f(x1): [D]`.

    | you want | call |
    |---|---|
    | mean `[D]`, covariance `[D, D]` | `.mean`, `.covariance` |
    | P(Y > t), P(Y >= t) | `.tail(t)`, `.tail(t, inclusive=True)` |
    | points that have a mass (a unit at rest) | `.atoms` |
    | `E[fn(Y)]` | `.expectation(fn, kinks)` |
    | a density, beside the atoms | `.density(points)` |
    | masses of equal cells, atoms included | `.grid(points)` |
    | how far all that may be off | `.accuracy` |
    | a picture | `.plot()` |

    `accuracy` is an estimate: of probabilities as they are, of means relative to the spread. With
    `pushforward(certify=True)` `bounds` holds for mean and covariance, and `error_bound` is the largest of it.

    Laws of one projection of a linear or ridge layer, or of one or two units, are computed as images of the law of what
    these are functions of, so atoms and jumps cost nothing (`laws/image.py`). Others (three projections, two of a
    ridge layer) by the Fourier series of their density (`laws/series.py`): those must have one.
    """

    __repr__ = short_repr

    mean: Float[Array, " D"]
    covariance: Float[Array, "D D"]
    accuracy: Scalar
    low: Float[Array, " D"]
    length: Float[Array, " D"]
    image: Image | None
    series: LawSeries | None
    bounds: LawBounds | None = None

    @property
    def error_bound(self) -> Scalar | None:
        """The largest of `bounds`; None unless they were asked for."""
        if self.bounds is None:
            return None
        return jnp.maximum(self.bounds.mean.max(axis=-1), self.bounds.covariance.max(axis=(-2, -1)))

    @property
    def dimension(self) -> int:
        """`D`."""
        return self.mean.shape[-1]

    def __str__(self) -> str:
        if not is_concrete(self.mean):
            return f"Law of {self.dimension} projections, traced"
        if self.mean.ndim != 1:
            return f"Laws of {self.dimension} projections, a batch of shape {list(self.mean.shape[:-1])}"
        spread = np.sqrt(np.maximum(np.diagonal(self.covariance), 0))
        bounds = [""] * self.dimension
        if self.bounds is not None:
            bounds = [f" (+- {bound:.1e})" for bound in np.asarray(self.bounds.mean)]
        lines = [
            f"projection {d}: mean {mean:.6g}{bounds[d]}, spread {spread[d]:.6g}, box {low:.4g} to {low + length:.4g}"
            for d, (mean, low, length) in enumerate(zip(self.mean, self.low, self.length, strict=True))
        ]
        for d, e in itertools.combinations(range(self.dimension), 2):
            scale = spread[d] * spread[e]
            lines.append(f"correlation of {d} and {e}: {self.covariance[d, e] / scale if scale > 0 else np.nan:.6g}")
        return "\n".join([*lines, *self._atom_lines(), f"accuracy: about {float(self.accuracy):.0e}"])

    def _atom_lines(self) -> list[str]:
        points, masses = map(np.asarray, self.atoms)
        order = np.argsort(-masses, kind="stable")[:4]
        lines = [f"atom at {', '.join(f'{y:.6g}' for y in points[i])}: mass {masses[i]:.6g}" for i in order]
        rest = masses.size - order.size
        return lines + ([f"and {rest} more atoms, of mass {masses.sum() - masses[order].sum():.6g}"] if rest else [])

    @property
    def box(self) -> tuple[Float[Array, " D"], Float[Array, " D"]]:
        """`(low, high): [D]` each, the box on which the density is given, in the units of Y."""
        return self.low, self.low + self.length

    @property
    def atoms(self) -> tuple[Float[Array, "A D"], Float[Array, " A"]]:
        """Points `[A, D]` that have a mass, and the masses `[A]`.

        A ReLU unit rests at 0 with the probability that its argument is not positive; a source without noise has atoms
        only. Equal points are taken together where their values are at hand. None are found of laws that are computed
        by a series.
        """
        self._require_one()
        if self.image is None:
            return jnp.zeros((0, self.dimension), self.mean.dtype), jnp.zeros(0, self.mean.dtype)
        points, masses = _atoms(self.image)
        if not (is_concrete(points) and is_concrete(masses)):
            return points, masses
        return _together(np.asarray(points), np.asarray(masses))

    def density(self, points: int = 128) -> tuple[Float[Array, "D points"], Array]:
        """The density beside the atoms, on an equally spaced grid of the box.

        Returns the grid as one row an axis, `[D, points]`, and the density `[points] * D` in units of `1 / Y^D`. A
        law without noise has none: it is zero then for D = 1; for D > 1 what is returned rings, its integrals are
        right.
        """
        self._require_one()
        require_count("points", points, 2)
        if self.series is not None:
            return self.series.density(points)
        grid = self.low + self.length * (jnp.arange(points, dtype=self.mean.dtype) + 0.5) / points
        return grid[None], _density(self.image, grid)

    def grid(self, points: int = 64) -> LawGrid:
        """The law as masses of `points` equal cells an axis of its box.

        Of a law that is an image by differences of tails (for D = 2 at `(points + 1)^2` corners), of others by a fast
        Fourier transform. Raises `ValueError` that names the argument.

        >>> cells = law.grid(64)
        >>> float(cells.masses.sum() + cells.outside)
        1.0
        """
        self._require_one()
        require_count("points", points, 2)
        steps, (low, length) = jnp.arange(points, dtype=self.mean.dtype), self._told_from_a_point(points)
        nodes = low[:, None] + length[:, None] * (steps + 0.5)[None] / points
        masses = self.series.masses(points) if self.image is None else self._cells(low, length, points)
        return LawGrid(nodes, masses, 1 - masses.sum())

    def _told_from_a_point(self, points: int) -> tuple[Float[Array, " D"], Float[Array, " D"]]:
        """The box; about an axis that rounding takes for a point, one of a thousandth of its size (of 1 about zero)."""
        eps, size = jnp.finfo(self.mean.dtype).eps, jnp.abs(self.low) + self.length
        wide = jnp.where(size > 0, size, 1) * max(1e-3, 512 * points * float(eps))
        point = self.length <= 256 * points * eps * size
        if self.image is None:
            return self.low, self.length
        return jnp.where(point, self.low + self.length / 2 - wide / 2, self.low), jnp.where(point, wide, self.length)

    def _cells(self, low: Float[Array, " D"], length: Float[Array, " D"], points: int) -> Array:
        """By differences of tails at the corners; the lowest edges are moved a little, to below what rests there."""
        steps = jnp.arange(points + 1, dtype=self.mean.dtype) / points
        edges = low[:, None] + length[:, None] * steps[None]
        below = EDGE * length / points + 128 * jnp.finfo(length.dtype).eps * (jnp.abs(low) + length)
        edges = edges.at[:, 0].add(-below)
        corners = jnp.stack(jnp.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, self.dimension)
        masses = _tail(self.image, None, corners, False).reshape([points + 1] * self.dimension)
        for axis in range(self.dimension):
            masses = -jnp.diff(masses, axis=axis)
        return masses

    @exact_products
    def expectation(self, fn: Callable[[Array], Array], kinks: Sequence[Sequence[float]] | None = None) -> Array:
        """`E[fn(Y)]` for `fn` from `[D]` to an array of any shape.

        `kinks`: one sequence per axis of the places where `fn` is not smooth along it, `[()] * D` if not given. They
        may be traced. Raises `ValueError` if their number is not D, or a place is not finite.
        """
        self._require_one()
        places = self._places(kinks)
        return self.series.expectation(fn, places) if self.image is None else self.image.expectation(fn, places)

    def _places(self, kinks) -> list[Array]:
        if kinks is None:
            return [jnp.zeros(0, self.mean.dtype)] * self.dimension
        expected = f"a sequence of places for each of {self.dimension} axes ([(0.0,)], say)"
        try:
            rows = [jnp.asarray(row, self.mean.dtype) for row in kinks]
        except (TypeError, ValueError) as error:
            raise ValueError(f"kinks: expected {expected}, got {kinks!r}.") from error
        if len(rows) != self.dimension or any(row.ndim != 1 for row in rows):
            raise ValueError(f"kinks: expected {expected}, got {len(rows)} of shapes {[r.shape for r in rows]}.")
        for row in rows:
            require_finite("kinks", row)
        return rows

    def tail(self, threshold: ArrayLike, inclusive: bool = False) -> Array:
        """`P(Y_1 > t_1, ..., Y_D > t_D)`, or with `inclusive` `P(Y_1 >= t_1, ..., Y_D >= t_D)`.

        Arguments:
            threshold: `t`: a scalar is one for every axis; `[D]`, one for each; for D = 1 `[T]`, for D > 1 `[T, D]` are
                many thresholds, for which `[T]` probabilities are returned (for D = 1 they never rise with t).
            inclusive: whether an atom at the threshold counts.

        Raises `ValueError` that names the argument.
        """
        self._require_one()
        if not isinstance(inclusive, bool | np.bool_):
            raise TypeError(f"inclusive: expected True or False, got {inclusive!r}.")
        threshold = as_dtype("threshold", threshold, self.mean.dtype)
        require_finite("threshold", threshold)
        if threshold.ndim == 0:
            threshold = jnp.broadcast_to(threshold, (self.dimension,))
        elif self.dimension == 1 and threshold.ndim == 1:
            threshold = threshold[:, None]
        if threshold.ndim > 2 or threshold.shape[-1] != self.dimension:
            raise ValueError(
                f"threshold: expected a number, one for each of {self.dimension} axes, or many of either, got shape "
                f"{threshold.shape}."
            )
        return _tail(self.image, self.series, threshold, bool(inclusive))

    def plot(self, ax: Any = None) -> Any:
        """Draw the law with matplotlib (`pip install 'analytic_vae[plots]'`).

        | D | what is drawn |
        |---|---|
        | 1 | density and atoms, whose masses have an axis of their own; both tails, down to `accuracy` |
        | 2 | the mass of cells on a log scale, and rings about atoms |
        | 3 | the same for the pairs (0, 1), (0, 2), (1, 2) |

        Arguments:
            ax: where: for D = 1 two axes, or one for the density alone; for D = 2 one; for D = 3 three. A new figure if
                not given.

        Returns the axes. Raises `TypeError` or `ValueError` if `ax` is something else, `ImportError` without
        matplotlib.

        >>> axes = law.plot()
        """
        return draw_law(self, ax)

    def _require_one(self) -> None:
        if self.mean.ndim != 1:
            raise ValueError(
                f"law: expected the law of one source and layer, got a batch of shape {list(self.mean.shape[:-1])}; "
                "use jax.vmap(lambda law: law.tail(t))(laws), say."
            )


@exact_products
@compiled
def _tail(image: Image | None, series: LawSeries | None, threshold: Array, inclusive: bool) -> Array:
    one = (lambda t: series.tail(t)) if image is None else (lambda t: image.tail(t, inclusive))
    if threshold.ndim == 1:
        return one(threshold)
    found = jax.lax.map(one, threshold)
    if threshold.shape[1] > 1:
        return found
    order = jnp.argsort(threshold[:, 0])  # no rise by rounding
    falling = jax.lax.cummin(found[order])
    return jnp.zeros_like(found).at[order].set(falling)


@exact_products
@compiled
def _density(image: Image, grid: Array) -> Array:
    slope = jax.grad(lambda y: image.tail(y[None], False))
    return jax.lax.map(lambda y: -slope(y), grid)


@exact_products
@compiled
def _atoms(image: Image) -> tuple[Array, Array]:
    return image.atoms()


def _together(points: np.ndarray, masses: np.ndarray) -> tuple[Array, Array]:
    """Equal points as one, in order; points of no mass are left out."""
    points, masses = points[masses > 0] + 0.0, masses[masses > 0]  # no -0
    if not masses.size:
        return jnp.asarray(points), jnp.asarray(masses)
    apart = 64 * np.finfo(points.dtype).eps * np.maximum(np.abs(points).max(axis=0), np.finfo(points.dtype).tiny)
    _, first, place = np.unique(np.round(points / apart), axis=0, return_index=True, return_inverse=True)
    return jnp.asarray(points[first]), jnp.asarray(np.bincount(place.ravel(), masses).astype(masses.dtype))

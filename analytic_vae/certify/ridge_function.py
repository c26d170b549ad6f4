"""How a layer bends along its one non-linear direction: what its waves need to know of it."""

import equinox as eqx
import jax.numpy as jnp

from ..model.activation import Activation
from ..spectral.box import mirror
from ..spectral.projected_law import Projection
from ..types import Array, Float, Scalar
from .domain import EDGE, Domain
from .functions import PiecewiseLinear
from .tail_mass import CELLS, RangeCells, log_mass_above

RANGES = 128  # parts of an interval in which a range is found (B43: a choice)


class RidgeFunction(eqx.Module):
    """`kappa_d(b) = shear_d (b - centre) + coefficient_d psi(b)`, `d = 1 .. D`."""

    shear: Float[Array, " D"]
    coefficient: Float[Array, " D"]
    centre: Scalar
    activation: Activation

    def __call__(self, b: Float[Array, "*s"]) -> Float[Array, "D *s"]:
        return jnp.multiply.outer(self.shear, b - self.centre) + jnp.multiply.outer(
            self.coefficient, self.activation(b)
        )

    @property
    def piecewise(self) -> bool:
        """Whether psi is piecewise linear: else it is analytic."""
        return self.activation.piecewise_linear

    def slopes(self, axis: Domain) -> Float[Array, "D rho"]:
        """Bounds of `|kappa_d'|` in the strips of an axis; infinite where psi is not analytic (B44)."""
        own, width = jnp.abs(self.coefficient), axis.strips
        slope = (
            jnp.full_like(width, jnp.inf) if self.piecewise else self.activation.regularity.slope(*axis.extended, width)
        )
        steep = jnp.multiply.outer(own, slope)
        none = jnp.expand_dims(own == 0, tuple(range(1, steep.ndim)))
        return jnp.where(none, 0, steep) + jnp.expand_dims(jnp.abs(self.shear), tuple(range(1, steep.ndim)))

    def steepest(self) -> Float[Array, " D"]:
        """Bounds of `|kappa_d'|` on the real axis."""
        return jnp.abs(self.shear) + jnp.abs(self.coefficient) * self.activation.regularity.slope(
            -jnp.inf, jnp.inf, jnp.zeros_like(self.centre)
        )

    def range(self, low: Scalar, high: Scalar) -> tuple[Float[Array, " D"], Float[Array, " D"]]:
        """The least and the most of `kappa_d` for b in an interval, or a little beyond (B43)."""
        least, most = self._ranges(low + (high - low) * jnp.linspace(0, 1, RANGES + 1, dtype=low.dtype))
        return least.min(axis=1), most.max(axis=1)

    def largest(self, axis: Domain) -> Float[Array, " D"]:
        """Bounds of `|kappa_d|` on the box and its edges, also with all kinks moved into the inner box (B45)."""
        least, most = self.range(*axis.extended)
        largest = jnp.maximum(jnp.abs(least), jnp.abs(most))
        if not self.piecewise:
            return largest
        line = PiecewiseLinear.of(self.activation, axis.low.dtype)
        ends = jnp.stack(axis.inner)
        # From the ends of the inner box on kappa goes on with its outermost slopes.
        psi_slopes = jnp.stack([line.slope, line.slope + jnp.sum(line.jumps)])
        slopes = self.shear[:, None] + jnp.multiply.outer(self.coefficient, psi_slopes)
        side = jnp.asarray([-1.0, 1.0], ends.dtype)
        beyond = jnp.max(jnp.abs(self(ends) + slopes * (2 * EDGE * axis.length * side)[None]), axis=1)
        moved = jnp.any((line.jumps != 0) & ((line.places < ends[0]) | (line.places > ends[1])))
        return jnp.where(moved, jnp.maximum(largest, beyond), largest)

    def cells(self, law: Projection, axis: Domain) -> list[RangeCells]:
        """Each `kappa_d` by cells of b, whose law and axis are given (B12)."""
        low, high = axis.inner
        ends = low + (high - low) * jnp.linspace(0, 1, CELLS + 1, dtype=low.dtype)
        above, below = log_mass_above(law, ends[:-1]), log_mass_above(mirror(law), -ends[1:])
        least, most = self._ranges(ends)
        mass = jnp.minimum(above, below)
        return [RangeCells(least[d], most[d], mass, axis.missed) for d in range(self.shear.size)]

    def _ranges(self, b: Float[Array, " P"]) -> tuple[Float[Array, "D C"], Float[Array, "D C"]]:
        """Least and most between neighbours, by Lipschitz' bound (B43)."""
        values, between = self(b), self.steepest()[:, None] * (b[1:] - b[:-1])[None]
        sums = values[:, 1:] + values[:, :-1]
        return (sums - between) / 2, (sums + between) / 2

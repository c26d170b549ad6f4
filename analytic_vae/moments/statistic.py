"""Statistics of a layer's output, `y = C f(x)`, in coordinates in which they are small problems.

With `y = a + c psi(b)`, `a` linear in `x`: each is sheared, `a = a' + beta (b - E b)` with `a'` uncorrelated with
`b`, and standardised, `y = centre + basis y''` with `y''` of mean 0 and covariance about 1. No expectation depends on
the coordinates, but its error does: two statistics that are almost one have a basis of condition 1e3 and more, and a
derivative in coordinates held fixed would multiply the error by that. So the coordinates are differentiated too. The
boxes, in those coordinates, are not: they may be older than the parameters (`plan.py`).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from ..model.matrices import diagonal, with_diagonal
from ..spectral.box import floor, interval, rounding
from ..spectral.characteristic import Factors, gaussian_factor, phases, waves
from ..spectral.fourier import density_weights, half_grid, periodic_rule, widen, window
from ..spectral.projected_law import Projection
from ..spectral.quadrature import panel_count, split_panels
from ..spectral.resolution import Resolution
from ..types import Array, Bool, Complex, Float
from .reading import Reading
from .ridge_axis import RidgeAxis, RidgeGrid

LITTLE = 5e-3  # of its scale: by how much a second statistic may vary beside the first, if it is taken for still

STILL = 0.16  # of its scale: half of the box of a statistic that does not vary

STRAIGHT = 1e-3  # spreads of a statistic: what psi adds to it beside a linear part, if it is taken to be nearly linear


class Statistic(eqx.Module):
    """The standardised statistics `y''` of one feature: `y'' = a'' + kappa''(b)`, `t` of them.

    Fields:
        centre `[t]`, basis `[t, t]`: `y = centre + basis y''`.
        low `[t]`, length `[t]`: the box of `y''`, without derivatives (the coordinates have them).
        law: of `a''` alone, `D = t`.
        cross: `[t]`, Gaussian covariance of `a''` and `b`.
        shear, coefficient, middle: `[t]`, `kappa''(b) = shear (b - centre_b) + coefficient psi(b) - middle`, of mean 0.
        rows: `[t, n1]`, `a'' = rows x + const`.
        still: `[t]`, which of `y''` do not vary, or hardly: they have the scale that they were given.
    """

    centre: Float[Array, " t"]
    basis: Float[Array, "t t"]
    low: Float[Array, " t"]
    length: Float[Array, " t"]
    law: Projection
    cross: Float[Array, " t"]
    shear: Float[Array, " t"]
    coefficient: Float[Array, " t"]
    middle: Float[Array, " t"]
    rows: Float[Array, "t n1"]
    still: Bool[Array, " t"]

    @classmethod
    def of(
        cls,
        reading: Reading,
        readout: Float[Array, "t n2"],
        aligned: bool = False,
        box: tuple[Float[Array, " t"], Float[Array, " t"]] | None = None,
        scale: Callable[[Array], Array] | None = None,
    ) -> "Statistic":
        """The statistics `readout @ r(x)` in their own coordinates.

        The basis is lower-triangular; for functions with kinks at fixed `y` it must be diagonal: `aligned`. More than
        two statistics are always aligned. `scale` gives, from the mean, scales for statistics that do not vary; 1 if
        not given.
        """
        source, form, axis = reading.source, reading.form, reading.axis
        rows, coefficient = readout @ form.linear, readout @ form.output
        joint = Projection.of(source, jnp.concatenate([rows, form.direction[None, :]]), 0.0)
        shear = _shear(joint, coefficient, axis)
        shift = shear * (axis.centre - form.bias) + readout @ form.offset
        rows = rows - shear[:, None] * form.direction[None]
        bent = axis.values - axis.base
        part = jnp.tensordot(shear, axis.nodes - axis.centre, 0) + jnp.tensordot(coefficient, bent, 0)
        law = Projection.of(source, rows, shift)
        # Centred first: what is large and the same everywhere would cost the digits of what varies.
        part_mean = part @ axis.weights
        centre, part = law.total_mean + part_mean + coefficient * axis.base, part - part_mean[:, None]
        part_mean = part_mean + coefficient * axis.base
        covariance = law.total_covariance + (part * axis.weights[None]) @ part.T
        bent_size = jax.lax.stop_gradient(jnp.abs(part_mean) + jnp.abs(part).max(axis=1))
        floors = rounding(law) + jnp.finfo(part.dtype).eps * bent_size
        scales = jnp.ones_like(floors) if scale is None else jax.lax.stop_gradient(scale(centre))
        basis, still = _basis(covariance, floors, aligned, scales)
        inverse = inverse_basis(basis)
        law, part, rows = law.centred().transform(inverse), inverse @ part, inverse @ rows
        low, length = _box(*jax.lax.stop_gradient((law, part)), still, reading.resolution) if box is None else box
        cross = rows @ source.covariance @ form.direction
        bend = inverse @ shear, inverse @ coefficient, inverse @ part_mean
        return cls(centre, basis, low, length, law, cross, *bend, rows, still)

    @property
    def dimension(self) -> int:
        """`t`."""
        return self.centre.shape[0]

    def oscillation(self, frequency: Float[Array, "W t"], grid: RidgeGrid) -> Complex[Array, "W Q"]:
        """`exp(i <w, kappa''(b_q)>)`."""
        bent = jnp.tensordot(self.shear, grid.offset, 0) + jnp.tensordot(self.coefficient, grid.psi, 0)
        return waves(frequency, bent - self.middle[:, None])

    def factors(self, frequency: Float[Array, "W t"], grid: RidgeGrid) -> Factors:
        """Of `E exp(i <w, a''> + i omega b)`."""
        ridge, omega, law = grid.law, grid.omega, self.law
        gaussian = gaussian_factor(
            frequency, omega, law.mean, ridge.mean[0], law.covariance, self.cross, ridge.covariance[0, 0]
        )
        return Factors.of(ridge.masses[:, 0], phases(frequency, law.atoms), grid.table(), gaussian)

    def box_frequencies(self, resolution: Resolution) -> Float[Array, "W t"]:
        """`2 pi k / length` on the half grid of the box."""
        index = half_grid(resolution.law_order(self.dimension), self.dimension)
        return 2 * jnp.pi * jnp.asarray(index, self.low.dtype) / self.length[None]


def grid_weights(phi: Complex[Array, " W"], nodes: list[Array], weights: list[Array], order: int) -> Float[Array, "*Q"]:
    """Weights of the law of up to three statistics on the tensor grid of `nodes` (box coordinates, one array an axis).

    `phi` is `Spectrum.characteristic`, on the half grid. The full axes are summed first, the half axis last.
    """
    full, half = 2 * order + 1, order + 1
    phi = phi.reshape(*[full] * (len(nodes) - 1), half)
    index = jnp.arange(-order, order + 1, dtype=nodes[0].dtype)
    for v, weight in zip(nodes[:-1], weights[:-1], strict=True):
        scaled = weight * window(v, order)
        # The first axis is consumed and its nodes appended last: after all full axes, the half axis stands first.
        phi = jnp.tensordot(phi, jnp.exp(-2j * jnp.pi * jnp.outer(index, v)) * scaled[None], axes=((0,), (0,)))
    flat = phi.reshape(half, -1)
    last = jax.vmap(lambda column: density_weights(column, nodes[-1], weights[-1]), in_axes=1)(flat)
    return last.reshape(*[v.size for v in nodes])


def box_nodes(
    statistic: Statistic, resolution: Resolution, kinks: Float[Array, "t kinks"] | None = None
) -> tuple[list[Array], list[Array]]:
    """Nodes and weights in box coordinates, one pair an axis, that resolve the law of the statistics.

    If functions of the statistics are not smooth, `kinks` (box coordinates, a row an axis) says where.
    """
    order, dtype, t = resolution.law_order(statistic.dimension), statistic.low.dtype, statistic.dimension
    if kinks is None:
        nodes, weights = periodic_rule(order)
        return [jnp.asarray(nodes, dtype)] * t, [jnp.asarray(weights, dtype)] * t
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    rules = [split_panels(zero, one, kinks[axis], panel_count(order)) for axis in range(t)]
    return [rule[0] for rule in rules], [rule[1] for rule in rules]


def box_points(nodes: list[Array]) -> Float[Array, "Q t"]:
    """The tensor grid of box coordinates, flattened."""
    return jnp.stack(jnp.meshgrid(*nodes, indexing="ij"), axis=-1).reshape(-1, len(nodes))


def _shear(joint: Projection, coefficient: Float[Array, " t"], axis: RidgeAxis) -> Float[Array, " t"]:
    """What is moved from `a` to the ridge axis: its regression on b; where psi is nearly linear, the slope of psi.

    Then `a` holds all of y but a small rest. A regression on a variable that hardly varies would have a large
    coefficient, whose derivative with respect to the direction has nothing to do with that of y.
    """
    covariance = joint.total_covariance
    variance, least = covariance[-1, -1], floor(joint)[-1] ** 2
    shear = jnp.where(variance > least, covariance[:-1, -1] / jnp.maximum(variance, least), 0)
    if axis.linear:
        return shear
    if axis.straight is not None:
        shear = jnp.where(axis.straight, 0, shear)
    slope = jax.grad(axis.activation)(axis.centre)
    left = axis.values - slope * (axis.nodes - axis.centre)
    left = jnp.abs(axis.weights @ (left - axis.weights @ left) ** 2) * coefficient**2
    whole = diagonal(covariance)[:-1] + 2 * coefficient * slope * covariance[:-1, -1]
    whole = whole + (coefficient * slope) ** 2 * variance
    straight = jax.lax.stop_gradient(left < STRAIGHT**2 * whole)
    return jnp.where(straight, -coefficient * slope, shear)


def _basis(
    covariance: Float[Array, "t t"], floors: Float[Array, " t"], aligned: bool, scales: Float[Array, " t"]
) -> tuple[Float[Array, "t t"], Bool[Array, " t"]]:
    """The Cholesky factor of the covariance, or its diagonal part; and what does not vary, which has another scale."""
    variance = diagonal(covariance)
    still = ~(variance > floors**2)
    deviation = jnp.where(still, scales, jnp.sqrt(jnp.where(still, 1, variance)))
    if aligned or covariance.shape[0] != 2:
        return with_diagonal(deviation, len(deviation)), still
    slope = jnp.where(still[0], 0, covariance[0, 1] / deviation[0])
    left = variance[1] - slope**2
    scale = jnp.minimum(scales[1], jax.lax.stop_gradient(jnp.where(still[1], jnp.inf, deviation[1])))
    # A second statistic that is the first, or nearly so, adds nothing that varies.
    least = jnp.maximum(floors[1] ** 2, jnp.finfo(left.dtype).eps ** (3 / 4) * variance[1])
    same = ~(left > jnp.maximum(least, (LITTLE * scale) ** 2))
    second = jnp.where(same, scale, jnp.sqrt(jnp.where(same, 1, left)))
    none = jnp.zeros_like(slope)
    basis = jnp.stack([jnp.stack([deviation[0], none]), jnp.stack([slope, second])])
    return basis, jnp.stack([still[0], same])


def inverse_basis(basis: Float[Array, "t t"]) -> Float[Array, "t t"]:
    """The inverse of a `Statistic.basis`."""
    # Diagonal, or lower-triangular of size two: the series of (D + L)^-1 ends after the term linear in L.
    if basis.shape[0] == 1:
        return 1 / basis
    scale = 1 / diagonal(basis)
    return with_diagonal(scale, len(scale)) - jnp.tril(basis, -1) * jnp.outer(scale, scale)


def _box(law: Projection, part: Float[Array, "t Q"], still: Bool[Array, " t"], resolution) -> tuple[Array, Array]:
    """That of each statistic; of one that does not vary, part of its scale."""

    def one(d):
        low, high = interval(law.alone(d), resolution.log_inverse_mass)
        low, high = low + part[d].min(), high + part[d].max()
        return widen(jnp.where(still[d], -STILL, low), jnp.where(still[d], STILL, high))

    lows, lengths = zip(*(one(d) for d in range(part.shape[0])), strict=True)
    return jnp.stack(lows), jnp.stack(lengths)

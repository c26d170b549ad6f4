"""The law of statistics as a quadrature rule, and functions of them as series."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model.feature_model import FeatureModel
from ..model.matrices import diagonal
from ..spectral.characteristic import waves
from ..spectral.fourier import (
    MARGIN,
    Series,
    half_coefficients,
    half_grid,
    half_space,
    periodic_weights,
    real_basis,
)
from ..spectral.least_squares import least_squares, left_out
from ..spectral.projected_law import Projection, characteristic
from ..spectral.resolution import Resolution
from ..types import Array, Complex, Float, Scalar
from .ridge_axis import RidgeGrid
from .spectrum import Spectrum
from .statistic import Statistic, box_nodes, box_points, grid_weights, inverse_basis

BREADTH = 0.1  # of the box: the spread that a fit supposes of a statistic that does not vary

SAMPLED = 16  # frequencies of a law at which all atoms of the source are looked at


class Nodes(eqx.Module):
    """The law of one feature's statistics as a quadrature rule: `E[g(y)] = sum_q weights_q g(points_q)`.

    `points: [Q, t]` are in the units of `y`; `box` are the same points as coordinates of the box of `y''`.
    """

    points: Float[Array, "Q t"]
    box: Float[Array, "Q t"]
    weights: Float[Array, " Q"]

    def moment_error(self, statistic: Statistic, covariance: Float[Array, "t t"]) -> Scalar:
        """How far mass, mean and covariance of `y''` on the box are from the exact ones. Without derivatives.

        `covariance` is the exact one of `y`. The moment error is small unless the law has left its box, or the
        resolution is too coarse for it.
        """
        statistic, weights, covariance = jax.lax.stop_gradient((statistic, self.weights, covariance))
        points = statistic.low[None] + statistic.length[None] * self.box
        inverse = inverse_basis(statistic.basis)
        wrong = (points.T * weights[None]) @ points - inverse @ covariance @ inverse.T
        return jnp.max(jnp.abs(jnp.concatenate([weights.sum(keepdims=True) - 1, weights @ points, wrong.ravel()])))


class StatisticLaw(NamedTuple):
    """The law of one feature's statistics: on the frequencies of its box, and as the quadrature rule that they make.

    `kinks`, in units of `y`, are where functions of them are not smooth; the basis must then be diagonal.
    """

    spectrum: Spectrum
    phi: Complex[Array, " W"]
    nodes: Nodes
    resolution: Resolution
    kinks: Float[Array, "t kinks"] | None = None

    @classmethod
    def of(
        cls,
        statistic: Statistic,
        grid: RidgeGrid,
        resolution: Resolution,
        kinks: Float[Array, "t kinks"] | None = None,
    ) -> "StatisticLaw":
        """On the box of the statistic; `grid` is that of its layer's axis for laws."""
        spectrum = Spectrum.of(statistic, grid, resolution)
        phi = spectrum.characteristic()
        weights = _weights(phi, statistic, resolution, kinks)
        box = box_points(_box_rule(statistic, resolution, kinks)[0])
        standardised = statistic.low[None] + statistic.length[None] * box
        nodes = Nodes(statistic.centre[None] + standardised @ statistic.basis.T, box, weights)
        return cls(spectrum, phi, nodes, resolution, kinks)

    @property
    def statistic(self) -> Statistic:
        """In whose coordinates all this is."""
        return self.spectrum.statistic

    def weights(self, phi: Complex[Array, " W"]) -> Float[Array, " Q"]:
        """The weights of the nodes, of which `phi` makes them: linear in it."""
        return _weights(phi, self.statistic, self.resolution, self.kinks)


class Varying(NamedTuple):
    """A function `F(y): [V]` as `base = F(E y)`, `values = F(y_q) - base: [Q, V]`, and `derivative = dF / dy: [V, t]`.

    One that varies by less than `eps^(1/3)` of its size, and is straight there, is replaced by its tangent, whose
    values keep their digits: the difference would lose them, and its derivative near zero all.
    """

    base: Float[Array, " V"]
    values: Float[Array, "Q V"]
    derivative: Float[Array, "V t"]

    @classmethod
    def of(cls, statistic: Statistic, nodes: Nodes, function: Callable[[Array], Array]) -> "Varying":
        """For a function of y."""
        derivative = jax.jacfwd(function)(statistic.centre)
        points = statistic.low[None] + statistic.length[None] * nodes.box
        tangent = points @ (derivative @ statistic.basis).T
        values = jax.vmap(function)(jnp.concatenate([statistic.centre[None], nodes.points]))
        base, values = values[0], values[1:] - values[:1]
        own, straight, moved = jax.lax.stop_gradient((jnp.abs(base), tangent, values))
        eps = jnp.finfo(base.dtype).eps
        largest, bent = jnp.abs(straight).max(axis=0), jnp.abs(moved - straight).max(axis=0)
        little = jnp.maximum(largest, jnp.abs(moved).max(axis=0) / 2) < eps ** (1 / 3) * own
        straight = bent < 10 * eps ** (1 / 3) * largest + 8 * eps * own
        flat = jnp.all(little & straight) | jnp.all(statistic.still)
        return cls(base, jnp.where(flat, tangent, values), derivative)


def _weights(phi, statistic: Statistic, resolution: Resolution, kinks) -> Float[Array, " Q"]:
    if kinks is None:
        return periodic_weights(phi, resolution.law_order(statistic.dimension), statistic.dimension).ravel()
    return grid_weights(phi, *_box_rule(statistic, resolution, kinks)).ravel()


def _box_rule(statistic, resolution, kinks) -> tuple[list[Array], list[Array], int]:
    """Nodes and weights in box coordinates, and the order of the law: what `grid_weights` wants beside `phi`."""
    if kinks is not None:
        standardised = (kinks - statistic.centre[:, None]) / diagonal(statistic.basis)[:, None]
        kinks = (standardised - statistic.low[:, None]) / statistic.length[:, None]
    return *box_nodes(statistic, resolution, kinks), resolution.law_order(statistic.dimension)


def law_series(law: StatisticLaw, values: Float[Array, " Q"]) -> Series:
    """The series on all frequencies of the law, in which `Re sum_p gamma_p phi(w_p) = sum_q weights_q values_q`.

    `values` stand at its nodes.
    """
    frequency = law.spectrum.frequency
    (coefficients,) = jax.linear_transpose(law.weights, law.phi)(values)
    return Series(frequency, coefficients * jnp.conj(waves(frequency, law.statistic.low)))


def band(law: StatisticLaw, values: Float[Array, "Q V"], whole: FeatureModel | None = None) -> Float[Array, " V"]:
    """What the last quarter of the law's frequencies still adds to `E[F]`, sizes summed: if much, some is missing.

    And what fewer atoms than those of the source `whole` change, at `SAMPLED` of the frequencies. `values` stand at the
    nodes. Without derivatives.
    """
    values, phi = jax.lax.stop_gradient((values, law.phi))
    statistic, t = law.statistic, law.statistic.dimension
    coefficients = jax.lax.stop_gradient(_at_frequencies(law, values))
    order = law.resolution.law_order(t)
    # Of a statistic that does not vary no frequency dies out, and none is needed.
    last = np.abs(half_grid(order, t)) > 3 * order / 4
    last = jnp.any(last & (~statistic.still | jnp.all(statistic.still))[None], axis=1)
    lost = jnp.abs(coefficients) @ jnp.where(last, jnp.abs(phi), 0)
    if whole is None:
        return lost
    some = np.linspace(0, phi.size - 1, SAMPLED).astype(int)
    statistic, whole = jax.lax.stop_gradient((statistic, whole))
    here, there = statistic.law.centred(), Projection.of(whole, statistic.rows).centred()
    of = lambda one: jax.vmap(lambda w: characteristic(one, w))(law.spectrum.frequency[some])  # noqa: E731
    return lost + jnp.abs(coefficients[:, some]) @ jnp.abs(of(here) - of(there)) * (phi.size / SAMPLED)


def wandering(law: StatisticLaw, values: Float[Array, "Q V"]) -> Float[Array, " V"]:
    """How far `E[F]` of one statistic still moves over the last quarter of its law's frequencies: as `band`, signed.

    For functions with kinks, of laws without noise: their frequencies die out slowly, but away from a kink they cancel.
    Without derivatives.
    """
    law, values = jax.lax.stop_gradient((law, values))
    last = (_at_frequencies(law, values) * law.phi[None]).real[:, 3 * law.phi.size // 4 :]
    return jnp.max(jnp.abs(jnp.cumsum(last[:, ::-1], axis=1)), axis=1)


def _at_frequencies(law: StatisticLaw, values: Float[Array, "Q V"]):
    """Coefficients `[V, W]` with `E[F] = Re sum_w coefficients_w phi_w`."""
    transposed = jax.linear_transpose(law.weights, law.phi)
    return jax.vmap(lambda column: transposed(column)[0], in_axes=1)(values)


def least_squares_series(
    statistic: Statistic,
    nodes: Nodes,
    values: Float[Array, " Q"],
    order: int,
    least: Scalar | float = 0.0,
    shorter: bool = False,
) -> tuple[Series, Scalar]:
    """The short series nearest to `values` in L2 of the law, and the L2 norm of what it leaves out (no gradient).

    One period, per axis, is the part of the box where the window is 1, so in box coordinates the exponentials are
    the same for every statistic. `least` is as in `least_squares`, `shorter` asks for `Series.shorter` (no gradient).
    """
    half = half_space(order, statistic.dimension)
    index = (2 * np.pi / (1 - 2 * MARGIN) * half).astype(values.dtype)
    phase, frequency = nodes.box @ index.T, index / statistic.length[None]
    at_low = jnp.conj(waves(frequency, statistic.low))

    basis, weights = real_basis(phase), _broad(statistic, nodes)
    operator = least_squares(basis, weights, least)
    real = operator @ values
    missed = jax.lax.stop_gradient(values - basis @ real)
    remainder = jnp.sqrt(jnp.maximum(jax.lax.stop_gradient(nodes.weights) @ missed**2, 0))
    fewer = None
    if shorter:
        highest = np.sum(half**2, axis=1) > (order - 1) ** 2
        last = np.concatenate([highest, highest[1:]])  # of 1, cos, sin
        fewer = half_coefficients(left_out(*jax.lax.stop_gradient((weights, operator, real)), last))
        fewer = fewer * jax.lax.stop_gradient(at_low)
    return Series(frequency, half_coefficients(real) * at_low, fewer), remainder


def _broad(statistic: Statistic, nodes: Nodes) -> Float[Array, " Q"]:
    """The weights of a law of two statistics; one that does not vary is given some breadth.

    A fit on the line where the law is would know nothing of what lies beside it, where a derivative leads.
    """
    if statistic.dimension != 2:
        return nodes.weights
    side = round(nodes.weights.size**0.5)
    weights = nodes.weights.reshape(side, side)
    apart = nodes.box + jax.lax.stop_gradient(statistic.low / statistic.length)[None]
    bell = jnp.exp(-((apart.reshape(side, side, 2) / BREADTH) ** 2) / 2)
    for axis in range(2):
        extra = bell[:, :, axis] / bell[:, :, axis].sum(axis=axis, keepdims=True)
        weights = jnp.where(statistic.still[axis], weights.sum(axis=axis, keepdims=True) * extra, weights)
    return weights.ravel()

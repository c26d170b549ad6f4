"""Expectations of functions of statistics: one function, a function times a linear map of x, and two functions."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from ..model import FeatureModel
from ..types import Array, Complex, Float
from .characteristic import product_over_features, ridge_table
from .projection import Projection
from .resolution import Resolution
from .ridge import RidgeAxis
from .series import (
    full_coefficients,
    full_frequencies,
    half_coefficients,
    half_space,
    least_squares,
    real_basis,
)
from .statistic import Statistic, box_nodes, box_points, grid_weights


class Nodes(eqx.Module):
    """The law of one feature's statistics as a quadrature rule: `E[g(y)] = sum_q weights_q g(points_q)`.

    `points: [Q, t]` are in the units of `y`; `standardised` are the same points as `y''`.
    """

    points: Float[Array, "Q t"]
    standardised: Float[Array, "Q t"]
    weights: Float[Array, " Q"]


def statistic_nodes(statistic: Statistic, axis: RidgeAxis, resolution: Resolution) -> Nodes:
    """The quadrature rule of a statistic's law, from its characteristic function on the grid of its box."""
    order = resolution.law_order(statistic.dimension)
    phi = statistic.box_characteristic(axis, resolution)
    nodes, weights = box_nodes(statistic, resolution)
    law = grid_weights(phi, nodes, weights, order).ravel()
    standardised = box_points(statistic, nodes)
    return Nodes(statistic.centre + standardised @ statistic.basis.T, standardised, law)


class Series(eqx.Module):
    """A function of the standardised statistics as `g(y'') ~ Re sum_p coefficients_p exp(i <frequency_p, y''>)`.

    `remainder` is the L2 norm, under the law of the statistic, of what the series leaves out.
    """

    frequency: Float[Array, "F t"]
    coefficients: Complex[Array, " F"]
    remainder: Float[Array, ""]


def least_squares_series(statistic: Statistic, nodes: Nodes, values: Float[Array, " Q"], resolution: Resolution):
    """The `Series` nearest to `values` at the nodes in L2 of the law (differentiable in `values`)."""
    index = jnp.asarray(half_space(resolution.series_order(statistic.dimension), statistic.dimension))
    frequency = 2 * jnp.pi * index.astype(values.dtype) / statistic.period
    basis = real_basis(nodes.standardised @ frequency.T)
    real = least_squares(basis, nodes.weights) @ values
    missed = jax.lax.stop_gradient(values - basis @ real)
    remainder = jnp.sqrt(jnp.maximum(jax.lax.stop_gradient(nodes.weights) @ missed**2, 0))
    return Series(frequency, half_coefficients(real), remainder)


def with_input(
    source: FeatureModel,
    rows: Float[Array, "D n1"],
    expectation: Callable[[Float[Array, "m K"], Float[Array, " D"]], Float[Array, ""]],
    value: Array,
) -> Float[Array, " n1"]:
    """`E[x F]` from a function that gives `E[F]` with state masses `p (1 + tilt)` and projections `rows x` shifted.

    The derivative in the tilt of a state is `E[1{z_j = a_jk} F]`; in the shift, `E[dF]`, and by Stein's identity
    `E[noise F] = S rows' E[dF]`. One reverse pass gives both for all features: no further grid axis is needed.
    """
    masses = source.prior.masses
    zeros = jnp.zeros_like(masses), jnp.zeros_like(rows[:, 0])
    pinned, slope = jax.grad(expectation, argnums=(0, 1))(*zeros)
    features = jnp.einsum("nmk,mk->n", source.atom_vectors, pinned)
    return source.mean * value + features + source.covariance @ (rows.T @ slope)


def tilt(law: Projection, masses_tilt: Float[Array, "m K"], shift: Float[Array, " D"]) -> Projection:
    """The law with (unnormalised) masses `p (1 + tilt)` and a shifted mean."""
    return Projection(law.mean + shift, law.atoms, law.masses * (1 + masses_tilt), law.covariance)


def ridge_input_moment(
    source: FeatureModel, direction: Float[Array, " n1"], axis: RidgeAxis, values: Float[Array, " Q"]
) -> tuple[Array, Float[Array, " n1"]]:
    """`E[h(b)]` and `E[x h(b)]`, for `h` given at the nodes of the ridge axis."""

    def expectation(masses_tilt, shift):
        return axis.rule.weights(tilt(axis.law, masses_tilt, shift)) @ values

    value = axis.weights @ values
    if axis.linear:
        return value, source.moments()[0] * value
    return value, with_input(source, direction[None, :], expectation, value)


def series_input_moments(
    source: FeatureModel,
    direction: Float[Array, " n1"],
    statistic: Statistic,
    axis: RidgeAxis,
    series: Series,
    resolution: Resolution,
) -> tuple[Float[Array, " n1"], Array]:
    """`E[x s(y)]: [n1]` and `E[psi(b) s(y)]` for one function given as a series."""
    omega, operator = axis.operator(resolution.series_ridge_order)
    oscillation = statistic.oscillation(series.frequency)

    def expectation(masses_tilt, shift, values):
        t = statistic.dimension
        law = tilt(statistic.law, masses_tilt, shift[:t])
        ridge = tilt(axis.law, masses_tilt, shift[t:])
        tilted = eqx.tree_at(lambda s: s.law, statistic, law)
        phi = tilted.joint(series.frequency, omega, ridge)
        return jnp.sum(series.coefficients[:, None] * phi * ((oscillation * values) @ operator.T)).real

    zeros = jnp.zeros_like(source.prior.masses), jnp.zeros(statistic.dimension + 1, direction.dtype)
    ones = jnp.ones_like(axis.values)
    rows = jnp.concatenate([statistic.rows, direction[None, :]])
    value = expectation(*zeros, ones)
    input_moment = with_input(source, rows, lambda a, b: expectation(a, b, ones), value)
    return input_moment, expectation(*zeros, axis.values)


def pair_moments(
    statistics: Statistic, cross_covariance: Float[Array, "m2 t m2 t"], axis: RidgeAxis, series: Series, resolution
) -> Float[Array, "m2 m2"]:
    """`E[s_j(y_j) s_k(y_k)]` for all `j != k`, zero on the diagonal; the arguments carry a leading axis of features.

    `sum_{p, q} gamma_p gamma_q E exp(i <w_p, y_j> + i <w_q, y_k>)`. What depends on one feature is tabulated once.
    The pairs are taken at one distance `k - j` (mod m2) after another, so that a step reads whole tables.
    """
    features = statistics.centre.shape[0]
    omega, operator = axis.operator(resolution.series_ridge_order)
    ridge = ridge_table(omega, axis.law.atoms[0], axis.law.masses)
    ridge_phase = jnp.exp(1j * omega * axis.law.mean[0])
    ridge_variance = axis.law.covariance[0, 0]
    tables = jax.vmap(_pair_table)(statistics, series)

    @jax.checkpoint
    def moment(left: "PairTable", right: "PairTable", covariance: Float[Array, "t t"]) -> Array:
        frequency, coefficients = full_frequencies(right.frequency), full_coefficients(right.coefficients)
        atoms = _conjugate_rows(right.atoms)
        shape = left.frequency.shape[0], frequency.shape[0], omega.size
        rows = (left.atoms[:, :, None, :] * atoms[:, None, :, :]).reshape(atoms.shape[0], -1, atoms.shape[2])
        phi = product_over_features(rows, ridge).reshape(shape)
        exponent = (left.variance[:, None] + right.full_variance)[:, :, None] + ridge_variance * omega**2
        exponent = exponent + 2 * (left.frequency @ covariance @ frequency.T)[:, :, None]
        exponent = exponent + 2 * (left.cross[:, None] + full_frequencies(right.cross))[:, :, None] * omega
        shifted = left.oscillation[:, None, :] * _conjugate_rows(right.oscillation[None])[0]
        ridge_coefficients = (shifted.reshape(-1, shifted.shape[-1]) @ operator.T).reshape(shape)
        value = jnp.sum(phi * jnp.exp(-exponent / 2) * ridge_coefficients * ridge_phase, axis=2)
        return (left.coefficients @ value @ coefficients).real

    def distance(shift):
        moved = jax.tree.map(lambda leaf: jnp.roll(leaf, -shift, axis=0), tables)
        index = jnp.arange(features)
        covariance = cross_covariance[index, :, (index + shift) % features, :]
        return jax.lax.map(lambda args: moment(*args), (tables, moved, covariance))

    moments = jnp.zeros((features, features), axis.nodes.dtype)
    if features == 1:
        return moments
    shifts = jnp.arange(1, features // 2 + 1)
    values = jax.lax.map(distance, shifts)
    row = jnp.broadcast_to(jnp.arange(features), values.shape)
    column = (row + shifts[:, None]) % features
    moments = moments.at[row, column].set(values)
    return moments.at[column, row].set(values)


class PairTable(eqx.Module):
    """What a pair moment needs of one feature: everything that does not mix two of them."""

    frequency: Float[Array, "F t"]
    coefficients: Complex[Array, " F"]
    atoms: Complex[Array, "m F K"]
    oscillation: Complex[Array, "F Q"]
    variance: Float[Array, " F"]
    cross: Float[Array, " F"]

    @property
    def full_variance(self) -> Float[Array, " 2F-1"]:
        """`w' S w` over all frequencies."""
        return jnp.concatenate([self.variance, self.variance[1:]])


def _pair_table(statistic: Statistic, series: Series) -> PairTable:
    frequency, law = series.frequency, statistic.law
    return PairTable(
        frequency=frequency,
        coefficients=series.coefficients * jnp.exp(1j * frequency @ law.mean),
        atoms=jnp.exp(1j * jnp.einsum("ft,tmk->mfk", frequency, law.atoms)),
        oscillation=statistic.oscillation(frequency),
        variance=jnp.einsum("ft,ts,fs->f", frequency, law.covariance, frequency),
        cross=frequency @ statistic.cross,
    )


def _conjugate_rows(half: Complex[Array, "m F K"]) -> Complex[Array, "m 2F-1 K"]:
    return jnp.concatenate([half, jnp.conj(half[:, 1:])], axis=1)

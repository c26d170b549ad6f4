"""Covariances of two functions, for all pairs: what the loss spends its time on.

A constant needs no pair: of `s_j` only `g_j = Re sum_p gamma_p exp(i <w_p, y_j>)` over the non-zero frequencies counts.
`Cov(g_j, g_k) = E[g_j g_k] - E[g_j] E[g_k]`, with the means from the same ridge series as the moments, so that what
they miss cancels: functions of independent statistics have the covariance zero. And `E[g_j g_k]` is
`Re sum_{p, q, r} gamma_p gamma_q c_pqr E exp(i <w_p, a_j> + i <w_q, a_k> + i omega_r b)`: over a half-space in `p`, all
of `q`, and the ridge axis, where `exp(i <w_p, kappa_j> + i <w_q, kappa_k>) ~ sum_r c_pqr exp(i omega_r b)`.

One `k` is taken with a block of features `j` at a time: what depends on `k` and the ridge axis becomes one matrix per
source feature, which the tables of the whole block multiply. Nothing of a block is kept for the gradient.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._sharding import sharded_map
from ..spectral.characteristic import cis, matmul, phases, product_over_features, ridge_table, waves
from ..spectral.fourier import Series
from ..types import Array, Complex, Float
from .ridge_axis import RidgeGrid
from .statistic import Statistic


class PairTable(eqx.Module):
    """What a pair needs of one feature: everything that does not mix two of them, at its non-zero frequencies.

    `series` are the coefficients, with the phases of the mean, of `V` functions: the series and, if there is one, the
    shorter one. Here `F` and `E = 2 F` count without zero.
    """

    series: Complex[Array, "V F"]
    frequency: Float[Array, "F t"]
    atoms: Complex[Array, "m F J"]
    oscillation: Complex[Array, "F Q"]
    variance: Float[Array, " F"]
    cross: Float[Array, " F"]

    @classmethod
    def of(cls, statistic: Statistic, series: Series, grid: RidgeGrid) -> "PairTable":
        """From a feature's statistics and its series."""
        frequency, law = series.frequency[1:], statistic.law
        rows = [series.coefficients] if series.shorter is None else [series.coefficients, series.shorter]
        return cls(
            series=jnp.stack(rows)[:, 1:] * waves(frequency, law.mean)[None],
            frequency=frequency,
            atoms=phases(frequency, law.atoms),
            oscillation=statistic.oscillation(frequency, grid),
            variance=jnp.einsum("ft,ts,fs->f", frequency, law.covariance, frequency),
            cross=frequency @ statistic.cross,
        )

    def full(self) -> "PairTable":
        """The same with the negatives of its frequencies, not only a half-space."""
        return PairTable(
            series=jnp.concatenate([self.series, jnp.conj(self.series)], axis=1) / 2,
            frequency=jnp.concatenate([self.frequency, -self.frequency]),
            atoms=jnp.concatenate([self.atoms, jnp.conj(self.atoms)], axis=1),
            oscillation=jnp.concatenate([self.oscillation, jnp.conj(self.oscillation)]),
            variance=jnp.concatenate([self.variance, self.variance]),
            cross=jnp.concatenate([self.cross, -self.cross]),
        )


def pair_covariances(
    statistics: Statistic,
    cross_covariance: Float[Array, "m2 t m2 t"],
    series: Series,
    grid: RidgeGrid,
    size: int,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "m2 m2"], Float[Array, "m2 m2"]]:
    """`Cov(s_j(y_j), s_k(y_k))` for all `j != k`, zero on the diagonal; the arguments carry a leading axis of features.

    And by how much each changes if the shorter series are used, without derivatives; zero if there are none. About
    `size` pairs are computed at once. With a mesh they are spread over its devices.
    """
    features = statistics.centre.shape[0]
    if features == 1:
        none = jnp.zeros((1, 1), grid.omega.dtype)
        return none, none
    # Every pair is met at a distance j - k (mod m2) of at most m2 / 2: for each k a run of neighbours, in blocks.
    distances = features // 2
    batch, blocks = max(1, size // distances), -(-distances // size)
    size = -(-distances // blocks)
    starts = size * np.arange(blocks)

    @jax.checkpoint
    def block(prepared, k, start):
        tables, ring, means, *ridge = prepared
        right = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, k, keepdims=False), tables).full()
        left, covariance = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, k + 1 + start, size), ring)
        covariance = jax.lax.dynamic_index_in_dim(covariance, k, axis=2, keepdims=False)
        near, mean = jax.lax.dynamic_slice_in_dim(means, k + 1 + start, size), means[k]
        return _block_moments(left, right, covariance, *ridge) - near * mean[None]

    k, start = np.meshgrid(np.arange(features), starts, indexing="ij")
    items = jnp.asarray(k.ravel().astype(np.uint32)), jnp.asarray(start.ravel().astype(np.uint32))
    prepare = partial(_prepare, size=size)
    values = sharded_map(block, (statistics, cross_covariance, series, grid), items, mesh, batch, prepare)
    values = values.reshape(features, -1, values.shape[-1])
    row, column = np.indices((features, features))
    ahead, behind = (row - column) % features, (column - row) % features
    near = ahead <= distances
    found = values[np.where(near, column, row), np.where(near, ahead, behind) - 1]
    found = jnp.where((row == column)[:, :, None], 0, found)
    change = jax.lax.stop_gradient(found[:, :, 0] - found[:, :, -1])
    return found[:, :, 0], jnp.abs(change)


def _prepare(everywhere, size: int):
    """Tables of all features; the same, with the covariances, and means twice in a row; what is of the ridge axis.

    `size` means are computed at once.
    """
    statistics, cross_covariance, series, grid = everywhere
    ridge = _ridge_tables(grid)
    tables, means = _tables(statistics, series, grid, ridge, size)
    ring = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), (tables, cross_covariance))
    return tables, ring, jnp.concatenate([means, means]), *ridge


def _ridge_tables(grid: RidgeGrid) -> tuple[Array, Array, Array, Array]:
    law = grid.law
    ridge = ridge_table(grid.omega, law.atoms[0], law.masses)
    ridge_noise = jnp.exp(-law.covariance[0, 0] * grid.omega**2 / 2)
    to_ridge = grid.operator * (cis(grid.omega * law.mean[0]) * ridge_noise)[:, None]
    return law.masses[:, 0], ridge, to_ridge, grid.omega


def _tables(statistics: Statistic, series: Series, grid: RidgeGrid, ridge, size: int) -> tuple[PairTable, Array]:
    """The tables, and the means `[m, V]` of their functions."""
    tables = jax.vmap(lambda one, s: PairTable.of(one, s, grid))(statistics, series)
    return tables, jax.lax.map(jax.checkpoint(lambda table: _mean(table, *ridge)), tables, batch_size=size)


def cross_covariances(
    left: tuple[Statistic, Series],
    right: tuple[Statistic, Series],
    cross_covariance: Float[Array, "h t m2 s"],
    grid: RidgeGrid,
    size: int,
    mesh: Mesh | None = None,
) -> Float[Array, "h m2"]:
    """`Cov(g_i, g_k)` for every function of one list and every one of another; as `pair_covariances` otherwise."""
    h, m2 = cross_covariance.shape[0], cross_covariance.shape[2]
    blocks = -(-h // max(1, size))
    size = -(-h // blocks)
    index = np.minimum(np.arange(blocks * size), h - 1)  # the last is repeated if they do not divide
    left, cross_covariance = jax.tree.map(lambda leaf: leaf[index], (left, cross_covariance))
    left, right = ((one, _alone(series)) for one, series in (left, right))

    def prepare(everywhere):
        left, right, cross_covariance, grid = everywhere
        ridge = _ridge_tables(grid)
        return *_tables(*left, grid, ridge, size), *_tables(*right, grid, ridge, size), cross_covariance, ridge

    @jax.checkpoint
    def block(prepared, k, start):
        left, left_means, right, right_means, covariance, ridge = prepared
        other = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, k, keepdims=False), right).full()
        near = left, left_means, jax.lax.dynamic_index_in_dim(covariance, k, axis=2, keepdims=False)
        some, means, covariance = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), near)
        return (_block_moments(some, other, covariance, *ridge) - means * right_means[k][None])[:, 0]

    k, start = np.meshgrid(np.arange(m2), size * np.arange(blocks), indexing="ij")
    items = jnp.asarray(k.ravel().astype(np.uint32)), jnp.asarray(start.ravel().astype(np.uint32))
    values = sharded_map(block, (left, right, cross_covariance, grid), items, mesh, prepare=prepare)
    return values.reshape(m2, blocks * size)[:, :h].T


def _alone(series: Series) -> Series:
    """The same without the shorter one."""
    return eqx.tree_at(lambda one: one.shorter, series, None, is_leaf=lambda leaf: leaf is None)


def _mean(
    table: PairTable,
    first: Float[Array, " m"],
    ridge: Complex[Array, "m J O"],
    to_ridge: Complex[Array, "O Q"],
    omega: Float[Array, " O"],
) -> Float[Array, " V"]:
    """`E g_j` of one feature, as `_block_moments` has it for a `g_k` of 1."""
    features = product_over_features(first, table.atoms, ridge)
    series = matmul(table.oscillation, to_ridge.T)
    exponent = table.variance[:, None] + 2 * jnp.outer(table.cross, omega)
    return jnp.sum((table.series * _summed(features, series, exponent)[None]).real, axis=1)


def _block_moments(
    left: PairTable,
    right: PairTable,
    covariance: Float[Array, "B t s"],
    first: Float[Array, " m"],
    ridge: Complex[Array, "m J O"],
    to_ridge: Complex[Array, "O Q"],
    omega: Float[Array, " O"],
) -> Float[Array, "B V"]:
    """`E[g_j g_k]` for a block of features j (`left`, with a leading axis) and one k (`right`, all frequencies)."""
    count, half = left.cross.shape
    sources = ridge.shape[0]

    # Features: [m, B F, J] times [m, J, E R].
    over_block = jnp.swapaxes(left.atoms, 0, 1).reshape(sources, count * half, -1)
    over_right = jnp.swapaxes(right.atoms, 1, 2)[..., None] * ridge[:, :, None]
    features = product_over_features(first, over_block, over_right.reshape(sources, ridge.shape[1], -1))

    # The ridge axis: [B F, Q] times [Q, E R].
    shifts = right.oscillation.T[:, :, None] * to_ridge.T[:, None]
    series = matmul(left.oscillation.reshape(count * half, -1), shifts.reshape(shifts.shape[0], -1))

    variance = left.variance[:, :, None] + right.variance[None, None]
    variance = variance + 2 * jnp.einsum("bft,bts,es->bfe", left.frequency, covariance, right.frequency)
    cross = left.cross[:, :, None] + right.cross[None, None]
    exponent = variance[..., None] + 2 * cross[..., None] * omega[None, None, None]
    joint = _summed(features.reshape(exponent.shape), series.reshape(exponent.shape), exponent)
    over_right = matmul(joint.reshape(count * half, -1), right.series.T).reshape(count, half, -1)
    return jnp.sum((jnp.swapaxes(left.series, 1, 2) * over_right).real, axis=1)


def _summed(
    features: Complex[Array, "*s O"], series: Complex[Array, "*s O"], exponent: Float[Array, "*s O"]
) -> Complex[Array, "*s"]:
    """`sum_r features series exp(-exponent / 2)`."""
    # In real arithmetic, and as matrix products: else the exponential is computed inside of a reduction.
    (a, b), (c, d) = (features.real, features.imag), (series.real, series.imag)
    size, one = jnp.exp(-exponent / 2), jnp.ones(exponent.shape[-1], exponent.dtype)
    return jax.lax.complex(((a * c - b * d) * size) @ one, ((a * d + b * c) * size) @ one)

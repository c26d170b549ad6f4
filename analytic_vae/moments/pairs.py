"""Covariances of two functions, for all pairs: what the loss spends its time on.

A constant needs no pair: of `s_j` only `g_j = Re sum_p gamma_p exp(i <w_p, y_j>)` over the non-zero frequencies counts.
`Cov(g_j, g_k) = E[g_j g_k] - E[g_j] E[g_k]`, with the means from the same ridge series as the moments, so that what
they miss cancels: functions of independent statistics have the covariance zero. And `E[g_j g_k]` is
`Re sum_{p, q, r} gamma_p gamma_q c_pqr E exp(i <w_p, a_j> + i <w_q, a_k> + i omega_r b)`: over a half-space in `p`, all
of `q`, and the ridge axis, where `exp(i <w_p, kappa_j> + i <w_q, kappa_k>) ~ sum_r c_pqr exp(i omega_r b)`.

One `k` is taken with a block of features `j` at a time: what depends on `k` and the ridge axis becomes one matrix per
source feature, which the tables of the whole block multiply. Where there are
several blocks, nothing of one is kept for the gradient.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._sharding import batched_map, sharded_map
from ..spectral.characteristic import cis, matmul, product_over_features, waves
from ..spectral.fourier import Series
from ..types import Array, Complex, Float
from .ridge_axis import RidgeGrid
from .statistic import Statistic


class PairTable(eqx.Module):
    """What a pair needs of one feature: everything that does not mix two of them, at its non-zero frequencies.

    `complex: [F, V + m J + Q]` are side by side the coefficients, with the phases of the mean, of `V` functions (the
    series and, if there is one, the shorter one), the phases of all atoms, and `exp(i <w, kappa''(b)>)` at the nodes;
    `real: [F, t + 2]` the frequencies, `w' S w` and `<w, Cov(a'', b)>`. `sizes` are `V, m, J, t`. Here `F` and
    `E = 2 F` count without zero.
    """

    complex: Complex[Array, "F columns"]
    real: Float[Array, "F columns2"]
    sizes: tuple[int, int, int, int] = eqx.field(static=True)

    @classmethod
    def of(cls, statistic: Statistic, series: Series, grid: RidgeGrid) -> "PairTable":
        """From a feature's statistics and its series."""
        frequency, law = series.frequency[1:], statistic.law
        rows = jnp.stack([series.coefficients, *([] if series.shorter is None else [series.shorter])], axis=1)[1:]
        t, m, K = law.atoms.shape
        atoms = waves(frequency, law.atoms[:, :, 1:].reshape(t, m * (K - 1)))
        mixed = rows * waves(frequency, law.mean)[:, None], atoms, statistic.oscillation(frequency, grid)
        variance = jnp.einsum("ft,ts,fs->f", frequency, law.covariance, frequency)
        real = frequency, variance[:, None], (frequency @ statistic.cross)[:, None]
        return cls(jnp.concatenate(mixed, 1), jnp.concatenate(real, 1), (rows.shape[1], m, K - 1, t))

    def full(self) -> "PairTable":
        """The same with the negatives of its frequencies, not only a half-space: the series are halved."""
        sign = np.ones(self.real.shape[1], self.real.dtype)
        sign[self.sizes[-1]] = -1  # of w' S w
        real = jnp.concatenate([self.real, self.real * -sign[None]])
        return PairTable(jnp.concatenate([self.complex, jnp.conj(self.complex)]), real, self.sizes)

    def waves(self) -> tuple[Complex[Array, "*B F V"], Complex[Array, "*B F m J"], Complex[Array, "*B F Q"]]:
        """Coefficients, phases of all atoms but the first, and what oscillates at the nodes of the axis."""
        V, m, J, _ = self.sizes
        *shape, width = self.complex.shape
        series, atoms, oscillation = jax.lax.split(self.complex, (V, m * J, width - V - m * J), len(shape))
        return series, atoms.reshape(*shape, m, J), oscillation

    def gaussian(self) -> tuple[Float[Array, "*B F t"], Float[Array, "*B F"], Float[Array, "*B F"]]:
        """Frequencies, variance and cross-covariance."""
        frequency, variance, cross = jax.lax.split(self.real, (self.sizes[-1], 1, 1), self.real.ndim - 1)
        return frequency, variance[..., 0], cross[..., 0]


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
    ridge_noise = jnp.exp(-law.covariance[0, 0] * grid.omega**2 / 2)
    # As a matrix product: XLA fuses an elementwise one with what it is for, sines and all.
    to_ridge = matmul(jnp.diag(cis(grid.omega * law.mean[0]) * ridge_noise), grid.operator)
    return law.masses[:, 0], grid.table(), to_ridge, grid.omega


def _tables(statistics: Statistic, series: Series, grid: RidgeGrid, ridge, size: int) -> tuple[PairTable, Array]:
    """The tables, and the means `[m, V]` of their functions."""
    tables = jax.vmap(lambda one, s: PairTable.of(one, s, grid))(statistics, series)
    return tables, batched_map(lambda table: _mean(table, *ridge), (tables,), size)


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
    (coefficients, atoms, oscillation), (_, variance, cross) = table.waves(), table.gaussian()
    features = product_over_features(first, jnp.swapaxes(atoms, 0, 1), ridge)
    series = matmul(oscillation, to_ridge.T)
    exponent = variance[:, None] + 2 * jnp.tensordot(cross, omega, 0)
    return jnp.sum((coefficients * _summed(features, series, exponent)[:, None]).real, axis=0)


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
    count, half = left.complex.shape[:2]
    (sources, J, _), columns = ridge.shape, right.complex.shape[0] * omega.size
    (coefficients, atoms, oscillation), (one, variance, cross) = left.waves(), left.gaussian()
    (right_series, right_atoms, shifts), (other, right_variance, right_cross) = right.waves(), right.gaussian()

    # Features: [m, B F, J] times [m, J, E R].
    over_block = jnp.moveaxis(atoms, 2, 0).reshape(sources, count * half, J)
    over_right = jnp.transpose(right_atoms, (1, 2, 0))[..., None] * ridge[:, :, None]
    features = product_over_features(first, over_block, over_right.reshape(sources, J, columns))

    # The ridge axis: [B F, Q] times [Q, E R].
    shifts = shifts.T[:, :, None] * to_ridge.T[:, None]
    series = matmul(oscillation.reshape(count * half, -1), shifts.reshape(shifts.shape[0], -1))

    variance = (
        variance[:, :, None] + right_variance[None, None] + 2 * jnp.einsum("bft,bts,es->bfe", one, covariance, other)
    )
    cross = cross[:, :, None] + right_cross[None, None]
    exponent = variance[..., None] + 2 * jnp.tensordot(cross, omega, 0)
    joint = _summed(features.reshape(exponent.shape), series.reshape(exponent.shape), exponent)
    over_right = matmul(joint.reshape(count * half, -1), right_series).reshape(count, half, -1)
    return jnp.sum((coefficients * over_right).real, axis=1) / 2


def _summed(
    features: Complex[Array, "*s O"], series: Complex[Array, "*s O"], exponent: Float[Array, "*s O"]
) -> Complex[Array, "*s"]:
    """`sum_r features series exp(-exponent / 2)`."""
    # In real arithmetic, and as matrix products: else the exponential is computed inside of a reduction.
    (a, b), (c, d) = (features.real, features.imag), (series.real, series.imag)
    size, one = jnp.exp(-exponent / 2), jnp.ones(exponent.shape[-1], exponent.dtype)
    return jax.lax.complex(((a * c - b * d) * size) @ one, ((a * d + b * c) * size) @ one)

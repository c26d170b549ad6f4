"""Moments of a layer's units with bounds of their errors: alone, in pairs, with the input, and with features pinned.

All are expectations of one or two functions of one projection of the source each (`product.py`). Highest frequency
indices are choices.
"""

import math
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model.activation import Activation
from ..model.feature_model import FeatureModel
from ..model.layer import AbstractLayer
from ..moments.budget import require_memory
from ..spectral.characteristic import cis, gaussian_factor
from ..spectral.projected_law import Projection
from ..spectral.resolution import Resolution
from ..types import Array, Float
from .activation_moments import activation_square, activation_with
from .ball import SIGMAS, Bounded, bounded
from .domain import Domain
from .factor import factor
from .functions import OneOf, as_function
from .joint_law import source_sizes
from .product import CharacteristicGrid, product_expectation


def alone_order(resolution: Resolution) -> int:
    """Highest frequency index of one unit alone."""
    return 16 * resolution.frequencies


def pair_order(resolution: Resolution) -> int:
    """Highest frequency index of each axis of a pair of units."""
    return 4 * resolution.frequencies


def state_order(resolution: Resolution) -> int:
    """Highest frequency index of one function with a feature pinned."""
    return 8 * resolution.frequencies


class Units(eqx.Module):
    """The units `psi_i(<weight_i, x> + bias_i)` of any layer, `h` of them, and the law of `x`.

    `size: [h]` are mean sizes of what their arguments are summed from; `activation_index: [h]` tells each one's
    activation.
    """

    source: FeatureModel
    weight: Float[Array, "h n1"]
    bias: Float[Array, " h"]
    size: Float[Array, " h"]
    activations: tuple[Activation, ...]
    activation_index: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, source: FeatureModel, layer: AbstractLayer) -> "Units":
        """Those of a dense layer, the one of a ridge layer, none of a linear layer."""
        form = layer.form()
        size = form.weight_size @ source_sizes(source) + jnp.abs(form.bias)
        return cls(source, form.weight, form.bias, size, layer.activations, layer.activation_index)

    @property
    def count(self) -> int:
        """`h`."""
        return len(self.activation_index)

    def means(self, order: int) -> Bounded:
        """`E psi_i: [h]`."""
        return self._each(lambda i: product_expectation(self._law(i), self._size(i), [self._function(i)], order))

    def squares(self, order: int) -> Bounded:
        """`E psi_i^2: [h]`."""
        return self._each(lambda i: self._chosen(i, partial(activation_square, self._law(i), self._size(i)), order))

    def products(self, first: np.ndarray, second: np.ndarray, order: int) -> Bounded:
        """`E psi_i psi_k` of pairs of units, `[P]`."""

        def one(pair):
            """B34."""
            functions = [self._function(i) for i in pair]
            index = jnp.stack(pair)
            law = Projection.of(self.source, self.weight[index], self.bias[index])
            return product_expectation(law, self.size[index], functions, order)

        return jax.lax.map(one, (jnp.asarray(first), jnp.asarray(second)))

    def second_moments(self, resolution: Resolution) -> Bounded:
        """`E psi_i psi_k: [h, h]`."""
        found = self.squares(alone_order(resolution))
        values, errors = jnp.diag(found.value), jnp.diag(found.error_bound)
        first, second = np.triu_indices(self.count, 1)
        if first.size:
            pairs = self.products(first, second, pair_order(resolution))
            for i, k in ((first, second), (second, first)):
                values, errors = values.at[i, k].set(pairs.value), errors.at[i, k].set(pairs.error_bound)
        return Bounded(values, errors)

    def with_rows(
        self,
        activation_index: np.ndarray,
        rows: Float[Array, "P n1"],
        constants: Float[Array, " P"],
        size: Float[Array, " P"],
        order: int,
    ) -> Bounded:
        """`E (<rows_p, x> + constants_p) psi_i: [P]`, `i = which_p`; `size` is what those sums are summed from."""

        def one(given):
            """B38."""
            i, row, constant, size = given
            law = Projection.of(self.source, jnp.stack([row, self.weight[i]]), jnp.stack([constant, self.bias[i]]))
            return self._chosen(i, partial(activation_with, law, jnp.stack([size, self.size[i]])), order)

        return jax.lax.map(one, (jnp.asarray(activation_index), rows, constants, size))

    def with_functions(self, readout: Float[Array, "m n1"], function: Callable, order: int) -> Bounded:
        """`E psi_i g_ij(<readout_j, x>): [h, m]`, `g_ij = function(i, j)`."""
        m = readout.shape[0]

        def one(pair):
            """B34."""
            i, j = pair
            constants = jnp.stack([self.bias[i], jnp.zeros_like(self.bias[i])])
            law = Projection.of(self.source, jnp.stack([self.weight[i], readout[j]]), constants)
            scale = jnp.stack([self.size[i], jnp.abs(readout[j]) @ source_sizes(self.source)])
            return product_expectation(law, scale, [self._function(i), function(i, j)], order)

        found = jax.lax.map(one, (jnp.repeat(jnp.arange(self.count), m), jnp.tile(jnp.arange(m), self.count)))
        return jax.tree.map(lambda leaf: leaf.reshape(self.count, m), found)

    def states(self, order: int) -> Bounded:
        """`E 1{z_l = a_lk} psi_i: [h, m, K]`."""
        return self._each(lambda i: state_expectations(self._law(i), self.size[i], self._function(i), order))

    def _each(self, one: Callable[[Array], Bounded]) -> Bounded:
        return jax.lax.map(one, jnp.arange(self.count))

    def _law(self, i: Array) -> Projection:
        return Projection.of(self.source, self.weight[i][None], self.bias[i][None])

    def _size(self, i: Array) -> Float[Array, " 1"]:
        return self.size[i][None]

    def _function(self, i: Array):
        functions = tuple(as_function(one, self.weight.dtype) for one in self.activations)
        return functions[0] if len(functions) == 1 else OneOf(functions, jnp.asarray(self.activation_index)[i])

    def _chosen(self, i: Array, of: Callable, order: int) -> Bounded:
        """`of(activation, order)` for the activation of a unit."""
        each = [partial(of, one, order) for one in self.activations]
        return each[0]() if len(each) == 1 else jax.lax.switch(jnp.asarray(self.activation_index)[i], each)


def check_regularity(layer: AbstractLayer) -> None:
    """Raise an error that names the argument if nothing is known of an activation off the real axis."""
    for one in layer.activations:
        if one.regularity is None:
            raise ValueError(
                f"layer: expected an activation of known regularity, which bounds need, got {one.name} without."
            )


def check_slopes(layer: AbstractLayer) -> None:
    """As `check_regularity`, for a loss: waves of a ridge need a bounded slope (B44)."""
    check_regularity(layer)
    for one in layer.activations:
        if one.regularity.growth is not None and not layer.reads_input:
            raise ValueError(
                f"layer: expected an activation of bounded slope, which a RidgeLayer's loss needs for bounds, got "
                f"{one.name}."
            )


def check_units(source: FeatureModel, units: int, resolution: Resolution) -> None:
    """Raise `MemoryError` if the grids of a unit, of a pair of units, and the tables of all cannot fit."""
    order, (m, K) = pair_order(resolution), source.prior.atoms.shape
    pair = (2 * order + 1) * (order + 1) * (2 * m + 12) if units > 1 else 0
    alone = 8 * alone_order(resolution) * (m * (K + 2) + 16) + units * m * K if units else 0
    require_memory((pair + alone) * 2 * source.mean.dtype.itemsize, "certify", "lower resolution.frequencies")


def state_expectations(law: Projection, scale: Array, function, order: int) -> Bounded:
    """`E 1{z_l = a_lk} g(Y): [m, K]` for one projection, on one box for all states (B40).

    What is charged for the box and for smoothing is that of all states together: each has at most as much.
    """
    axis = Domain.of(law, jnp.sqrt(law.covariance[0, 0]), order)
    given = factor(axis, jax.lax.stop_gradient(law), function)
    omega, masses = axis.frequency, law.masses
    plane = CharacteristicGrid.of(law, axis.low[None], jnp.zeros((1, 0), omega.dtype), omega)
    wave = cis(law.atoms[0][:, :, None] * omega[None, None])  # [m, K, R]
    others = _product_of_others(jnp.einsum("mk,mkr->mr", masses, wave))
    none = jnp.zeros((1, 0), omega.dtype)
    mean, nothing = law.mean[0] - axis.low, jnp.zeros(0, omega.dtype)
    gauss = gaussian_factor(none, omega, nothing, mean, jnp.zeros((0, 0), omega.dtype), nothing, law.covariance[0, 0])
    twice = jnp.full(omega.shape, 2.0, omega.dtype).at[0].set(1.0)
    value = masses * jnp.einsum("r,mr,mkr->mk", given.coefficients * twice * gauss[0], others, wave).real
    size, eps = jnp.abs(given.coefficients) * twice, jnp.finfo(omega.dtype).eps
    summed = eps * math.log2(omega.size + 1)  # B36
    rounding = jnp.hypot(
        size * (2 * plane.rounding[0] + summed * plane.size[0]), twice * given.roundoff * plane.size[0]
    )
    own = SIGMAS * jnp.sqrt(jnp.sum(rounding**2)) + given.tail + given.aliasing * (twice @ plane.size[0])
    moved = 4 * eps * given.slope * (scale + axis.length)
    return bounded(value, given.outside + given.bias + moved + masses * own)


def _product_of_others(factors: Array) -> Array:
    """`prod_{k != j} factors_k` for every j: `[m, R]`."""
    one = jnp.ones_like(factors[:1])
    before = jnp.concatenate([one, jnp.cumprod(factors[:-1], axis=0)])
    after = jnp.concatenate([jnp.cumprod(factors[:0:-1], axis=0)[::-1], one])
    return before * after

"""Latents whose encoders read statistics of the layer's output: their laws and series, with bounds."""

from operator import itemgetter
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model.encoder import AbstractEncoder
from ..model.feature_model import FeatureModel
from ..model.layer_forms import RidgeForm
from ..moments.reading import Reading
from ..moments.ridge_axis import RidgeAxis
from ..moments.statistic import Statistic
from ..spectral.projected_law import Projection
from ..spectral.resolution import Resolution
from ..types import Array, Float
from .encoder_functions import CodeTables, latent_mean
from .functions import Analytic
from .joint_law import Joint, Weight


class Orders(eqx.Module):
    """Highest frequency indices of the certificate's grids; all are choices.

    Of one feature's statistics, of pairs, of the ridge axis of each; and of the series that stand for latent means.
    """

    single: int = eqx.field(static=True)
    pair: int = eqx.field(static=True)
    single_ridge: int = eqx.field(static=True)
    pair_ridge: int = eqx.field(static=True)
    series: int = eqx.field(static=True)

    @classmethod
    def of(cls, resolution: Resolution, statistics: int) -> "Orders":
        """For encoders that read so many statistics."""
        N = resolution.frequencies
        if statistics == 1:
            return cls(4 * N, 4 * N, 8 * N, 4 * N, max(4, N // 2))
        return cls(2 * N, 2 * N, 4 * N, 4 * N, max(4, N // 4))


class Learnt(NamedTuple):
    """The codes of features whose encoders read statistics of `form`: `C = m R` of them, numbers for every atom.

    Each code has its feature's encoder, atoms and log masses of the target (repeated R times, then), and all R codes of
    its feature as `siblings`.
    """

    source: FeatureModel
    form: RidgeForm
    axis: RidgeAxis
    encoder: AbstractEncoder
    atoms: Float[Array, "C K"]
    code: Float[Array, "C K"]
    siblings: Float[Array, "C R K"]
    log_masses: Float[Array, "C K"]
    resolution: Resolution
    orders: Orders

    @classmethod
    def of(cls, source, layer, encoder, atoms, code: Float[Array, "m R K"], log_masses, resolution) -> "Learnt":
        """Those of a layer."""
        form, orders = layer.read_form(), Orders.of(resolution, encoder.statistics_read)
        R, K = code.shape[1:]
        arrays, static = eqx.partition((encoder, atoms, code, log_masses), eqx.is_array)
        repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, R, axis=0), arrays)
        encoder, atoms, siblings, log_masses = eqx.combine(repeated, static)
        axis = RidgeAxis.of(source, form, resolution)
        return cls(source, form, axis, encoder, atoms, code.reshape(-1, K), siblings, log_masses, resolution, orders)

    @property
    def own(self) -> np.ndarray:
        """The indices of the codes of each code's feature: `[C, R]`."""
        C, R = self.siblings.shape[:2]
        return np.arange(C)[:, None] // R * R + np.arange(R)[None]

    def joint(self, statistic: Statistic, readout: Array, order: int, ridge_order: int) -> Joint:
        """The law of statistics alone."""
        none = jnp.zeros_like(readout[0])
        weight = Weight(none, none, none[0])
        return Joint.of(self.source, self.form, readout, weight, statistic, self.axis.centre, (order, ridge_order))

    def of_codes(self, function, *more) -> tuple:
        """The statistic of every code; `function(encoder, tables, statistic, *more)`."""
        arrays, static = eqx.partition(self.encoder, eqx.is_array)
        reading = Reading(self.source, self.source, self.form, self.axis, self.resolution)

        def one(given):
            """One code."""
            arrays, tables, *more = given
            encoder = eqx.combine(arrays, static)
            statistic = Statistic.of(reading, encoder.readout)
            return statistic, function(encoder, tables, statistic, *more)

        tables = CodeTables(self.atoms, self.code, self.siblings, self.log_masses)
        return jax.lax.map(one, (arrays, tables, *more))

    def of_pairs(self, function, tables, first: np.ndarray, second: np.ndarray):
        """`function(joint law, table, table)` of every pair."""

        def one(given):
            """One pair."""
            (left, a), (right, b) = (jax.tree.map(itemgetter(i), tables) for i in given)
            readout = jnp.concatenate([self.encoder.readout[i] for i in given])
            joint = self.joint(_side_by_side(left, right), readout, self.orders.pair, self.orders.pair_ridge)
            return function(joint, a, b)

        return jax.lax.map(one, (jnp.asarray(first), jnp.asarray(second)))

    def mean_of(self, j: Array, code: Float[Array, " K"] | None = None) -> Analytic:
        """The mean of the code of that index, or of another of its feature, less its middle; of one statistic."""
        arrays, static = eqx.partition(self.encoder, eqx.is_array)
        one = eqx.combine(jax.tree.map(itemgetter(j), arrays), static)
        return latent_mean(one, self.atoms[j], self.code[j] if code is None else code)


def _side_by_side(left: Statistic, right: Statistic) -> Statistic:
    """The statistics of two features as those of one, in the coordinates of each."""
    t = left.dimension
    both = lambda a, b: jnp.concatenate([a, b])  # noqa: E731
    none = jnp.zeros((t, t), left.low.dtype)
    law = Projection(
        both(left.law.mean, right.law.mean),
        both(left.law.atoms, right.law.atoms),
        left.law.masses,
        jnp.zeros((2 * t, 2 * t), left.low.dtype),  # nobody reads it: of the noise `Joint` asks the source
    )
    return Statistic(
        centre=both(left.centre, right.centre),
        basis=jnp.block([[left.basis, none], [none, right.basis]]),
        low=both(left.low, right.low),
        length=both(left.length, right.length),
        law=law,
        cross=both(left.cross, right.cross),
        shear=both(left.shear, right.shear),
        coefficient=both(left.coefficient, right.coefficient),
        middle=both(left.middle, right.middle),
        still=both(left.still, right.still),
        rows=both(left.rows, right.rows),
    )

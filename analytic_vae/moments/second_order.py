"""What two features do together: second-order effects on every unit of a layer, all from laws of one projection."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from .._sharding import sharded_map
from ..model.dense_layer import DenseLayer
from ..model.feature_model import FeatureModel
from ..types import Array, Float
from .conditional import perturb_masses
from .reading import Reading
from .spectrum import Block
from .statistic import Statistic
from .units import DenseMoments

TOGETHER = 16  # states pinned at once


def second_effects(
    source: FeatureModel, layer: DenseLayer, moments: DenseMoments, mesh: Mesh | None = None
) -> Float[Array, "h m K m K"]:
    """`E[psi | a, b] - E[psi | a] - E[psi | b] + E psi` for all states `z_l = a`, `z_k = b` of two features.

    The second order of the functional ANOVA (Hoeffding); zero where `l = k`, and for states of no mass. From the units'
    short series, as the covariances of pairs are: what is linear in the input has no such effects.
    """
    units, reading = moments.units, Reading.of(source, layer, moments.resolution)
    items = layer.weight, units.statistic.low, units.statistic.length, units.series
    return sharded_map(_one_unit, reading, items, mesh)


def _one_unit(reading: Reading, weight, low, length, series) -> Float[Array, "m K m K"]:
    grid = reading.axis.pair_grid(reading.resolution)
    statistic = Statistic.of(reading, weight[None], box=(low, length))
    plain, still = Block.of(statistic, grid, series.frequency).plain, jnp.zeros(1, low.dtype)

    def expectation(masses_tilt: Float[Array, "m K"]) -> Array:
        tilted_grid = eqx.tree_at(lambda g: g.law, grid, perturb_masses(grid.law, masses_tilt, still))
        tilted = eqx.tree_at(lambda s: s.law, statistic, perturb_masses(statistic.law, masses_tilt, still))
        phi = jnp.sum(tilted.factors(series.frequency, tilted_grid).product() * plain, axis=1)
        return jnp.sum((series.coefficients * phi).real)

    masses = reading.source.prior.masses
    none, pinned = jnp.zeros_like(masses), jax.grad(expectation)
    row = lambda one: jax.jvp(pinned, (none,), (one.reshape(masses.shape),))[1]  # noqa: E731
    both = jax.lax.map(row, jnp.eye(masses.size, dtype=masses.dtype), batch_size=TOGETHER)
    safe = jnp.where(masses > 0, masses, 1)
    single = pinned(none) / safe
    found = both.reshape(*masses.shape, *masses.shape) / (safe[:, :, None, None] * safe[None, None])
    found = found - single[:, :, None, None] - single[None, None] + expectation(none)
    apart = ~jnp.eye(masses.shape[0], dtype=bool)[:, None, :, None]
    there = (masses > 0)[:, :, None, None] & (masses > 0)[None, None]
    return jnp.where(apart & there, found, 0)

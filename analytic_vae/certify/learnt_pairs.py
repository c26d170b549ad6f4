"""Second moments of all pairs of learnt features, with bounds of the errors."""

import jax
import jax.numpy as jnp
import numpy as np

from ..moments.quadrature_rule import StatisticLaw, least_squares_series
from ..types import Array, Float
from .ball import Ball, Bounded
from .box_series import box_coefficients, expectations, frequencies
from .encoder_functions import MEAN, encoder_functions, middle_and_half
from .joint_law import waves
from .learnt import Learnt
from .pairs import Parts, by_parts, by_series


def _second_moments(learnt: Learnt, gram: Ball, middles, mean: Bounded, own: Bounded) -> Ball:
    """`T3 = sum_jk H_jk E s_j s_k`, from moments of `s_j` less the middle of its code (B68).

    `own: [C, R]` are those of two codes of one feature.
    """
    C, R = own.value.shape
    first, second = np.triu_indices(C, 1)
    apart = first // R != second // R
    first, second = first[apart], second[apart]
    here = np.arange(C)[:, None], learnt.own
    values, errors = (jnp.zeros_like(gram.value).at[here].set(found) for found in (own.value, own.error_bound))
    if first.size:
        pairs = _pair_moments(learnt, first, second, jnp.diagonal(values + errors))
        for one, other in ((first, second), (second, first)):
            values, errors = values.at[one, other].set(pairs.value), errors.at[one, other].set(pairs.error_bound)
    shift = middles[:, None] * Ball.of(mean)[None]
    whole = Ball.of(Bounded(values, errors)) + shift + shift.T + jnp.outer(middles, middles)
    return (gram * whole).sum()


def _pair_moments(learnt: Learnt, first: np.ndarray, second: np.ndarray, squares: Float[Array, " C"]) -> Bounded:
    """`E s_j s_k` of all pairs, from a short series for each latent mean and what that leaves out (B64, B65).

    `squares` are bounds of `E s_j^2`.
    """
    orders, resolution = learnt.orders, learnt.resolution
    t = learnt.encoder.statistics_read
    grid = learnt.axis.law_grid(resolution, t)

    def one_code(encoder, tables, statistic):
        """The statistic's short series for the mean, all coefficients of it, and `|r|` in L2 (B64)."""
        atoms, code, *_ = tables
        nodes = StatisticLaw.of(statistic, grid, resolution).nodes
        q = jnp.exp(jax.vmap(lambda y: encoder.log_masses(y, atoms))(nodes.points))
        means = q @ (code - middle_and_half(code)[0])
        series, _ = jax.lax.stop_gradient(least_squares_series(statistic, nodes, means, orders.series))
        joint = learnt.joint(statistic, encoder.readout, orders.pair, orders.single_ridge)
        functions = encoder_functions(encoder, tables, statistic, joint.axes, series)
        coefficients = box_coefficients(joint.axes, *functions)
        found = waves(joint, frequencies(joint.axes, coefficients.index), weighted=False)
        plain, _ = expectations(joint, found, coefficients, MEAN)
        return Parts(series, coefficients, jnp.sqrt(jnp.maximum(plain.high[-1], 0)))

    statistics, found = learnt.of_codes(one_code)
    if t == 1:
        return learnt.of_pairs(lambda joint, a, b: by_parts(joint, a, b, MEAN), (statistics, found), first, second)
    norms = jnp.stack([jnp.sqrt(jnp.maximum(squares, 0)), found.rest], axis=1)

    def one_pair(joint, a, b):
        """B65."""
        return by_series(joint, a[0], b[0], jnp.stack([a[1], b[1]]))

    return learnt.of_pairs(one_pair, (statistics, (found.series, norms)), first, second)

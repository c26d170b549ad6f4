"""Covariances of latent means with each other and with the input: what is linear is exact, the rest is expanded.

A latent mean is `s = E s + <slope, y - E y> + r(y)` with the slope of its regression on the statistics `y = C f(x)`.
The mean and covariance of `f` are known (`LayerMoments`), so only `r` needs series: their errors shrink with `r`, and
a latent that hardly varies, or hardly differs from a linear one, has covariances that are right relative to itself.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ..model.feature_model import FeatureModel
from ..model.matrices import diagonal, with_diagonal
from ..spectral.fourier import Series
from ..types import Array, Float, Scalar
from .layer_moments import LayerMoments
from .pairs import pair_covariances
from .quadrature_rule import StatisticLaw, law_series, least_squares_series
from .reading import Reading
from .ridge_axis import RidgeGrid
from .statistic import Statistic, inverse_basis


class StatisticFunction(eqx.Module):
    """A function `s` of one feature's statistics as its regression on them and the rest `r`, of mean zero.

    Fields: `mean = E s`; `slope: [t]`, `ds / dy`; the series of `r` and the L2 norm of what it leaves out;
    `variance = E r^2`; `input_rest = Cov(x1, r): [n1]`, `psi_rest = Cov(psi, r)`, and `states = E[1{z_l = a_lk} r]:
    [m1, K1]`.
    """

    statistic: Statistic
    mean: Scalar
    slope: Float[Array, " t"]
    series: Series
    remainder: Scalar
    variance: Scalar
    input_rest: Float[Array, " n1"]
    psi_rest: Scalar
    states: Float[Array, "m1 K1"]

    def with_compressed_law(self, pairs: Reading, readout: Float[Array, "t n2"]) -> "StatisticFunction":
        """The same with the statistics of a source of fewer atoms and the same moments: as good for pairs."""
        box = self.statistic.low, self.statistic.length
        scale = lambda _: diagonal(self.statistic.basis)  # noqa: E731
        short = Statistic.of(pairs, readout, box=box, scale=scale)
        return eqx.tree_at(lambda one: one.statistic, self, short)

    @classmethod
    def of(
        cls,
        reading: Reading,
        law: StatisticLaw,
        values: Float[Array, " Q"],
        tangent: tuple[Scalar, Float[Array, " t"]] | None = None,
        order: int | None = None,
        least: Scalar | float = 0.0,
        shorter: bool = False,
    ) -> "StatisticFunction":
        """From the values at the nodes of `s`, less `s` at the mean, which is `tangent[0]` (0 if not given).

        The series has frequencies up to `order`, by default the resolution's own; `least` is as in `least_squares`,
        `shorter` asks for `Series.shorter`.

        The slope is that of the regression if the covariance of `y''` is 1 (it is but for two aligned statistics); with
        another slope only `r` would be larger. Where a statistic does not vary it is `ds / dy`, `tangent[1]`, so that
        all is right to the first order in the readout.
        """
        statistic, nodes, form = law.statistic, law.nodes, reading.form
        weights, base = nodes.weights, 0.0 if tangent is None else tangent[0]
        points = statistic.low[None] + statistic.length[None] * nodes.box
        mean = weights @ values
        slope = ((values - mean) * weights) @ points
        # The rule may have a variance far from 1, of rare values that it does not resolve: no slope is made of them.
        slope = slope / jnp.maximum(1, jnp.abs(jax.lax.stop_gradient(weights @ points**2)))
        if tangent is not None:
            slope = jnp.where(statistic.still, statistic.basis.T @ tangent[1], slope)
        rest = values - mean - points @ slope
        rest = rest - weights @ rest / weights.sum()
        whole = law_series(law, rest)
        conditional, psi_rest = law.spectrum.moments(whole)
        rows = jnp.concatenate([statistic.rows, form.direction[None, :]])
        input_rest = conditional.with_input(reading.source, rows, weights @ rest)
        order = order or law.resolution.series_order(statistic.dimension, form.activation is None)
        series, remainder = least_squares_series(statistic, nodes, rest, order, least, shorter)
        slope = inverse_basis(statistic.basis).T @ slope
        variance = weights @ rest**2
        return cls(statistic, base + mean, slope, series, remainder, variance, input_rest, psi_rest, conditional.states)


def linear_parts(
    covariance: Float[Array, "n1 n1"],
    left: Float[Array, "C n1"],
    right: Float[Array, "C2 n1"],
    left_rest: Float[Array, "C n1"],
    right_rest: Float[Array, "C2 n1"],
) -> Float[Array, "C C2"]:
    """`Cov(<a, x> + r, <b, x> + r')` less `Cov(r, r')`, from the rows `a`, `b` and `Cov(x, r)`, `Cov(x, r')`."""
    return left @ covariance @ right.T + left @ right_rest.T + left_rest @ right.T


class Covariances(eqx.Module):
    """`Cov(s): [m, m]`, `Cov(x1, s): [n1, m]` and `Cov(psi, s): [1, m]`; what shorter series change in the first."""

    latent: Float[Array, "m m"]
    input_latent: Float[Array, "n1 m"]
    psi_latent: Float[Array, "1 m"]
    change: Float[Array, "m m"]


def latent_covariances(
    source: FeatureModel,
    moments: LayerMoments,
    readout: Float[Array, "m t n2"],
    latents: StatisticFunction,
    grid: RidgeGrid,
    size: int,
    mesh: Mesh | None = None,
) -> Covariances:
    """The covariances of all latents (stacked on a leading axis): `s = E s + A (f - E f) + r`, `A = slope' C`."""
    rows = latents.statistic.rows
    noise = jnp.einsum("jtn,nl,ksl->jtks", rows, source.covariance, rows)
    pairs, change = pair_covariances(latents.statistic, noise, latents.series, grid, size, mesh)
    rest = pairs + with_diagonal(latents.variance, len(rows))
    gain = jnp.einsum("jt,jtn->jn", latents.slope, readout)
    cross = gain @ moments.form.mapped(latents.input_rest.T, latents.psi_rest[None])
    with_input, with_psi = moments.of_output()
    latent = gain @ moments.output_covariance(with_input, with_psi) @ gain.T + cross + cross.T + rest
    with_psi = (gain @ with_psi).T + latents.psi_rest[None]
    return Covariances(latent, with_input.T @ gain.T + latents.input_rest.T, with_psi, change)

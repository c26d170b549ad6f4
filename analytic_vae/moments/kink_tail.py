"""What a law's frequencies miss of a function with kinks, where no noise makes the characteristic function decay."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from ..model.feature_model import FeatureModel
from ..spectral.characteristic import waves
from ..spectral.fourier import window
from ..spectral.resolution import Resolution
from ..types import Array, Complex, Float, Scalar
from .ridge_axis import RidgeGrid
from .spectrum import Block
from .statistic import Statistic
from .statistic_function import StatisticFunction

TAIL = 16  # times the frequencies of a law, up to which its tail goes


class KinkTail(eqx.Module):
    """What a law's frequencies miss of a function with kinks: coefficients that fall as `w^-2`, known in closed form.

    Where the slope jumps by J at t, `c_k = -J window(t) exp(-i w_k t) / (length w_k^2)` up to what falls faster. A law
    with noise has no such frequencies; one without has them all, and each costs one product over features.

    Fields, in coordinates of the box's statistic `y''`: `frequency: [W, 1]`, beyond those of the law; `places: [k]`,
    `jumps: [k]`, of the slope, times the window; `values: [k]`, of the function; `length` of the box.
    """

    frequency: Float[Array, "W 1"]
    places: Float[Array, " k"]
    jumps: Float[Array, " k"]
    values: Float[Array, " k"]
    length: Scalar

    @classmethod
    def of(
        cls, function: Callable, kinks: Float[Array, " k"], bias: Scalar, statistic: Statistic, resolution: Resolution
    ) -> "KinkTail":
        """Of `function(y + bias)`, with kinks of the function, on the box of its statistic y."""
        order, near = resolution.law_order(1), 1e-4
        scale, length = statistic.basis[0, 0], statistic.length[0]
        slope = jax.vmap(jax.grad(function))
        places = (kinks - bias - statistic.centre[0]) / scale
        v = (places - statistic.low[0]) / length
        # A statistic that does not vary has no law to miss frequencies of.
        inside = jnp.where((v > 0) & (v < 1) & ~statistic.still[0], window(v, order), 0)
        jumps = inside * scale * (slope(kinks + near) - slope(kinks - near))
        index = jnp.arange(order + 1, TAIL * order + 1, dtype=kinks.dtype)
        return cls((2 * jnp.pi / length * index)[:, None], places, jumps, function(kinks), length)

    def coefficients(self, jumps: Float[Array, " k"]) -> Complex[Array, " W"]:
        """Of the half-space, for these jumps."""
        w = self.frequency[:, 0]
        return -2 / (self.length * w**2) * (jnp.conj(waves(self.frequency, self.places[None])) @ (jumps + 0j))

    def added_to(self, latent: StatisticFunction, source: FeatureModel, grid: RidgeGrid) -> StatisticFunction:
        """The latent with the tail in its mean, variance and covariances; its short series stays."""
        block = Block.of(latent.statistic, grid, self.frequency)
        phi = block.characteristic()
        expectation = lambda jumps: jnp.sum((self.coefficients(jumps) * phi).real)  # noqa: E731
        conditional, _ = block.moments(self.coefficients(self.jumps))
        mean = expectation(self.jumps)
        scale = latent.statistic.basis[0, 0]
        rest = self.values - latent.mean - latent.slope[0] * scale * self.places
        rows = jnp.concatenate([latent.statistic.rows, jnp.zeros_like(latent.statistic.rows)])
        input_rest = conditional.with_input(source, rows, mean) - source.moments()[0] * mean
        return eqx.tree_at(
            lambda one: (one.mean, one.variance, one.input_rest, one.states),
            latent,
            (
                latent.mean + mean,
                latent.variance + expectation(2 * rest * self.jumps) - mean**2,
                latent.input_rest + input_rest,
                latent.states + conditional.states - source.prior.masses * mean,
            ),
        )

"""All units of a full-width layer at once: functions of one projection of the input each, and of pairs of them.

A unit `psi_i(<U_i, x> + c_i)` is what a latent mean of a linear layer is: a function of a linear statistic. So the law
of each, what it has in common with the input, and the covariances of all pairs come from the same engine, with the
input itself as the "output" of an identity. Nothing here depends on an encoder: while one is learnt, it stays.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ..layer import DenseForm, DenseLayer
from ..model import FeatureModel
from ..parallel import PAIRS_ON_CPU, spread, together
from ..types import Array, Complex, Float, Scalar
from .characteristic import times, waves
from .expectation import statistic_nodes
from .latents import Latent, compressed_axis, linear_parts
from .memory import pair_values
from .pairs import cross_covariances, pair_covariances
from .resolution import Resolution
from .ridge import RidgeAxis, RidgeGrid
from .series import window
from .spectrum import Block, Spectrum
from .statistic import Statistic

TAIL = 16  # times the frequencies of a unit's law, for what its kinks leave beyond them
FINER = 8  # laws of one unit are cheap, and all else starts from them


class DenseMoments(eqx.Module):
    """First and second moments of `x1`, of all units `psi`, and from them of `f(x1)`.

    Fields: `input_mean: [n1]`, `input_covariance: [n1, n1]`; `psi: [h]`, `psi_covariance: [h, h]`, `psi_input =
    Cov(x1, psi): [n1, h]`, and `psi_states = E[1{z_l = a_lk} (psi - E psi)]: [h, m1, K1]`; `units`, their laws and
    series, a leading axis `h`; `misfit: [h]`, how far mass, mean and variance of each law are from the exact ones;
    `resolution`, at which all that was computed. `remainder: [h]` is the L2 norm of what each series leaves out; a
    covariance of two units is off by about the product of two, but where the source has no noise: there what is left
    out of one is not orthogonal to the other, and finer resolutions tell.
    """

    form: DenseForm
    input_mean: Float[Array, " n1"]
    input_covariance: Float[Array, "n1 n1"]
    psi: Float[Array, " h"]
    psi_covariance: Float[Array, "h h"]
    psi_input: Float[Array, "n1 h"]
    psi_states: Float[Array, "h m1 K1"]
    units: Latent
    misfit: Float[Array, " h"]
    resolution: Resolution = eqx.field(static=True)

    @classmethod
    def of(
        cls, source: FeatureModel, layer: DenseLayer, resolution: Resolution, mesh: Mesh | None = None
    ) -> "DenseMoments":
        """The moments of a layer whose input is `source`."""
        form, read = layer.form(), layer.read_form()
        axis = RidgeAxis.of(source, read, resolution)
        compressed, pair_axis = compressed_axis(source, read, axis, resolution)
        fine = resolution.times(FINER)
        places = jnp.asarray(layer.kinks, source.mean.dtype)

        @jax.checkpoint
        def one_unit(everywhere, weight, bias, index):
            source, compressed, form, axis, pair_axis, covariance = everywhere
            readout = weight[None]
            statistic = Statistic.of(source, form, readout, axis, resolution)
            spectrum = Spectrum.of(statistic, axis.law_grid(fine, 1), fine)
            kinks = places[None] - bias if places.size else None
            nodes = statistic_nodes(spectrum, fine, kinks)
            values = layer.one_unit(index, nodes.points[:, 0] + bias)
            order = resolution.series_order(1, linear=True)
            latent = Latent.of(source, form, spectrum, nodes, fine, values, kinks, order)
            if places.size:
                tail = KinkTail.of(lambda s: layer.one_unit(index, s), places, bias, statistic, fine)
                latent = tail.added_to(latent, source, axis.law_grid(fine, 1))
            misfit = nodes.misfit(statistic, readout @ covariance @ readout.T)
            # Of what its short series has, as pairs see it: the states of all features, pinned.
            kept, _ = Block.of(statistic, axis.pair_grid(resolution), latent.series.frequency).moments(
                latent.series.coefficients
            )
            kept = kept.states - source.prior.masses * kept.states.sum(axis=1, keepdims=True)
            return latent.for_pairs(compressed, form, readout, pair_axis, resolution), misfit, kept

        mean, covariance = source.moments()
        everywhere = source, compressed, read, axis, pair_axis, covariance
        items = form.weight, form.bias, jnp.arange(layer.units)
        units, misfit, kept = spread(one_unit, everywhere, items, mesh)
        gain, rows = units.slope * form.weight, units.input_rest
        size = together(
            layer.units * max(1, layer.units // 2),
            pair_values(compressed, 1, True, resolution),
            PAIRS_ON_CPU,
            source.mean.dtype,
            mesh,
        )
        noise = jnp.einsum("in,nl,kl->ik", *(units.statistic.rows[:, 0], source.covariance, units.statistic.rows[:, 0]))
        grid = pair_axis.pair_grid(resolution)
        rest = pair_covariances(units.statistic, noise[:, None, :, None], units.series, grid, size, mesh)
        rest = rest + _off_diagonal(main_effects(source, units.states) - main_effects(source, kept))
        psi_covariance = linear_parts(covariance, gain, gain, rows, rows) + rest + jnp.diag(units.variance)
        states = units.states + jnp.einsum("in,nmk->imk", gain, state_covariance(source))
        with_input = covariance @ gain.T + rows.T
        return cls(form, mean, covariance, units.mean, psi_covariance, with_input, states, units, misfit, resolution)

    @property
    def remainder(self) -> Float[Array, " h"]:
        """L2 norm of what the series leave out of each unit."""
        return self.units.remainder

    def output(self) -> tuple[Float[Array, " n2"], Float[Array, "n2 n2"]]:
        """Mean and covariance of `f(x1)`."""
        form = self.form
        with_input = form.mapped(self.input_covariance, self.psi_input.T)
        with_psi = form.mapped(self.psi_input, self.psi_covariance)
        covariance = form.mapped(with_input.T, with_psi.T)
        return form.mapped(self.input_mean, self.psi) + form.offset, (covariance + covariance.T) / 2

    def with_latents(
        self,
        source: FeatureModel,
        latents: Latent,
        gain: Float[Array, "C n1"],
        grid: RidgeGrid,
        size: int,
        mesh: Mesh | None = None,
    ) -> Float[Array, "h C"]:
        """`Cov(psi, s)` with functions `s = E s + <gain, x1 - E x1> + r` of other projections of the input."""
        units = self.units
        rows, others = units.statistic.rows, latents.statistic.rows
        noise = jnp.einsum("itn,nl,ksl->itks", rows, source.covariance, others)
        left, right = (units.statistic, units.series), (latents.statistic, latents.series)
        rest = cross_covariances(left, right, noise, grid, size, mesh)
        own = units.slope * self.form.weight
        return linear_parts(self.input_covariance, own, gain, units.input_rest, latents.input_rest) + rest

    def unit_moments(self) -> tuple[Array, Array, Array, Array]:
        """`outputs: [n2, h]`, `E psi`, `E x1 psi'` and `E psi psi'`."""
        return (
            self.form.output,
            self.psi,
            self.psi_input + jnp.outer(self.input_mean, self.psi),
            self.psi_covariance + jnp.outer(self.psi, self.psi),
        )


def main_effects(source: FeatureModel, states: Float[Array, "h m1 K1"]) -> Float[Array, "h h"]:
    """`sum_l Cov(E[r_i | z_l], E[r_k | z_l])` from `E[1{z_l = a_lk} r]`: what single features make two have in common.

    Of the covariance of two functions these are exact, from laws of one projection. Pairs of short series are right
    about the rest: what the features do together.
    """
    masses = source.prior.masses
    root = jnp.sqrt(jnp.where(masses > 0, masses, 1))
    flat = (jnp.where(masses[None] > 0, states, 0) / root[None]).reshape(states.shape[0], -1)
    return flat @ flat.T


def _off_diagonal(matrix: Float[Array, "h h"]) -> Float[Array, "h h"]:
    return matrix - jnp.diag(jnp.diagonal(matrix))


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
        inside = jnp.where((v > 0) & (v < 1), window(v, order), 0)
        jumps = inside * scale * (slope(kinks + near) - slope(kinks - near))
        index = jnp.arange(order + 1, TAIL * order + 1, dtype=kinks.dtype)
        return cls((2 * jnp.pi / length * index)[:, None], places, jumps, function(kinks), length)

    def coefficients(self, jumps: Float[Array, " k"]) -> Complex[Array, " W"]:
        """Of the half-space, for these jumps."""
        w = self.frequency[:, 0]
        return -2 / (self.length * w**2) * (jnp.conj(waves(self.frequency, self.places[None])) @ (jumps + 0j))

    def added_to(self, latent: Latent, source: FeatureModel, grid: RidgeGrid) -> Latent:
        """The latent with the tail in its mean, variance and covariances; its short series stays."""
        block = Block.of(latent.statistic, grid, self.frequency)
        phi = block.characteristic()
        expectation = lambda jumps: jnp.sum(times(self.coefficients(jumps), phi).real)  # noqa: E731
        pinned, _ = block.moments(self.coefficients(self.jumps))
        mean = expectation(self.jumps)
        scale = latent.statistic.basis[0, 0]
        rest = self.values - latent.mean - latent.slope[0] * scale * self.places
        rows = jnp.concatenate([latent.statistic.rows, jnp.zeros_like(latent.statistic.rows)])
        input_rest = pinned.with_input(source, rows, mean) - source.moments()[0] * mean
        return eqx.tree_at(
            lambda one: (one.mean, one.variance, one.input_rest, one.states),
            latent,
            (
                latent.mean + mean,
                latent.variance + expectation(2 * rest * self.jumps) - mean**2,
                latent.input_rest + input_rest,
                latent.states + pinned.states - source.prior.masses * mean,
            ),
        )


def state_covariance(source: FeatureModel) -> Float[Array, "n1 m1 K1"]:
    """`Cov(x1, 1{z_l = a_lk})`."""
    masses, vectors = source.prior.masses, source.atom_vectors
    return masses[None] * (vectors - jnp.einsum("nmk,mk->nm", vectors, masses)[:, :, None])

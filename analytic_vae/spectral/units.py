"""All units of a full-width layer at once: functions of one projection of the input each, and of pairs of them.

A unit `psi_i(<U_i, x> + c_i)` is what a latent mean of a linear layer is: a function of a linear statistic. So the law
of each, what it has in common with the input, and the covariances of all pairs come from the same engine, with the
input itself as the "output" of an identity. Nothing here depends on an encoder: while one is learnt, it stays.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ..layer import DenseForm, DenseLayer
from ..model import FeatureModel
from ..parallel import PAIRS_ON_CPU, spread, together
from ..types import Array, Float
from .expectation import statistic_nodes
from .latents import Latent, compressed_axis, linear_parts
from .memory import pair_values
from .pairs import cross_covariances, pair_covariances
from .resolution import Resolution
from .ridge import RidgeAxis, RidgeGrid
from .spectrum import Spectrum
from .statistic import Statistic

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
            misfit = nodes.misfit(statistic, readout @ covariance @ readout.T)
            return latent.for_pairs(compressed, form, readout, pair_axis, resolution), misfit

        mean, covariance = source.moments()
        everywhere = source, compressed, read, axis, pair_axis, covariance
        items = form.weight, form.bias, jnp.arange(layer.units)
        units, misfit = spread(one_unit, everywhere, items, mesh)
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


def state_covariance(source: FeatureModel) -> Float[Array, "n1 m1 K1"]:
    """`Cov(x1, 1{z_l = a_lk})`."""
    masses, vectors = source.prior.masses, source.atom_vectors
    return masses[None] * (vectors - jnp.einsum("nmk,mk->nm", vectors, masses)[:, :, None])

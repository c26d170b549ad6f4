"""Mean and covariance of a layer's output, and how its projections answer to the source."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .._repr import short_repr
from ..model.conditioning import covariance_of, mean_of
from ..model.feature_model import FeatureModel
from ..model.layer_forms import LayerForm, RidgeForm
from ..types import Array, Float
from .ridge_axis import RidgeAxis


class LayerMoments(eqx.Module):
    """First and second moments of `x1`, of the units `psi` and, from them, of `f(x1)`.

    Fields: `input_mean: [n1]`, `input_covariance: [n1, n1]`; `psi = E[psi]: [h]`, `psi_covariance: [h, h]`, `psi_input
    = Cov(x1, psi): [n1, h]`, and `psi_states = E[1{z_j = a_jk} (psi - E psi)]: [h, m1, K1]` (in `Expectations.layer`
    over the atoms of the compressed source). All start from `psi - E psi`, so that one that hardly varies keeps its
    digits. A layer without units has one that nothing reads.
    """

    __repr__ = short_repr

    form: LayerForm
    input_mean: Float[Array, " n1"]
    input_covariance: Float[Array, "n1 n1"]
    psi: Float[Array, " h"]
    psi_covariance: Float[Array, "h h"]
    psi_input: Float[Array, "n1 h"]
    psi_states: Float[Array, "h m1 K1"]

    @staticmethod
    def of_ridge(source: FeatureModel, form: RidgeForm, axis: RidgeAxis) -> "LayerMoments":
        """The moments of a layer whose input is `source`."""
        mean, covariance = source.moments()
        psi = axis.mean
        rest = axis.values - psi
        if axis.rule is None:
            psi_covariance, states = jnp.zeros_like(mean), jnp.zeros_like(axis.law.masses)
        else:
            conditional, rows = axis.pinned(rest), form.direction[None, :]
            states, psi_covariance = conditional.states, conditional.with_input(source, rows, jnp.zeros_like(psi))
        variance = axis.weights @ rest**2
        shapes = psi[None], variance[None, None], psi_covariance[:, None], states[None]
        return LayerMoments(form.units(), mean, covariance, *shapes)

    def mixed(self, weights: Float[Array, " c"], sources: FeatureModel) -> "LayerMoments":
        """Of a mixture, from the moments of its components, on a leading axis."""
        psi, mean = self.psi, self.input_mean
        apart = psi - mean_of(weights, psi)[None]
        states = self.psi_states + jnp.einsum("ch,cmk->chmk", apart, sources.prior.masses)
        return LayerMoments(
            form=jax.tree.map(lambda leaf: leaf[0], self.form),
            input_mean=mean_of(weights, mean),
            input_covariance=covariance_of(weights, self.input_covariance, mean, mean),
            psi=mean_of(weights, psi),
            psi_covariance=covariance_of(weights, self.psi_covariance, psi, psi),
            psi_input=covariance_of(weights, self.psi_input, mean, psi),
            psi_states=mean_of(weights, states),
        )

    def unit_moments(self) -> tuple[Array, Array, Array, Array]:
        """`outputs: [n2, h]`, `E psi`, `E x1 psi'` and `E psi psi'`."""
        return (
            self.form.output,
            self.psi,
            self.psi_input + jnp.outer(self.input_mean, self.psi),
            self.psi_covariance + jnp.outer(self.psi, self.psi),
        )

    def of_output(self) -> tuple[Float[Array, "n2 n1"], Float[Array, "n2 h"]]:
        """`Cov(f, x1)` and `Cov(f, psi)`."""
        with_input = self.form.mapped(self.input_covariance, self.psi_input.T)
        return with_input, self.form.mapped(self.psi_input, self.psi_covariance)

    def output(self) -> tuple[Float[Array, " n2"], Float[Array, "n2 n2"]]:
        """Mean and covariance of `f(x1)`."""
        return self.form.mapped(self.input_mean, self.psi) + self.form.offset, self.output_covariance(*self.of_output())

    def output_covariance(self, with_input: Float[Array, "n2 n1"], with_psi: Float[Array, "n2 h"]):
        """`Cov(f): [n2, n2]`, from `Cov(f, x1)` and `Cov(f, psi)`."""
        covariance = self.form.mapped(with_input.T, with_psi.T)
        return (covariance + covariance.T) / 2

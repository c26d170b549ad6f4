"""Mean and covariance of a layer's output, and how its projections answer to the source."""

import equinox as eqx
import jax
import jax.numpy as jnp

from ..model.conditioning import covariance_of, mean_of
from ..model.feature_model import FeatureModel
from ..model.layer import RidgeForm
from ..types import Array, Float, Scalar
from .conditional import StateExpectations, perturb_masses
from .ridge_axis import RidgeAxis


class LayerMoments(eqx.Module):
    """First and second moments of `x1`, `psi = psi(b)` and, from them, of `f(x1)`.

    Fields: `input_mean: [n1]`, `input_covariance: [n1, n1]`; `psi = E[psi]`, `psi_variance`, `psi_covariance =
    Cov(x1, psi): [n1]`, and `psi_states = E[1{z_j = a_jk} (psi - E psi)]: [m1, K1]` (in `Expectations.layer` over the
    atoms of the compressed source). All start from `psi - E psi`, so that one that hardly varies keeps its digits.
    """

    form: RidgeForm
    input_mean: Float[Array, " n1"]
    input_covariance: Float[Array, "n1 n1"]
    psi: Scalar
    psi_variance: Scalar
    psi_covariance: Float[Array, " n1"]
    psi_states: Float[Array, "m1 K1"]

    @classmethod
    def of(cls, source: FeatureModel, form: RidgeForm, axis: RidgeAxis) -> "LayerMoments":
        """The moments of a layer whose input is `source`."""
        mean, covariance = source.moments()
        psi = axis.mean
        rest = axis.values - psi
        if axis.rule is None:
            psi_covariance, states = jnp.zeros_like(mean), jnp.zeros_like(axis.law.masses)
        else:
            rule = axis.rule

            def expectation(masses_tilt, shift):
                return rule.weights(perturb_masses(axis.law, masses_tilt, shift)) @ rest

            rows = form.direction[None, :]
            conditional = StateExpectations.of(expectation, axis.law.masses, rows)
            states, psi_covariance = conditional.states, conditional.with_input(source, rows, jnp.zeros_like(psi))
        return cls(form, mean, covariance, psi, axis.weights @ rest**2, psi_covariance, states)

    def mixed(self, weights: Float[Array, " c"], sources: FeatureModel) -> "LayerMoments":
        """Of a mixture, from the moments of its components, on a leading axis."""
        psi, mean, masses = self.psi, self.input_mean, sources.prior.masses
        with_psi = covariance_of(weights, self.psi_covariance[:, :, None], mean, psi[:, None])[:, 0]
        apart = psi - mean_of(weights, psi)
        return LayerMoments(
            form=jax.tree.map(lambda leaf: leaf[0], self.form),
            input_mean=mean_of(weights, mean),
            input_covariance=covariance_of(weights, self.input_covariance, mean, mean),
            psi=mean_of(weights, psi),
            psi_variance=mean_of(weights, self.psi_variance + apart**2),
            psi_covariance=with_psi,
            psi_states=mean_of(weights, self.psi_states + masses * apart[:, None, None]),
        )

    @property
    def psi_input(self) -> Float[Array, " n1"]:
        """`E[x1 psi]`."""
        return self.psi_covariance + self.input_mean * self.psi

    @property
    def psi_squared(self) -> Scalar:
        """`E[psi^2]`."""
        return self.psi_variance + self.psi**2

    def unit_moments(self) -> tuple[Array, Array, Array, Array]:
        """`output: [n2, 1]`, `E psi`, `E x1 psi` and `E psi^2`, as of a layer of one unit."""
        return self.form.output[:, None], self.psi[None], self.psi_input[:, None], self.psi_squared[None, None]

    def of_output(self) -> tuple[Float[Array, "n2 n1"], Float[Array, " n2"]]:
        """`Cov(f, x1)` and `Cov(f, psi)`."""
        with_input = self.form.mapped(self.input_covariance, self.psi_covariance)
        return with_input, self.form.mapped(self.psi_covariance, self.psi_variance)

    def output(self) -> tuple[Float[Array, " n2"], Float[Array, "n2 n2"]]:
        """Mean and covariance of `f(x1)`."""
        with_input, with_psi = self.of_output()
        mean = self.form.mapped(self.input_mean, self.psi) + self.form.offset
        return mean, self.form.mapped(with_input.T, with_psi)

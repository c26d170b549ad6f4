"""The ridge axis: the law of the one variable `b = <g, x> + bias` that a layer is not linear in."""

import equinox as eqx
import jax
import jax.numpy as jnp

from ..layer import RidgeForm
from ..model import FeatureModel
from ..types import Array, Complex, Float, Scalar
from .box import interval
from .projection import Projection, characteristic
from .quadrature import split_panels
from .resolution import Resolution
from .series import (
    MARGIN,
    density_weights,
    full_frequencies,
    full_operator,
    half_space,
    least_squares,
    real_basis,
    widen,
)


class Rule(eqx.Module):
    """Nodes of a box; given the law of `b`, the weights that turn sums over them into expectations."""

    low: Scalar
    length: Scalar
    nodes: Float[Array, " Q"]
    weight: Float[Array, " Q"]
    resolution: Resolution

    def weights(self, law: Projection) -> Float[Array, " Q"]:
        """`omega_q` with `E[h(b)] = sum_q omega_q h(nodes_q)`, differentiable in the law."""
        index = jnp.arange(self.resolution.ridge_order + 1, dtype=self.nodes.dtype)
        frequency = 2 * jnp.pi / self.length * index
        phi = jax.vmap(lambda w: characteristic(law, w[None]))(frequency) * jnp.exp(-1j * frequency * self.low)
        v = (self.nodes - self.low) / self.length
        return density_weights(phi, v, self.weight / self.length)


class RidgeAxis(eqx.Module):
    """The law of `b` as a quadrature rule: `E[h(b)] = sum_q weights_q h(nodes_q)`, and `psi` at the nodes.

    Of a linear layer it is one node of weight 1 where `psi` is 0, so the rest of the engine needs no second case.
    """

    law: Projection
    nodes: Float[Array, " Q"]
    weights: Float[Array, " Q"]
    values: Float[Array, " Q"]
    centre: Scalar
    rule: "Rule | None"

    @classmethod
    def of(cls, source: FeatureModel, form: RidgeForm, resolution: Resolution) -> "RidgeAxis":
        """The axis of a layer whose input is `source`."""
        law = Projection.of(source, form.direction[None, :], form.bias)
        if form.activation is None:
            one = jnp.ones_like(law.mean)
            return cls(law, 0 * one, one, 0 * one, 0 * one[0], None)
        c = resolution.log_inverse_mass
        # One variable is never nearly dependent, so its box may stand still: the kinks stay at their nodes.
        low, length = widen(*interval(jax.lax.stop_gradient(law), c))
        kinks = jnp.asarray(form.activation.kinks, low.dtype)
        nodes, weight = split_panels(low, low + length, kinks, resolution.ridge_panels)
        rule = Rule(low, length, nodes, weight, resolution)
        centre = jax.lax.stop_gradient(law.total_mean[0])
        return cls(law, nodes, rule.weights(law), form.activation(nodes), centre, rule)

    @property
    def linear(self) -> bool:
        """Whether the layer is linear: there is nothing to integrate over."""
        return self.rule is None

    def operator(self, order: int) -> tuple[Float[Array, " R"], Complex[Array, "R Q"]]:
        """Frequencies and the least-squares operator from `h(nodes)` to `c` with `h(b) ~ sum_r c_r exp(i omega_r b)`.

        One period is the part of the box where the window is 1.
        """
        if self.rule is None:
            return jnp.zeros_like(self.nodes), jnp.ones((1, 1), self.nodes.dtype) + 0j
        spacing = 2 * jnp.pi / (self.rule.length * (1 - 2 * MARGIN))
        half = spacing * jnp.asarray(half_space(order, 1)[:, 0], self.nodes.dtype)
        real = least_squares(real_basis((self.nodes - self.centre)[:, None] * half[None]), self.weights)
        frequency = full_frequencies(half)
        return frequency, full_operator(real) * jnp.exp(-1j * frequency * self.centre)[:, None]

"""The ridge axis: the law of the one variable `b = <g, x> + bias` that a layer is not linear in."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model.activation import Activation
from ..model.feature_model import FeatureModel
from ..model.layer_forms import RidgeForm
from ..spectral.box import interval, standard_deviation
from ..spectral.fourier import MARGIN, density_weights, full_frequencies, full_operator, half_space, real_basis, widen
from ..spectral.least_squares import least_squares
from ..spectral.projected_law import Projection, characteristic
from ..spectral.quadrature import even_steps, panel_edges, panel_interpolation, split_panels
from ..spectral.resolution import Resolution
from ..types import Array, Complex, Float, Scalar

STEPS, PLACES = 512, 4  # nodes between which an unknown activation is looked at, and places that are found


class Rule(eqx.Module):
    """Nodes of a box; given the law of `b`, the weights that turn sums over them into expectations."""

    low: Scalar
    length: Scalar
    nodes: Float[Array, " Q"]
    weight: Float[Array, " Q"]
    resolution: Resolution

    def weights(self, law: Projection) -> Float[Array, " Q"]:
        """`omega_q` with `E[h(b)] = sum_q omega_q h(nodes_q)`, differentiable in the law."""
        return self.of_characteristic(self.characteristic(law))

    def characteristic(self, law: Projection) -> Complex[Array, " W"]:
        """`phi(w_k) exp(-i w_k low)`."""
        index = jnp.arange(self.resolution.ridge_order + 1, dtype=self.nodes.dtype)
        frequency = 2 * jnp.pi / self.length * index
        return jax.vmap(lambda w: characteristic(law, w[None]))(frequency) * jnp.exp(-1j * frequency * self.low)

    def of_characteristic(self, phi: Complex[Array, " W"]) -> Float[Array, " Q"]:
        """The weights from that."""
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
    activation: Activation | None

    @classmethod
    def of(
        cls, source: FeatureModel, form: RidgeForm, resolution: Resolution, box: tuple[Array, Array] | None = None
    ) -> "RidgeAxis":
        """The axis of a layer whose input is `source`, on a given box `(low, length)` or its own."""
        law = Projection.of(source, form.direction[None, :], form.bias)
        if form.activation is None:
            one = jnp.ones_like(law.mean)
            return cls(law, 0 * one, one, 0 * one, 0 * one[0], None, None)
        c = resolution.log_inverse_mass
        # One variable is never nearly dependent, so its box may stand still: the kinks stay at their nodes.
        low, length = widen(*_wide_enough(jax.lax.stop_gradient(law), c)) if box is None else box
        places = split_places(form.activation, low, low + length)
        nodes, weight = split_panels(low, low + length, places, resolution.ridge_panels)
        rule = Rule(low, length, nodes, weight, resolution)
        centre = jax.lax.stop_gradient(law.total_mean[0])
        return cls(law, nodes, rule.weights(law), form.activation(nodes), centre, rule, form.activation)

    @property
    def base(self) -> Scalar:
        """`psi` at the centre: where b hardly varies, `psi` less it is small, and its derivatives are right."""
        return jnp.zeros_like(self.centre) if self.activation is None else self.activation(self.centre)

    @property
    def mean(self) -> Scalar:
        """`E psi`."""
        return self.base + self.weights @ (self.values - self.base)

    @property
    def box(self) -> tuple[Array, Array] | None:
        """`(low, length)`; of a linear layer None."""
        return None if self.rule is None else (self.rule.low, self.rule.length)

    @property
    def moment_error(self) -> Scalar:
        """How far mass, mean and variance on the box are from the exact ones, in units of the spread."""
        mean, variance = self.law.total_mean[0], self.law.total_covariance[0, 0]
        if self.rule is None:
            return jnp.zeros_like(mean)
        scale = jnp.maximum(standard_deviation(self.law)[0], jax.lax.stop_gradient(self.rule.length) / 100)
        points = (self.nodes - mean) / scale
        exact = jnp.stack([jnp.ones_like(mean), jnp.zeros_like(mean), variance / scale**2])
        return jnp.max(jnp.abs(jnp.stack([points**0, points, points**2]) @ self.weights - exact))

    @property
    def band_error(self) -> Scalar:
        """What nodes and frequencies of the axis lack of psi, relative to its spread. Without derivatives.

        The nodes of pairs are fewer: what their interpolation has wrong at those of the axis, in the mean square. And
        what the last quarter of the frequencies still adds to `E psi`, sizes summed.
        """
        if self.rule is None:
            return jnp.zeros_like(self.centre)
        axis = jax.lax.stop_gradient(self)
        rule, psi = axis.rule, axis.values
        centred = psi - axis.mean
        spread = jnp.sqrt(jnp.maximum(axis.weights @ centred**2, jnp.finfo(psi.dtype).tiny))
        nodes, interpolation = axis._panels(rule.resolution.pair_panels)
        missed = jnp.sqrt(jnp.maximum(axis.weights @ (psi - interpolation @ axis.activation(nodes)) ** 2, 0))
        phi = rule.characteristic(axis.law)
        (coefficients,) = jax.linear_transpose(rule.of_characteristic, phi)(centred)
        last = 3 * rule.resolution.ridge_order // 4
        band = jnp.abs(coefficients[last:]) @ jnp.abs(phi[last:])
        return jnp.where(
            spread > jnp.finfo(psi.dtype).eps * jnp.abs(psi).max(), (missed**2 / spread + band) / spread, 0
        )

    @property
    def linear(self) -> bool:
        """Whether the layer is linear: there is nothing to integrate over."""
        return self.rule is None

    def law_grid(self, resolution: Resolution, statistics: int) -> "RidgeGrid":
        """The grid for laws of that many statistics."""
        return self._grids([(resolution.law_ridge_order(statistics), resolution.law_panels)])[0]

    def pair_grid(self, resolution: Resolution) -> "RidgeGrid":
        """The grid for moments of two latent means."""
        return self._grids([(resolution.series_ridge_order, resolution.pair_panels)])[0]

    def grids(self, resolution: Resolution, statistics: int) -> tuple["RidgeGrid", "RidgeGrid"]:
        """`law_grid` and `pair_grid`, from one elimination."""
        asked = resolution.law_ridge_order(statistics), resolution.law_panels
        laws, pairs = self._grids([asked, (resolution.series_ridge_order, resolution.pair_panels)])
        return laws, pairs

    def _grids(self, asked: list[tuple[int, int]]) -> "list[RidgeGrid]":
        """Grids of such orders and numbers of panels."""
        # One period is the part of the box where the window is 1.
        if self.rule is None:
            one = jnp.ones((1, 1), self.nodes.dtype) + 0j
            return [RidgeGrid(self.law, jnp.zeros_like(self.nodes), self.nodes, self.values, one)] * len(asked)
        rule, most = self.rule, max(order for order, _ in asked)
        spacing = 2 * jnp.pi / (rule.length * (1 - 2 * MARGIN))
        half = spacing * jnp.asarray(half_space(most, 1)[:, 0], self.nodes.dtype)
        basis = real_basis((self.nodes - self.centre)[:, None] * half[None])
        index = np.concatenate([np.arange(most + 1), np.arange(1, most + 1)])  # of 1, cos, sin
        inside = np.stack([index <= order for order, _ in asked]).astype(basis.dtype)
        operators = jax.vmap(lambda kept: least_squares(basis * kept[None], self.weights))(jnp.asarray(inside))
        return [
            self._grid(half[: order + 1], panels, operator[index <= order])
            for (order, panels), operator in zip(asked, operators, strict=True)
        ]

    def _grid(self, half: Float[Array, " F"], panels: int, operator: Float[Array, "E P"]) -> "RidgeGrid":
        frequency = full_frequencies(half)
        nodes, interpolation = self._panels(panels)
        operator = full_operator(operator @ interpolation) * jnp.exp(-1j * frequency * self.centre)[:, None]
        return RidgeGrid(self.law, frequency, nodes - self.centre, self.activation(nodes), operator)

    def _panels(self, panels: int) -> tuple[Float[Array, " Q"], Float[Array, "P Q"]]:
        """Fewer nodes, and the interpolation from values there to those at the nodes of the axis."""
        low, high = self.rule.low, self.rule.low + self.rule.length
        return panel_interpolation(panel_edges(low, high, split_places(self.activation, low, high), panels), self.nodes)


def _wide_enough(law: Projection, log_inverse_mass: float) -> tuple[Scalar, Scalar]:
    """Where b lives, but no less than what can be told from its mean."""
    low, high = interval(law, log_inverse_mass)
    mean = jnp.abs(law.total_mean[0])
    still = jnp.abs(law.atoms).max() + law.covariance[0, 0] == 0
    least = jnp.finfo(low.dtype).eps ** (1 / 3) * jnp.where(still & (mean == 0), 1, mean)
    middle, half = (low + high) / 2, jnp.where(still, least, jnp.maximum(high - low, least)) / 2
    return middle - half, middle + half


def split_places(activation: Activation, low: Scalar, high: Scalar) -> Float[Array, " kinks"]:
    """Where quadrature over a box had better be split: kinks, and where the function moves most if nobody says."""
    kinks = jnp.asarray(activation.kinks, low.dtype)
    if activation.turns is not None:
        return jnp.concatenate([kinks, jnp.asarray(activation.breaks[::2], low.dtype)])
    nodes = jnp.sort(jnp.concatenate([low + (high - low) * jnp.linspace(0, 1, STEPS, dtype=low.dtype), kinks]))
    return jnp.concatenate([kinks, even_steps(nodes, activation(nodes), PLACES)])


class RidgeGrid(eqx.Module):
    """Functions of `b` as `h(b) ~ sum_r c_r exp(i omega_r b)`, from their values at few nodes: `c = operator @ h`.

    Fields: the law of `b`; `omega: [O]`; `offset: [Q]` (the nodes less the centre of the axis), `psi: [Q]` there.
    """

    law: Projection
    omega: Float[Array, " O"]
    offset: Float[Array, " Q"]
    psi: Float[Array, " Q"]
    operator: Complex[Array, "O Q"]

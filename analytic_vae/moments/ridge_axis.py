"""The ridge axis: the law of the one variable `b = <g, x> + bias` that a layer is not linear in."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model.activation import Activation
from ..model.feature_model import FeatureModel
from ..model.layer_forms import RidgeForm
from ..spectral.box import interval
from ..spectral.characteristic import Factors, cis, phases, waves
from ..spectral.fourier import MARGIN, density_table, full_frequencies, full_operator, half_space, real_basis, widen
from ..spectral.least_squares import least_squares
from ..spectral.projected_law import Projection
from ..spectral.quadrature import even_steps, panel_edges, panel_interpolation, split_panels
from ..spectral.resolution import Resolution
from ..types import Array, Bool, Complex, Float, Scalar
from .conditional import StateExpectations

STEPS, PLACES = 512, 4  # nodes between which an unknown activation is looked at, and places that are found


class Rule(eqx.Module):
    """Nodes of a box: `E[h(b)] = sum_q omega_q h(nodes_q)` with the weights `omega = Re(phi table)`.

    `table: [W, Q]` is that of `density_table`, so `table @ h` are coefficients: `E[h(b)] = Re sum_k c_k phi_k`.
    """

    low: Scalar
    length: Scalar
    frequency: Float[Array, " W"]
    table: Complex[Array, "W Q"]
    resolution: Resolution

    @classmethod
    def of(cls, low: Scalar, length: Scalar, nodes: Array, weight: Array, resolution: Resolution) -> "Rule":
        """With the Gauss weights of the nodes."""
        order = resolution.ridge_order
        frequency = 2 * np.pi / length * np.arange(order + 1, dtype=nodes.dtype)
        table = density_table(order, (nodes - low) / length, weight / length)
        return cls(low, length, frequency, table, resolution)

    def factors(self, law: Projection) -> Factors:
        """Of `phi_k = phi(w_k) exp(-i w_k low)`, `[W, 1]`."""
        w, first, rest = self.frequency, law.masses[:, 0], law.masses[:, 1:, None]
        gaussian = cis(w * (law.mean[0] - self.low)) * jnp.exp(-law.covariance[0, 0] * w**2 / 2)
        return Factors.of(first, phases(w[:, None], law.atoms), rest + 0j, gaussian[:, None])


class RidgeAxis(eqx.Module):
    """The law of `b` as a quadrature rule: `E[h(b)] = sum_q weights_q h(nodes_q)`, and `psi` at the nodes.

    Of a linear layer it is one node of weight 1 where `psi` is 0, so the rest of the engine needs no second case. Where
    `straight`, nothing that is asked is bent along it (`Reading.straightened`).
    """

    law: Projection
    nodes: Float[Array, " Q"]
    weights: Float[Array, " Q"]
    values: Float[Array, " Q"]
    centre: Scalar
    rule: "Rule | None"
    factors: Factors | None
    phi: Complex[Array, " W"] | None
    activation: Activation | None
    straight: Bool[Array, ""] | None = None

    @classmethod
    def of(
        cls, source: FeatureModel, form: RidgeForm, resolution: Resolution, box: tuple[Array, Array] | None = None
    ) -> "RidgeAxis":
        """The axis of a layer whose input is `source`, on a given box `(low, length)` or its own."""
        law = Projection.of(source, form.direction[None, :], form.bias)
        if form.activation is None:
            one = jnp.ones_like(law.mean)
            return cls(law, 0 * one, one, 0 * one, 0 * one[0], *[None] * 4)
        c = resolution.log_inverse_mass
        # One variable is never nearly dependent, so its box may stand still: the kinks stay at their nodes.
        low, length = widen(*_wide_enough(jax.lax.stop_gradient(law), c)) if box is None else box
        places = split_places(form.activation, low, low + length)
        nodes, weight = split_panels(low, low + length, places, resolution.ridge_panels)
        rule = Rule.of(low, length, nodes, weight, resolution)
        factors, centre = rule.factors(law), jax.lax.stop_gradient(law.total_mean[0])
        phi = factors.product()[:, 0]
        weights = (phi @ rule.table).real
        return cls(law, nodes, weights, form.activation(nodes), centre, rule, factors, phi, form.activation)

    def held(self, straight: Bool[Array, ""]) -> "RidgeAxis":
        """The same where nothing is bent along it: then nothing depends on its values, on masses all the same."""
        held = lambda leaf: jnp.where(straight, jax.lax.stop_gradient(leaf), leaf)  # noqa: E731
        law = Projection(held(self.law.mean), held(self.law.atoms), self.law.masses, held(self.law.covariance))
        return eqx.tree_at(lambda one: (one.law, one.straight), self, (law, straight), is_leaf=lambda a: a is None)

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
        """How far mass, mean and variance on the box are from the exact ones, in spreads. Without derivatives."""
        if self.rule is None:
            return jnp.zeros_like(self.centre)
        law, weights = jax.lax.stop_gradient((self.law, self.weights))
        variance = law.total_covariance[0, 0]
        scale = jnp.maximum(jnp.sqrt(variance), self.rule.length / 100)
        points = (self.nodes - self.centre) / scale
        wrong = jnp.stack([weights.sum() - 1, weights @ points, weights @ points**2 - variance / scale**2])
        return jnp.max(jnp.abs(wrong))

    @property
    def band_error(self) -> Scalar:
        """What nodes and frequencies of the axis lack of psi, relative to its spread. Without derivatives.

        The nodes of pairs are fewer: what their interpolation has wrong at those of the axis, in the mean square. And
        what the last quarter of the frequencies still adds to `E psi`, sizes summed.
        """
        if self.rule is None:
            return jnp.zeros_like(self.centre)
        weights, psi, mean, phi = jax.lax.stop_gradient((self.weights, self.values, self.mean, self.phi))
        centred, kind = psi - mean, jnp.finfo(psi.dtype)
        spread = jnp.sqrt(jnp.maximum(weights @ centred**2, kind.tiny))
        nodes, interpolation = self._panels(self.rule.resolution.pair_panels)
        missed = jnp.maximum(weights @ (psi - interpolation @ self.activation(nodes)) ** 2, 0)
        last = 3 * self.rule.resolution.ridge_order // 4
        band = jnp.abs(self.rule.table[last:] @ centred) @ jnp.abs(phi[last:])
        return jnp.where(spread > kind.eps * jnp.abs(psi).max(), (missed / spread + band) / spread, 0)

    def pinned(self, values: Float[Array, " Q"]) -> StateExpectations:
        """How `E[h(b)]` answers to the source, from the values of `h` at the nodes; not of a linear layer."""
        assert self.rule is not None and self.factors is not None and self.phi is not None
        coefficients = (self.rule.table @ values)[:, None]
        slope = -self.rule.frequency @ (coefficients[:, 0] * self.phi).imag
        return StateExpectations(self.factors.pinned(coefficients), slope[None])

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
        if self.straight is not None:
            constant = (index == 0)[:, None] * np.full(basis.shape[0], 1 / basis.shape[0], basis.dtype)[None]
            operators = jnp.where(self.straight, constant[None], operators)
        return [
            self._grid(half[: order + 1], panels, operator[index <= order])
            for (order, panels), operator in zip(asked, operators, strict=True)
        ]

    def _grid(self, half: Float[Array, " F"], panels: int, operator: Float[Array, "E P"]) -> "RidgeGrid":
        frequency = full_frequencies(half)
        nodes, interpolation = self._panels(panels)
        law = eqx.tree_at(lambda one: one.mean, self.law, self.law.mean - self.centre)
        values = self.activation(nodes)
        return RidgeGrid(law, frequency, nodes - self.centre, values, full_operator(operator @ interpolation))

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
    nodes = jnp.sort(jnp.concatenate([low + (high - low) * np.linspace(0, 1, STEPS, dtype=low.dtype), kinks]))
    return jnp.concatenate([kinks, even_steps(nodes, activation(nodes), PLACES)])


class RidgeGrid(eqx.Module):
    """Functions of `b` as `h ~ sum_r c_r exp(i omega_r (b - centre))`, from values at few nodes: `c = operator @ h`.

    Fields: the law of `b - centre`; `omega: [O]`; `offset: [Q]`, the nodes less the centre, and `psi: [Q]` there.
    """

    law: Projection
    omega: Float[Array, " O"]
    offset: Float[Array, " Q"]
    psi: Float[Array, " Q"]
    operator: Complex[Array, "O Q"]

    def table(self) -> Complex[Array, "m J O"]:
        """`p_k exp(i omega_r e_k)` for all atoms but the first of the features of `b`."""
        atoms, masses = self.law.atoms[0], self.law.masses
        half = waves(self.omega[: self.omega.size // 2 + 1, None], atoms[None, :, 1:])
        return masses[:, 1:, None] * jnp.moveaxis(jnp.concatenate([half, jnp.conj(half[1:])]), 0, -1)

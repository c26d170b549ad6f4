"""The law of a few projections of a dense layer's output that involve few of its units.

`Y = a + sum_u C_u psi_u(b_u)` with `a` linear in the input. On a box of each `b_u`, with `omega` its frequencies,

    E exp(i <w, Y>) = sum_k E exp(i <w, a> + i <omega_k, b>) prod_u c_uk(w),
    c_uk(w) = (1 / length_u) int exp(i <w, C_u> psi_u(b) - i omega_k b) window(b) db,

which is Lemma 3.4 of the paper without binning, for more than one non-linear direction.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..model.activation import Activation
from ..model.feature_model import FeatureModel
from ..model.layer_forms import LayerForm
from ..spectral.box import interval
from ..spectral.characteristic import cis, matmul, product_over_features
from ..spectral.fourier import half_grid, widen, window
from ..spectral.projected_law import Projection
from ..spectral.quadrature import panel_count, split_panels
from ..spectral.resolution import Resolution
from ..types import Array, Complex, Float, Scalar

AT_ONCE = 2**22  # complex numbers of all features held together


def unit_law(
    source: FeatureModel, form: LayerForm, activations: tuple[Activation, ...], resolution: Resolution
) -> tuple[Float[Array, " D"], Float[Array, " D"], Complex[Array, " W"]]:
    """Box `(low, length)` of `Y = f(x): [D]`, a layer of units of these activations, and `E exp(i <w, Y - low>)`.

    The frequencies are those of the half grid of the box, of the order that `resolution` has for D projections.
    """
    coefficients, (D, U) = form.output, form.output.shape
    rows, constants = jnp.concatenate([form.linear, form.weight]), jnp.concatenate([form.offset, form.bias])
    joint = Projection.of(source, rows, constants)
    c, order = resolution.log_inverse_mass, resolution.law_order(U)
    axes = [UnitAxis.of(joint.alone(D + u), activation, order, c) for u, activation in enumerate(activations)]
    low, length = _box(joint, coefficients, axes, c)
    frequency = 2 * jnp.pi * jnp.asarray(half_grid(resolution.law_order(D), D), low.dtype) / length[None]
    omega = jnp.asarray(_full_grid(order, U), low.dtype) * jnp.stack([axis.step for axis in axes])[None]

    S, mean, masses = joint.covariance, joint.mean, joint.masses
    of_units = cis(jnp.einsum("umk,ou->mko", joint.atoms[D:, :, 1:], omega)) * masses[:, 1:, None]
    units_quadratic = jnp.einsum("ou,uv,ov->o", omega, S[D:, D:], omega)

    def block(w):
        of_rows = cis(jnp.einsum("wd,dmk->mwk", w, joint.atoms[:D, :, 1:]))
        features = product_over_features(masses[:, 0], of_rows, of_units)
        quadratic = jnp.einsum("wd,de,we->w", w, S[:D, :D], w)[:, None] + 2 * (w @ S[:D, D:]) @ omega.T
        turn = (w @ (mean[:D] - low))[:, None] + (omega @ mean[D:])[None]
        product = features * cis(turn) * jnp.exp(-(quadratic + units_quadratic[None]) / 2)
        product = product.reshape(w.shape[0], *[2 * order + 1] * U)
        for u, axis in reversed(list(enumerate(axes))):  # the last axis is summed over
            own = axis.coefficients(w @ coefficients[:, u])
            product = jnp.sum(product * own.reshape(w.shape[0], *[1] * u, -1), axis=-1)
        return product

    size = max(1, AT_ONCE // (omega.shape[0] * joint.masses.shape[0]))
    count = -(-frequency.shape[0] // size)
    padded = jnp.pad(frequency, ((0, count * size - frequency.shape[0]), (0, 0))).reshape(count, size, D)
    phi = jax.lax.map(jax.checkpoint(block), padded).ravel()[: frequency.shape[0]]
    return low, length, phi


class UnitAxis(NamedTuple):
    """The box of one unit's argument b: nodes split at the kinks, weights with the window, values of the unit."""

    step: Scalar
    nodes: Float[Array, " Q"]
    weight: Float[Array, " Q"]
    values: Float[Array, " Q"]
    order: int

    @classmethod
    def of(cls, law: Projection, activation: Activation, order: int, log_inverse_mass: float) -> "UnitAxis":
        """The axis of a law of one projection, with frequencies up to that order."""
        low, length = widen(*interval(jax.lax.stop_gradient(law), log_inverse_mass))
        kinks = jnp.asarray(activation.kinks, low.dtype)
        nodes, weight = split_panels(low, low + length, kinks, panel_count(2 * order))
        weight = weight / length * window((nodes - low) / length, order)
        return cls(2 * jnp.pi / length, nodes, weight, activation(nodes), order)

    def coefficients(self, slope: Float[Array, " w"]) -> Complex[Array, "w k"]:
        """`c_k` of `exp(i slope psi(b))`, `k = -order .. order`."""
        k = jnp.arange(-self.order, self.order + 1, dtype=self.nodes.dtype)
        waves = cis(-self.step * k[:, None] * self.nodes[None]) * self.weight[None]
        return matmul(cis(slope[:, None] * self.values[None]), waves.T)


def _full_grid(order: int, dimension: int) -> np.ndarray:
    """Integer vectors of the full tensor grid, the last index fastest."""
    axes = [np.arange(-order, order + 1)] * dimension
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dimension)


def _box(joint: Projection, coefficients, axes: list[UnitAxis], c: float) -> tuple[Array, Array]:
    """The box of every projection: that of its linear part, and the range of its units."""
    lows, highs = [], []
    for d in range(coefficients.shape[0]):
        low, high = interval(jax.lax.stop_gradient(joint.alone(d)), c)
        for u, axis in enumerate(axes):
            part = jax.lax.stop_gradient(coefficients[d, u] * axis.values)
            low, high = low + part.min(), high + part.max()
        lows.append(low)
        highs.append(high)
    return widen(jnp.stack(lows), jnp.stack(highs))

"""The characteristic function of a layer's statistics, and its derivative towards one more, with bounds of the errors.

For statistics `y'' = a'' + kappa''(b)` (`Statistic`) and one weight `F = a_F + c_F psi(b)`, all linear in the layer's
output: `phi(w) = E exp(i <w, y'' - low>)` and `phi_F(w) = E F exp(i <w, y'' - low>)`, the latter by a derivative by
the frequency of F.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model.feature_model import FeatureModel
from ..model.layer_forms import RidgeForm
from ..moments.statistic import Statistic, inverse_basis
from ..spectral.projected_law import Projection
from ..types import Array, Complex, Float, Scalar
from .ball import DOUBT
from .domain import Domain
from .phase_series import coefficients, frequencies, weighted_aliasing
from .phase_tail import Damping, Missing, missing
from .product import CharacteristicGrid
from .ridge_function import RidgeFunction
from .tail_mass import sixteenth

LARGEST = 0.86  # at least the largest x exp(-x^2 / 4), which is (2 / e)^(1/2) = 0.8578 (B37)

ELIMINATED = 256  # of the root of the unit in the last place: the share of a variance doubted after elimination (B56)

AT_ONCE = 2**21  # complex numbers of all features that are held together (memory alone)


class Weight(NamedTuple):
    """`F = <direction, f(x)> + offset`; `size: [n2]` are the sizes that the direction was summed from."""

    direction: Float[Array, " n2"]
    size: Float[Array, " n2"]
    offset: Scalar


class Joint(eqx.Module):
    """The joint law of D statistics less what bends, a weight F less the same, and the ridge variable b.

    Fields: `law`, of `(a'', a_F, b)`: D + 2 projections; `scale: [D + 2]`, sizes of what they were summed from; `bend`,
    of the D statistics, and `weight_bend`, of F, None for a linear layer; `ridge`, the axis of b; `axes`, those
    of `y''`; `noise: [D, D]`, the Gaussian covariance of `y''` given b, from below.
    """

    law: Projection
    scale: Float[Array, " D2"]
    bend: RidgeFunction | None
    weight_bend: RidgeFunction | None
    ridge: Domain
    axes: tuple[Domain, ...]
    noise: Float[Array, "D D"]

    @classmethod
    def of(
        cls,
        source: FeatureModel,
        form: RidgeForm,
        readout: Float[Array, "D n2"],
        weight: Weight,
        statistic: Statistic,
        centre: Scalar,
        orders: tuple[int, int],
    ) -> "Joint":
        """For `y = readout f(x)` in the coordinates of `statistic`; orders: of the axes of `y''`, of the ridge axis."""
        (direction, _, offset), (order, ridge_order) = weight, orders
        rows = jnp.concatenate([statistic.rows, jnp.stack([direction @ form.linear, form.direction])])
        constant = jnp.stack([direction @ form.offset + offset, form.bias])
        law = Projection.of(source, rows, jnp.concatenate([jnp.zeros_like(statistic.centre), constant]))
        D = statistic.dimension
        law = eqx.tree_at(
            lambda one: one.mean, law, jnp.concatenate([statistic.law.mean - statistic.middle, law.mean[D:]])
        )
        ridge = Domain.of(law.alone(D + 1), _conditional(law.covariance, D), ridge_order)
        psi = activation_size(form, ridge)
        scale = _sizes(source, form, readout, weight, statistic, centre, psi)
        cells, bend, weight_bend = [None] * D, None, None
        if form.activation is not None:
            bend = RidgeFunction(statistic.shear, statistic.coefficient, centre, form.activation)
            weight_bend = RidgeFunction(
                jnp.zeros(1, scale.dtype), (direction @ form.output)[None], centre, form.activation
            )
            cells = bend.cells(law.alone(D + 1), ridge)
        noise = _given_last(law.covariance, D)
        deviation = [jnp.sqrt(_given_other(noise, d)) for d in range(D)]
        axes = tuple(Domain.of(law.alone(d), deviation[d], order, cells[d]) for d in range(D))
        return cls(law, scale, bend, weight_bend, ridge, axes, noise)

    @property
    def low(self) -> Float[Array, " D"]:
        """The low ends of the boxes of `y''`."""
        return jnp.stack([axis.low for axis in self.axes])

    @property
    def moved(self) -> tuple[Float[Array, " D"], Scalar]:
        """How far rounding may move `y''`, all states and frequencies alike, and F (B5)."""
        eps = jnp.finfo(self.scale.dtype).eps
        own = self.scale[:-1] + jnp.stack([*[axis.length for axis in self.axes], jnp.zeros_like(self.scale[0])])
        if self.bend is not None:
            steep = jnp.concatenate([self.bend.steepest(), self.weight_bend.steepest()])
            own = own + steep * (self.scale[-1] + self.ridge.length)
        return 4 * eps * own[:-1], 4 * eps * own[-1]

    @property
    def weight_deviation(self) -> Scalar:
        """Of the Gaussian part of F."""
        return jnp.sqrt(self.law.covariance[-2, -2])

    @property
    def weight_norm(self) -> tuple[Scalar, Scalar]:
        """`(E a_F^2)^(1/2)`, and `(E F^16)^(1/16)`, from above (B13)."""
        alone = self.law.alone(len(self.axes))
        second = jnp.sqrt(alone.total_covariance[0, 0] + alone.total_mean[0] ** 2)
        centre = jnp.zeros_like(second)
        high = sixteenth(alone, centre)
        if self.bend is not None:
            middle = self.ridge.centre
            psi = jnp.abs(self.weight_bend(middle)[0]) + self.weight_bend.steepest()[0] * self.ridge.reach
            high = high + psi
        return second, high

    def damping(self, frequency: Float[Array, "W D"], share: float = 1.0) -> Float[Array, " W"]:
        """`exp(-share <w, noise w> / 2)`, a bound of `|phi(w)|` (B22)."""
        quadratic = jnp.einsum("wd,de,we->w", frequency, self.noise, frequency)
        return jnp.exp(-share * jnp.maximum(quadratic, 0) / 2)

    def ridge_damping(self, frequency: Float[Array, "W D"]) -> Damping:
        """What the noise leaves beyond the ridge axis' frequencies (B48)."""
        D = len(self.axes)
        without_weight = np.array([*range(D), D + 1])
        return Damping.of(self.ridge, self.law.covariance[without_weight][:, without_weight], frequency)


class Waves(NamedTuple):
    """`phi(w)` and `phi_F(w)`, `[W]` each; bounds of their errors (B52, B53), and of their rounding (B54)."""

    plain: Complex[Array, " W"]
    plain_error: Float[Array, " W"]
    plain_jitter: Float[Array, " W"]
    weighted: Complex[Array, " W"]
    weighted_error: Float[Array, " W"]
    weighted_jitter: Float[Array, " W"]


def waves(joint: Joint, frequency: Float[Array, "W D"], weighted: bool) -> Waves:
    """The characteristic function at these frequencies, with its derivative if it is `weighted` (or zeros)."""
    ridge = 1 if joint.bend is None else 2 * joint.ridge.order + 1
    size = max(1, AT_ONCE // (ridge * joint.law.masses.shape[0]))
    count = -(-frequency.shape[0] // size)
    size = -(-frequency.shape[0] // count)
    padded = jnp.pad(frequency, ((0, count * size - frequency.shape[0]), (0, 0))).reshape(count, size, -1)
    found = jax.lax.map(lambda w: _block(joint, w, weighted), padded)
    return Waves(*(leaf.reshape(-1)[: frequency.shape[0]] for leaf in found))


class Grids(NamedTuple):
    """What `phi(w)` is summed from: `phi` of `(a'', a_F, b)`, and the coefficients of the waves of the ridge axis."""

    plane: CharacteristicGrid
    series: Complex[Array, "W O"]
    aliasing: Float[Array, "W 1"]
    roundoff: Float[Array, "W O"]

    @classmethod
    def of(cls, joint: Joint, frequency: Float[Array, "W D"], omega: Float[Array, " O"], tau: Scalar) -> "Grids":
        """At frequencies `(w, tau)`, tau that of F."""
        zero = jnp.zeros((1,), frequency.dtype)
        low = jnp.concatenate([joint.low, zero, joint.ridge.low[None]])
        w = jnp.concatenate([frequency, jnp.broadcast_to(tau, frequency[:, :1].shape)], axis=1)
        plane = CharacteristicGrid.of(joint.law, low, w, omega)
        if joint.bend is None:
            return cls(plane, jnp.ones_like(plane.phi), jnp.zeros_like(plane.size), jnp.zeros_like(plane.size))
        both = RidgeFunction(
            jnp.concatenate([joint.bend.shear, zero]),
            jnp.concatenate([joint.bend.coefficient, joint.weight_bend.coefficient]),
            joint.bend.centre,
            joint.bend.activation,
        )
        return cls(plane, *coefficients(joint.ridge, both, w))


def _root(*terms: Float[Array, "W O"]) -> Float[Array, " W"]:
    """The root of the sum of all squares: of independent roundings (B2)."""
    return jnp.sqrt(sum(jnp.sum(term**2, axis=1) for term in terms))


def _block(joint: Joint, frequency: Float[Array, "W D"], weighted: bool) -> Waves:
    """`waves` of a few frequencies (B52, B53)."""
    zero = jnp.zeros((), frequency.dtype)
    omega = zero[None] if joint.bend is None else frequencies(joint.ridge)

    def value(tau):
        """`E exp(i <w, y''> + i tau F)`."""
        grids = Grids.of(joint, frequency, omega, tau)
        return jnp.sum(grids.series * grids.plane.phi, axis=1), grids

    if not weighted:
        plain, grids = value(zero)
        derivative = jnp.zeros_like(plain)
    else:
        plain, derivative, grids = jax.jvp(value, (zero,), (jnp.ones_like(zero),), has_aux=True)
        derivative = -1j * derivative
    size, summed = jnp.abs(grids.series), jnp.finfo(frequency.dtype).eps * math.log2(omega.size + 1)  # B36
    plane = grids.plane
    rounding = _root(size * plane.rounding, grids.roundoff * plane.size, summed * size * plane.size)
    error, lost = grids.aliasing[:, 0] * jnp.sum(plane.size, axis=1), None
    if joint.bend is not None:
        lost = missing(joint.ridge, joint.bend, frequency, joint.weight_bend, joint.ridge_damping(frequency))
        error = error + lost.full + 4 * joint.ridge.missed  # B45, B52
    if not weighted:
        return Waves(plain, error, rounding, derivative, jnp.zeros_like(error), jnp.zeros_like(error))
    return Waves(plain, error, rounding, derivative, *_weighted_errors(joint, frequency, grids, lost, summed))


def _weighted_errors(
    joint: Joint, frequency: Float[Array, "W D"], grids: Grids, lost: Missing | None, summed
) -> tuple[Float[Array, " W"], Float[Array, " W"]]:
    """Bounds of the derivative's error (B53) and rounding (B54)."""
    # B37: F is at most so large, and its Gaussian part adds at most x exp(-x^2 / 2) of its deviation.
    plane, eps = grids.plane, jnp.finfo(frequency.dtype).eps
    second, high = joint.weight_norm
    span = jnp.abs(joint.law.atoms[-2]).max(axis=1).sum() + jnp.abs(joint.law.mean[-2]) + 8 * joint.weight_deviation
    largest = jnp.zeros_like(span) if joint.bend is None else joint.weight_bend.largest(joint.ridge)[0]
    both, smaller = span + largest, jnp.sqrt(plane.size)  # exp(-x^2 / 4)
    own = (2 * plane.rounding + (8 * eps + summed) * smaller) * span
    # The derivatives of the waves' coefficients are those of a function of that size: in squares, by Parseval.
    rounding = _root(jnp.abs(grids.series) * own, largest * plane.rounding, 2 * both * grids.roundoff * smaller)
    error = 2 * both * grids.aliasing[:, 0] * jnp.sum(smaller, axis=1)
    if joint.bend is not None:
        aliasing = weighted_aliasing(joint.ridge, joint.bend, frequency, joint.weight_bend, largest)
        error = error + aliasing * jnp.sum(plane.size, axis=1)
        error = error + lost.weighted + second * lost.full
        error = error + LARGEST * joint.weight_deviation * lost.half
        error = error + 4 * joint.ridge.missed ** (7 / 8) * high  # B14, B45
    return error, rounding


def activation_size(form: RidgeForm, ridge: Domain) -> Scalar:
    """A bound of `(E psi(b)^16)^(1/16)` (B13); 0 for a linear layer."""
    if form.activation is None:
        return jnp.zeros_like(ridge.low)
    slope = form.activation.regularity.slope(-jnp.inf, jnp.inf, jnp.zeros_like(ridge.low))
    return jnp.abs(form.activation(ridge.centre)) + slope * ridge.reach


def _sizes(source, form, readout, weight: Weight, statistic, centre, psi) -> Float[Array, " D2"]:
    """Mean sizes of what the projections of `Joint.law` are summed from: their roundings are relative to these (B5)."""
    inverse = jnp.abs(inverse_basis(statistic.basis))
    shear = jnp.abs(statistic.basis @ statistic.shear)
    bent = form.direction_size
    of_y = jnp.abs(readout) @ jnp.abs(form.linear) + shear[:, None] * bent[None]
    terms = jnp.concatenate([inverse @ of_y, jnp.stack([weight.size @ jnp.abs(form.linear), bent])])
    states = terms @ source_sizes(source)
    offsets = jnp.abs(readout) @ jnp.abs(form.offset) + jnp.abs(statistic.centre) + shear * jnp.abs(centre)
    coefficient = jnp.abs(readout) @ jnp.abs(form.output)
    of_weight = weight.size @ (jnp.abs(form.offset) + psi * jnp.abs(form.output)) + jnp.abs(weight.offset)
    of_rest = jnp.stack([of_weight, jnp.abs(form.bias)])
    constants = jnp.concatenate([inverse @ (offsets + coefficient * psi), of_rest])
    return states + constants


def source_sizes(source: FeatureModel) -> Float[Array, " n1"]:
    """The mean sizes of what each input is summed from (B5)."""
    states = jnp.einsum("nmk,mk->n", jnp.abs(source.atom_vectors), source.prior.masses)
    return states + jnp.abs(source.mean) + jnp.sqrt(jnp.diagonal(source.covariance))


def root_sizes(source: FeatureModel) -> Float[Array, " n1"]:
    """Root mean squares of what each input is summed from, one feature after another (B42)."""
    states = jnp.sqrt(jnp.einsum("nmk,mk->nm", source.atom_vectors**2, source.prior.masses)).sum(axis=1)
    return states + jnp.abs(source.mean) + jnp.sqrt(jnp.diagonal(source.covariance))


def _given_last(covariance: Float[Array, "D2 D2"], D: int) -> Float[Array, "D D"]:
    """Covariance of the first D Gaussians given the last, from below (B55)."""
    own, shared, last = covariance[:D, :D], covariance[:D, -1], covariance[-1, -1]
    rest = own - jnp.where(last > 0, jnp.outer(shared, shared) / jnp.where(last > 0, last, 1), 0)
    return rest - DOUBT * jnp.finfo(own.dtype).eps * jnp.diag(jnp.diagonal(own))


def _given_other(covariance: Float[Array, "D D"], d: int) -> Scalar:
    """Variance of one of two Gaussians (or of the only one) given the other, from below; of one of more, 0 (B55)."""
    own = covariance[d, d]
    if covariance.shape[0] > 2:
        return jnp.zeros_like(own)
    if covariance.shape[0] == 2:
        other, shared = covariance[1 - d, 1 - d], covariance[0, 1]
        own = own - jnp.where(other > 0, shared**2 / jnp.where(other > 0, other, 1), jnp.where(shared == 0, 0, own))
    return jnp.maximum(own - DOUBT * jnp.finfo(own.dtype).eps * covariance[d, d], 0)


def _conditional(covariance: Float[Array, "D2 D2"], D: int) -> Scalar:
    """Standard deviation of the last Gaussian given the first D, from below, by elimination (B56)."""
    order = jnp.asarray([*range(D), covariance.shape[0] - 1])
    rest = covariance[order][:, order]
    own, eps = jnp.diagonal(rest), jnp.finfo(rest.dtype).eps
    least, sure, grown = jnp.sqrt(eps), True, 1.0
    for d in range(D):
        pivot, row = rest[0, 0], rest[0]
        known = pivot > least * own[d]  # a pivot that is rounding leaves everything open, unless nothing is shared
        sure = sure & (known | jnp.all(row == 0))
        share = jnp.where(known, own[d] / jnp.where(known, pivot, 1), 0)
        grown = grown * jnp.where(known, 2 * (1 + jnp.sqrt(2 * share) + share), 1)  # by how much rounding grows
        rest = (rest - jnp.where(known, jnp.outer(row, row) / jnp.where(known, pivot, 1), 0))[1:, 1:]
    doubt = jnp.maximum(ELIMINATED * least, 8 * eps * grown)
    return jnp.sqrt(jnp.where(sure, jnp.maximum(rest[0, 0] - doubt * own[-1], 0), 0))

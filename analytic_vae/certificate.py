"""The loss and its terms once more, on grids of their own, with a bound of every error: where `Elbo.bounds` is from."""

from operator import itemgetter
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .bounded_terms import Certificate, added, weighted_sum
from .encoder import AbstractEncoder
from .layer import RidgeForm
from .model import FeatureModel, whitening
from .precision import exact_products
from .spectral.axis import Axis
from .spectral.certified import SAFETY, Bounded
from .spectral.certified_latent import (
    NAMES,
    box_coefficients,
    encoder_functions,
    expectations,
    frequencies,
)
from .spectral.certified_law import AT_ONCE, Joint, activation_size, root_sizes, source_sizes, waves
from .spectral.certified_pairs import Parts, by_parts, by_series
from .spectral.certified_ridge import activation_mean, activation_square, activation_with
from .spectral.certified_units import check_strip
from .spectral.expectation import least_squares_series, statistic_nodes
from .spectral.memory import require_memory
from .spectral.projection import Projection
from .spectral.resolution import Resolution
from .spectral.ridge import RidgeAxis
from .spectral.spectrum import Spectrum
from .spectral.statistic import Statistic
from .types import Array


class Orders(eqx.Module):
    """Highest frequency indices of the certificate's grids: of one feature's statistics, of pairs, of the ridge axis of
    each and alone; and of the series that stand for latent means."""

    single: int = eqx.field(static=True)
    pair: int = eqx.field(static=True)
    single_ridge: int = eqx.field(static=True)
    pair_ridge: int = eqx.field(static=True)
    ridge: int = eqx.field(static=True)
    series: int = eqx.field(static=True)

    @classmethod
    def of(cls, resolution: Resolution, statistics: int) -> "Orders":
        """For encoders that read so many statistics."""
        N = resolution.frequencies
        if statistics == 1:
            return cls(4 * N, 4 * N, 8 * N, 4 * N, 16 * N, max(4, N // 2))
        return cls(2 * N, 2 * N, 4 * N, 4 * N, 16 * N, max(4, N // 4))


@exact_products
@eqx.filter_jit
def certificate(source, layer, target, encoder, resolution: Resolution) -> Certificate:
    """The terms of the loss with their bounds."""
    form = layer.form()
    axis = RidgeAxis.of(source, form, resolution)
    orders = Orders.of(resolution, encoder.statistics_read)
    eps = jnp.finfo(source.mean.dtype).eps

    whiten, _, _ = whitening(target)
    units = whiten(jnp.eye(target.neurons, dtype=source.mean.dtype))
    decoder = units @ target.decoder
    gram = decoder.T @ decoder
    towards = units.T @ decoder  # F_j = <towards_j, f - mean>
    towards_size = jnp.abs(units).T @ (jnp.abs(units) @ jnp.abs(target.decoder))
    offsets = -target.mean @ towards
    middles = (target.prior.atoms.max(axis=1) + target.prior.atoms.min(axis=1)) / 2
    moments = _layer_moments(source, form, units, target.mean, orders)

    arrays, static = eqx.partition(encoder, eqx.is_array)

    def one_feature(given):
        arrays, atoms, log_masses, *weight = given
        one = eqx.combine(arrays, static)
        statistic = Statistic.of(source, form, one.readout, axis, resolution)
        joint = Joint.of(
            source, form, one.readout, tuple(weight), statistic, axis.centre, orders.single, orders.single_ridge
        )
        functions = box_coefficients(joint.axes, *encoder_functions(one, atoms, log_masses, statistic, joint.axes))
        found = waves(joint, frequencies(joint.axes, functions.index), weighted=True)
        return expectations(joint, found, functions, NAMES.index("mean"))

    given = arrays, target.prior.atoms, target.prior.log_masses, towards.T, towards_size.T, offsets
    single, weighted = jax.lax.map(one_feature, given)
    rate, spread, mean, square = (Bounded(single.value[:, f], single.error_bound[:, f]) for f in range(len(NAMES)))

    diagonal = jnp.diagonal(gram)
    R1 = weighted_sum(rate, jnp.ones_like(diagonal))
    impossible = jnp.any(jnp.isneginf(target.prior.log_masses))  # for the target, not for the encoder
    R1 = Bounded(R1.value, jnp.where(impossible, jnp.inf, R1.error_bound))
    S1 = weighted_sum(spread, diagonal)
    # E F s = E F (s - middle) + middle E F
    bent = towards.T @ form.output
    weight_means = towards.T @ (form.linear @ source.moments()[0] + form.offset) + offsets + bent * moments["psi"].value
    weight_sizes = jnp.abs(form.linear) @ source_sizes(source) + jnp.abs(form.offset) + jnp.abs(target.mean)
    weight_sizes = towards_size.T @ (weight_sizes + jnp.abs(form.output) * moments["size"].value)
    middle_error = jnp.abs(middles) @ (jnp.abs(bent) * moments["psi"].error_bound + eps * 8 * weight_sizes)
    T2 = weighted_sum(weighted, -2 * jnp.ones_like(diagonal))
    T2 = Bounded(T2.value - 2 * middles @ weight_means, T2.error_bound + 2 * middle_error)
    T3 = _second_moments(source, form, axis, target, encoder, resolution, orders, gram, middles, mean, square)
    return Certificate.of(target, R1, S1, T2, T3, moments["U1"], moments["U2"], moments["U3"])


def check_certificate(source, layer, target, encoder, resolution: Resolution) -> None:
    """Raise an error that names the argument if there can be no bounds, or the memory does not suffice for them."""
    check_strip(layer)
    if target.decoder.ndim != 2:
        raise ValueError(f"target: expected a decoder [n, m], whose errors can be bounded, got {target.decoder.shape}.")
    orders, t = Orders.of(resolution, encoder.statistics_read), encoder.statistics_read
    (m, K), complex_number = target.prior.atoms.shape, 2 * source.mean.dtype.itemsize
    points = (12 * orders.single) ** t * (K + 16)
    pair = (4 * orders.pair + 2) * (orders.pair + 1) * 8 if t == 1 else (1.6 * orders.series**2) ** 2 * 40
    tables = m * (40 * orders.pair + (source.features * source.prior.atoms.shape[1] + 8) * 4)
    require_memory((16 * AT_ONCE + points + pair + tables) * complex_number, "certify", "lower resolution.frequencies")


def _layer_moments(source, form: RidgeForm, units, mean, orders: Orders) -> dict[str, Bounded]:
    """`E psi` and the three terms of `T1`."""
    eps = jnp.finfo(source.mean.dtype).eps
    linear, output, centre = units @ form.linear, units @ form.output, units @ (form.offset - mean)
    input_mean, covariance = source.moments()
    mapped = linear @ input_mean + centre
    output_size = jnp.abs(units) @ jnp.abs(form.output)
    sizes = jnp.abs(units) @ jnp.abs(form.linear) @ root_sizes(source) + jnp.abs(units) @ (
        jnp.abs(form.offset) + jnp.abs(mean)
    )
    U1 = Bounded(jnp.sum((linear @ covariance) * linear) + mapped @ mapped, 8 * eps * sizes @ sizes)
    zero = Bounded(jnp.zeros_like(U1.value), jnp.zeros_like(U1.value))
    if form.activation is None:
        return {"psi": zero, "size": zero, "U1": U1, "U2": zero, "U3": zero}
    rows = jnp.stack([output @ linear, form.direction])
    law = Projection.of(source, rows, jnp.stack([output @ centre, form.bias]))
    scale = jnp.stack([output_size @ sizes, form.direction_size @ source_sizes(source) + jnp.abs(form.bias)])
    alone = law.alone(1)
    psi = activation_mean(alone, scale[1:], form.activation, orders.ridge)
    square = activation_square(alone, scale[1:], form.activation, orders.ridge)
    with_psi = activation_with(law, scale, form.activation, orders.ridge)
    size = activation_size(form, Axis.of(alone, jnp.zeros_like(form.bias), orders.single))
    bent_error = 8 * eps * output_size @ output_size * size**2
    return {
        "psi": psi,
        "size": Bounded(size, jnp.zeros_like(size)),
        "U1": U1,
        "U2": Bounded(2 * with_psi.value, 2 * with_psi.error_bound + 8 * eps * size * output_size @ sizes),
        "U3": added(
            weighted_sum(Bounded(square.value[None], square.error_bound[None]), (output @ output)[None]),
            Bounded(jnp.zeros_like(size), bent_error),
        ),
    }


def _second_moments(
    source, form, axis, target, encoder, resolution, orders, gram, middles, mean: Bounded, square: Bounded
) -> Bounded:
    """`T3 = sum_jk H_jk E s_j s_k`, from moments of `s_j` less the middle of its atoms."""
    m = target.features
    first, second = np.triu_indices(m, 1)
    pairs = Bounded(jnp.zeros(0, gram.dtype), jnp.zeros(0, gram.dtype))
    if first.size:
        pairs = _pair_moments(_Parts(source, form, axis, target, encoder, resolution, orders), first, second, square)
    values = jnp.diag(square.value).at[first, second].set(pairs.value).at[second, first].set(pairs.value)
    errors = jnp.diag(square.error_bound).at[first, second].set(pairs.error_bound)
    errors = errors.at[second, first].set(pairs.error_bound)
    shift = jnp.outer(middles, mean.value)
    whole = values + shift + shift.T + jnp.outer(middles, middles)
    shift_error = jnp.outer(jnp.abs(middles), mean.error_bound)
    sizes = jnp.abs(values) + jnp.abs(shift) + jnp.abs(shift.T) + jnp.abs(jnp.outer(middles, middles))
    errors = errors + shift_error + shift_error.T + 8 * jnp.finfo(gram.dtype).eps * sizes
    return Bounded(jnp.sum(gram * whole), SAFETY * jnp.sum(jnp.where(gram == 0, 0, jnp.abs(gram) * errors)))


class _Parts(NamedTuple):
    source: FeatureModel
    form: RidgeForm
    axis: RidgeAxis
    target: FeatureModel
    encoder: AbstractEncoder
    resolution: Resolution
    orders: Orders

    def joint(self, statistic: Statistic, readout: Array, order: int, ridge_order: int) -> Joint:
        none = jnp.zeros_like(self.target.mean)
        return Joint.of(
            self.source, self.form, readout, (none, none, none[0]), statistic, self.axis.centre, order, ridge_order
        )

    def of_features(self, function) -> tuple:
        """`function(encoder, atoms, log masses, statistic)` of every feature."""
        arrays, static = eqx.partition(self.encoder, eqx.is_array)

        def one(given):
            arrays, atoms, log_masses = given
            encoder = eqx.combine(arrays, static)
            statistic = Statistic.of(self.source, self.form, encoder.readout, self.axis, self.resolution)
            return statistic, function(encoder, atoms, log_masses, statistic)

        return jax.lax.map(one, (arrays, self.target.prior.atoms, self.target.prior.log_masses))

    def of_pairs(self, function, tables, first: np.ndarray, second: np.ndarray):
        """`function(joint law, table, table)` of every pair."""

        def one(given):
            (left, a), (right, b) = (jax.tree.map(itemgetter(i), tables) for i in given)
            readout = jnp.concatenate([self.encoder.readout[i] for i in given])
            joint = self.joint(_side_by_side(left, right), readout, self.orders.pair, self.orders.pair_ridge)
            return function(joint, a, b)

        return jax.lax.map(one, (jnp.asarray(first), jnp.asarray(second)))


def _pair_moments(parts: _Parts, first: np.ndarray, second: np.ndarray, square: Bounded) -> Bounded:
    """`E s_j s_k` of all pairs, from a short series for each latent mean and what that leaves out."""
    orders, resolution, f = parts.orders, parts.resolution, NAMES.index("mean")
    t = parts.encoder.statistics_read
    grid = parts.axis.law_grid(resolution, t)

    def one_feature(encoder, atoms, log_masses, statistic):
        nodes = statistic_nodes(Spectrum.of(statistic, grid, resolution), resolution)
        q = jnp.exp(jax.vmap(lambda y: encoder.log_masses(y, atoms))(nodes.points))
        means = q @ (atoms - (atoms.max() + atoms.min()) / 2)
        series, _ = jax.lax.stop_gradient(least_squares_series(statistic, nodes, means, orders.series))
        joint = parts.joint(statistic, encoder.readout, orders.pair, orders.single_ridge)
        functions = encoder_functions(encoder, atoms, log_masses, statistic, joint.axes, series)
        coefficients = box_coefficients(joint.axes, *functions)
        found = waves(joint, frequencies(joint.axes, coefficients.index), weighted=False)
        plain, _ = expectations(joint, found, coefficients, f)
        return Parts(series, coefficients, jnp.sqrt(jnp.maximum(plain.high[-1], 0)))

    statistics, features = parts.of_features(one_feature)
    if t == 1:
        return parts.of_pairs(lambda joint, a, b: by_parts(joint, a, b, f), (statistics, features), first, second)
    norms = jnp.stack([jnp.sqrt(jnp.maximum(square.high, 0)), features.rest], axis=1)

    def one_pair(joint, a, b):
        return by_series(joint, a[0], b[0], jnp.stack([a[1], b[1]]))

    return parts.of_pairs(one_pair, (statistics, (features.series, norms)), first, second)


def _side_by_side(left: Statistic, right: Statistic) -> Statistic:
    """The statistics of two features as those of one, in the coordinates of each."""
    t = left.dimension
    both = lambda a, b: jnp.concatenate([a, b])  # noqa: E731
    none = jnp.zeros((t, t), left.low.dtype)
    law = Projection(
        both(left.law.mean, right.law.mean),
        both(left.law.atoms, right.law.atoms),
        left.law.masses,
        jnp.zeros((2 * t, 2 * t), left.low.dtype),  # nobody reads it: of the noise `Joint` asks the source
    )
    return Statistic(
        centre=both(left.centre, right.centre),
        basis=jnp.block([[left.basis, none], [none, right.basis]]),
        low=both(left.low, right.low),
        length=both(left.length, right.length),
        law=law,
        cross=both(left.cross, right.cross),
        shear=both(left.shear, right.shear),
        coefficient=both(left.coefficient, right.coefficient),
        rows=both(left.rows, right.rows),
    )

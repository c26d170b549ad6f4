"""The loss and its terms once more, on grids of their own, with a bound of every error: where `Elbo.bounds` is from."""

from operator import itemgetter
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .bounded_terms import Certificate, FeatureTerms, added, weighted_sum
from .carried_certificate import carried_terms
from .compiled import compiled
from .encoder import AbstractEncoder, CarriedEncoder, learnt_part
from .layer import DenseLayer, RidgeForm
from .model import FeatureModel
from .precision import exact_products
from .spectral.certified import SAFETY, Analytic, Bounded
from .spectral.certified_latent import (
    MEAN,
    RATE,
    box_coefficients,
    encoder_functions,
    expectations,
    frequencies,
    latent_mean,
    middle_and_half,
)
from .spectral.certified_law import AT_ONCE, Joint, source_sizes, waves
from .spectral.certified_pairs import Parts, by_parts, by_series
from .spectral.certified_units import (
    Units,
    activations_of,
    check_strip,
    check_units,
    pair_order,
    state_expectations,
    state_order,
)
from .spectral.expectation import least_squares_series, statistic_nodes
from .spectral.features import codes
from .spectral.memory import require_memory
from .spectral.projection import Projection
from .spectral.resolution import Resolution
from .spectral.ridge import RidgeAxis
from .spectral.spectrum import Spectrum
from .spectral.statistic import Statistic
from .types import Array, Float
from .whitened import ROUNDING, OutputTerms, Whitened, output_terms


class Orders(eqx.Module):
    """Highest frequency indices of the certificate's grids: of one feature's statistics, of pairs, of the ridge axis of
    each; and of the series that stand for latent means."""

    single: int = eqx.field(static=True)
    pair: int = eqx.field(static=True)
    single_ridge: int = eqx.field(static=True)
    pair_ridge: int = eqx.field(static=True)
    series: int = eqx.field(static=True)

    @classmethod
    def of(cls, resolution: Resolution, statistics: int) -> "Orders":
        """For encoders that read so many statistics."""
        N = resolution.frequencies
        if statistics == 1:
            return cls(4 * N, 4 * N, 8 * N, 4 * N, max(4, N // 2))
        return cls(2 * N, 2 * N, 4 * N, 4 * N, max(4, N // 4))


@exact_products
@compiled
def certificate(source, layer, target, encoder, resolution: Resolution) -> Certificate:
    """The terms of the loss with their bounds."""
    parts, units = Whitened.of(layer, target), Units.of(source, layer)
    output = output_terms(source, layer, parts, units, resolution)
    carried, beside = (encoder.carried if isinstance(encoder, CarriedEncoder) else 0), learnt_part(encoder)
    atoms, log_masses = target.prior.atoms, target.prior.log_masses
    code = codes(atoms, target.decoder.ndim == 3)  # [m, R, K]
    first = carried * code.shape[1]
    terms = []
    if carried:
        own = parts.of_codes(slice(0, first))
        terms.append(carried_terms(source, code[:carried], log_masses[:carried], own, units, resolution))
    if beside is not None:
        rest = parts.of_codes(slice(first, None))
        given = atoms[carried:], code[carried:], log_masses[carried:]
        learnt = Learnt.of(source, layer, beside, *given, resolution)
        terms.append(_learnt_terms(learnt, layer, target, rest, units, output))
        if carried:
            terms.append(_between(learnt, code[:carried], parts, first))
    R1, S1, T2, T3 = (added(*(getattr(one, name) for one in terms)) for name in ("R1", "S1", "T2", "T3"))
    return Certificate.of(target, R1, S1, T2, T3, output.U1, output.U2, output.U3)


class Learnt(NamedTuple):
    """The codes of features whose encoders read statistics of `form`: `C = m R` of them, numbers for every atom.

    Each code has its feature's encoder, atoms and log masses of the target (repeated R times, then), and all R codes of
    its feature as `siblings`.
    """

    source: FeatureModel
    form: RidgeForm
    axis: RidgeAxis
    encoder: AbstractEncoder
    atoms: Float[Array, "C K"]
    code: Float[Array, "C K"]
    siblings: Float[Array, "C R K"]
    log_masses: Float[Array, "C K"]
    resolution: Resolution
    orders: Orders

    @classmethod
    def of(cls, source, layer, encoder, atoms, code: Float[Array, "m R K"], log_masses, resolution) -> "Learnt":
        """Those of a layer."""
        form, orders = layer.read_form(), Orders.of(resolution, encoder.statistics_read)
        R, K = code.shape[1:]
        arrays, static = eqx.partition((encoder, atoms, code, log_masses), eqx.is_array)
        repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, R, axis=0), arrays)
        encoder, atoms, siblings, log_masses = eqx.combine(repeated, static)
        axis = RidgeAxis.of(source, form, resolution)
        return cls(source, form, axis, encoder, atoms, code.reshape(-1, K), siblings, log_masses, resolution, orders)

    @property
    def own(self) -> np.ndarray:
        """The indices of the codes of each code's feature: `[C, R]`."""
        C, R = self.siblings.shape[:2]
        return np.arange(C)[:, None] // R * R + np.arange(R)[None]

    def joint(self, statistic: Statistic, readout: Array, order: int, ridge_order: int) -> Joint:
        """The law of statistics alone."""
        none = jnp.zeros_like(readout[0])
        return Joint.of(
            self.source, self.form, readout, (none, none, none[0]), statistic, self.axis.centre, order, ridge_order
        )

    def of_codes(self, function, *more) -> tuple:
        """The statistic of every code; `function(encoder, (atoms, code, siblings, log masses), statistic, *more)`."""
        arrays, static = eqx.partition(self.encoder, eqx.is_array)

        def one(given):
            arrays, tables, *more = given
            encoder = eqx.combine(arrays, static)
            statistic = Statistic.of(self.source, self.form, encoder.readout, self.axis, self.resolution)
            return statistic, function(encoder, tables, statistic, *more)

        tables = self.atoms, self.code, self.siblings, self.log_masses
        return jax.lax.map(one, (arrays, tables, *more))

    def of_pairs(self, function, tables, first: np.ndarray, second: np.ndarray):
        """`function(joint law, table, table)` of every pair."""

        def one(given):
            (left, a), (right, b) = (jax.tree.map(itemgetter(i), tables) for i in given)
            readout = jnp.concatenate([self.encoder.readout[i] for i in given])
            joint = self.joint(_side_by_side(left, right), readout, self.orders.pair, self.orders.pair_ridge)
            return function(joint, a, b)

        return jax.lax.map(one, (jnp.asarray(first), jnp.asarray(second)))

    def mean_of(self, j: Array, code: Float[Array, " K"] | None = None) -> Analytic:
        """The mean of the code of that index, or of another of its feature, less its middle; of one statistic."""
        arrays, static = eqx.partition(self.encoder, eqx.is_array)
        one = eqx.combine(jax.tree.map(itemgetter(j), arrays), static)
        return latent_mean(one, self.atoms[j], self.code[j] if code is None else code)


def _learnt_terms(learnt: Learnt, layer, target, parts: Whitened, units: Units, output: OutputTerms) -> FeatureTerms:
    """The terms of learnt features."""
    source, form, orders, decoder = learnt.source, learnt.form, learnt.orders, parts.decoder
    eps = ROUNDING * jnp.finfo(source.mean.dtype).eps
    middles, halves = middle_and_half(learnt.code)
    # F_j = <decoder_j, f>, all of it if encoders read the output; of a dense layer what is linear in its input.
    if isinstance(layer, DenseLayer):
        towards, towards_size = parts.linear.T @ decoder, parts.linear_size.T @ parts.decoder_size
    else:
        towards, towards_size = parts.inverse.T @ decoder, parts.inverse_size.T @ parts.decoder_size
    offsets = parts.centre @ decoder - form.offset @ towards

    def one_code(encoder, tables, statistic, *weight):
        joint = Joint.of(
            source, form, encoder.readout, weight, statistic, learnt.axis.centre, orders.single, orders.single_ridge
        )
        functions = encoder_functions(encoder, *tables, statistic, joint.axes)
        coefficients = box_coefficients(joint.axes, *functions)
        found = waves(joint, frequencies(joint.axes, coefficients.index), weighted=True)
        return expectations(joint, found, coefficients, MEAN)

    _, (single, weighted) = learnt.of_codes(one_code, towards.T, towards_size.T, offsets)
    own, (C, R) = learnt.own, learnt.own.shape
    rate, mean, spread, square = (
        jax.tree.map(itemgetter((slice(None), which)), single)
        for which in (RATE, MEAN, slice(2, 2 + R), slice(2 + R, 2 + 2 * R))
    )
    gram, gram_size = decoder.T @ decoder, parts.decoder_size.T @ parts.decoder_size
    R1 = weighted_sum(rate, jnp.asarray(np.arange(C) % R == 0, gram.dtype))
    impossible = jnp.any(jnp.isneginf(learnt.log_masses))  # for the target, not for the encoder
    R1 = Bounded(R1.value, jnp.where(impossible, jnp.inf, R1.error_bound))
    # E F s = E F (s - middle) + middle E F
    bent = parts.output.T @ decoder
    F = decoder.T @ (parts.linear @ source.moments()[0] + parts.centre)
    sizes = parts.linear_size @ source_sizes(source) + parts.centre_size + parts.output_size @ output.roots
    rounding = eps * (jnp.abs(middles) + halves) @ (parts.decoder_size.T @ sizes)
    T2 = weighted_sum(weighted, -2 * jnp.ones_like(middles))
    if isinstance(layer, DenseLayer):
        with_units = _with_units(learnt, bent, units, output.psi)
    else:
        with_units = weighted_sum(output.psi, bent @ middles)
    T2 = Bounded(
        T2.value - 2 * (middles @ F + with_units.value), T2.error_bound + 2 * (rounding + with_units.error_bound)
    )
    blocks, blocks_size = gram[np.arange(C)[:, None], own], gram_size[np.arange(C)[:, None], own]
    S1 = weighted_sum(jax.tree.map(jnp.ravel, spread), blocks.ravel())
    S1 = Bounded(S1.value, S1.error_bound + eps * jnp.sum(blocks_size * jnp.abs(spread.value)))
    return FeatureTerms(R1, S1, T2, _second_moments(learnt, gram, gram_size, middles, mean, square))


def _with_units(learnt: Learnt, bent: Float[Array, "h C"], units: Units, psi: Bounded) -> Bounded:
    """`sum_ij E psi_i g_ij(y_j)`: of each feature, for each unit, the mean of one code, its codes times `bent`."""
    R = learnt.siblings.shape[1]
    code = jnp.einsum("hmr,mrk->hmk", bent.reshape(bent.shape[0], -1, R), learnt.siblings[::R])
    found = units.with_functions(
        learnt.encoder.readout[::R, 0], lambda i, j: learnt.mean_of(j * R, code[i, j]), pair_order(learnt.resolution)
    )
    middles, _ = middle_and_half(code)
    whole = weighted_sum(jax.tree.map(jnp.ravel, found), jnp.ones_like(bent[:, ::R]).ravel())
    return added(whole, weighted_sum(psi, middles.sum(axis=1)))


def _between(learnt: Learnt, code: Float[Array, "m R K"], parts: Whitened, first: int) -> FeatureTerms:
    """What carried and learnt features add to `T3` together: `2 sum <decoder_C, decoder_j> E code_C s_j`."""
    source, order = learnt.source, state_order(learnt.resolution)
    read = learnt.form.linear
    middles, _ = middle_and_half(learnt.code)
    masses = source.prior.masses

    def one(j):
        row = learnt.encoder.readout[j] @ read
        law = Projection.of(source, row, learnt.encoder.readout[j] @ learnt.form.offset)
        size = jnp.abs(learnt.encoder.readout[j, 0]) @ (
            jnp.abs(read) @ source_sizes(source) + jnp.abs(learnt.form.offset)
        )
        return state_expectations(law, size, learnt.mean_of(j), order)

    found = jax.lax.map(one, jnp.arange(middles.size))  # E 1{z_l = a} (s_j - middle_j): [m2, m1, K]
    whole = found.value + middles[:, None, None] * masses[None]
    eps = ROUNDING * jnp.finfo(masses.dtype).eps
    error = found.error_bound + eps * (jnp.abs(found.value) + jnp.abs(middles)[:, None, None] * masses[None])
    cross = jnp.einsum("lrk,jlk->lrj", code, whole).reshape(first, -1)
    cross_error = jnp.einsum("lrk,jlk->lrj", jnp.abs(code), error).reshape(first, -1)
    gram = parts.decoder[:, :first].T @ parts.decoder[:, first:]
    gram_size = parts.decoder_size[:, :first].T @ parts.decoder_size[:, first:]
    zero = jnp.zeros_like(source.mean[0])
    none = Bounded(zero, zero)
    error = jnp.sum(jnp.abs(gram) * cross_error + eps * gram_size * jnp.abs(cross))
    return FeatureTerms(none, none, none, Bounded(2 * jnp.sum(gram * cross), 2 * SAFETY * error))


def check_certificate(source, layer, target, encoder, resolution: Resolution) -> None:
    """Raise an error that names the argument if there can be no bounds, or the memory does not suffice for them."""
    check_strip(layer)
    distinct, which = activations_of(layer)
    check_units(source, len(which), resolution)
    beside, carries = learnt_part(encoder), isinstance(encoder, CarriedEncoder)
    if beside is None:
        return
    if carries and distinct and not isinstance(layer, DenseLayer):
        raise ValueError("encoder: expected no features beside carried ones of a RidgeLayer: their loss has no bounds.")
    t = beside.statistics_read
    if t > 1 and (carries or isinstance(layer, DenseLayer)):
        raise ValueError(
            f"encoder: expected one statistic per feature of a DenseLayer's input, and beside carried features, whose "
            f"errors can be bounded, got {t}."
        )
    orders, K, m = Orders.of(resolution, t), target.prior.atoms.shape[1], beside.features
    R = 1 if target.decoder.ndim == 2 else K - 1
    points = (12 * orders.single) ** t * (R * K + 8 * R + 8)
    pair = (4 * orders.pair + 2) * (orders.pair + 1) * 8 if t == 1 else (1.6 * orders.series**2) ** 2 * 40
    tables = m * R * (24 * (R + 1) * orders.pair + (source.features * source.prior.atoms.shape[1] + 8) * 4)
    needed = (16 * AT_ONCE + points + pair + tables) * 2 * source.mean.dtype.itemsize
    require_memory(needed, "certify", "lower resolution.frequencies")


def _second_moments(learnt: Learnt, gram, gram_size, middles, mean: Bounded, own: Bounded) -> Bounded:
    """`T3 = sum_jk H_jk E s_j s_k`, from moments of `s_j` less the middle of its code; H is summed from `gram_size`.

    `own: [C, R]` are those of two codes of one feature.
    """
    C, R = own.value.shape
    first, second = np.triu_indices(C, 1)
    apart = first // R != second // R
    first, second = first[apart], second[apart]
    here = np.arange(C)[:, None], learnt.own
    values, errors = (jnp.zeros_like(gram).at[here].set(found) for found in (own.value, own.error_bound))
    if first.size:
        pairs = _pair_moments(learnt, first, second, jnp.diagonal(values + errors))
        for one, other in ((first, second), (second, first)):
            values, errors = values.at[one, other].set(pairs.value), errors.at[one, other].set(pairs.error_bound)
    shift = jnp.outer(middles, mean.value)
    whole = values + shift + shift.T + jnp.outer(middles, middles)
    shift_error = jnp.outer(jnp.abs(middles), mean.error_bound)
    sizes = jnp.abs(values) + jnp.abs(shift) + jnp.abs(shift.T) + jnp.abs(jnp.outer(middles, middles))
    eps = ROUNDING * jnp.finfo(gram.dtype).eps
    errors = errors + shift_error + shift_error.T + eps * sizes
    error = jnp.sum(jnp.where(gram == 0, 0, jnp.abs(gram) * errors)) + eps * jnp.sum(gram_size * sizes)
    return Bounded(jnp.sum(gram * whole), SAFETY * error)


def _pair_moments(learnt: Learnt, first: np.ndarray, second: np.ndarray, squares: Float[Array, " C"]) -> Bounded:
    """`E s_j s_k` of all pairs, from a short series for each latent mean and what that leaves out.

    `squares` are bounds of `E s_j^2`.
    """
    orders, resolution = learnt.orders, learnt.resolution
    t = learnt.encoder.statistics_read
    grid = learnt.axis.law_grid(resolution, t)

    def one_code(encoder, tables, statistic):
        atoms, code, *_ = tables
        nodes = statistic_nodes(Spectrum.of(statistic, grid, resolution), resolution)
        q = jnp.exp(jax.vmap(lambda y: encoder.log_masses(y, atoms))(nodes.points))
        means = q @ (code - middle_and_half(code)[0])
        series, _ = jax.lax.stop_gradient(least_squares_series(statistic, nodes, means, orders.series))
        joint = learnt.joint(statistic, encoder.readout, orders.pair, orders.single_ridge)
        functions = encoder_functions(encoder, *tables, statistic, joint.axes, series)
        coefficients = box_coefficients(joint.axes, *functions)
        found = waves(joint, frequencies(joint.axes, coefficients.index), weighted=False)
        plain, _ = expectations(joint, found, coefficients, MEAN)
        return Parts(series, coefficients, jnp.sqrt(jnp.maximum(plain.high[-1], 0)))

    statistics, found = learnt.of_codes(one_code)
    if t == 1:
        return learnt.of_pairs(lambda joint, a, b: by_parts(joint, a, b, MEAN), (statistics, found), first, second)
    norms = jnp.stack([jnp.sqrt(jnp.maximum(squares, 0)), found.rest], axis=1)

    def one_pair(joint, a, b):
        return by_series(joint, a[0], b[0], jnp.stack([a[1], b[1]]))

    return learnt.of_pairs(one_pair, (statistics, (found.series, norms)), first, second)


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
        middle=both(left.middle, right.middle),
        still=both(left.still, right.still),
        rows=both(left.rows, right.rows),
    )

"""What learnt features add to the terms of the loss, with bounds of the errors."""

from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np

from ..spectral.projected_law import Projection
from ..types import Array, Float
from .ball import SAFETY, Bounded, added, weighted_sum
from .box_series import box_coefficients, expectations, frequencies
from .encoder_functions import MEAN, RATE, encoder_functions, middle_and_half
from .joint_law import Joint, Weight, source_sizes, waves
from .learnt import Learnt
from .learnt_pairs import _second_moments
from .output_terms import ROUNDING, OutputTerms, WhitenedOutput
from .terms import LossContribution
from .units import Units, pair_order, state_expectations, state_order


def _learnt_terms(
    learnt: Learnt, layer, target, parts: WhitenedOutput, units: Units, output: OutputTerms
) -> LossContribution:
    """The terms of learnt features."""
    single, weighted = _own_moments(learnt, layer, parts)
    own, (C, R) = learnt.own, learnt.own.shape
    rate, mean, spread, square = (
        jax.tree.map(itemgetter((slice(None), which)), single)
        for which in (RATE, MEAN, slice(2, 2 + R), slice(2 + R, 2 + 2 * R))
    )
    decoder, eps = parts.decoder, ROUNDING * jnp.finfo(learnt.source.mean.dtype).eps  # B4
    middles, _ = middle_and_half(learnt.code)
    gram, gram_size = decoder.T @ decoder, parts.decoder_size.T @ parts.decoder_size
    R1 = weighted_sum(rate, jnp.asarray(np.arange(C) % R == 0, gram.dtype))
    impossible = jnp.any(jnp.isneginf(learnt.log_masses))  # for the target, not for the encoder (B67)
    R1 = Bounded(R1.value, jnp.where(impossible, jnp.inf, R1.error_bound))
    T2 = _with_output(learnt, layer, parts, units, output, weighted)
    blocks, blocks_size = gram[np.arange(C)[:, None], own], gram_size[np.arange(C)[:, None], own]
    S1 = weighted_sum(jax.tree.map(jnp.ravel, spread), blocks.ravel())
    S1 = Bounded(S1.value, S1.error_bound + eps * jnp.sum(blocks_size * jnp.abs(spread.value)))
    return LossContribution(R1, S1, T2, _second_moments(learnt, gram, gram_size, middles, mean, square))


def _own_moments(learnt: Learnt, layer, parts: WhitenedOutput) -> tuple[Bounded, Bounded]:
    """Of every code, the means of `encoder_functions`, and `E F_j s_j` with `s_j` less the middle of its code."""
    form, orders, decoder = learnt.form, learnt.orders, parts.decoder
    # F_j = <decoder_j, f>, all of it if encoders read the output; of a dense layer what is linear in its input.
    if layer.reads_input:
        towards, towards_size = parts.linear.T @ decoder, parts.linear_size.T @ parts.decoder_size
    else:
        towards, towards_size = parts.inverse.T @ decoder, parts.inverse_size.T @ parts.decoder_size
    offsets = parts.centre @ decoder - form.offset @ towards

    def one_code(encoder, tables, statistic, *weight):
        """B59 and B60 for one code."""
        joint = Joint.of(
            learnt.source,
            form,
            encoder.readout,
            Weight(*weight),
            statistic,
            learnt.axis.centre,
            (orders.single, orders.single_ridge),
        )
        functions = encoder_functions(encoder, tables, statistic, joint.axes)
        coefficients = box_coefficients(joint.axes, *functions)
        found = waves(joint, frequencies(joint.axes, coefficients.index), weighted=True)
        return expectations(joint, found, coefficients, MEAN)

    _, moments = learnt.of_codes(one_code, towards.T, towards_size.T, offsets)
    return moments


def _with_output(
    learnt: Learnt, layer, parts: WhitenedOutput, units: Units, output: OutputTerms, weighted: Bounded
) -> Bounded:
    """`T2 = -2 sum_j E F_j s_j`, `E F s = E F (s - middle) + middle E F` (B66)."""
    source, eps = learnt.source, ROUNDING * jnp.finfo(learnt.source.mean.dtype).eps  # B4
    middles, halves = middle_and_half(learnt.code)
    bent = parts.output.T @ parts.decoder
    F = parts.decoder.T @ (parts.linear @ source.moments()[0] + parts.centre)
    sizes = parts.linear_size @ source_sizes(source) + parts.centre_size + parts.output_size @ output.roots
    rounding = eps * (jnp.abs(middles) + halves) @ (parts.decoder_size.T @ sizes)
    T2 = weighted_sum(weighted, -2 * jnp.ones_like(middles))
    if layer.reads_input:
        with_units = _with_units(learnt, bent, units, output.psi)
    else:
        with_units = weighted_sum(output.psi, bent @ middles)
    return Bounded(
        T2.value - 2 * (middles @ F + with_units.value), T2.error_bound + 2 * (rounding + with_units.error_bound)
    )


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


def _between(learnt: Learnt, code: Float[Array, "m R K"], parts: WhitenedOutput, first: int) -> LossContribution:
    """What carried and learnt features add to `T3` together: `2 sum <decoder_C, decoder_j> E code_C s_j`.

    B66, with roundings by B4.
    """
    source, order = learnt.source, state_order(learnt.resolution)
    read = learnt.form.linear
    middles, _ = middle_and_half(learnt.code)
    masses = source.prior.masses

    def one(j):
        """`E 1{z_l = a} (s_j - middle_j)` of one code (B40)."""
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
    return LossContribution(none, none, none, Bounded(2 * jnp.sum(gram * cross), 2 * SAFETY * error))

"""What learnt features add to the terms of the loss, with bounds of the errors."""

from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np

from ..spectral.projected_law import Projection
from ..types import Array, Float
from .ball import Ball, Bounded, einsum
from .box_series import box_coefficients, expectations, frequencies
from .encoder_functions import MEAN, RATE, encoder_functions, middle_and_half
from .joint_law import Joint, Weight, source_sizes, waves
from .learnt import Learnt
from .learnt_pairs import _second_moments
from .output_terms import OutputTerms, WhitenedOutput
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
    middles, _ = middle_and_half(learnt.code)
    gram = parts.decoder.T @ parts.decoder
    R1 = Ball.of(rate)[::R].sum()
    impossible = jnp.any(jnp.isneginf(learnt.log_masses))  # for the target, not for the encoder (B67)
    R1 = Ball(R1.value, jnp.where(impossible, jnp.inf, R1.radius), R1.size)
    T2 = _with_output(learnt, layer, parts, units, output, weighted)
    S1 = (gram[np.arange(C)[:, None], own] * spread).sum()
    return LossContribution(R1, S1, T2, _second_moments(learnt, gram, middles, mean, square))


def _own_moments(learnt: Learnt, layer, parts: WhitenedOutput) -> tuple[Bounded, Bounded]:
    """Of every code, the means of `encoder_functions`, and `E F_j s_j` with `s_j` less the middle of its code."""
    form, orders = learnt.form, learnt.orders
    # F_j = <decoder_j, f>, all of it if encoders read the output; of a dense layer what is linear in its input.
    towards = (parts.linear if layer.reads_input else parts.inverse).T @ parts.decoder
    offsets = parts.centre.value @ parts.decoder.value - form.offset @ towards.value

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

    _, moments = learnt.of_codes(one_code, towards.value.T, towards.size.T, offsets)
    return moments


def _with_output(
    learnt: Learnt, layer, parts: WhitenedOutput, units: Units, output: OutputTerms, weighted: Bounded
) -> Ball:
    """`T2 = -2 sum_j E F_j s_j`, `E F s = E F (s - middle) + middle E F` (B66)."""
    middles, halves = middle_and_half(learnt.code)
    sizes = parts.linear.size @ source_sizes(learnt.source) + parts.centre.size + parts.output.size @ output.roots
    linear = parts.linear.value @ learnt.source.moments()[0] + parts.centre.value
    F = parts.decoder.T @ Ball.of(linear, sizes)
    bent = parts.output.T @ parts.decoder
    if layer.reads_input:
        with_units = _with_units(learnt, bent.value, units, output.psi)
    else:
        with_units = Ball.of(output.psi) @ (bent @ middles)
    about_middles = Ball.of(weighted, halves * F.size)  # summed from halves of the codes
    return -2 * (about_middles.sum() + middles @ F + with_units)


def _with_units(learnt: Learnt, bent: Float[Array, "h C"], units: Units, psi: Bounded) -> Ball:
    """`sum_ij E psi_i g_ij(y_j)`: of each feature, for each unit, the mean of one code, its codes times `bent`."""
    R = learnt.siblings.shape[1]
    code = jnp.einsum("hmr,mrk->hmk", bent.reshape(bent.shape[0], -1, R), learnt.siblings[::R])
    found = units.with_functions(
        learnt.encoder.readout[::R, 0], lambda i, j: learnt.mean_of(j * R, code[i, j]), pair_order(learnt.resolution)
    )
    middles, _ = middle_and_half(code)
    return Ball.of(found).sum() + Ball.of(psi) @ middles.sum(axis=1)


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
    whole = Ball.of(found) + middles[:, None, None] * masses[None]
    cross = einsum("lrk,jlk->lrj", code, whole)
    cross = jax.tree.map(lambda a: a.reshape(first, -1), cross)
    gram = parts.decoder[:, :first].T @ parts.decoder[:, first:]
    none = Ball.of(jnp.zeros_like(source.mean[0]))
    return LossContribution(none, none, none, 2 * (gram * cross).sum())

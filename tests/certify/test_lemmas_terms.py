"""B5, B42 and B66 to B71: rows that cancel, whitening, and the algebra of the terms."""

from fractions import Fraction
from types import SimpleNamespace

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import analytic_vae as av
from analytic_vae.certify.ball import ROUNDING, Ball, Bounded
from analytic_vae.certify.carried_terms import _code_moments, _rate, _with_codes
from analytic_vae.certify.joint_law import source_sizes
from analytic_vae.certify.learnt import Learnt
from analytic_vae.certify.learnt_pairs import _second_moments
from analytic_vae.certify.output_terms import WhitenedOutput, output_terms
from analytic_vae.certify.terms import Certificate, LossContribution
from analytic_vae.certify.units import Units
from analytic_vae.spectral.projected_law import Projection


def test_rows_that_cancel():
    """B5: how far rounding moves a projection in float32, in the mean over its states; and it is not relative to Y."""
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(20):
        source = cases.cast(cases.model(rng, 4, 3, 2), np.float32)
        row = (1000 * rng.normal(size=4)).astype(np.float32)
        vectors = np.asarray(source.atom_vectors, float)
        row[0] = -(row[1:] @ vectors[1:, 0, 1]) / vectors[0, 0, 1]  # the second state of the first feature adds little
        law = Projection.of(source, jnp.asarray(row)[None])
        index, _, _ = reference.states(cases.oracle_model(cases.cast(source, np.float64)))
        masses = np.asarray(source.prior.masses, float)[np.arange(3), index].prod(axis=1)
        atoms, mean = np.asarray(law.atoms, float)[0], float(law.mean[0])
        found = mean + atoms[np.arange(3), index].sum(axis=1)
        exact = []
        for state in index:
            x = [
                Fraction(float(source.mean[n])) + sum(map(Fraction, vectors[n, np.arange(3), state])) for n in range(4)
            ]
            exact.append(float(sum(Fraction(float(r)) * one for r, one in zip(row, x, strict=True))))
        moved = masses @ np.abs(found - np.array(exact))
        size = float(jnp.abs(jnp.asarray(row)) @ source_sizes(source))
        assert moved <= 4 * np.finfo(np.float32).eps * size
        worst = max(worst, moved / (masses @ np.abs(exact)) / np.finfo(np.float32).eps)
    assert worst > 2


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_whitening(scale):
    """B42: by a nearly singular factor in float32, against float64."""
    rng = np.random.default_rng(1)
    target = cases.model(rng, 3, 2, 3, "full")
    factor = np.array([[1, 0, 0], [1000.3, 0.1, 0], [0.2, 0.1, 1]])
    target = av.FeatureModel(target.prior, rng.normal(size=(3, 2, 3)), scale * factor, target.mean)
    layer = av.LinearLayer(rng.normal(size=(3, 2)), rng.normal(size=3))
    single = cases.cast((layer, target), np.float32)
    found, exact = WhitenedOutput.of(*single), WhitenedOutput.of(*cases.cast(single, np.float64))
    for name in ("inverse", "linear", "centre", "decoder"):
        one = getattr(found, name)
        error = np.abs(np.asarray(one.value, float) - np.asarray(getattr(exact, name).value))
        assert np.all(error <= ROUNDING * np.finfo(np.float32).eps * np.asarray(one.size, float))


def test_second_moments_of_the_output():
    """B41: `U1`, `U2`, `U3` of a dense layer, by listing."""
    rng = np.random.default_rng(2)
    source, target = cases.model(rng, 1, 2, 2), cases.model(rng, 2, 2, 2)
    arrays = rng.normal(size=(2, 1)), rng.normal(size=2), rng.normal(size=(2, 2)), rng.normal(size=(2, 1))
    weight, bias, output, skip = arrays
    layer = av.DenseLayer(weight, bias, ["tanh", "tanh"], output, skip)
    resolution = av.Resolution(8)
    parts, units = WhitenedOutput.of(layer, target), Units.of(source, layer)
    found = jax.jit(lambda s: output_terms(s, layer, parts, units, resolution))(source)
    points, mass = reference.points(cases.oracle_model(source), None, reference.Rule(24, 16))
    scale = 1 / float(target.noise) if parts.inverse.value[0, 0] != 1 else 1.0
    psi = np.tanh(points @ weight.T + bias) @ output.T * scale
    linear = (points @ skip.T - np.asarray(target.mean)) * scale
    for ball, exact in ((found.U1, linear**2), (found.U2, 2 * linear * psi), (found.U3, psi**2)):
        term = ball.bounded()
        assert abs(float(term.value) - mass @ exact.sum(axis=1)) <= float(term.error_bound) + 1e-12
        assert float(term.error_bound) < 0.1


def test_products_of_codes():
    """B68: second moments from those of codes less their middles, errors and all; a weight of 0 takes no part."""
    rng = np.random.default_rng(3)
    middles, mean, moment = rng.normal(size=2), rng.normal(size=2), rng.normal(size=(2, 2))
    error = rng.uniform(size=(3, 2))
    moment, mean_error, moment_error = moment + moment.T, error[0], error[1:] + error[1:].T
    learnt = Learnt(*[None] * len(Learnt._fields))._replace(siblings=jnp.zeros((2, 2, 3)))  # two codes of one feature
    gram = rng.normal(size=(2, 2))
    gram = gram + gram.T
    gram[0, 1] = gram[1, 0] = 0.0
    moment_error[0, 1] = moment_error[1, 0] = np.inf
    as_bounded = lambda value, error: Bounded(jnp.asarray(value), jnp.asarray(error))  # noqa: E731
    first, second = as_bounded(mean, mean_error), as_bounded(moment, moment_error)
    found = _second_moments(learnt, Ball.of(jnp.asarray(gram)), jnp.asarray(middles), first, second).bounded()
    sizes = []
    for signs in np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T:
        m, s = mean + signs[:2] * mean_error, np.diag(moment) + signs[2:] * np.diag(moment_error)
        sizes.append(np.diag(gram) @ (s + 2 * middles * m + middles**2))
    worst = np.abs(np.array(sizes) - float(found.value)).max()
    assert worst <= float(found.error_bound) <= 1.02 * worst + 1e-12


def test_rates_of_carried_features():
    """B67, B69: states of mass 0 take no part; one that is impossible for the target makes the bound infinite."""
    masses = jnp.asarray([[0.2, 0.8, 0.0], [0.5, 0.25, 0.25]])
    target = jnp.log(jnp.asarray([[0.3, 0.7, 0.0], [0.1, 0.1, 0.8]]))
    found = _rate(masses, jnp.log(masses), target).bounded()
    exact = -np.nansum(np.asarray(masses) * np.where(np.asarray(masses) > 0, np.asarray(target), 0))
    assert abs(float(found.value) - exact) <= float(found.error_bound) < 1e-13
    impossible = target.at[1, 2].set(-jnp.inf)
    assert np.isinf(_rate(masses, jnp.log(masses), impossible).bounded().error_bound)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_carried_codes(dtype):
    """B70: `T2` of a linear layer and `T3`, by listing the states."""
    rng = np.random.default_rng(4)
    source, target = cases.model(rng, 2, 2, 2), cases.model(rng, 3, 2, 2)
    layer = av.LinearLayer(rng.normal(size=(3, 2)), rng.normal(size=3))
    code = rng.normal(size=(2, 1, 2))
    source, target, layer = cases.cast((source, target, layer), dtype)
    parts, units = WhitenedOutput.of(layer, target), Units.of(source, layer)
    given = jnp.asarray(code, dtype)
    T2 = _with_codes(source, parts, units, given, av.Resolution(8)).bounded()
    T3 = _code_moments(source.prior.masses, given, parts).bounded()
    index, _, _ = reference.states(cases.oracle_model(cases.cast(source, np.float64)))
    wide = WhitenedOutput.of(*cases.cast((layer, target), np.float64))
    exact_source = cases.cast(source, np.float64)
    masses = np.asarray(exact_source.prior.masses)[np.arange(2), index].prod(axis=1)
    vectors = np.asarray(exact_source.atom_vectors)
    x = np.asarray(exact_source.mean) + np.stack([vectors[:, np.arange(2), state].sum(axis=1) for state in index])
    f = x @ np.asarray(wide.linear.value).T + np.asarray(wide.centre.value)
    codes = np.asarray(given, float)[np.arange(2), 0, index]
    along = codes @ np.asarray(wide.decoder.value).T
    for found, exact in ((T2, -2 * masses @ (f * along).sum(axis=1)), (T3, masses @ (along**2).sum(axis=1))):
        assert abs(float(found.value) - exact) <= float(found.error_bound)
        assert float(found.error_bound) < (1e-11 if dtype == np.float64 else 1e-2)


def test_sums_of_terms():
    """B71: every term at an end of its interval leaves every sum in its own."""
    rng = np.random.default_rng(5)
    names = ("R1", "S1", "T2", "T3", "U1", "U2", "U3")
    value, error = rng.normal(size=7), rng.uniform(0, 0.1, 7)
    terms = {n: Ball.of(Bounded(jnp.asarray(v), jnp.asarray(e))) for n, v, e in zip(names, value, error, strict=True)}
    target = cases.model(rng, 3, 2, 2, "full")
    found = Certificate.of(
        target, LossContribution(*(terms[n] for n in names[:4])), SimpleNamespace(**{n: terms[n] for n in names[4:]})
    )
    for _ in range(50):
        R1, S1, T2, T3, U1, U2, U3 = value + error * rng.choice([-1, 1], 7)
        S2 = U1 + U2 + U3 + T2 + T3
        factor = np.asarray(target.noise)
        log_det = np.log(np.abs(np.diag(factor))).sum()
        R2, R3 = 3 / 2 * np.log(2 * np.pi) + log_det, (S1 + S2) / (2 * np.exp(2 * log_det / 3))
        exact = {"S2": S2, "R2": R2, "R3": R3, "loss": R1 + R2 + R3}
        for name, one in exact.items():
            term = getattr(found, name)
            assert abs(float(term.value) - one) <= float(term.error_bound) * (1 + 1e-12)

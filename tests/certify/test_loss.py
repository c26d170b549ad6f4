"""Bounds of the loss, of laws and of fits against enumeration: none may be violated, and they must be of use."""

import cases
import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import analytic_vae as av
from analytic_vae.certify.domain import Domain
from analytic_vae.certify.phase_series import coefficients, frequencies
from analytic_vae.certify.ridge_function import RidgeFunction
from analytic_vae.model.activation import ACTIVATIONS
from analytic_vae.spectral.enumeration import support
from analytic_vae.spectral.projected_law import Projection

pytestmark = pytest.mark.coarse

TERMS = ("R1", "R2", "R3", "S1", "S2", "T1", "T2", "T3", "U1", "U2", "U3", "loss")
CASES = [  # encoder, activation, noise of the target, dtype, frequencies, noises of the source
    ("softmax", "relu", "full", np.float64, 12, (0.0, 0.01, 0.4)),
    ("neural", "tanh", "scalar", np.float32, 12, (0.1, 1.0)),
    ("exponential", None, "diagonal", np.float64, 12, (0.1,)),
    ("softmax2", "leaky_relu", "scalar", np.float64, 8, (0.3,)),
]  # the other encoders: benchmarks/elbo_bounds.py


def errors_and_bounds(parts, activation, resolution):
    found = av.elbo(*parts, resolution, certify=True)
    exact = reference.elbo_terms(*cases.oracle_parts(*parts, activation))
    return {n: (abs(float(getattr(found, n)) - exact[n]), float(getattr(found.bounds, n))) for n in TERMS}, exact


@pytest.mark.parametrize(("encoder", "activation", "target_noise", "dtype", "frequencies", "noises"), CASES)
def test_no_term_is_farther_off_than_its_bound(encoder, activation, target_noise, dtype, frequencies, noises):
    for seed, noise in enumerate(noises):
        parts = cases.problem(seed, encoder, activation, target_noise=target_noise, m2=2)
        parts = (eqx.tree_at(lambda one: one.noise, parts[0], jnp.asarray(noise)), *parts[1:])
        found, exact = errors_and_bounds(cases.cast(parts, dtype), activation, av.Resolution(frequencies))
        for name, (error, bound) in found.items():
            assert error <= bound + 1e-13 * (1 + abs(exact[name])), (name, noise)
        if encoder == "softmax" and noise == 0.4:
            assert found["loss"][1] < 1e-2
            assert found["loss"][1] < 1e3 * found["loss"][0]


def test_a_vector_for_each_of_three_atoms():
    """Along one direction, by the atoms' values: the loss is that of the direction, and so is what is proved of it."""
    source, layer, target, encoder = parts = cases.problem(0, "softmax", None, m2=2)
    vectors = av.FeatureModel(target.prior, target.atom_vectors, target.noise, target.mean)
    exact = reference.elbo_terms(*cases.oracle_parts(*parts, None))
    found = av.elbo(source, layer, vectors, encoder, av.Resolution(12), certify=True)
    for name in ("R1", "S1", "S2", "loss"):
        error = abs(float(getattr(found, name)) - exact[name])
        assert error <= float(getattr(found.bounds, name)) + 1e-13 * (1 + abs(exact[name])), name
    assert found.error_bound < 1e-3


def test_bounds_have_no_gradient_and_change_no_other():
    parts = cases.problem(0, "softmax", None, m2=1)

    def values(encoder, certify):
        found = av.elbo(*parts[:3], encoder, av.Resolution(12), certify=certify)
        return found.loss + (found.error_bound if certify else 0)

    with_bounds, without = (eqx.filter_grad(values)(parts[3], certify) for certify in (True, False))
    chex.assert_trees_all_close(with_bounds, without, rtol=1e-12, atol=1e-14)
    assert av.elbo(*parts, av.Resolution(12)).error_bound is None


@pytest.mark.parametrize("encoder", cases.ENCODERS)
def test_logits_off_the_real_axis(encoder):
    """`regularity` bounds `|Im (l_k - l_k')|` at complex statistics, and is not much larger than that."""
    rng = np.random.default_rng(4)
    _, _, target, made = cases.problem(3, encoder, "relu")
    one, atoms = jax.tree.map(lambda leaf: leaf[0], made), np.asarray(target.prior.atoms[0])
    t = made.statistics_read
    low, high = -np.ones(t), 2 * np.ones(t)
    width = np.full(t, 0.2)
    y = rng.uniform(low, high, (2000, t)) + 1j * rng.uniform(-width, width, (2000, t))
    if isinstance(one, av.SoftmaxEncoder):
        logits = np.asarray(one.base) + y @ np.asarray(one.statistics)
    elif isinstance(one, av.GaussianEncoder):
        scale = np.exp(np.asarray(one.log_scale) + (y[:, 1] if t == 2 else np.zeros(len(y))))[:, None]
        logits = -(((atoms - (y[:, 0] + np.asarray(one.offset))[:, None]) / scale) ** 2) / 2
    elif isinstance(one, av.ExponentialEncoder):
        logits = -(y[:, :1] + np.asarray(one.offset)) * atoms
    else:
        first, last = one.networks.layers
        hidden = np.tanh(y @ np.asarray(first.weight).T + np.asarray(first.bias))
        logits = hidden @ np.asarray(last.weight).T + np.asarray(last.bias)
    turned = np.ptp(logits.imag, axis=1).max()
    imag_spread = float(one.regularity(*map(jnp.asarray, (low, high, width, atoms))).imag_spread)
    assert turned <= imag_spread <= 12 * turned


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_waves_of_the_ridge_axis(activation):
    """Their coefficients are the integrals that they stand for, by quadrature on the windowed wave."""
    law = Projection(jnp.array([0.2]), jnp.array([[[0.0, 1.0]]]), jnp.array([[0.7, 0.3]]), jnp.array([[0.3]]))
    axis = Domain.of(law, jnp.asarray(0.5), 24)
    bend = RidgeFunction(jnp.array([-0.4]), jnp.array([1.3]), jnp.asarray(0.1), ACTIVATIONS[activation])
    frequency = jnp.array([[0.0], [0.7], [-3.0]])
    found, alias, rounding = coefficients(axis, bend, frequency)
    v, weight = reference.composite(np.unique([*np.linspace(-0.2, 1.2, 60), float(-axis.low / axis.length)]), 16)
    y = axis.low + axis.length * v
    wave = np.exp(1j * np.asarray(frequency) * np.asarray(bend(y))) * np.asarray(axis.window(jnp.asarray(v)))
    expected = (wave * weight) @ np.exp(-1j * np.outer(y - axis.low, frequencies(axis)))
    assert np.all(np.abs(found - expected) <= alias + 8 * rounding + 1e-13)


def test_bounds_of_a_law():
    rng = np.random.default_rng(0)
    for activation in ("relu", "tanh"):
        source, layer, target, encoder = cases.problem(1, "softmax", activation)
        readout = rng.normal(size=(2, 3))
        law = av.pushforward(source, layer, readout, av.Resolution(12), certify=True)
        given, f, *_ = cases.oracle_parts(source, layer, target, encoder, activation)
        mean = reference.expectation(given, f, lambda x, f=f: f(x))
        second = reference.expectation(given, f, lambda x, f=f: np.einsum("pi,pj->pij", f(x), f(x)))
        mean, covariance = readout @ mean, readout @ (second - np.outer(mean, mean)) @ readout.T
        assert np.all(np.abs(law.mean - mean) <= law.bounds.mean)
        assert np.all(np.abs(law.covariance - covariance) <= law.bounds.covariance)
        assert np.max(law.bounds.covariance) < 1e-3


@pytest.mark.parametrize("seed", [2])
def test_a_direction_that_cancels(seed):
    """`u A` of large u, nearly orthogonal to the columns of A: what it was summed from is charged, not what is left."""
    source, layer, *_ = cases.problem(seed, "softmax", "relu", m2=2)
    basis = np.linalg.qr(np.concatenate([np.asarray(layer.linear), np.eye(3)], axis=1))[0]
    layer = av.RidgeLayer(layer.linear, 100 * layer.output, 1e3 * basis[:, 2], 0.0, "relu")
    source = eqx.tree_at(lambda one: one.noise, source, jnp.asarray(0.0))
    for dtype in (np.float32, np.float64):
        given, f = cases.cast((source, layer), dtype)
        law = av.pushforward(given, f, np.eye(3, dtype=dtype), av.Resolution(8), certify=True)
        exact = reference.expectation(cases.oracle_model(given), cases.oracle_layer(f), cases.oracle_layer(f))
        assert np.all(np.abs(law.mean - exact) <= law.bounds.mean)


@pytest.mark.parametrize(("threshold", "exact"), [(104, 26.028838179485620987), (300, 0.20149510110269576326)])
def test_weighted_sums_of_sparse_features_without_noise(threshold, exact):
    """The cases: `E relu(S - threshold)`, `S = sum_j j z_j`, `z_j ~ Bernoulli(1/20)`."""
    source = av.FeatureModel(av.Prior.bernoulli(np.full(64, 0.05)), np.arange(1.0, 65.0)[None], 0.0)
    layer = av.LinearLayer([[1.0]], [-float(threshold)])
    found = av.bounded_expectation(source, layer, [[1.0]], ("relu",))
    assert found.low <= exact <= found.high
    assert found.high - found.low < 1e-6


def test_discrete_laws_of_two_projections():
    """States that meet are taken together; the law of a few features is listed whole."""
    rng = np.random.default_rng(5)
    source = av.FeatureModel(av.Prior.bernoulli([0.2, 0.3, 0.4]), rng.normal(size=(2, 3)), 0.0)
    found = av.bounded_expectation(source, av.LinearLayer(np.eye(2)), np.eye(2), ("relu", "tanh"))
    _, z, mass = reference.states(cases.oracle_model(source))
    y = z @ np.asarray(source.decoder).T
    assert abs(float(found.value) - mass @ (np.maximum(y[:, 0], 0) * np.tanh(y[:, 1]))) <= float(found.error_bound)
    assert float(found.error_bound) < 1e-12
    same = av.FeatureModel(av.Prior.bernoulli(np.full(30, 0.1)), np.full((1, 30), 0.1), 0.0)
    values, masses, _ = support(Projection.of(same, jnp.eye(1)))
    assert values.shape[0] <= 62
    np.testing.assert_allclose(masses.sum(), 1, rtol=1e-13)


def test_resolve():
    source = av.FeatureModel(av.Prior.bernoulli([0.3, 0.2]), [[1.0, 2.3]], 0.1)

    def compute(resolution):
        return av.bounded_expectation(source, av.LinearLayer([[1.0]]), [[1.0]], ("relu",), resolution)

    said = []
    found = av.resolve(compute, 1e-8, log=said.append)
    assert found.attained and found.error_bound <= 1e-8 and len(said) >= 2
    hopeless = av.resolve(compute, 1e-18)
    assert not hopeless.attained and "not attainable in float64" in hopeless.reason
    assert hopeless.error_bound < 1e-11
    short = av.resolve(compute, 1e-10, finest=16)
    assert not short.attained and "up to 16" in short.reason
    late = av.resolve(compute, 1e-10, seconds=0.0)
    assert not late.attained and "may take" in late.reason
    with pytest.raises(ValueError, match="tolerance"):
        av.resolve(compute, 0.0)
    with pytest.raises(ValueError, match="error_bound"):
        av.resolve(lambda resolution: resolution, 1e-3)


def test_a_certified_fit_is_kept_in_its_file(tmp_path):
    source, layer, *_ = cases.problem(0, "softmax", "relu")
    options = {"features": 1, "steps": 3, "resolution": av.Resolution(12), "check": False}
    found = av.fit(source, layer, certify=True, **options)
    assert 0 < float(found.elbo.error_bound) < 0.01
    assert f"+- {float(found.elbo.error_bound):.1e}" in str(found)
    av.save_fit(tmp_path / "fit.npz", found)
    chex.assert_trees_all_equal(av.load_fit(tmp_path / "fit.npz").elbo.bounds, found.elbo.bounds, strict=True)


def test_bad_arguments():
    parts = cases.problem(0, "softmax", "relu")
    with pytest.raises(TypeError, match="certify"):
        av.elbo(*parts, certify=1)
    unknown = eqx.tree_at(lambda one: one.activation, parts[1], av.Activation(jnp.sin, name="sin"))
    with pytest.raises(ValueError, match=r"layer: expected an activation of known regularity"):
        av.elbo(parts[0], unknown, *parts[2:], certify=True)
    with pytest.raises(ValueError, match="target: expected noise in every direction"):
        av.elbo(parts[0], parts[1], eqx.tree_at(lambda one: one.noise, parts[2], jnp.zeros(())), parts[3])

"""What a result may be off by: it is said where it is much, nowhere else, and whatever the units are."""

import warnings

import cases
import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from three_features import A, source

import analytic_vae as av

RIDGE = av.RidgeLayer(A, [0.6, -0.8], [1.0, 0.7], -0.2)


def exact_loss(parts, panels=40):
    return reference.elbo_terms(*cases.oracle_parts(*parts), rule=reference.Rule(panels, 16))["loss"]


def sharp(parts, slope):
    *others, encoder = parts
    return *others, av.SoftmaxEncoder(encoder.readout, slope * encoder.statistics, encoder.base)


def test_a_sharp_encoder_warns_of_its_loss():
    parts = sharp(cases.problem(3), 100.0)
    with pytest.warns(
        av.AccuracyWarning, match=r"this Elbo may be off by .*; raise resolution.frequencies. Feature"
    ) as said:
        found = av.elbo(*parts)
    assert len(said) == 1 and said[0].filename == __file__
    assert abs(found.loss - exact_loss(parts)) < 2 * found.accuracy
    assert f"accuracy about {float(found.accuracy):.0e}" in str(found)
    with warnings.catch_warnings():  # under jit it is data
        warnings.simplefilter("error")
        inside = jax.jit(lambda *p: av.elbo(*p))(*parts)
    np.testing.assert_allclose(inside.accuracy, found.accuracy, rtol=1e-3)


@pytest.mark.parametrize("name", ["mean", "noise", "decoder"])
def test_a_warning_in_the_middle_of_a_derivative(name):
    """Where an accuracy is known, but not all of the source: the derivative, and a warning that names no feature."""
    prior, decoder = av.Prior.bernoulli([0.3, 0.2]), jnp.asarray([[1.0, 0.4], [0.2, -1.0]])

    def mean(given):
        parts = {"decoder": decoder, "noise": jnp.asarray(0.01), "mean": jnp.zeros(2)} | {name: given}
        law = av.pushforward(av.FeatureModel(prior, **parts), RIDGE, np.eye(2), av.Resolution(8))
        return law.mean.sum() + law.tail(0.1)

    at = {"decoder": decoder, "noise": jnp.asarray(0.01), "mean": jnp.zeros(2)}[name]
    with pytest.warns(av.AccuracyWarning, match="this Law may be off"):
        slope = jax.jvp(mean, (at,), (jnp.ones_like(at),))[1]
    assert np.isfinite(slope)


def test_ordinary_losses_warn_where_they_are_off():
    compiled = eqx.filter_jit(lambda parts, resolution: av.elbo(*parts, resolution))
    found = []
    for seed in range(40, 70):
        rough, fine = (compiled(cases.problem(seed), av.Resolution(n)) for n in (24, 64))
        found.append((abs(float(rough.loss - fine.loss)), float(rough.accuracy)))
    off, said = np.array(found).T
    assert np.sum(off > av.ACCURACY) >= 3 and np.all(said[off > av.ACCURACY] > av.ACCURACY)
    assert np.sum(said > av.ACCURACY) <= np.sum(off > av.ACCURACY) + 1 and np.median(said) < 1e-5


def test_a_sharp_encoder_beside_steep_units_warns():
    source = av.FeatureModel(av.Prior([[-1.0, 1.0]], np.zeros((1, 2))), [[0.6]], 0.8, [0.0])
    target = av.FeatureModel(av.Prior([[0.0, 1.0]], np.zeros((1, 2))), [[2.0]], 0.3, [-1.0])
    encoder = av.SoftmaxEncoder([[[1.0]]], [[[0.0, 40.0]]], [[0.0, 0.0]])
    loss = eqx.filter_jit(lambda layer, resolution: av.elbo(source, layer, target, encoder, resolution))
    for slope in (3.0, 30.0):
        layer = av.DenseLayer([[slope]], [0.0], "tanh")
        rough, fine = loss(layer, av.Resolution()), loss(layer, av.Resolution(192))
        assert 1e-3 < abs(rough.loss - fine.loss) < 3 * rough.accuracy and rough.accuracy < 1 and fine.accuracy < 1e-4


def test_every_result_has_one():
    parts = cases.problem(0)
    layer = av.DenseLayer(A, [-0.5, -0.4])
    results = [
        av.elbo(*parts),
        av.expectations(*parts[:2], parts[2].prior.atoms, parts[3]),
        av.dense_moments(source(), layer),
        av.pushforward(source(), layer, np.eye(2)),
        av.sparse_loss(source(), av.LinearLayer(A), av.SparseAutoencoder(np.ones((1, 1, 2)), [[0.1]], np.ones((2, 1)))),
        trajectory := av.learn(source(), av.Network([layer]), check=False, samples=0),
        trajectory.fits[0],
    ]
    for found in results:
        assert 0 <= float(found.accuracy) < av.ACCURACY


def test_a_source_of_little_noise_warns_of_reconstructions():
    """With few percent of noise pairs of latents are not resolved, which is said; how often they fire is right."""
    rng = np.random.default_rng(0)
    B = rng.normal(size=(10, 20))
    B /= np.linalg.norm(B, axis=0)
    model = av.FeatureModel(av.Prior.bernoulli([0.05] * 20), B, 0.02)
    sae = av.SparseAutoencoder(B.T[:, None], np.full((20, 1), -0.1), B)
    with pytest.warns(av.AccuracyWarning, match="SparseLoss"):
        found = av.sparse_loss(model, av.LinearLayer(np.eye(10)), sae)
    x = np.asarray(model.sample(jax.random.key(0), (200_000,)))
    e = np.maximum(x @ B - 0.1, 0)
    np.testing.assert_allclose(found.l0, (e > 0).mean(axis=0), atol=5e-3)
    assert np.all((found.l0 >= 0) & (found.l0 <= 1))
    assert abs(found.reconstruction - np.mean(np.sum((x - e @ B.T) ** 2, 1))) < found.accuracy * found.reconstruction


@pytest.mark.parametrize("first", [(1e-6, 100.0), (1e-9, 1e3)])
def test_the_clusters_of_a_source_hold_inside_of_jit(first):
    """A source that is closed over is concrete; one that is traced is not, and the accuracy says so."""
    model = source(0.3, first)
    target = av.FeatureModel(av.Prior.bernoulli([0.2, 0.35]), [[0.8, -0.2], [0.1, 0.9]], 0.5, [0.1, -0.1])
    encoder = av.SoftmaxEncoder([[[1.0, 0.2]], [[-0.1, 1.0]]], [[[0.0, 3.0]], [[0.0, 2.0]]], [[0.0, -2.0], [0.0, -1.0]])
    exact = exact_loss((model, RIDGE, target, encoder))
    np.testing.assert_allclose(av.elbo(model, RIDGE, target, encoder).loss, exact, atol=1e-6)
    inside = jax.jit(lambda e: av.elbo(model, RIDGE, target, e).loss)(encoder)
    np.testing.assert_allclose(inside, exact, atol=1e-6)
    traced = jax.jit(lambda m: av.elbo(m, RIDGE, target, encoder))(model)
    assert traced.accuracy > av.ACCURACY and traced.accuracy > abs(traced.loss - exact) / 10


def scaled(parts, factor, dtype):
    """A problem with source, layer and target in other units: the loss moves by `n2 log factor`, all else scales."""
    model, layer, target, encoder = parts
    longer = lambda m: av.FeatureModel(m.prior, factor * m.decoder, factor * m.noise, factor * m.mean)  # noqa: E731
    layer = eqx.tree_at(lambda one: one.bias, layer, factor * layer.bias)
    encoder = eqx.tree_at(lambda one: one.readout, encoder, encoder.readout / factor)
    return cases.cast((longer(model), layer, longer(target), encoder), dtype)


UNITS = [(jnp.float64, 1e-30, 1e-10), (jnp.float64, 1e30, 1e-10), (jnp.float32, 1e-12, 1e-4), (jnp.float32, 1e12, 1e-4)]


@pytest.mark.parametrize("dtype, factor, tolerance", UNITS)
def test_results_do_not_depend_on_the_units(dtype, factor, tolerance):
    parts = cases.problem(0)
    here, there = av.elbo(*parts), av.elbo(*scaled(parts, factor, dtype))
    np.testing.assert_allclose(there.loss - cases.N2 * np.log(factor), here.loss, atol=tolerance)
    dense = parts[0], av.DenseLayer(A, [0.3, -0.4]), *parts[2:]
    moved = scaled(dense, factor, dtype)
    one, other = av.dense_moments(*dense[:2]), av.dense_moments(*moved[:2])
    chex.assert_trees_all_close(other.psi.astype(float) / factor, one.psi, atol=tolerance)
    chex.assert_trees_all_close(
        other.psi_covariance.astype(float) / factor / factor, one.psi_covariance, atol=tolerance
    )
    law, far = av.pushforward(*dense[:2], np.eye(2)), av.pushforward(*moved[:2], np.eye(2))
    np.testing.assert_allclose(far.tail(0.2 * factor), law.tail(0.2), atol=tolerance)
    np.testing.assert_allclose(far.mean.astype(float) / factor, law.mean, atol=tolerance)
    sae = av.SparseAutoencoder(A[:, None], np.zeros((2, 1)), A)
    one = av.sparse_loss(parts[0], av.LinearLayer(A), sae)
    other = av.sparse_loss(moved[0], *cases.cast((av.LinearLayer(A), sae), dtype))
    np.testing.assert_allclose(float(other.reconstruction) / factor / factor, one.reconstruction, rtol=tolerance)
    np.testing.assert_allclose(other.l0, one.l0, atol=tolerance)


def test_a_fit_far_from_zero_in_single_precision():
    """The same function of `x - 1e4`: found as well as near zero, and what is returned stands where the source is."""
    near = av.fit(source(), RIDGE, steps=40, check=False)
    bias = -0.2 - 1e4 * float(np.sum(np.array([1.0, 0.7]) @ A))
    layer = eqx.tree_at(lambda one: one.bias, RIDGE, jnp.asarray(bias))
    model = av.FeatureModel(source().prior, source().decoder, 0.3, np.full(2, 1e4))
    model, layer = cases.cast((model, layer), jnp.float32)
    far = av.fit(model, layer, steps=40, check=False)
    np.testing.assert_allclose(far.loss, near.loss, atol=1e-3)
    np.testing.assert_allclose(av.elbo(model, layer, far.target, far.encoder).loss, far.loss, atol=2e-3)
    dense = av.DenseLayer(jnp.float32(A), jnp.float32(-1e4 * A.sum(axis=1)))
    found = av.fit(model, dense, check=False)
    exact = av.fit(source(), av.DenseLayer(A), check=False)
    np.testing.assert_allclose(found.loss, exact.loss, atol=2e-3)
    np.testing.assert_allclose(found.target.moments()[0], exact.target.moments()[0], atol=2e-3)


def test_a_fit_leaves_a_readout_of_zero():
    zero = av.SoftmaxEncoder(np.zeros((3, 1, 2)), [[[0.0, 1.0]]] * 3, np.log([[0.7, 0.3], [0.9, 0.1], [0.6, 0.4]]))
    lines = []
    found = av.fit(source(), RIDGE, encoder=zero, steps=30, check=False, log=lines.append)
    assert any(line == "features 0, 1, 2 read nothing, a saddle of the loss: begun at random" for line in lines)
    assert found.unused < 3 and found.loss < 1.9


def test_no_noise_and_no_floor_is_refused():
    model = av.FeatureModel(source().prior, source().decoder, 0.0)
    with pytest.raises(ValueError, match="floor: expected a positive number, as the features explain"):
        av.fit(model, av.DenseLayer(np.eye(2), activation="identity"), floor=0.0, check=False)
    assert np.isfinite(av.fit(model, av.DenseLayer(np.eye(2), activation="identity"), check=False).loss)


@pytest.mark.coarse
@pytest.mark.parametrize("kink", (1.5, 2.2, 2.4))
def test_a_unit_that_hardly_ever_fires(kink):
    """Its variance, 2e-5 to 1e-15, is that of the far tail of its law: what the law lacks there is in the accuracy."""
    source = av.FeatureModel(av.Prior.from_masses([[0.0, 1.0]], [[0.5, 0.5]]), [[1.0]], 0.2)
    moments = av.dense_moments(source, av.DenseLayer([[1.0]], [-kink], "relu"))
    x, weights = np.polynomial.legendre.leggauss(200)
    x, weights = kink + 1 + x, weights / (2 * 0.2 * (2 * np.pi) ** 0.5)
    weights = weights * (np.exp(-((x / 0.2) ** 2) / 2) + np.exp(-(((x - 1) / 0.2) ** 2) / 2))
    exact = weights @ (x - kink) ** 2 - (weights @ (x - kink)) ** 2
    off, accuracy = abs(float(moments.psi_covariance[0, 0]) / exact - 1), float(moments.accuracy)
    assert off < max(accuracy, 1e-6)
    assert (accuracy > av.ACCURACY) == (kink > 2)


@pytest.mark.parametrize("slope", [10.0, 100.0])
def test_steep_units(slope):
    parts = cases.problem(3)
    layer = parts[1]
    steep = av.Activation(lambda b: jnp.tanh(slope * b), (), "steep")
    layer = av.RidgeLayer(layer.linear, layer.output, layer.direction, layer.bias, steep)
    oracle = list(cases.oracle_parts(*parts))
    psi = lambda b: np.tanh(slope * b)  # noqa: E731
    oracle[1] = reference.Ridge(layer.linear, layer.output, layer.direction, layer.bias, psi, (0.0,))
    exact = reference.elbo_terms(*oracle, rule=reference.Rule(100, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", av.AccuracyWarning)
        found = av.elbo(parts[0], layer, *parts[2:])
    assert abs(found.loss - exact["loss"]) < max(10 * float(found.accuracy), 1e-3)
    np.testing.assert_allclose(found.U3, exact["U3"], rtol=1e-6)


def test_printing_shows_it():
    parts, layer = cases.problem(0), av.DenseLayer(A, [-0.5, -0.4])
    sae = av.SparseAutoencoder(np.ones((1, 1, 2)), [[0.1]], np.ones((2, 1)))
    for found in (
        av.elbo(*parts),
        av.expectations(*parts[:2], parts[2].prior.atoms, parts[3]),
        av.dense_moments(source(), layer),
        av.pushforward(source(), layer, np.eye(2)),
        av.sparse_loss(source(), av.LinearLayer(A), sae),
    ):
        assert f"about {float(found.accuracy):.0e}" in str(found) and len(str(found)) < 400


def test_a_variance_that_is_rounding_says_so():
    """A ReLU that hardly ever fires: its variance is 4e-11, in float32 -5e-10 comes out, or some other rounding."""
    masses = [[0.7311, 0.2689], [0.2689, 0.7311], [0.0474, 0.9526]]
    prior = av.Prior.from_masses([[0.0, 1.0], [0.0, -2.0], [0.0, -1.0]], masses)
    source = av.FeatureModel(prior, [[-1.0, 0.0, -2.0]], 0.4, [1.0])
    layer = av.DenseLayer([[-1.0], [-1.0], [-2.0]], [-2.0, 1.0, 0.5], ["relu", "tanh", "gelu"])
    with pytest.warns(av.AccuracyWarning):  # of 0.05 in double precision, too
        exact = float(av.dense_moments(source, layer).psi_covariance[0, 0])
    with pytest.warns(av.AccuracyWarning):
        found = av.dense_moments(*cases.cast((source, layer), np.float32))
    variance = found.psi_covariance[0, 0]
    assert found.accuracy > 1 and abs(variance - exact) < found.accuracy * abs(variance)

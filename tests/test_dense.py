"""Whole layers: moments of all units, encoders on the input side, carried features, a vector per atom."""

import functools

import cases
import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_dense

import analytic_vae as av

FINE, RULE = av.Resolution(40), reference.Rule(12, 12)
SMOOTH = ("tanh", "tanh", "tanh")
H, N2, M2 = 3, 3, 2


def layer_of(rng, n1, names=SMOOTH, skip=True):
    """A dense layer of `len(names)` units and its oracle."""
    h = len(names)
    weight, bias = rng.normal(size=(h, n1)), rng.normal(size=h) / 2
    output, skip = rng.normal(size=(N2, h)), rng.normal(size=(N2, n1)) * (0.3 if skip else 0)
    functions = [cases.ACTIVATIONS[name][1:] for name in names]
    layer = av.DenseLayer(weight, bias, [cases.ACTIVATIONS[name][0] for name in names], output, skip)
    return layer, reference_dense.Dense(weight, bias, output, skip, functions)


@functools.cache
def problem(seed, encoder="softmax", vectors=False, noise="scalar", names=SMOOTH, inputs=2):
    """`(source, layer, target, encoder)` and the layer's oracle, which of two inputs needs smooth units."""
    rng = np.random.default_rng(seed)
    t, make = cases.ENCODERS[encoder]
    source = cases.model(rng, inputs, 3, 3)
    layer, oracle = layer_of(rng, inputs, names)
    target = cases.model(rng, N2, M2, 3, noise)
    if vectors:
        target = av.FeatureModel(target.prior, rng.normal(size=(N2, M2, 3)), target.noise, target.mean)
    read = make(rng, M2, t)
    read = eqx.tree_at(lambda one: one.readout, read, read.readout[:, :, :inputs])
    return (source, layer, target, read), oracle


def exact_terms(parts, oracle, rule=RULE):
    """The terms of the loss, from tables and vectors of every feature at every point."""
    source, _, target, encoder = parts
    x, weights, state = reference_dense.input_points(cases.oracle_model(source), oracle, rule)
    tables = []
    if isinstance(encoder, av.CarriedEncoder):
        K = source.prior.atoms.shape[1]
        tables, encoder = [np.eye(K)[state[:, j]] for j in range(source.features)], encoder.extra
    if encoder is not None:
        log_q = cases.oracle_encoder(encoder, target.prior.atoms[-encoder.features :])
        q = np.exp(log_q(np.einsum("pn,jtn->pjt", x, np.asarray(encoder.readout))))
        tables += [q[:, j] for j in range(q.shape[1])]
    noise = np.asarray(target.noise)
    noise = noise if noise.ndim == 2 else np.diag(np.broadcast_to(noise, (N2,)))
    given = target.atom_vectors.transpose(1, 0, 2), target.prior.log_masses, target.mean, noise
    return reference_dense.dense_terms(x, weights, oracle(x), tables, *(np.asarray(part) for part in given))


def both(vectors=False, extra=True):
    """Carried features of the source, and two others beside them."""
    (source, layer, target, read), oracle = problem(5)
    rng = np.random.default_rng(9)
    m = source.features + (M2 if extra else 0)
    prior = av.Prior(rng.normal(size=(m, 3)), rng.normal(size=(m, 3)))
    decoder = rng.normal(size=(N2, m, 3) if vectors else (N2, m))
    target = av.FeatureModel(prior, decoder, target.noise, target.mean)
    return (source, layer, target, av.CarriedEncoder(source.features, read if extra else None)), oracle


def assert_terms(found, exact, tolerance):
    for name, value in exact.items():
        np.testing.assert_allclose(getattr(found, name), value, atol=tolerance * (1 + abs(value)), err_msg=name)


# ------------------------------------------------------------------------------------------------------- the layer


def test_the_function():
    rng = np.random.default_rng(0)
    layer, oracle = layer_of(rng, 2, ("relu", "tanh", "relu", "identity"))
    x = rng.normal(size=(5, 2))
    np.testing.assert_allclose(jax.vmap(layer)(jnp.asarray(x)), oracle(x), rtol=1e-12)
    assert (layer.inputs, layer.units, layer.outputs) == (2, 4, 3)
    assert len(layer.activations) == 3 and layer.activation_index == (0, 1, 0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(weight=np.ones(2)), "weight: expected shape"),
        (dict(weight=np.ones((2, 2)), bias=np.ones(3)), "bias: expected shape"),
        (dict(weight=np.ones((2, 2)), output=np.ones((3, 3))), "output: expected shape"),
        (dict(weight=np.ones((2, 2)), skip=np.ones((3, 2))), "skip: expected shape"),
        (dict(weight=np.ones((2, 2)), activation=["relu"]), "activation: expected one, or one for each of 2 units"),
        (dict(weight=np.full((2, 2), np.nan)), "weight: expected finite"),
        (dict(weight=np.ones((2, 2)), activation="swoosh"), "activation: expected one of"),
    ],
)
def test_bad_layers(arguments, message):
    with pytest.raises(ValueError, match=message):
        av.DenseLayer(**arguments)


# ------------------------------------------------------------------------------------------------------- moments


@pytest.mark.optimised
@pytest.mark.parametrize("names", (("relu", "relu", "leaky_relu"), ("gelu", "tanh", "softplus")))
def test_moments_of_all_units_against_enumeration(names):
    rng = np.random.default_rng(1)
    source = cases.model(rng, 2, 3, 2, "full")
    layer, oracle = layer_of(rng, 2, names)
    found = av.dense_moments(source, layer, av.Resolution(128))
    law, rule = cases.oracle_model(source), reference.Rule(24, 16)
    second = found.psi_covariance + jnp.outer(found.psi, found.psi)
    for i in range(3):
        for k in range(i):
            np.testing.assert_allclose(second[i, k], reference_dense.unit_pair(law, oracle, i, k, rule), atol=1e-9)
    # With a noise of one direction per unit the diagonal and the means are one-dimensional.
    for i in range(3):
        row = source.project(layer.weight[i : i + 1])
        alone = np.ones((1, 1)), oracle.bias[i : i + 1], np.eye(1), np.zeros((1, 1)), [oracle.functions[i]]
        one = reference_dense.Dense(*alone)
        x, weights, state = reference_dense.input_points(cases.oracle_model(row), one, rule)
        psi = one.units(x)[:, 0]
        np.testing.assert_allclose(found.psi[i], weights @ psi, atol=1e-9)
        np.testing.assert_allclose(second[i, i], weights @ psi**2, atol=1e-9)
        for j, k in np.ndindex(source.prior.atoms.shape):
            pinned = weights @ ((state[:, j] == k) * (psi - weights @ psi))
            np.testing.assert_allclose(found.psi_states[i, j, k], pinned, atol=1e-9)


@pytest.mark.parametrize("noise", (0.0, 1e-7, 1e-6, 1e-4, 3e-4))
def test_little_noise_is_as_good_as_none(noise):
    """A law that its frequencies do not resolve: no series may rest on directions that it knows only by rounding."""
    rng = np.random.default_rng(4)
    prior, decoder = av.Prior.bernoulli([0.3, 0.2, 0.4]), rng.normal(size=(3, 3))
    layer = av.DenseLayer(rng.normal(size=(4, 3)), rng.normal(size=4) / 2)
    states = np.array(list(np.ndindex(2, 2, 2)))
    masses = np.prod(np.where(states, prior.mean, 1 - prior.mean), axis=1)
    psi = np.maximum(states @ decoder.T @ np.asarray(layer.weight).T + np.asarray(layer.bias), 0)
    mean = masses @ psi
    exact = ((psi - mean).T * masses) @ (psi - mean)
    found = av.dense_moments(av.FeatureModel(prior, decoder, noise), layer)
    np.testing.assert_allclose(found.psi, mean, atol=2e-4)
    np.testing.assert_allclose(found.psi_covariance, exact, atol=1e-3 * np.trace(exact) / 4)


def test_rare_features_without_noise():
    """Ten that are active once in fifty times: nothing is smooth, and the covariances are right to 1e-4 at 48."""
    rng, m, p = np.random.default_rng(0), 10, 0.02
    decoder = rng.normal(size=(m, m)) / np.sqrt(m)
    layer = av.DenseLayer(rng.normal(size=(4, m)), rng.normal(size=4) / 5)
    states = np.array(list(np.ndindex(*[2] * m)))
    masses = np.prod(np.where(states, p, 1 - p), axis=1)
    psi = np.maximum(states @ decoder.T @ np.asarray(layer.weight).T + np.asarray(layer.bias), 0)
    exact = np.cov(psi.T, aweights=masses, ddof=0)
    found = av.dense_moments(av.FeatureModel(av.Prior.bernoulli(np.full(m, p)), decoder, 0.0), layer, av.Resolution(48))
    np.testing.assert_allclose(found.psi, masses @ psi, atol=1e-4)
    np.testing.assert_allclose(found.psi_covariance, exact, atol=1e-4 * np.trace(exact) / 4)


def test_moments_computed_before_are_those_of_the_units_alone():
    """The loss with them is the loss without, whatever the layer makes of its units; others' are refused."""
    (source, layer, target, encoder), _ = problem(0)
    resolution = av.Resolution(12)
    moments = av.dense_moments(source, layer, resolution)
    other = eqx.tree_at(lambda one: (one.output, one.skip), layer, (2 * layer.output, -layer.skip))
    for one in (layer, other):
        loss = av.elbo(source, one, target, encoder, resolution).loss
        np.testing.assert_allclose(av.elbo(source, one, target, encoder, resolution, moments=moments).loss, loss)
    backwards = source.decoder[:, ::-1], jax.tree.map(lambda leaf: leaf[::-1], source.prior)
    permuted = eqx.tree_at(lambda one: (one.decoder, one.prior), source, backwards)  # of the same mean and covariance
    steeper = eqx.tree_at(lambda one: one.weight, layer, 2 * layer.weight)
    softer = av.DenseLayer(layer.weight, layer.bias, "softplus", layer.output, layer.skip)
    fewer = layer.of_units([0])
    for wrong, message in (
        ((source.shift(np.ones(2)), layer), "of this source and layer"),
        ((permuted, layer), "of this source and layer"),
        (cases.cast((source, layer), jnp.float32), "of this source and layer"),
        ((source, steeper), "of this source and layer"),
        ((source, softer), "of this layer's activations"),
        ((source, fewer), "of units and features"),
    ):
        with pytest.raises(ValueError, match=f"moments: expected those {message}"):
            av.elbo(*wrong, target, encoder, resolution, moments=moments)
    with pytest.raises(ValueError, match="moments: expected those at"):
        av.elbo(source, layer, target, encoder, av.Resolution(16), moments=moments)
    with pytest.raises(TypeError, match=r"moments: expected what av\.dense_moments returns"):
        av.elbo(source, layer, target, encoder, resolution, moments=moments.output())


def test_the_laws_of_one_and_two_units():
    (source, layer, *_), oracle = problem(3)
    layer = av.DenseLayer(layer.weight, layer.bias, [layer.activations[i] for i in layer.activation_index], None, None)
    x, weights, _ = reference_dense.input_points(cases.oracle_model(source), oracle, RULE)
    psi = oracle.units(x)
    for readout in ([[1.0, -0.5, 0]], [[0, 1.0, 0], [0, 0, 1.0]]):
        law = av.pushforward(source, layer, readout, FINE)
        y = psi @ np.asarray(readout).T
        np.testing.assert_allclose(law.mean, weights @ y, atol=1e-8)
        if len(readout) == 2:
            bounds = av.pushforward(source, layer, readout, av.Resolution(12), certify=True)
            assert np.all(np.abs(bounds.mean - weights @ y) <= bounds.bounds.mean)
            covariance = (y - weights @ y).T @ ((y - weights @ y) * weights[:, None])
            assert np.all(np.abs(bounds.covariance - covariance) <= bounds.bounds.covariance)
            assert 0 < np.max(bounds.bounds.covariance) < 1e-3
        value = law.expectation(lambda y: jnp.cos(y[0]) * jnp.tanh(y[-1]))
        np.testing.assert_allclose(value, weights @ (np.cos(y[:, 0]) * np.tanh(y[:, -1])), atol=5e-5)
    with pytest.raises(ValueError, match="readout: expected projections that involve at most 2 units"):
        av.pushforward(source, layer, np.ones((1, H)))


def test_the_law_of_a_residual_block():
    (source, layer, *_), oracle = problem(4)
    first = layer.of_units([0])
    readout = np.random.default_rng(0).normal(size=(1, N2))
    law = av.pushforward(source, first, readout, FINE)
    x, weights, _ = reference_dense.input_points(cases.oracle_model(source), oracle, RULE)
    y = (x @ oracle.skip.T + oracle.units(x)[:, :1] @ oracle.output[:, :1].T) @ readout[0]
    np.testing.assert_allclose(law.mean, [weights @ y], atol=1e-8)
    np.testing.assert_allclose(law.expectation(lambda y: jnp.sin(y[0])), weights @ np.sin(y), atol=1e-7)


# ------------------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("encoder", cases.READ_ONE)
def test_encoders_that_read_the_input(encoder):
    parts, oracle = problem(0, encoder)
    assert_terms(av.elbo(*parts, FINE), exact_terms(parts, oracle), 1e-8)


def test_units_with_kinks():
    """Of one input, whose quadrature is split at the kinks of all units."""
    parts, oracle = problem(0, names=("relu", "gelu", "leaky_relu"), inputs=1)
    assert_terms(av.elbo(*parts, FINE), exact_terms(parts, oracle), 1e-6)


def test_encoders_that_read_two_statistics():
    parts, oracle = problem(1, "softmax2")
    assert_terms(av.elbo(*parts, av.Resolution(32)), exact_terms(parts, oracle), 3e-5)


@pytest.mark.parametrize("noise", ("diagonal", "full"))
def test_a_vector_per_atom(noise):
    parts, oracle = problem(2, vectors=True, noise=noise)
    assert_terms(av.elbo(*parts, FINE), exact_terms(parts, oracle), 1e-8)


def test_a_vector_per_atom_after_a_ridge_layer():
    """With vectors along one direction the loss is that of the direction scaled by the atoms."""
    source, layer, target, encoder = cases.problem(0)
    vectors = av.FeatureModel(target.prior, target.atom_vectors, target.noise, target.mean)
    one, other = (av.elbo(source, layer, model, encoder, FINE) for model in (target, vectors))
    np.testing.assert_allclose(other.loss, one.loss, atol=1e-7)


@pytest.mark.parametrize(("vectors", "extra"), ((False, True), (True, True), (True, False)))
def test_carried_features(vectors, extra):
    parts, oracle = both(vectors, extra)
    assert_terms(av.elbo(*parts, FINE), exact_terms(parts, oracle), 1e-8)


def test_a_linear_layer_of_units_is_a_linear_layer():
    """Encoders that read the input of the identity are those that read its output."""
    source, layer, target, encoder = cases.problem(1, activation=None)
    pushed = av.linear_pushforward(source, layer)
    n = pushed.neurons
    identity = av.DenseLayer(np.eye(n), activation="identity")
    one = av.elbo(source, layer, target, encoder, FINE)
    other = av.elbo(pushed, identity, target, encoder, FINE)
    for name in ("R1", "S1", "T1", "T2", "T3", "loss"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-9, atol=1e-9)


def test_gradients_jit_and_vmap():
    parts, oracle, resolution = *problem(0), av.Resolution(24)
    step = jax.tree.map(
        lambda leaf: np.random.default_rng(leaf.size).normal(size=leaf.shape), eqx.filter(parts, eqx.is_array)
    )

    def along(s):
        return eqx.apply_updates(parts, jax.tree.map(lambda leaf: s * leaf, step))

    def loss(s):
        return av.elbo(*along(s), resolution).loss

    small, moved = 1e-4, []
    both_of_them = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    values, slopes = both_of_them(jnp.array([0.0, small]))
    for s in (small, -small):
        given = along(s)
        layer = given[1]
        names = oracle.functions
        arrays = (np.asarray(a) for a in (layer.weight, layer.bias, layer.output, layer.skip))
        moved.append(exact_terms(given, reference_dense.Dense(*arrays, names))["loss"])
    np.testing.assert_allclose(slopes[0], (moved[0] - moved[1]) / (2 * small), rtol=1e-5)
    np.testing.assert_allclose(values, [av.elbo(*along(s), resolution).loss for s in (0.0, small)], rtol=1e-9)


def test_single_precision():
    parts, _ = problem(0)
    single = cases.cast(parts, jnp.float32)
    found = av.elbo(*single, av.Resolution(24))
    assert found.loss.dtype == jnp.float32
    np.testing.assert_allclose(found.loss, av.elbo(*parts, av.Resolution(24)).loss, atol=1e-3)


def test_on_a_mesh():
    parts, _ = both(True)
    mesh = jax.make_mesh((1,), ("pairs",))
    np.testing.assert_allclose(av.elbo(*parts, FINE, mesh=mesh).loss, av.elbo(*parts, FINE).loss, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------- learning


def test_carried_features_have_a_closed_form(tmp_path):
    """Mean and covariance are those of f, each vector the pinned mean; the loss is that of the enumerated tables."""
    (source, layer, *_), oracle = problem(6)
    fit = av.fit(source, layer, resolution=FINE)
    assert fit.stop is av.Stop.CLOSED and fit.least_remainder > 0 and 0 < fit.explained < 1
    x, weights, state = reference_dense.input_points(cases.oracle_model(source), oracle, RULE)
    f = oracle(x)
    mean = weights @ f
    covariance = ((f - mean).T * weights) @ (f - mean)
    found_mean, found_covariance = fit.target.moments()
    np.testing.assert_allclose(found_mean, mean, atol=1e-8)
    np.testing.assert_allclose(found_covariance, covariance, atol=1e-8)
    for j, k in np.ndindex(source.prior.atoms.shape):
        inside = weights * (state[:, j] == k)
        np.testing.assert_allclose(fit.target.decoder[:, j, k], inside @ f / inside.sum() - mean, atol=1e-7)
    exact = exact_terms((source, layer, fit.target, fit.encoder), oracle)
    np.testing.assert_allclose(fit.loss, exact["loss"], atol=1e-7)
    av.save_fit(tmp_path / "fit.npz", fit)
    loaded = av.load_fit(tmp_path / "fit.npz")
    assert loaded.encoder == fit.encoder and loaded.least_remainder == fit.least_remainder
    np.testing.assert_array_equal(loaded.target.decoder, fit.target.decoder)


def test_carried_vectors_of_rare_features():
    """One feature in a million keeps its vector beside frequent ones, in single precision too."""
    source = av.FeatureModel(av.Prior.bernoulli([0.5, 1e-6]), np.eye(2), 0.1)
    given = cases.cast((source, av.DenseLayer(np.eye(2), None, "identity")), jnp.float32)
    for vectors in (True, False):
        decoder = av.fit(*given, vectors=vectors, resolution=av.Resolution(16), check=False).target.decoder
        found = decoder[:, :, 1] - decoder[:, :, 0] if vectors else decoder
        np.testing.assert_allclose(found, np.eye(2), atol=1e-5)


@pytest.mark.parametrize("encoder", ("both", "learnt"))
def test_learnt_features_of_a_residual_block(encoder, tmp_path):
    """They lower the loss, which is then that of the enumerated tables; the folder gives them back."""
    (source, layer, *_), oracle = problem(6)
    network, options = av.Network([layer]), dict(resolution=FINE, check=False, steps=8, samples=0)
    options |= dict(encoder=encoder, features=1, folder=tmp_path)
    (fit,) = av.learn(source, network, **options).fits
    assert fit.loss < fit.history[0]
    if encoder == "both":
        assert fit.loss < av.fit(source, layer, resolution=FINE, check=False).loss + 1e-4
    exact = exact_terms((source, layer, fit.target, fit.encoder), oracle)
    np.testing.assert_allclose(fit.loss, exact["loss"], atol=1e-3)
    (again,) = av.learn(source, network, **options).fits
    chex.assert_trees_all_equal(fit.encoder, again.encoder, strict=True)


def test_two_features_at_an_angle_as_one_of_four_atoms():
    """With its own vector for each of four atoms, and two statistics, the gap of the paper's discussion closes."""
    angle, entropy = np.deg2rad(60), 0.804112151
    directions = np.array([[1, np.cos(angle)], [0, np.sin(angle)]])
    source = av.FeatureModel(av.Prior.bernoulli([0.3, 0.3]), directions, 0.2)
    states = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ directions.T / 0.2**2
    base = -np.sum((states * 0.2) ** 2, axis=1) / 2 + np.log([0.49, 0.21, 0.21, 0.09])
    encoder = av.SoftmaxEncoder(np.eye(2)[None], states.T[None], base[None])
    fit = av.fit(
        source, av.LinearLayer(np.eye(2)), encoder=encoder, atoms=4, features=1, vectors=True, noise="scalar",
        resolution=av.Resolution(16), steps=12, floor=0.0, check=False,
    )  # fmt: skip
    np.testing.assert_allclose(fit.loss, entropy, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(encoder="none"), "encoder: expected"),
        (dict(vectors=1), "vectors: expected"),
        (dict(encoder="neural", statistics=2), "statistics: expected 1 for encoder"),
        (dict(encoder="both", statistics=2), "statistics: expected 1 for encoder"),
        (dict(certify=True, encoder="softmax", statistics=2), "certify: expected False: with two statistics"),
    ],
)
def test_bad_options(options, message):
    (source, layer, *_), _ = problem(6)
    with pytest.raises((ValueError, TypeError), match=message):
        av.fit(source, layer, **options)


def test_a_constant_layer_is_refused():
    (source, *_), _ = problem(6)
    with pytest.raises(ValueError, match="layer: expected an output that varies"):
        av.fit(source, av.DenseLayer(np.zeros((2, 2)), np.ones(2)), resolution=av.Resolution(16), check=False)


def test_bad_encoders():
    (source, layer, target, encoder), _ = problem(6)
    with pytest.raises(ValueError, match="carried: expected the number of features"):
        av.CarriedEncoder(0)
    with pytest.raises(TypeError, match="extra: expected an encoder that reads statistics"):
        av.CarriedEncoder(3, av.CarriedEncoder(3))
    with pytest.raises(ValueError, match="encoder: expected 3 carried features"):
        av.elbo(source, layer, target, av.CarriedEncoder(2))
    wrong = eqx.tree_at(lambda one: one.readout, encoder, jnp.ones((M2, 1, 3)))
    with pytest.raises(ValueError, match="encoder: expected a readout of 2 neurons, the inputs of layer, got 3"):
        av.elbo(source, layer, target, wrong)

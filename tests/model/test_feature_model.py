"""Feature models: moments, projections, samples, and what they refuse."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import analytic_vae as av

N, M, K = 3, 2, 3


def make(noise: str, vectors: bool = False, seed: int = 0) -> av.FeatureModel:
    """A model with a direction per feature, or (`vectors`) a vector per atom."""
    rng = np.random.default_rng(seed)
    model = cases.model(rng, N, M, K, noise)
    return av.FeatureModel(model.prior, rng.normal(size=(N, M, K)), model.noise, model.mean) if vectors else model


KINDS = [(noise, vectors) for noise in cases.NOISES for vectors in (False, True)]


@pytest.mark.parametrize(("noise", "vectors"), KINDS)
def test_moments_equal_enumeration(noise, vectors):
    model = make(noise, vectors)
    index = np.stack(np.meshgrid(*[np.arange(K)] * M, indexing="ij"), -1).reshape(-1, M)
    mass = np.prod(np.asarray(model.prior.masses)[np.arange(M), index], axis=1)
    centres = np.asarray(model.mean) + np.asarray(model.atom_vectors)[:, np.arange(M), index].sum(-1).T
    mean, covariance = model.moments()
    np.testing.assert_allclose(mean, mass @ centres, rtol=1e-12, atol=1e-14)
    centred = centres - mass @ centres
    np.testing.assert_allclose(covariance, (centred.T * mass) @ centred + model.covariance, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("noise", cases.NOISES)
def test_covariance_of_the_noise(noise):
    model = make(noise)
    np.testing.assert_allclose(model.covariance, cases.oracle_model(model).covariance_matrix, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("noise", "vectors"), KINDS)
@pytest.mark.parametrize("rows", [1, 3, 5])
def test_a_projection_is_the_model_of_g_x(noise, vectors, rows):
    """The same mean, features and noise covariance as `G x`, hence the same law; also with more rows than neurons."""
    model = make(noise, vectors)
    g = np.random.default_rng(1).normal(size=(rows, N))
    projected = model.project(g)
    np.testing.assert_allclose(projected.mean, g @ model.mean, rtol=1e-12)
    atoms = np.einsum("dn,nmk->dmk", g, model.atom_vectors)
    np.testing.assert_allclose(projected.atom_vectors, atoms, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(projected.covariance, g @ model.covariance @ g.T, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(projected.noise, np.tril(projected.noise))
    twice = model.project(g).project(np.ones((1, rows)))
    np.testing.assert_allclose(twice.moments()[1], [[g.sum(0) @ model.moments()[1] @ g.sum(0)]], rtol=1e-11)


@pytest.mark.parametrize("rows", [2, 5])
def test_derivatives_of_a_projection(rows):
    model, rng = make("full"), np.random.default_rng(1)
    g, direction, weight = rng.normal(size=(rows, N)), rng.normal(size=(rows, N)), rng.normal(size=(rows, rows))

    def through_factor(g):
        return jnp.sum(weight * model.project(g).moments()[1])

    def direct(g):
        return jnp.sum(weight * (g @ model.moments()[1] @ g.T))

    np.testing.assert_allclose(*(jax.jvp(f, (g,), (direction,))[1] for f in (through_factor, direct)), rtol=1e-10)
    np.testing.assert_allclose(jax.grad(through_factor)(g), jax.grad(direct)(g), rtol=1e-9)


@pytest.mark.parametrize(("noise", "vectors"), KINDS)
def test_samples_have_the_moments(noise, vectors):
    model, count = make(noise, vectors), 100_000
    x = np.asarray(jax.jit(lambda m, key: m.sample(key, (100, count // 100)))(model, jax.random.key(0)))
    assert x.shape == (100, count // 100, N)
    x = x.reshape(count, N)
    mean, covariance = model.moments()
    assert np.all(np.abs(x.mean(0) - mean) < 4 * x.std(0) / np.sqrt(count))
    products = np.einsum("pi,pj->pij", x - np.asarray(mean), x - np.asarray(mean))
    assert np.all(np.abs(products.mean(0) - covariance) < 4 * products.std(0) / np.sqrt(count))


def test_samples_of_a_law_with_few_atoms_and_little_noise_sit_at_its_states():
    model = av.FeatureModel(av.Prior.bernoulli([0.3, 0.6]), np.diag([1.0, 2.0]), 1e-6)
    x = np.asarray(model.sample(jax.random.key(0), (5000,)))
    states, share = np.unique(np.round(x), axis=0, return_counts=True)
    assert np.abs(x - np.round(x)).max() < 1e-5
    expected = np.array([0.7 * 0.4, 0.7 * 0.6, 0.3 * 0.4, 0.3 * 0.6])
    np.testing.assert_array_equal(states, [[0, 0], [0, 2], [1, 0], [1, 2]])
    assert np.all(np.abs(share / 5000 - expected) < 4 * np.sqrt(expected * (1 - expected) / 5000))


def test_shift_shape_and_dtype():
    model = make("diagonal")
    np.testing.assert_allclose(model.shift(np.ones(N)).moments()[0], model.moments()[0] + 1, rtol=1e-12)
    assert model.sample(jax.random.key(0)).shape == (N,)
    assert (model.neurons, model.features) == (N, M)
    single = cases.cast(model, jnp.float32)
    for value in (
        *single.moments(),
        single.sample(jax.random.key(0)),
        single.project(np.eye(N, dtype=np.float32)).noise,
    ):
        assert value.dtype == jnp.float32
    promoted = av.FeatureModel(av.Prior([[0, 1]], [[0, 0]]), [[1], [2]], 1, [0, 1])
    assert {leaf.dtype for leaf in jax.tree.leaves(promoted)} == {jnp.dtype("float64")}


def test_the_oracle_has_the_same_moments():
    model = make("full")
    x, weight = reference.points(cases.oracle_model(model), rule=reference.Rule(4, 12))
    np.testing.assert_allclose(weight @ x, model.moments()[0], rtol=1e-10)


PRIOR, EYE, KEY = av.Prior.bernoulli([0.5, 0.5]), np.eye(2), jax.random.key(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: av.FeatureModel(PRIOR, np.ones((2, 3)), 0.1),
            r"decoder: expected shape \[neurons, 2\] .*, got \[2, 3\]",
        ),
        (lambda: av.FeatureModel(PRIOR, np.ones(2), 0.1), "decoder: expected shape"),
        (lambda: av.FeatureModel(PRIOR, np.ones((2, 2, 3)), 0.1), "decoder: expected shape"),
        (lambda: av.FeatureModel(PRIOR, np.zeros((0, 2)), 0.1), "decoder: expected shape"),
        (lambda: av.FeatureModel(PRIOR, EYE * np.nan, 0.1), "decoder: expected finite"),
        (lambda: av.FeatureModel(PRIOR, EYE, 0.1, np.ones(3)), "mean: expected shape"),
        (lambda: av.FeatureModel(PRIOR, EYE, 0.1, [0.0, np.inf]), "mean: expected finite"),
        (lambda: av.FeatureModel(PRIOR, EYE, -0.1), "noise: expected positive"),
        (lambda: av.FeatureModel(PRIOR, EYE, [0.1, -0.1]), "noise: expected positive"),
        (lambda: av.FeatureModel(PRIOR, EYE, np.nan), "noise: expected finite"),
        (lambda: av.FeatureModel(PRIOR, EYE, [0.1, 0.1, 0.1]), "noise: expected shape"),
        (lambda: av.FeatureModel(PRIOR, EYE, np.ones((3, 3))), "noise: expected shape"),
        (lambda: av.FeatureModel(PRIOR, EYE, [[1.0, 0.5], [0.5, 1.0]]), "noise: expected a lower-triangular factor"),
        (lambda: av.FeatureModel(PRIOR, EYE, [[1.0, 0.0], [0.5, -1.0]]), "noise .*diagonal.*: expected positive"),
        (lambda: av.FeatureModel(PRIOR, EYE, 0.1).project(np.ones((1, 3))), "matrix: expected shape"),
        (lambda: av.FeatureModel(PRIOR, EYE, 0.1).project(np.full((1, 2), np.nan)), "matrix: expected finite"),
        (lambda: av.FeatureModel(PRIOR, EYE, 0.1).shift([1.0]), r"offset: expected shape \[2\]"),
        (lambda: av.FeatureModel(PRIOR, EYE, 0.1).sample(KEY, -1), r"shape: expected integers of at least 0, got -1"),
        (lambda: av.FeatureModel(PRIOR, EYE, 0.1).sample(KEY, (2, -1)), r"shape: expected integers of at least 0"),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_prior_is_required():
    with pytest.raises(TypeError, match="prior: expected a Prior"):
        av.FeatureModel(np.eye(2), EYE, 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "key: expected one key, such as .*, got int"),
        ((None,), "key: expected one key, such as .*, got NoneType"),
        ((jax.random.split(KEY, 3),), r"key: expected one key, .* got keys of shape \[3\]"),
        ((np.zeros(2),), r"key: expected one key, .* got an array of float64 of shape \[2\]"),
        ((KEY, 2.0), r"shape: expected an integer or a tuple of integers, got 2\.0"),
        ((KEY, (2, 1.5)), "shape: expected an integer or a tuple of integers"),
        ((KEY, "3"), "shape: expected an integer or a tuple of integers"),
        ((KEY, None), "shape: expected an integer or a tuple of integers"),
    ],
)
def test_a_key_and_a_shape_are_asked_for_by_name(arguments, message):
    with pytest.raises(TypeError, match=message):
        av.FeatureModel(PRIOR, EYE, 0.1).sample(*arguments)


def test_a_number_is_a_shape():
    model = av.FeatureModel(PRIOR, EYE, 0.1)
    np.testing.assert_array_equal(model.sample(KEY, 3), model.sample(KEY, (3,)))
    assert model.sample(KEY, np.int64(2)).shape == (2, 2) and model.sample(KEY, [2, 3]).shape == (2, 3, 2)
    assert model.sample(KEY, 0).shape == (0, 2)
    many = jax.vmap(lambda key: model.sample(key, 4))(jax.random.split(KEY, 3))
    assert many.shape == (3, 4, 2)
    np.testing.assert_array_equal(model.sample(jax.random.PRNGKey(0), 3), model.sample(KEY, 3))

"""Bounds of expectations against enumeration with quadrature, and exact identities: none may be violated."""

import itertools

import functions
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import analytic_vae as av

NOISES = (1e-3, 1e-2, 0.1, 0.3, 1.0)
BOUNDED = jax.jit(av.bounded_expectation, static_argnames=("activations", "resolution"))


def random_model(rng, dtype, noise, atoms):
    """A model of one neuron as the package has it and, from its rounded numbers, as the oracle has it."""
    m = 8 if atoms == 2 else 2
    p = rng.uniform(0.001, 0.5, m)
    places = np.tile([0.0, 1.0], (m, 1)) if atoms == 2 else np.sort(rng.normal(size=(m, atoms)))
    masses = np.stack([1 - p, p], 1) if atoms == 2 else rng.dirichlet(np.ones(atoms), m)
    given = [np.asarray(a, dtype) for a in (places, np.log(masses), rng.normal(size=(1, m)), noise, rng.normal(size=1))]
    places, logits, decoder, noise, mean = given
    model = av.FeatureModel(av.Prior(places, logits), decoder, noise, mean)
    masses = np.exp(logits.astype(float))
    masses /= masses.sum(axis=1, keepdims=True)
    return model, reference.Model(places, masses, decoder, float(noise) ** 2, mean)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_no_bound_is_violated(dtype):
    """Every activation, noise and kind of prior; and bounds are of use: about three decades, in the median."""
    rng = np.random.default_rng(0)
    decades = []
    layer = av.LinearLayer(np.ones((1, 1), dtype))
    one = np.ones((1, 1), dtype)
    for (name, (function, kinks)), noise, atoms in itertools.product(functions.BOUNDED.items(), NOISES, (2, 32)):
        model, oracle = random_model(rng, dtype, noise, atoms)
        ridge = reference.Ridge([[1.0]], [1.0], [1.0], 0.0, function, kinks)
        exact = float(reference.expectation(oracle, ridge, lambda x, f=function: f(x[:, 0])))
        result = BOUNDED(model, layer, one, activations=(name,), resolution=av.Resolution(8))
        error = abs(float(result.value) - exact)
        assert error <= float(result.error_bound) + 1e-15 * abs(exact), (name, noise, atoms)
        if error > 1e-12:
            decades.append(np.log10(float(result.error_bound) / error))
    assert np.median(decades) < 3.3  # 2.98 and 2.99 were measured


@pytest.mark.parametrize("correlation, exact", [(0.5, 0.304498890522), (-0.9, 0.004769199422), (0.99, 0.495150127867)])
def test_product_of_two_relus(correlation, exact):
    """Of standard normals (the cases' identities), as a Gaussian source with one feature of no weight."""
    factor = np.linalg.cholesky([[1, correlation], [correlation, 1]])
    source = av.FeatureModel(av.Prior.bernoulli([0.5]), np.zeros((2, 1)), factor)
    layer = av.LinearLayer(np.eye(2))
    widths = []
    for frequencies in (24, 48):
        result = av.bounded_expectation(source, layer, np.eye(2), ("relu", "relu"), av.Resolution(frequencies))
        assert result.low - 1e-12 <= exact <= result.high + 1e-12
        widths.append(float(result.error_bound))
    assert widths[1] <= 1.01 * widths[0]  # both are what is outside of the box


def test_bounds_fall_and_transform():
    """They fall with the resolution; and jit, vmap and grad go through, without NaN."""
    rng = np.random.default_rng(1)
    model, _ = random_model(rng, np.float64, 0.1, 32)
    layer = av.LinearLayer(np.ones((1, 1)))
    bounds = [
        float(av.bounded_expectation(model, layer, np.ones((1, 1)), ("relu",), av.Resolution(n)).error_bound)
        for n in (8, 16, 32)
    ]
    assert bounds[0] > bounds[1] > bounds[2] and bounds[2] < 1e-8

    def both(scale):
        result = av.bounded_expectation(model, layer, scale * jnp.ones((1, 1)), ("gelu",))
        return result.value, result.error_bound

    slopes = jax.jacrev(both)(1.0)
    assert np.all(np.isfinite(slopes))
    step = 1e-5
    assert abs(slopes[0] - (both(1 + step)[0] - both(1 - step)[0]) / (2 * step)) < 1e-8
    np.testing.assert_allclose(jax.vmap(lambda s: both(s)[0])(jnp.array([1.0, 2.0])), [both(1.0)[0], both(2.0)[0]])


def test_bad_arguments():
    model, _ = random_model(np.random.default_rng(2), np.float64, 0.1, 2)
    layer, one = av.LinearLayer(np.ones((1, 1))), np.ones((1, 1))
    with pytest.raises(TypeError, match="layer"):
        av.bounded_expectation(model, av.RidgeLayer([[1.0]], [1.0], [1.0]), one, ("relu",))
    with pytest.raises(ValueError, match="activations"):
        av.bounded_expectation(model, layer, one, "relu")
    with pytest.raises(ValueError, match=r"activations.*regularity"):
        av.bounded_expectation(model, layer, one, (av.Activation(jnp.sin, name="sin"),))
    with pytest.raises(ValueError, match="readout"):
        av.bounded_expectation(model, layer, np.ones((3, 1)), ("relu",) * 3)


@pytest.mark.parametrize("frequencies", [8, 16, 24, 48])
def test_a_kink_between_two_far_atoms(frequencies):
    """No mass near the kink, so much smoothing: it must not reach the ends of the window."""
    model = av.FeatureModel(av.Prior.bernoulli([1e-3]), [[-1.0]], 1e-3, [0.5])
    result = av.bounded_expectation(model, av.LinearLayer([[1.0]]), [[1.0]], ("relu",), av.Resolution(frequencies))
    assert abs(result.value - 0.4995) <= result.error_bound + 1e-15


@pytest.mark.parametrize("dtype, mean", [(np.float32, -6.0), (np.float64, -9.0)])
def test_a_kink_beyond_the_box(dtype, mean):
    """It is not nothing: `E relu` of a normal variable is `phi(mean) + mean Phi(mean)`."""
    from scipy.stats import norm

    source = av.FeatureModel(av.Prior.bernoulli(np.array([0.5], dtype)), np.zeros((1, 1), dtype), dtype(1), [mean])
    result = av.bounded_expectation(source, av.LinearLayer(np.ones((1, 1), dtype)), np.ones((1, 1), dtype), ("relu",))
    exact = norm.pdf(mean) + mean * norm.cdf(mean)
    assert abs(float(result.value) - exact) <= float(result.error_bound)


@pytest.mark.parametrize("dtype, mean", [(np.float32, 5.8), (np.float64, 8.9)])
def test_a_kink_below_the_box(dtype, mean):
    """`relu(b) - b` is zero on all of the box, but not its expectation, that of `relu(-b)`."""
    from scipy.stats import norm

    from analytic_vae.model.activation import residual

    source = av.FeatureModel(av.Prior.bernoulli(np.array([0.5], dtype)), np.zeros((1, 1), dtype), dtype(1), [mean])
    one = np.ones((1, 1), dtype)
    result = av.bounded_expectation(source, av.LinearLayer(one), one, (residual("relu"),))
    exact = norm.pdf(mean) - mean * norm.cdf(-mean)
    assert 0 < abs(float(result.value) - exact) <= float(result.error_bound)


def test_rows_that_cancel():
    """In float32 two large weights leave a small row: the bound knows what it was the difference of."""
    weight, readout = np.float32([[1000.1], [1000.0]]), np.float32([[0.3, -0.3]])
    source = av.FeatureModel(av.Prior.bernoulli(np.float32([0.5])), np.float32([[1.0]]), np.float32(0.5))
    result = av.bounded_expectation(source, av.LinearLayer(weight), readout, ("identity",))
    exact = float((readout.astype(float) @ weight.astype(float))[0, 0]) / 2
    assert abs(float(result.value) - exact) <= float(result.error_bound)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("names", [("relu", "relu"), ("relu", "tanh"), ("gelu", "sigmoid")])
def test_products_with_atoms(dtype, names):
    """Two correlated projections of three features, against nested quadrature split at the kinks."""
    rng = np.random.default_rng(3)
    given = rng.normal(size=(3, 2)), rng.normal(size=(2, 3)), [[0.3, 0], [0.1, 0.2]]
    places, decoder, factor = (np.asarray(a, dtype) for a in given)
    source = av.FeatureModel(av.Prior(places, np.zeros((3, 2), dtype)), decoder, factor)
    eye = np.eye(2, dtype=dtype)
    result = BOUNDED(source, av.LinearLayer(eye), eye, activations=names, resolution=av.Resolution(16))
    places, decoder, factor = (a.astype(float) for a in (places, decoder, factor))
    (first, first_kinks), (second, second_kinks) = (functions.BOUNDED[name] for name in names)
    rule = reference.Rule(48, 16)

    def inner(mean):
        node, weight = reference.normal_axis(rule, [(kink - mean) / factor[1, 1] for kink in second_kinks])
        return weight @ second(mean + factor[1, 1] * node)

    exact = 0.0
    for state in itertools.product(range(2), repeat=3):
        a, b = decoder @ places[np.arange(3), list(state)]
        node, weight = reference.normal_axis(rule, [(kink - a) / factor[0, 0] for kink in first_kinks])
        values = [inner(b + factor[1, 0] * x) for x in node]
        exact += weight @ (first(a + factor[0, 0] * node) * values) / 8
    assert abs(float(result.value) - exact) <= float(result.error_bound) + 1e-14

"""Laws of projections against enumeration and quadrature."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import analytic_vae as av


def problem(seed: int = 0):
    rng = np.random.default_rng(seed)
    atoms, masses = rng.normal(size=(3, 2)), rng.dirichlet([2, 2], size=3)
    decoder, mean = rng.normal(size=(2, 3)), rng.normal(size=2)
    linear, output, direction = rng.normal(size=(3, 2)), rng.normal(size=3), rng.normal(size=3)
    source = av.FeatureModel(av.Prior.from_masses(atoms, masses), decoder, 0.4, mean)
    layer = av.RidgeLayer(linear, output, direction, 0.2)
    oracle = reference.Model(atoms, masses, decoder, 0.16, mean)
    ridge = reference.Ridge(linear, output, direction, 0.2)
    return source, layer, oracle, ridge, rng.normal(size=(3, 3))


@pytest.mark.parametrize("dimension, tolerance", [(1, 1e-8), (2, 1e-6), (3, 2e-3)])
def test_moments_and_expectations(dimension, tolerance):
    source, layer, oracle, ridge, readout = problem()
    readout = readout[:dimension]
    law = jax.jit(lambda s: av.pushforward(s, layer, readout))(source)

    def values(x):
        y = ridge(x) @ readout.T
        return np.concatenate([y, (y[:, :, None] * y[:, None, :]).reshape(len(y), -1), np.tanh(y.sum(1))[:, None]], 1)

    exact = reference.expectation(oracle, ridge, values)
    mean, second = exact[:dimension], exact[dimension:-1].reshape(dimension, dimension)
    np.testing.assert_allclose(law.mean, mean, rtol=0, atol=1e-10)
    np.testing.assert_allclose(law.covariance, second - np.outer(mean, mean), rtol=0, atol=1e-10)
    assert abs(law.expectation(lambda y: jnp.tanh(y.sum())) - exact[-1]) < tolerance
    assert abs(law.expectation(lambda y: jnp.ones(())) - 1) < tolerance


def test_density_and_tail_in_one_dimension():
    """The tail against the Gaussian mixture that the law is, for a linear layer."""
    source, _, oracle, _, readout = problem(1)
    layer = av.LinearLayer(np.eye(2), [0.5, -0.25])
    direction = readout[0, :2]
    law = av.pushforward(source, layer, direction[None], av.Resolution(48))
    _, z, mass = reference.states(oracle)
    centres = (z @ oracle.decoder.T + oracle.mean + np.asarray(layer.bias)) @ direction
    deviation = 0.4 * np.linalg.norm(direction)
    from scipy.stats import norm

    for threshold in (-1.0, 0.3, 2.0):
        assert abs(law.tail(threshold) - mass @ norm.sf(threshold, centres, deviation)) < 1e-9
    grid, density = law.density(400)
    exact = np.sum(mass * norm.pdf(np.asarray(grid).T, centres, deviation), axis=1)
    np.testing.assert_allclose(density, exact, atol=1e-8)
    spread = np.sqrt(float(law.covariance[0, 0]))
    assert str(law).startswith(f"projection 0: mean {float(law.mean[0]):.6g}, spread {spread:.6g}, box ")
    assert (
        abs(law.expectation(lambda y: jax.nn.relu(y[0] - 0.3), [(0.3,)]) - _relu(mass, centres - 0.3, deviation)) < 1e-9
    )


def _relu(mass, centres, deviation):
    from scipy.stats import norm

    return mass @ (centres * norm.cdf(centres / deviation) + deviation * norm.pdf(centres / deviation))


def test_two_dimensional_density_integrates_to_one():
    source, layer, *_, readout = problem()
    law = av.pushforward(source, layer, readout[:2], av.Resolution(24))
    correlation = law.covariance[0, 1] / np.sqrt(law.covariance[0, 0] * law.covariance[1, 1])
    assert str(law).splitlines()[2] == f"correlation of 0 and 1: {correlation:.6g}"
    several = jax.vmap(lambda shift: av.pushforward(source.shift(shift), layer, readout[:2], av.Resolution(8)))(
        jnp.zeros((2, 2))
    )
    assert str(several) == "Laws of 2 projections, a batch of shape [2]"
    with pytest.raises(ValueError, match="law: expected the law of one source and layer, got a batch"):
        several.tail(0.0)
    grid, density = law.density(96)
    cell = np.prod(np.asarray(grid)[:, 1] - np.asarray(grid)[:, 0])
    assert abs(density.sum() * cell - 1) < 1e-3


def test_linear_layers_push_exactly():
    source, _, _, _, readout = problem()
    layer = av.LinearLayer(readout[:, :2], [1.0, 2.0, 3.0])
    pushed = av.linear_pushforward(source, layer)
    mean, covariance = source.moments()
    pushed_mean, pushed_covariance = pushed.moments()
    np.testing.assert_allclose(pushed_mean, layer.weight @ mean + layer.bias, atol=1e-14)
    np.testing.assert_allclose(pushed_covariance, layer.weight @ covariance @ layer.weight.T, atol=1e-14)


def test_bad_input():
    source, layer, *_ = problem()
    with pytest.raises(ValueError, match="readout"):
        av.pushforward(source, layer, np.ones((1, 2)))
    with pytest.raises(ValueError, match="readout: expected 1, 2 or 3"):
        av.pushforward(source, layer, np.ones((4, 3)))
    with pytest.raises(ValueError, match="readout"):
        av.pushforward(source, layer, np.full((1, 3), np.nan))
    with pytest.raises(MemoryError, match="resolution"):
        av.pushforward(source, layer, np.eye(3), av.Resolution(4096))
    law = av.pushforward(source, layer, np.eye(3)[:1], av.Resolution(8))
    with pytest.raises(ValueError, match="kinks"):
        law.expectation(lambda y: y[0], [(), ()])


def test_places_that_cannot_be_are_refused():
    law = av.pushforward(*cases.problem(0)[:2], np.ones((1, cases.N2)), av.Resolution(8))
    with pytest.raises(ValueError, match=r"threshold: expected a number, one for each of 1 axes, or many"):
        law.tail([[0.0, 1.0]])
    with pytest.raises(TypeError, match="inclusive: expected True or False"):
        law.tail(0.0, inclusive=1)
    for kinks, what in (([0.0], "a sequence of places"), ([()] * 2, "got 2"), ([[np.nan]], "expected finite")):
        with pytest.raises(ValueError, match=f"kinks: .*{what}"):
            law.expectation(lambda y: y[0], kinks)
    with pytest.raises(ValueError, match="threshold: expected finite"):
        law.tail(np.nan)
    with pytest.raises(ValueError, match="points: expected an integer"):
        law.density(2.5)

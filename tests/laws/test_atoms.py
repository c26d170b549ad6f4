"""Laws with point masses, jumps, rare values and growing activations, against states listed one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr
from three_features import BIAS, A, source, states

import analytic_vae as av


def test_how_often_a_relu_fires():
    law = av.pushforward(source(), av.DenseLayer(A, BIAS), [[1.0, 0.0]])
    mass, x = states()
    deviation = 0.3 * np.linalg.norm(A[0])
    for t in (0.0, 0.01, 0.05, 0.5):
        np.testing.assert_allclose(law.tail(t), mass @ ndtr((x @ A[0] + BIAS[0] - t) / deviation), atol=1e-12)
    assert law.tail(-0.1) == 1 and law.tail(0.0, inclusive=True) == 1
    points, masses = law.atoms
    np.testing.assert_array_equal(points, [[0.0]])
    np.testing.assert_allclose(masses, [1 - law.tail(0.0)], atol=1e-12)
    assert f"atom at 0: mass {float(masses[0]):.6g}" in str(law)
    many = np.linspace(-1, 4, 200)
    tails = np.asarray(law.tail(many))
    assert np.all(np.diff(tails) <= 0) and np.all((tails >= 0) & (tails <= 1))
    np.testing.assert_allclose(tails[::50], [law.tail(t) for t in many[::50]], atol=1e-15)
    grid, density = law.density(2000)
    assert abs(density.sum() * (grid[0, 1] - grid[0, 0]) + masses[0] - 1) < 1e-3


def test_lattices_and_few_values_are_counted():
    fair = av.FeatureModel(av.Prior.bernoulli([0.5, 0.5]), np.eye(2), 0.0)
    law = av.pushforward(fair, av.LinearLayer(np.eye(2)), [[1.0, 1.0]])
    np.testing.assert_array_equal(law.tail([-0.5, 0.0, 0.5, 1.0, 1.5, 2.0]), [1, 0.75, 0.75, 0.25, 0.25, 0])
    np.testing.assert_array_equal(law.tail([0.0, 1.0, 2.0], inclusive=True), [1, 0.75, 0.25])
    points, masses = law.atoms
    np.testing.assert_array_equal(points[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(masses, [0.25, 0.5, 0.25])
    # 64 sparse features on a lattice (shared/cases): by different values, not by states.
    sparse = av.FeatureModel(av.Prior.bernoulli([1 / 20] * 64), np.arange(1.0, 65.0)[None], 0.0)
    law = av.pushforward(sparse, av.LinearLayer([[1.0]]), [[1.0]])
    np.testing.assert_allclose(law.tail(500, inclusive=True), 5.1216882812260678e-6, rtol=1e-9)
    above = law.expectation(lambda y: jax.nn.relu(y[0] - 104))
    np.testing.assert_allclose(above, 26.028838179485620987, rtol=1e-12)


def test_many_features_beside_noise():
    """Too many states to list: the largest features are, the others are a series; against samples."""
    rng = np.random.default_rng(0)
    decoder = rng.normal(size=(2, 24)) * np.geomspace(0.05, 2, 24)
    model = av.FeatureModel(av.Prior.bernoulli(rng.uniform(0.05, 0.5, 24)), decoder, 0.1)
    x = np.asarray(model.sample(jax.random.key(0), (400_000,)))
    for layer, readout in (
        (av.LinearLayer(np.eye(2)), [[1.0, 0.0]]),
        (av.DenseLayer(A, BIAS), [[0.0, 1.0]]),
        (av.DenseLayer(A, BIAS), np.eye(2)),
    ):
        law = av.pushforward(model, layer, readout)
        y = np.asarray(jax.vmap(layer)(x)) @ np.asarray(readout).T
        for t in np.quantile(y, [0.3, 0.6, 0.9], axis=0):
            share = np.mean(np.all(y > t, axis=1))
            assert abs(float(jnp.squeeze(law.tail(t))) - share) < 4 * (share / len(y)) ** 0.5
        np.testing.assert_allclose(law.mean, y.mean(axis=0), atol=5 * np.max(y.std(axis=0)) / len(y) ** 0.5)


def test_two_units_at_rest_together():
    law = av.pushforward(source(), av.DenseLayer(A, BIAS), np.eye(2))
    np.testing.assert_allclose(law.tail(0.0), 0.19676884824826, atol=1e-12)  # SciPy's bivariate normal law
    np.testing.assert_allclose(law.tail(0.1), 0.16331516705492, atol=1e-12)
    points, masses = law.atoms
    one, other = (float(av.pushforward(source(), av.DenseLayer(A, BIAS), row).tail(0.0)) for row in np.eye(2)[:, None])
    np.testing.assert_array_equal(points, [[0.0, 0.0]])
    np.testing.assert_allclose(masses, [1 - one - other + law.tail(0.0)], atol=1e-12)


@pytest.mark.parametrize("p, size", [(1e-2, 100), (1e-9, 300), (1e-12, 1e4)])
def test_a_rare_large_value(p, size):
    law = av.pushforward(source(0.3, (p, size)), av.LinearLayer(A), [[1.0, 0.0]])
    mass, x = states((p, size))
    deviation = 0.3 * np.linalg.norm(A[0])
    for t in (0.5, 1.5, size / 2):
        np.testing.assert_allclose(law.tail(t), mass @ ndtr((x @ A[0] - t) / deviation), atol=1e-12)


GROWING = {
    "exp(2b)": (lambda b: jnp.exp(2 * b), lambda b: np.exp(2 * b)),
    "cube": (lambda b: b**3, lambda b: b**3),
    "sin(20b)": (lambda b: jnp.sin(20 * b), lambda b: np.sin(20 * b)),
    "tanh(100b)": (lambda b: jnp.tanh(100 * b), lambda b: np.tanh(100 * b)),
}


@pytest.mark.parametrize("name", GROWING)
def test_activations_that_grow_or_oscillate(name):
    """Of a unit, and of a ridge layer, whose law is that of the unit beside a linear part."""
    ours, exact = GROWING[name]
    activation, mass, x = av.Activation(ours, (), name), *states()
    w, u = np.array([0.6, -0.8]), np.array([1.0, 0.7])
    row, readout = u @ A, np.array([1.0, -1.0])
    deviation = 0.3 * np.linalg.norm(row)
    law = av.pushforward(source(), av.RidgeLayer(A, w, u, -0.2, activation), readout[None])
    t = float(law.mean[0] + jnp.sqrt(law.covariance[0, 0]))
    # b on a fine grid, and given b the Gaussian law of the linear part
    fine, step = np.linspace(-8, 8, 200_001, retstep=True)
    slope = 0.09 * (readout @ A) @ row / deviation**2
    left = np.sqrt(0.09 * np.sum((readout @ A) ** 2) - slope**2 * deviation**2)
    above = unit = 0.0
    for q, centre in zip(mass, x, strict=True):
        at = row @ centre - 0.2 + deviation * fine
        rest = readout @ A @ centre + slope * deviation * fine + (readout @ w) * exact(at) - t
        density = np.exp(-(fine**2) / 2) / np.sqrt(2 * np.pi) * step
        above += q * density @ ndtr(rest / left)
        unit += q * density @ (exact(at) > 0.4)
    np.testing.assert_allclose(law.tail(t), above, atol=1e-6)
    alone = av.pushforward(source(), av.DenseLayer(row[None], [-0.2], activation), [[1.0]])
    np.testing.assert_allclose(alone.tail(0.4), unit, atol=3e-5)


def test_gradients_of_tails():
    """In threshold, source and layer, through the place where the set begins; against finite differences."""

    def tail(shift, kind):
        model = source()
        model = av.FeatureModel(model.prior, model.decoder * (1 + shift), 0.3 * (1 + shift), jnp.full(2, shift))
        if kind == "ridge":
            layer = av.RidgeLayer(A, [0.6, -0.8], [1.0, 0.7], -0.2 + shift, "tanh")
            return av.pushforward(model, layer, jnp.array([[1.0, -1.0 + shift]])).tail(0.2 + shift)
        layer = av.DenseLayer(A + shift, BIAS, ["relu", "tanh"])
        return av.pushforward(model, layer, jnp.eye(2)).tail(jnp.array([0.1 + shift, -0.2]))

    for kind in ("ridge", "units"):
        value = jax.jit(lambda s, kind=kind: tail(s, kind))
        slope = jax.jit(jax.grad(lambda s, kind=kind: tail(s, kind)))(0.0)
        np.testing.assert_allclose(slope, (value(1e-5) - value(-1e-5)) / 2e-5, rtol=1e-6)


def test_single_precision_and_vmap():
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), source())
    law = av.pushforward(single, av.DenseLayer(jnp.float32(A), jnp.float32(BIAS)), jnp.eye(2, dtype=jnp.float32))
    assert law.tail(0.1).dtype == jnp.float32
    np.testing.assert_allclose(law.tail(0.1), 0.16331516705492, atol=1e-5)
    layer = av.DenseLayer(A, BIAS)
    tails = jax.vmap(lambda m: av.pushforward(source().shift(m), layer, np.eye(2)).tail(0.1))(jnp.zeros((3, 2)))
    np.testing.assert_allclose(tails, [0.16331516705492] * 3, atol=1e-12)

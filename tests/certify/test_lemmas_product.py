"""B33 to B41: expectations of one and two functions, and moments of units."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import lemma_laws
import numpy as np
import pytest
from scipy.special import expit

import analytic_vae as av
from analytic_vae.certify.activation_moments import activation_square, activation_with
from analytic_vae.certify.functions import as_function
from analytic_vae.certify.joint_law import LARGEST
from analytic_vae.certify.output_moments import output_moments
from analytic_vae.certify.product import CharacteristicGrid, _conditional, product_expectation
from analytic_vae.certify.units import state_expectations
from analytic_vae.model.activation import ACTIVATIONS
from analytic_vae.spectral.projected_law import Projection

NUMPY = {
    "relu": lambda b: np.maximum(b, 0),
    "leaky_relu": lambda b: np.where(b > 0, b, 0.01 * b),
    "tanh": np.tanh,
    "sigmoid": expit,
}


def within(found, exact, width, slack=1e-13):
    """The exact number is in the interval, which is not wider than that."""
    assert abs(float(found.value) - exact) <= float(found.error_bound) + slack
    assert float(found.error_bound) <= width


@pytest.mark.parametrize(("name", "noise", "width"), [("relu", 0.3, 1e-6), ("relu", 0.02, 2e-2), ("tanh", 0.1, 1e-3)])
def test_one_function(name, noise, width):
    """B33."""
    law = lemma_laws.random_law(np.random.default_rng(0), 1, noise)
    points, weights = lemma_laws.points(law, ((), (0.0,)))
    found = product_expectation(law, jnp.zeros(1), [as_function(ACTIVATIONS[name], jnp.float64)], 32)
    within(found, weights @ NUMPY[name](points[:, 0]), width)


@pytest.mark.parametrize(
    ("names", "noise"), [(("tanh", "relu"), 0.05), (("leaky_relu", "relu"), 0.5), (("sigmoid", "tanh"), 0.5)]
)
def test_two_functions(names, noise):
    """B34: with much and with little noise, so that each part of the bound counts."""
    law = lemma_laws.random_law(np.random.default_rng(1), 2, noise, features=2)
    points, weights = lemma_laws.points(law, ((), (0.0,)))
    exact = weights @ np.prod([NUMPY[name](points[:, d]) for d, name in enumerate(names)], axis=0)
    functions = [as_function(ACTIVATIONS[name], jnp.float64) for name in names]
    found = product_expectation(law, jnp.zeros(2), functions, 16)
    # The outer coordinate is not cut at its kink: then the quadrature is good to a thousandth of the noise squared.
    within(found, exact, 1.5 if noise < 0.1 else 0.05, slack=1e-3 * noise**2 if names[0] == "leaky_relu" else 1e-12)


def test_both_beyond_the_band():
    """B34: `min(a, b) <= sqrt(a b)` and the noise of either given the other; with both, never the noise alone."""
    rng = np.random.default_rng(2)
    law = lemma_laws.random_law(rng, 2, 0.3)
    S = np.asarray(law.covariance)
    one, two = S[0, 0] - S[0, 1] ** 2 / S[1, 1], S[1, 1] - S[0, 1] ** 2 / S[0, 0]
    w = rng.normal(size=(2000, 2)) * 6
    size = np.exp(-np.einsum("wd,de,we->w", w, S, w) / 2)
    assert np.all(size <= np.exp(-one * w[:, 0] ** 2 / 4) * np.exp(-two * w[:, 1] ** 2 / 4) * (1 + 1e-12))
    assert np.any(size > np.exp(-one * w[:, 0] ** 2 / 2) * np.exp(-two * w[:, 1] ** 2 / 2))


@pytest.mark.parametrize("apart", [1.0, 1e-2, 1e-5, 1e-7, 0.0])
def test_conditional_deviation(apart):
    """B35: from below, in exact arithmetic, for factors whose rows are nearly parallel."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        row, other = rng.normal(size=4), rng.normal(size=4)
        factor = np.stack([row, 3 * row + apart * other])
        found = float(_conditional(jnp.asarray(factor @ factor.T), 0))
        a, b = ([Fraction(x) for x in line] for line in factor)
        dot = lambda u, v: sum(x * y for x, y in zip(u, v, strict=True))  # noqa: E731
        exact = float(dot(a, a) - dot(a, b) ** 2 / dot(b, b))
        assert found**2 <= exact * (1 + 1e-14)
        assert apart < 1e-4 or found**2 > 0.9 * exact


def test_rounding_of_the_characteristic_function():
    """B36: float32 against float64, in units of what is charged: never above, in the median well below."""
    law = lemma_laws.random_law(np.random.default_rng(4), 2, 0.2, features=6)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), law)
    same = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), single)
    frequency, omega = np.linspace(-20, 20, 21, dtype=np.float32)[:, None], np.linspace(0, 30, 31, dtype=np.float32)
    low = np.array([-3.0, -2.0], np.float32)
    found = CharacteristicGrid.of(single, *map(jnp.asarray, (low, frequency, omega)))
    exact = CharacteristicGrid.of(same, *(jnp.asarray(a, jnp.float64) for a in (low, frequency, omega)))
    units = np.abs(np.asarray(found.phi).astype(complex) - np.asarray(exact.phi)) / np.asarray(found.rounding)
    assert units.max() < 1 and 1e-3 < np.median(units)


@pytest.mark.parametrize("name", ["relu", "tanh"])
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_with_another_projection(name, noise):
    """B37, B38: `E a psi(b)`."""
    law = lemma_laws.random_law(np.random.default_rng(5), 2, noise, features=2)
    points, weights = lemma_laws.points(law, ((), (0.0,)))
    exact = weights @ (points[:, 0] * NUMPY[name](points[:, 1]))
    within(activation_with(law, jnp.zeros(2), ACTIVATIONS[name], 64), exact, 0.1 if noise < 0.1 else 1e-6)


def test_derivatives_of_waves():
    """B37: `E a exp(i omega b)` by states and Stein's identity; the constant is the largest, to 0.3 percent."""
    law = lemma_laws.random_law(np.random.default_rng(6), 2, 0.4)
    values, masses, S = lemma_laws.states(law)
    second, spread = np.sqrt(masses @ values[:, 0] ** 2 + S[0, 0]), np.sqrt(S[0, 0])
    for omega in np.linspace(0, 12, 60):
        q = S[1, 1] * omega**2
        exact = abs(
            (masses * np.exp(1j * omega * values[:, 1])) @ (values[:, 0] + 1j * omega * S[0, 1]) * np.exp(-q / 2)
        )
        bound = second * np.exp(-q / 2) + LARGEST * spread * np.exp(-q / 4)
        span = np.abs(law.atoms[0]).max(axis=1).sum() + abs(float(law.mean[0])) + 8 * spread
        assert exact <= bound * (1 + 1e-12) and exact <= span * np.exp(-q / 4)
    x = np.linspace(0, 10, 100001)
    assert 0.997 * LARGEST < (x * np.exp(-(x**2) / 4)).max() <= LARGEST


@pytest.mark.parametrize(("name", "mean"), [("relu", 0.0), ("leaky_relu", 3.0), ("relu", -40.0), ("tanh", 0.0)])
def test_squares(name, mean):
    """B39: with little noise, so that the tail of the kink counts; also with the kink outside of the box (B45)."""
    law = lemma_laws.single([0.3, 0.2], [1.0, -1.5], 0.02, mean)
    points, weights = lemma_laws.points(law, ((), (0.0,)))
    found = activation_square(law, jnp.zeros(1), ACTIVATIONS[name], 32)
    within(found, weights @ NUMPY[name](points[:, 0]) ** 2, 6e-3 * max(1, mean**2))


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_state_expectations(name):
    """B40: by states."""
    law = lemma_laws.random_law(np.random.default_rng(7), 1, 0.3, features=3)
    found = state_expectations(law, jnp.zeros(()), as_function(ACTIVATIONS[name], jnp.float64), 64)
    for feature in range(3):
        for k in range(2):
            masses = np.asarray(law.masses).copy()
            masses[feature] = np.eye(2)[k] * masses[feature]  # the others' states have no mass
            part = Projection(law.mean, law.atoms, jnp.asarray(masses), law.covariance)
            points, weights = lemma_laws.points(part, ((), (0.0,)))
            error = abs(float(found.value[feature, k]) - weights @ NUMPY[name](points[:, 0]))
            assert error <= float(found.error_bound[feature, k]) + 1e-14 < 1e-3


def test_moments_of_outputs():
    """B41, B42: mean and covariance of a dense layer in float32, against listing in float64."""
    rng = np.random.default_rng(8)
    weight, bias, output = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 1), 2, (2, 2)))
    source = av.FeatureModel(av.Prior.bernoulli(np.float32([0.3])), np.float32([[1.5]]), np.float32(0.5))
    skip = np.float32([[100.0], [-100.0]])
    layer = av.DenseLayer(weight, bias, ["relu", "tanh"], output, skip)
    mean, covariance = output_moments(source, layer, jnp.asarray([[1.0, 1.0]], jnp.float32), av.Resolution(8))
    law = lemma_laws.single([np.asarray(source.prior.masses, float)[0, 1]], [1.5], 0.5)
    points, weights = lemma_laws.points(law, ((), (float(-bias[0] / weight[0, 0]),)))
    units = points * weight.T.astype(float) + bias
    y = (np.stack([np.maximum(units[:, 0], 0), np.tanh(units[:, 1])], axis=1) @ output.T.astype(float)).sum(axis=1)
    exact = weights @ y
    assert abs(float(mean.value[0]) - exact) <= float(mean.error_bound[0]) < 1e-2
    variance = weights @ (y - exact) ** 2
    assert abs(float(covariance.value[0, 0]) - variance) <= float(covariance.error_bound[0, 0])

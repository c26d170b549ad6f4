"""B6 to B8: what is known of the functions whose expectations are certified."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

import analytic_vae as av
from analytic_vae.certify.functions import Analytic, PiecewiseLinear, as_function
from analytic_vae.model.activation import ACTIVATIONS, residual
from analytic_vae.model.analyticity import Regularity

HARD_TANH = av.Activation(
    lambda b: jnp.clip(b, -1, 2),
    (-1.0, 2.0),
    "hard",
    Regularity(lambda low, high, width: 2 + width, lambda width: jnp.ones_like(width), (1.0, -1.0)),
)
LINEAR = [ACTIVATIONS[name] for name in ("relu", "leaky_relu", "identity")] + [HARD_TANH, residual("relu")]

ANALYTIC = {  # at complex arguments, and the derivative there
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2, np.pi / 2),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: 1 / (2 + np.exp(z) + np.exp(-z)), np.pi),
    "softplus": (lambda z: np.log(1 + np.exp(z)), lambda z: 1 / (1 + np.exp(-z)), np.pi),
    "gelu": (
        lambda z: z * (1 + erf(z / np.sqrt(2))) / 2,
        lambda z: (1 + erf(z / np.sqrt(2))) / 2 + z * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi),
        3.0,
    ),
}


@pytest.mark.parametrize("activation", LINEAR, ids=lambda one: one.name)
def test_piecewise_linear(activation):
    """B6: the line left of all kinks and its jumps are the function."""
    line = PiecewiseLinear.of(activation, jnp.float64)
    y = np.linspace(-4, 5, 91)
    hinges = np.maximum(y[:, None] - np.asarray(line.places)[None], 0) @ np.asarray(line.jumps)
    np.testing.assert_allclose(line.intercept + line.slope * y + hinges, activation(jnp.asarray(y)), atol=1e-14)


@pytest.mark.parametrize("name", ANALYTIC)
@pytest.mark.parametrize("of", [ACTIVATIONS.get, residual], ids=["itself", "residual"])
def test_activations_off_the_axis(name, of):
    """B7, B8: `sup` and `slope` at complex arguments, and not many times too much; growth is told from none."""
    function, derivative, limit = ANALYTIC[name]
    activation, less = of(name), 0 if of is not residual else 1
    real, rng = np.linspace(-6, 4, 801), np.random.default_rng(0)
    low, high = jnp.asarray(-6.0), jnp.asarray(4.0)
    for width in limit * np.array([0.0, 0.1, 0.4, 0.49, 0.7, 0.9]):
        v = np.concatenate([[0, width, -width], rng.uniform(-width, width, 20)])
        z = real[:, None] + 1j * v[None]
        size, slope = np.abs(function(z) - less * z).max(), np.abs(derivative(z) - less).max()
        wide = jnp.asarray(width)
        sup, steep = activation.regularity.sup(low, high, wide), activation.regularity.slope(wide)
        assert size <= float(sup) + 1e-12 and slope <= float(steep) + 1e-12
        if width < 0.49 * limit:
            assert float(sup) < 6 * size + 4 and float(steep) < 3 * slope + 2
    assert not np.isfinite(activation.regularity.sup(low, high, 1.01 * limit)) or name == "gelu"
    grows = float(as_function(activation, jnp.float64).lipschitz) > 0
    assert grows == (name in ("softplus", "gelu") or bool(less))


def test_squares():
    """B7: a square has the square of the bound, its degree and the same slope of its root."""
    one = as_function(ACTIVATIONS["gelu"], jnp.float64)
    two = one.squared()
    assert isinstance(two, Analytic) and two.degree == 2 and two.lipschitz == one.lipschitz
    args = jnp.asarray(-1.0), jnp.asarray(2.0), jnp.asarray(0.5)
    assert float(two.sup(*args)) == float(one.sup(*args)) ** 2
    y = jnp.linspace(-3, 3, 301)
    assert float(jnp.max(jnp.abs(jnp.diff(jnp.sqrt(two.function(y))))) / (y[1] - y[0])) <= float(two.lipschitz)
    slopes = jax.vmap(jax.grad(one.function))(y)
    assert float(jnp.abs(slopes).max()) <= float(one.lipschitz)

"""B6 to B8: what is known of the functions whose expectations are certified."""

import itertools

import functions
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

import analytic_vae as av
from analytic_vae.certify.functions import Analytic, PiecewiseLinear, as_function
from analytic_vae.model.activation import ACTIVATIONS, get_activation, residual
from analytic_vae.model.analyticity import Regularity

HARD_TANH = av.Activation(
    lambda b: jnp.clip(b, -1, 2),
    (-1.0, 2.0),
    "hard",
    Regularity(lambda low, high, width: 2 + width, lambda low, high, width: jnp.ones_like(width), (1.0, -1.0)),
)
LINEAR = [get_activation(name) for name, (_, kinks) in functions.BOUNDED.items() if kinks]
LINEAR += [ACTIVATIONS["identity"], HARD_TANH, residual("relu")]


def _silu(z):
    return z / (1 + np.exp(-z))


def _silu_slope(z):
    return 1 / (1 + np.exp(-z)) + z / (2 + np.exp(z) + np.exp(-z))


def _gate(z):
    """Of mish: `tanh(softplus(z))`."""
    return 1 - 2 / (1 + (1 + np.exp(z)) ** 2)


def _grows(z):
    return np.exp(z) * (1 + np.exp(z))


ANALYTIC = {  # at complex arguments, and the derivative there
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2, np.pi / 2),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: 1 / (2 + np.exp(z) + np.exp(-z)), np.pi),
    "softplus": (lambda z: np.log(1 + np.exp(z)), lambda z: 1 / (1 + np.exp(-z)), np.pi),
    "silu": (_silu, _silu_slope, np.pi),
    "quick_gelu": (lambda z: _silu(1.702 * z) / 1.702, lambda z: _silu_slope(1.702 * z), np.pi / 1.702),
    "softplus(2.0)": (lambda z: np.log(1 + np.exp(2 * z)) / 2, lambda z: 1 / (1 + np.exp(-2 * z)), np.pi / 2),
    "mish": (
        lambda z: z * _gate(z),
        lambda z: _gate(z) + z * 4 * _grows(z) / (1 + (1 + np.exp(z)) ** 2) ** 2,
        3 * np.pi / 4,
    ),
    "square": (lambda z: z**2, lambda z: 2 * z, 3.0),
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
@pytest.mark.parametrize("of", [get_activation, residual], ids=["itself", "residual"])
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
        sup, steep = activation.regularity.sup(low, high, wide), activation.regularity.slope(low, high, wide)
        assert size <= float(sup) + 1e-12 and slope <= float(steep) + 1e-12
        if width < 0.49 * limit:
            assert float(sup) < 6 * size + 4 and float(steep) < 3 * slope + 2
    assert not np.isfinite(activation.regularity.sup(low, high, 1.01 * limit)) or name in ("gelu", "square")
    grows = float(as_function(activation, jnp.float64).lipschitz) > 0
    assert grows == (name not in ("tanh", "sigmoid") or bool(less))


def test_gelu_by_tanh_off_the_axis():
    """B8: its strip is the narrower the farther the box reaches; nothing is promised beyond it."""
    regularity, rng = ACTIVATIONS["gelu_tanh"].regularity, np.random.default_rng(0)
    scale, cubic = np.sqrt(2 / np.pi), 0.044715
    for reach, width in itertools.product((1.0, 3.0, 8.0), (0.0, 0.02, 0.1, 0.3, 0.49)):
        z = np.linspace(-reach, reach, 2001)[:, None] + 1j * rng.uniform(-width, width, 20)[None]
        gate, inner = np.tanh(scale * (z + cubic * z**3)), scale * (1 + 3 * cubic * z**2)
        sup, slope = (float(of(*map(jnp.asarray, (-reach, reach, width)))) for of in (regularity.sup, regularity.slope))
        assert np.abs(z * (1 + gate) / 2).max() <= sup
        assert np.abs((1 + gate) / 2 + z * (1 - gate**2) * inner / 2).max() <= slope
        assert (slope < np.inf) == (scale * width * (1 + 3 * cubic * reach**2) < 0.499 * np.pi)
    assert float(regularity.slope(-jnp.inf, jnp.inf, jnp.zeros(()))) == 1.13


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

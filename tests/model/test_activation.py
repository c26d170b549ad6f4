"""Activations: their values, kinks, moments, laws and gradients, what is found of undeclared kinks, what is refused."""

import cases
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functions import BIAS, FUNCTIONS, NAMES, SCALE, exact_moments, exact_tail, layer_of, source

import analytic_vae as av
from analytic_vae.model.activation import ACTIVATIONS, get_activation, residual
from analytic_vae.model.activation_table import ALIASES
from analytic_vae.model.kink_check import undeclared_kinks


@pytest.mark.parametrize("name", NAMES)
def test_values_and_kinks_are_those_of_the_table(name):
    function, kinks = FUNCTIONS[name]
    activation = get_activation(name)
    b = np.linspace(-6, 6, 101)
    np.testing.assert_allclose(activation(jnp.asarray(b)), function(b), rtol=1e-13, atol=1e-14)
    assert activation.kinks == kinks and activation.name == name
    np.testing.assert_allclose(residual(name)(jnp.asarray(b)), function(b) - b, rtol=1e-12, atol=1e-13)
    assert residual(name).kinks == kinks
    assert undeclared_kinks(activation.function, ()) == kinks


def test_turns_are_where_functions_turn():
    b = np.linspace(-12, 12, 24_001) + 1e-4 / 3
    for name in NAMES:
        for activation in (get_activation(name), residual(name)):
            if activation.turns is not None:
                up = np.diff(np.asarray(activation(jnp.asarray(b))))
                up = np.where(np.abs(up) > 1e-12, up, 0)  # not of rounding
                (found,) = np.nonzero(np.sign(up[1:]) * np.sign(up[:-1]) < 0)
                near = [min(abs(b[i + 1] - turn) for turn in activation.turns) for i in found]
                assert max(near, default=0) < 2e-3, activation.name


def test_every_name_is_covered():
    assert set(ACTIVATIONS) <= set(NAMES)
    assert all(get_activation(alias) is ACTIVATIONS[name] for alias, name in ALIASES.items())
    assert get_activation("leaky_relu(0.3)") is get_activation(" leaky_relu ( .3 ) ")


def test_moments():
    """All in one layer, against quadrature; but for `step`, whose covariances with the others are not to 1e-3."""
    few = [i for i, name in enumerate(NAMES) if name != "step"]
    mean, variance = exact_moments()[:2, few]
    layer = av.DenseLayer(*(part[few] for part in layer_of(NAMES)), [NAMES[i] for i in few])
    found, covariance = av.dense_moments(source(), layer, av.Resolution(32)).output()
    np.testing.assert_allclose(found, mean, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(np.diagonal(covariance), variance, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gradients(dtype):
    """Of the means by the biases, in either precision: jumps and kinks move with them."""
    few = [NAMES.index(name) for name in ("step", "hard_swish", "mish", "square")]
    names, exact = [NAMES[i] for i in few], exact_moments()[:, few]
    weight, bias = (part[few] for part in layer_of(NAMES, dtype))

    def means(bias):
        found = av.dense_moments(source(dtype), av.DenseLayer(weight, bias, names), av.Resolution(24)).output()[0]
        return jnp.sum(found), found

    (_, found), gradient = jax.value_and_grad(means, has_aux=True)(jnp.asarray(bias))
    chex.assert_type([found, gradient], dtype)
    near = 1e-7 if dtype is np.float64 else 1e-4
    np.testing.assert_allclose(found, exact[0], rtol=near, atol=near)
    np.testing.assert_allclose(gradient, exact[2], rtol=near, atol=near)


LAWS = [
    *((name, np.float64) for name in FUNCTIONS if name not in cases.ACTIVATIONS and "(" not in name),
    *((name, np.float32) for name in ("hard_swish", "step", "mish")),
]


@pytest.mark.parametrize("name, dtype", LAWS)  # of the others in tests/laws
def test_laws_and_atoms(name, dtype):
    function, kinks = FUNCTIONS[name]
    law = av.pushforward(source(dtype), av.DenseLayer(np.ones((1, 1), dtype), dtype([BIAS]), name), dtype([[SCALE]]))
    thresholds = np.array([-1.3, -0.1, 0.0, 0.3, 0.9, 4.0])
    exact = [exact_tail(function, kinks, threshold) for threshold in thresholds]
    np.testing.assert_allclose(law.tail(dtype(thresholds)), exact, atol=1e-11 if dtype is np.float64 else 2e-6)
    places, counts = np.unique(SCALE * function(np.linspace(-15, 15, 30_001)) + 0.0, return_counts=True)
    flat = places[counts > 100] if kinks else []
    points, masses = law.atoms
    np.testing.assert_allclose(points[:, 0], flat, atol=1e-6)  # what only saturates has none
    exact = [exact_tail(function, kinks, y - 1e-9) - exact_tail(function, kinks, y + 1e-9) for y in flat]
    np.testing.assert_allclose(masses, exact, atol=1e-7)


def test_an_activation_is_static_under_jit_and_keeps_the_dtype():
    every = [get_activation(name) for name in NAMES]
    assert not jax.tree.leaves(every)
    for dtype in (jnp.float32, jnp.float64):
        chex.assert_type(jax.jit(lambda b: [activation(b) for activation in every])(jnp.ones((), dtype)), dtype)
    assert residual("relu") == residual("relu")


@pytest.mark.parametrize(
    "function, kinks, found",
    [
        (jnp.abs, (), "0,"),
        (lambda b: jnp.clip(b, -1 / 3, 7.7), (-1 / 3,), "7.7,"),
        (jax.nn.elu, (), "0,"),  # of its second derivative
        (lambda b: jnp.where(b > 2, 1.0, 0.0), (), "2,"),
        (lambda b: jnp.maximum(b, 0) ** 2, (), "0,"),
        (jnp.floor, (), "-9, -8, -7, -6, -5, -4 and 14 more places,"),
    ],
)
def test_kinks_that_are_not_declared_are_found(function, kinks, found):
    with pytest.warns(av.AccuracyWarning, match=f"kinks: the activation .* jumps at {found}") as caught:
        av.Activation(function, kinks, "mine")
    assert caught[0].filename == __file__
    with pytest.warns(av.AccuracyWarning, match="kinks: "):  # turns are no kinks
        av.Activation(function, kinks, "mine", turns=kinks)


@pytest.mark.parametrize("slope", [1.0, 100.0, 1000.0])
def test_steep_and_wild_functions_have_no_kinks(slope):
    for function in (jnp.tanh, jnp.sin, lambda b: jnp.exp(b / slope), lambda b: b**3, lambda b: jnp.exp(-(b**2))):
        assert undeclared_kinks(lambda b, of=function: of(slope * b), ()) == ()


def test_kinks_are_sorted():
    assert av.Activation(lambda b: jnp.abs(b - 1) + jnp.abs(b + 1), kinks=(1, -1)).kinks == (-1.0, 1.0)


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match=r"activation: expected one of .*leaky_relu\(slope\).*relu.*, got 'rleu'"):
        get_activation("rleu")
    for name, expected in {
        "softplus(0)": "above 0 as beta",
        "elu(x)": "above 0 as alpha",
        "leaky_relu(inf)": "as slope",
    }.items():
        with pytest.raises(ValueError, match=f"activation: expected a finite number.* {expected} of"):
            get_activation(name)
    with pytest.raises(ValueError, match=r"activation: .*PReLU with a slope for each unit"):
        get_activation("PReLU")
    with pytest.raises(ValueError, match=r"activation: expected one of .*got 'relu\(2\)'"):
        get_activation("relu(2)")
    with pytest.raises(TypeError, match=r"activation: expected .*declares its kinks"):
        get_activation(jnp.tanh)
    with pytest.raises(TypeError, match="function: expected a callable"):
        av.Activation(3.0)
    with pytest.raises(ValueError, match="kinks: expected finite"):
        av.Activation(jnp.abs, kinks=(np.nan,))

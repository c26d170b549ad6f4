"""Layers: their values, the form that the engine sees, networks, and what is refused."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import analytic_vae as av


@pytest.mark.parametrize("activation", [*cases.ACTIVATIONS, None])
def test_a_layer_is_its_formula_and_its_form(activation):
    layer = cases.problem(0, activation=activation)[1]
    x = np.random.default_rng(1).normal(size=(50, cases.N1))
    expected = cases.oracle_layer(layer, activation)(x)
    np.testing.assert_allclose(jax.vmap(layer)(x), expected, rtol=1e-12, atol=1e-13)
    form = layer.form()
    b = jnp.asarray(x) @ form.direction + form.bias
    psi = form.activation(b) if form.activation else np.zeros(len(x))
    by_form = x @ np.asarray(form.linear).T + np.asarray(form.offset) + np.outer(psi, form.output)
    np.testing.assert_allclose(by_form, expected, rtol=1e-12, atol=1e-13)
    assert (layer.inputs, layer.outputs) == (cases.N1, cases.N2)


def test_a_network_applies_its_layers_in_turn():
    rng = np.random.default_rng(0)
    ridge, linear = cases.ridge_layer(rng), av.LinearLayer(rng.normal(size=(4, cases.N2)))
    network = av.Network([ridge, linear])
    x = jnp.asarray(rng.normal(size=cases.N1))
    np.testing.assert_allclose(jax.jit(lambda n, x: n(x))(network, x), linear(ridge(x)), rtol=1e-12)
    assert (network.inputs, network.outputs) == (cases.N1, 4)
    np.testing.assert_array_equal(linear.bias, np.zeros(4))


def test_dtypes_follow_the_inputs():
    assert av.LinearLayer(np.eye(2, dtype=int)).weight.dtype == jnp.float64
    assert av.LinearLayer(np.eye(2, dtype=np.float32)).bias.dtype == jnp.float32
    one = np.ones(2, np.float32)
    ridge = av.RidgeLayer(np.eye(2, dtype=np.float32), one, one, np.float32(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(ridge)} == {jnp.dtype("float32")}
    assert av.RidgeLayer(np.eye(2, dtype=np.float32), one, one).bias.dtype == jnp.float32  # a Python 0.0 is weak


EYE, ONE = np.eye(2), np.ones(2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: av.RidgeLayer(ONE, ONE, ONE), "linear: expected shape"),
        (lambda: av.RidgeLayer(EYE, np.ones(3), ONE), "output: expected shape"),
        (lambda: av.RidgeLayer(EYE, ONE, np.ones(3)), "direction: expected shape"),
        (lambda: av.RidgeLayer(EYE, ONE, ONE, ONE), "bias: expected shape"),
        (lambda: av.RidgeLayer(EYE * np.nan, ONE, ONE), "linear: expected finite"),
        (lambda: av.RidgeLayer(EYE, ONE * np.inf, ONE), "output: expected finite"),
        (lambda: av.RidgeLayer(EYE, ONE, ONE, np.nan), "bias: expected finite"),
        (lambda: av.RidgeLayer(EYE, ONE, ONE, activation="rleu"), "activation: expected one of"),
        (lambda: av.LinearLayer(ONE), "weight: expected shape"),
        (lambda: av.LinearLayer(EYE, np.ones(3)), "bias: expected shape"),
        (lambda: av.LinearLayer(EYE, np.array([0.0, np.nan])), "bias: expected finite"),
        (lambda: av.LinearLayer(np.zeros((0, 2))), "weight: expected shape"),
        (lambda: av.Network([]), "layers: expected at least one"),
        (lambda: av.Network([av.LinearLayer(np.ones((3, 2))), av.LinearLayer(EYE)]), r"layers\[1\]: expected 3 inputs"),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_types_are_refused_by_name():
    with pytest.raises(TypeError, match="activation: expected"):
        av.RidgeLayer(EYE, ONE, ONE, activation=jax.nn.relu)
    with pytest.raises(TypeError, match=r"layers\[1\]: expected"):
        av.Network([av.LinearLayer(EYE), jnp.tanh])

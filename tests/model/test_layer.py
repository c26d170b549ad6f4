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
    psi = jnp.asarray(x) @ form.weight.T + form.bias[None]
    psi = layer.activations[0](psi) if layer.units else psi
    assert psi.shape == (len(x), 0 if activation is None else 1)
    by_form = x @ np.asarray(form.linear).T + np.asarray(form.offset) + psi @ form.output.T
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
        (lambda: av.LinearLayer(ONE), r"weight: expected shape \[outputs, inputs\], got \[2\]\.$"),
        (
            lambda: av.LinearLayer(EYE, np.ones(3)),
            r"bias: expected shape \[2\] \(outputs of the weight\), got \[3\]\.$",
        ),
        (lambda: av.LinearLayer(EYE, np.array([0.0, np.nan])), "bias: expected finite"),
        (lambda: av.LinearLayer(np.zeros((0, 2))), r"weight: expected shape .*, none of them 0, got \[0, 2\]"),
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
    for wrong in (av.LinearLayer(EYE), av.Network([av.LinearLayer(EYE)]), None):
        with pytest.raises(TypeError, match=f"layers: expected a sequence of layers, got {type(wrong).__name__}"):
            av.Network(wrong)


FUNCTIONS = {
    "linear": av.LinearLayer([[1.0, 2.0], [0.5, -1.0]], [0.3, 0.1]),
    "ridge": av.RidgeLayer([[1.0, 2.0], [0.5, -1.0]], ONE, ONE, 0.2),
    "dense": av.DenseLayer([[1.0, 2.0], [0.5, -1.0]], [0.3, 0.1], ["relu", "tanh"], skip=EYE),
    "network": av.Network([av.DenseLayer(EYE, ONE), av.LinearLayer(EYE)]),
    "autoencoder": av.SparseAutoencoder(np.ones((4, 1, 2)), np.ones((4, 1)), np.ones((2, 4))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_one_vector_refuses_batches(name):
    """Also of as many rows as it has inputs, which could be multiplied along the wrong axis."""
    f = FUNCTIONS[name]
    for batch in (np.ones((2, 2)), jnp.ones((5, 2)), [[1.0, 2.0], [3.0, 4.0]]):
        with pytest.raises(ValueError, match=r"x: expected shape \[2\] .* got \[\d, 2\]\. For a batch use jax\.vmap"):
            f(batch)
        with pytest.raises(ValueError, match=r"x: expected shape \[2\] .* jax\.vmap"):
            jax.jit(lambda a: f(a))(jnp.asarray(batch))
    for x, got in ((np.ones(3), r"\[3\]"), (1.0, r"\[\]")):
        with pytest.raises(ValueError, match=rf"x: expected shape \[2\] .*, got {got}\.$"):
            f(x)
    for x in (None, "word", [1.0, [2.0]]):
        with pytest.raises(ValueError, match="x: expected an array of real numbers"):
            f(x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_one_vector_takes_lists_and_transformations(name):
    f, x = FUNCTIONS[name], jnp.array([0.7, -0.3])
    np.testing.assert_array_equal(f([0.7, -0.3]), f(x))
    np.testing.assert_array_equal(f([1, 2]), f(np.array([1, 2])))
    rows = jnp.stack([x, 2 * x, -x])
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda a: f(a)))(rows), np.stack([f(row) for row in rows]), rtol=1e-14)
    np.testing.assert_allclose(jax.jacrev(f)(x), jax.jacfwd(f)(x), rtol=1e-14)


def test_looking_at_a_shape_adds_nothing_to_a_program():
    program = jax.make_jaxpr(FUNCTIONS["linear"])(jnp.ones(2))
    assert [equation.primitive.name for equation in program.eqns] == ["dot_general", "add"]

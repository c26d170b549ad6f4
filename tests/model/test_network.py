"""Networks from weights, from equinox and from files: the same function as the MLP, and no bad file gets through."""

import functools

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptrons import assert_same, evaluate, random_weights

from analytic_vae.model.activation import ACTIVATIONS, Activation
from analytic_vae.model.dense_layer import DenseLayer
from analytic_vae.model.from_equinox import from_mlp
from analytic_vae.model.layer import LinearLayer, RidgeLayer
from analytic_vae.model.network import from_weights

FORGET = ("each", "last")
NAMED = ("relu", "leaky_relu", "gelu", "sigmoid", "softplus", "identity", "silu", "hard_swish", "step")

# ------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("dtype", (np.float64, np.float32))
@pytest.mark.parametrize("forget", FORGET)
@pytest.mark.parametrize("name", NAMED)
def test_same_function(name, forget, dtype):
    weights = random_weights(dtype=dtype)
    assert_same(from_weights(weights, name, layers="ridge", forget=forget), weights, ACTIVATIONS[name])


@pytest.mark.parametrize("dtype", (np.float64, np.float32))
@pytest.mark.parametrize("name", NAMED)
def test_whole_layers_are_the_same_function(name, dtype):
    weights = random_weights(dtype=dtype)
    network = from_weights(weights, name)
    assert [type(layer) for layer in network.layers] == [DenseLayer, DenseLayer, LinearLayer]
    assert_same(network, weights, ACTIVATIONS[name])


@pytest.mark.parametrize("forget", FORGET)
def test_declared_activation_and_missing_biases(forget):
    hinge = Activation(lambda b: jnp.clip(b, -1, 1), (-1.0, 1.0), "hard tanh")
    weights = [(weight, None if index == 1 else bias) for index, (weight, bias) in enumerate(random_weights())]
    network = from_weights(weights, hinge, layers="ridge", forget=forget)
    assert_same(network, weights, hinge)
    assert all(layer.activation.kinks == (-1.0, 1.0) for layer in network.layers if isinstance(layer, RidgeLayer))


def test_widths():
    weights = random_weights()
    each = [(layer.inputs, layer.outputs) for layer in from_weights(weights, "relu", layers="ridge").layers]
    last = [
        (layer.inputs, layer.outputs) for layer in from_weights(weights, "relu", layers="ridge", forget="last").layers
    ]
    assert each == [(3, 4), *[(4, 4)] * 4, (4, 3), *[(3, 3)] * 3, (3, 2)]
    assert last == [(3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 3), (3, 4), (4, 5), (5, 6), (6, 2)]


def test_steps_share_the_identity():
    network = from_weights(random_weights((3, 5, 2)), "tanh", layers="ridge")
    steps = [layer for layer in network.layers if isinstance(layer, RidgeLayer)]
    assert len({id(step.linear) for step in steps}) == 1
    assert len({step.activation for step in steps}) == 1


def test_relu_is_exact_to_the_last_bit():
    identity, x = np.eye(6), np.random.default_rng(2).normal(size=6) * 10.0 ** np.arange(-9, 9, 3)
    network = from_weights([(identity, None), (identity, None)], "relu", layers="ridge")
    assert np.array_equal(network(jnp.asarray(x)), np.maximum(x, 0))


@pytest.mark.parametrize("layers", ("dense", "ridge"))
def test_one_affine_map_is_one_layer(layers):
    network = from_weights(random_weights((3, 2)), "relu", layers=layers)
    assert len(network.layers) == 1 and isinstance(network.layers[0], LinearLayer)


@pytest.mark.parametrize("layers", ("dense", "ridge"))
def test_differentiable_in_the_weights(layers):
    weights = [(jnp.asarray(weight), jnp.asarray(bias)) for weight, bias in random_weights((2, 3, 1))]
    x = jnp.array([0.3, -0.8])

    def direct(pairs):
        (w0, b0), (w1, b1) = pairs
        return (w1 @ jnp.tanh(w0 @ x + b0) + b1)[0]

    gradient = jax.jit(jax.grad(lambda pairs: from_weights(pairs, "tanh", layers=layers)(x)[0]))(weights)
    expected = jax.grad(direct)(weights)
    chex.assert_trees_all_close(gradient, expected, rtol=1e-12, atol=1e-12)


@given(st.lists(st.integers(1, 3), min_size=2, max_size=4), st.sampled_from(FORGET), st.integers(0, 2**16))
def test_any_widths(sizes, forget, seed):
    weights = random_weights(sizes, seed=seed)
    network = from_weights(weights, "relu", layers="ridge", forget=forget)
    x = np.random.default_rng(seed).normal(size=sizes[0])
    np.testing.assert_allclose(
        network(jnp.asarray(x)), evaluate(weights, ACTIVATIONS["relu"], x), rtol=1e-10, atol=1e-12
    )


W, B = np.ones((2, 3)), np.zeros(2)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([], r"weights: expected at least one pair"),
        ([W], r"weights\[0\]: expected a pair"),
        ([(None, B)], r"weights\[0\]: expected a pair"),
        ([(W, B), (W, B)], r"weights\[1\]\[0\]: expected 2 inputs.*weights\[0\]\[0\], got 3"),
        ([(W, np.zeros(3))], r"weights\[0\]\[1\]: expected shape \[2\]"),
        ([(B, None)], r"weights\[0\]\[0\]: expected shape"),
        ([(W * np.nan, B)], r"weights\[0\]\[0\]: expected finite numbers, got 6"),
        ([(W * 1j, B)], r"weights\[0\]\[0\]: expected real numbers"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        from_weights(weights, "relu")


def test_bad_options():
    with pytest.raises(ValueError, match=r"forget: expected 'each' or 'last', got 'never'"):
        from_weights([(W, B)], "relu", layers="ridge", forget="never")
    with pytest.raises(ValueError, match=r"forget: expected none, .* got 'last'"):
        from_weights([(W, B)], "relu", forget="last")
    with pytest.raises(ValueError, match=r"layers: expected 'dense' or 'ridge', got 'wide'"):
        from_weights([(W, B)], "relu", layers="wide")
    with pytest.raises(ValueError, match=r"activation: expected one of .*, got 'swoosh'"):
        from_weights([(W, B)], "swoosh")
    with pytest.raises(TypeError, match="activation"):
        from_weights([(W, B)], jax.nn.relu)


# ------------------------------------------------------------------------------------------------------- equinox

EQUINOX = (jax.nn.relu, jax.nn.leaky_relu, jax.nn.gelu, jax.nn.sigmoid, jax.nn.softplus, jax.nn.identity, jnp.tanh)


def assert_same_mlp(network, mlp, size=3):
    inputs = jax.random.normal(jax.random.key(1), (20, size), mlp.layers[0].weight.dtype)
    tolerance = 50 * jnp.finfo(inputs.dtype).eps
    np.testing.assert_allclose(jax.vmap(network)(inputs), jax.vmap(mlp)(inputs), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("forget", FORGET)
@pytest.mark.parametrize("function", EQUINOX, ids=lambda function: getattr(function, "__name__", "function"))
def test_mlp(function, forget):
    mlp = eqx.nn.MLP(3, 2, 4, 2, activation=function, key=jax.random.key(0))
    assert_same_mlp(from_mlp(mlp, layers="ridge", forget=forget), mlp)


@pytest.mark.parametrize(
    "options",
    [
        {"use_bias": False, "use_final_bias": False},
        {"depth": 0},
        {"depth": 3, "scan": True},
        {"depth": 3, "scan": True, "use_bias": False},
        {"dtype": jnp.float32},
        {"final_activation": jax.nn.identity},
    ],
    ids=lambda options: "-".join(options),
)
def test_mlp_options(options):
    mlp = eqx.nn.MLP(3, 2, 4, **{"depth": 2, **options}, key=jax.random.key(0))
    assert_same_mlp(from_mlp(mlp), mlp)


def test_mlp_scalar_sizes():
    mlp = eqx.nn.MLP("scalar", "scalar", 4, 1, key=jax.random.key(0))
    network = from_mlp(mlp)
    np.testing.assert_allclose(network(jnp.array([0.7])), mlp(jnp.asarray(0.7))[None], rtol=1e-13)


def test_mlp_activation_not_recognised():
    for function in (lambda x: x * jax.nn.sigmoid(x), eqx.nn.PReLU()):
        mlp = eqx.nn.MLP(3, 2, 4, 2, activation=function, key=jax.random.key(0))
        with pytest.raises(ValueError, match=r"mlp.activation: expected .* Pass activation= .* kinks"):
            from_mlp(mlp)
    mlp = eqx.nn.MLP(3, 2, 4, 2, activation=jax.nn.silu, key=jax.random.key(0))
    assert_same_mlp(from_mlp(mlp, Activation(jax.nn.silu, ())), mlp)


@pytest.mark.parametrize("size", (2, "scalar"))
def test_mlp_final_activation(size):
    mlp = eqx.nn.MLP(3, size, 4, 1, final_activation=jnp.tanh, key=jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (20, 3))
    options = {"layers": "ridge", "forget": "last"} if size == "scalar" else {}
    found, expected = jax.vmap(from_mlp(mlp, **options))(inputs), jax.vmap(mlp)(inputs).reshape(20, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
    mlp = eqx.nn.MLP(3, size, 5, 2, final_activation=lambda x: x + 1, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"mlp.final_activation: expected the identity"):
        from_mlp(mlp)


def test_mlp_of_another_kind():
    with pytest.raises(TypeError, match=r"mlp: expected an equinox\.nn\.MLP, .* got Linear"):
        from_mlp(eqx.nn.Linear(2, 2, key=jax.random.key(0)))


def test_sequences_of_equinox():
    """Layers, functions, names and declared activations; what only trains is left out."""
    keys = jax.random.split(jax.random.key(0), 3)
    first, second, third = (eqx.nn.Linear(a, b, key=key) for a, b, key in zip((3, 4, 5), (4, 5, 2), keys, strict=True))
    leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)
    functions = [eqx.nn.Lambda(jnp.tanh), eqx.nn.Dropout(0.5, inference=True), eqx.nn.Identity()]
    module = eqx.nn.Sequential([first, *functions, second, eqx.nn.Lambda(leaky), third])
    inputs = jax.random.normal(jax.random.key(1), (20, 3))
    expected = jax.vmap(module)(inputs)
    swap = Activation(leaky, (0.0,))
    for one in (module, list(module.layers), [first, "tanh", second, swap, third], [module[:5], leaky, third]):
        network = from_mlp(one)
        assert [type(layer) for layer in network.layers] == [DenseLayer, DenseLayer, LinearLayer]
        np.testing.assert_allclose(jax.vmap(network)(inputs), expected, rtol=1e-12, atol=1e-12)
    assert from_mlp([first, lambda x: x, second], "tanh").layers[0].activations[0].name == "tanh"
    gelu = from_mlp([first, functools.partial(jax.nn.gelu, approximate=False), second]).layers[0].activations
    assert gelu[0] is ACTIVATIONS["gelu"]
    logits = from_mlp([first, jnp.tanh, second, jax.nn.softmax])
    assert len(logits.layers) == 2


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (eqx.nn.LayerNorm(4), r"mlp\[1\]: .* LayerNorm divides by the spread of all coordinates, which is not linear"),
        (eqx.nn.Conv1d(1, 1, 1, key=jax.random.key(0)), r"mlp\[1\]: expected a Linear, .* got Conv1d"),
        (eqx.nn.PReLU(), r"mlp\[1\]: expected a Linear, .* got PReLU"),
        (lambda x: x, r"mlp\[1\]: expected a function whose kinks are known"),
        (jax.nn.softmax, r"mlp\[1\]: expected a softmax at the end alone"),
    ],
)
def test_layers_of_equinox_that_are_refused(layer, message):
    first, second = (eqx.nn.Linear(*sizes, key=jax.random.key(0)) for sizes in ((3, 4), (4, 2)))
    with pytest.raises(ValueError, match=message):
        from_mlp([first, layer, second])

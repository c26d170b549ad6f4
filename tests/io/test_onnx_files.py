"""Networks in files of ONNX: equal to the interpreter that comes with it, or refused by the name of the node."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_networks import model, node, perceptron
from perceptrons import random_weights

import analytic_vae as av
from analytic_vae.model.activation import ACTIVATIONS

RNG = np.random.default_rng(0)
W0, W1 = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=(4, 2)).astype(np.float32)  # [in, out]
C0, C1 = RNG.normal(size=4).astype(np.float32), RNG.normal(size=2).astype(np.float32)
A, B, C = RNG.normal(size=(3, 3, 4)).astype(np.float32) * [[[1.0]], [[1.0]], [[0.0]]] + 1.0
X = RNG.normal(size=(20, 3)).astype(np.float32)
CONSTANTS = {"W0": W0, "W1": W1, "c0": C0, "c1": C1}


def saved(path, content):
    path.write_bytes(content)
    return path


def numbers(**given):
    return {name: np.asarray(value, np.float32) for name, value in given.items()}


def between(*nodes, constants=None, **options):
    """`Gemm`, what is given (from `s` to `a`), `Gemm`."""
    first, last = node("Gemm", "x W0 c0", "s"), node("Gemm", "a W1 c1", "y")
    return model([first, *nodes, last], CONSTANTS | (constants or {}), **options)


def assert_same(path, content, reference=None, inputs=X):
    """Equal to the interpreter's output to the rounding of single precision."""
    network = av.load_network(saved(path / "net.onnx", content))
    (expected, *_) = ReferenceEvaluator(onnx.load_model_from_string(reference or content)).run(None, {"x": inputs})
    found = jax.vmap(network)(jnp.asarray(inputs.reshape(len(inputs), -1)))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5 * np.max(np.abs(expected)))
    return network


GELU = (
    node("Div", "s root", "d"), node("Erf", "d", "e"), node("Add", "e one", "p"), node("Mul", "s p", "m"),
    node("Mul", "m half", "a"),
)  # fmt: skip

CHAINS = {
    "relu": between(node("Relu", "s", "a")),
    "leaky_relu": between(node("LeakyRelu", "s", "a", alpha=0.2)),
    "elu": between(node("Elu", "s", "a", alpha=0.7)),
    "celu": between(node("Celu", "s", "a", alpha=0.5)),
    "prelu": between(node("PRelu", "s slope", "a"), constants=numbers(slope=[0.3])),
    "gelu": between(node("Gelu", "s", "a")),
    "gelu_tanh": between(node("Gelu", "s", "a", approximate="tanh")),
    "gelu in parts": between(*GELU, constants=numbers(root=2**0.5, one=1, half=0.5)),
    "slopes": between(node("PRelu", "s slopes", "a"), constants=numbers(slopes=A[0])),
    "softplus": between(node("Softplus", "s", "a")),
    "a clip from zero": between(node("Clip", "s zero", "a"), constants=numbers(zero=0)),
    "sigmoid, dropout, identity": between(
        node("Sigmoid", "s", "d"), node("Dropout", "d", "i"), node("Identity", "i", "a")
    ),
    "batch normalisation": between(
        node("BatchNormalization", "s g b m v", "n", epsilon=1e-3), node("Tanh", "n", "a"),
        constants=numbers(g=A[0], b=A[1], m=C0, v=np.abs(A[2])),
    ),
    "one after the activation": between(
        node("Tanh", "s", "t"), node("BatchNormalization", "t g b m v", "a"),
        constants=numbers(g=A[0], b=A[1], m=C0, v=np.abs(A[2])),
    ),
    "two affine maps": between(node("Mul", "s two", "a"), constants=numbers(two=[2.0])),
    "a scaler before": model(
        [node("Sub", "x c", "d"), node("Div", "d e", "z"), node("MatMul", "z W0", "s"), node("Add", "c0 s", "t"),
         node("Relu", "t", "a"), node("MatMul", "a W1", "y")],
        CONSTANTS | numbers(c=[1, 2, 3], e=[2, 0.5, 1]),
    ),
    "alpha, beta, transB": model(
        [node("Flatten", "x", "f"), node("Gemm", "f V c0", "s", alpha=0.5, beta=2.0, transB=1), node("Relu", "s", "a"),
         node("Gemm", "a W1 scalar", "y")],
        CONSTANTS | {"V": np.ascontiguousarray(W0.T), "scalar": np.float32(0.3)},
    ),
    "a part of the output": model(
        [node("Gemm", "x W0 c0", "s"), node("Split", "s", "p q", axis=-1, num_outputs=2), node("Tanh", "q", "y")],
        CONSTANTS,
    ),
    "constants in nodes": model(
        [node("Constant", "", "V", value=onnx.numpy_helper.from_array(W0)), node("Gemm", "x V", "s"),
         node("Sigmoid", "s", "y")],
        {},
    ),
    "double precision": model([node("Gemm", "x W0", "y")], {"W0": W0.astype(np.float32)}),
    "a residual block": model(
        [node("Gemm", "x W0 c0", "r"), node("Gemm", "r U b", "s"), node("Relu", "s", "t"), node("Gemm", "t V b2", "v"),
         node("Add", "v r", "w"), node("Gemm", "w W1 c1", "y")],
        CONSTANTS | numbers(U=RNG.normal(size=(4, 5)), V=RNG.normal(size=(5, 4)), b=np.ones(5), b2=A[0]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_those_of_the_interpreter(name, tmp_path):
    assert_same(tmp_path, CHAINS[name])


def test_layers_are_as_few_as_they_can_be(tmp_path):
    """Normalisations and biases are folded; a residual block is one layer, with one for its bias."""
    kinds = {
        "batch normalisation": ["DenseLayer", "LinearLayer"],
        "one after the activation": ["DenseLayer", "LinearLayer"],
        "a scaler before": ["DenseLayer", "LinearLayer"],
        "a residual block": ["LinearLayer", "DenseLayer", "LinearLayer", "LinearLayer"],
    }
    for name, expected in kinds.items():
        network = av.load_network(saved(tmp_path / "net.onnx", CHAINS[name]))
        assert [type(layer).__name__ for layer in network.layers] == expected


def test_images_are_flattened(tmp_path):
    inputs = RNG.normal(size=(20, 1, 3)).astype(np.float32)
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f W0", "y")]
    assert_same(tmp_path, model(nodes, CONSTANTS, inputs=(1, 3)), inputs=inputs)


@pytest.mark.parametrize("kind", ("Softmax", "LogSoftmax"))
def test_outputs_of_a_classifier_are_logits(kind, tmp_path):
    """Also where a label is chosen after it."""
    first = [node("Gemm", "x W0 c0", "s"), node("Relu", "s", "a"), node("Gemm", "a W1 c1", "z")]
    logits = model([*first[:2], node("Gemm", "a W1 c1", "y")], CONSTANTS)
    assert_same(tmp_path, model([*first, node(kind, "z", "y", axis=-1)], CONSTANTS), logits)
    labels = [*first, node(kind, "z", "p", axis=-1), node("ArgMax", "p", "l", axis=1), node("Identity", "p", "y")]
    assert_same(tmp_path, model(labels, CONSTANTS, outputs="l y"), logits)


def test_an_activation_that_is_not_known_yet_is_named(tmp_path):
    """`x sigmoid(x)` is known as SiLU, whether or not there is one."""
    content = between(node("Sigmoid", "s", "g"), node("Mul", "g s", "a"))
    if "silu" in ACTIVATIONS:
        assert_same(tmp_path, content)
    else:
        refused(tmp_path, content, r"node the_g \(Sigmoid\).*got silu")


def refused(path, content, message, error=ValueError, **options):
    with pytest.raises(error, match=message):
        av.load_network(saved(path / "net.onnx", content), **options)


GEMMS = [node("Gemm", "x W0 c0", "s"), node("Gemm", "a W1 c1", "y")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (between(node("LayerNormalization", "s c0", "a")), r"the_a \(LayerNormalization\), part of a .*not linear"),
        (between(node("Sin", "s", "a")), r"chain of Gemm, MatMul, Add.*node the_a \(Sin\)"),
        (between(node("Softmax", "s", "a")), r"softmax at the end alone .* node the_y \(Gemm\) after it"),
        (between(node("Pow", "s s", "a")), r"s is read by node the_a \(Pow\), which are neither a block nor"),
        (between(node("Exp", "s", "e"), node("Mul", "e s", "a")), r"read by node the_e.*neither a block nor"),
        (between(node("Cast", "s", "a", to=7)), r"numbers that stay floating .* node the_a \(Cast\)"),
        (between(node("Div", "c0 s", "a")), r"c / x or x / 0 in node the_a"),
        (between(node("Gemm", "s W0 c0", "a", transA=1)), r"expected x W \+ c"),
        (model([node("Relu", "x", "y")], {}), "expected a Gemm or a MatMul"),
        (model([node("Gemm", "x W0 c0", "y")], CONSTANTS, inputs=4), "expected 4 inputs of the first map"),
        (model([node("Gemm", "x W0 c1", "y")], CONSTANTS), r"c1: expected shape \[4\]"),
        (model([node("Gemm", "x W0", "y")], numbers(W0=W0 * np.nan)), "W0: expected finite numbers"),
        (model([node("Gemm", "x W0", "s"), node("Relu", "s", "t")], CONSTANTS), r"one output of node the_t"),
        (model([node("Gemm", "x W0", "y"), node("Relu", "y", "z")], CONSTANTS, outputs="y z"), "y is used further"),
        (model([node("Gemm", "r W0", "s"), node("Relu", "s", "r")], CONSTANTS), "expected a Gemm|ends at x"),
        (b"", "found none|expected one input"),
        (b"no protobuf", r"cannot read .*net\.onnx as a network in \.onnx"),
    ],
)  # fmt: skip
def test_what_is_no_chain_is_refused_by_name(content, message, tmp_path):
    refused(tmp_path, content, message)


def test_a_file_says_everything_itself(tmp_path):
    content = perceptron(random_weights())
    for options in ({"activation": "relu"}, {"order": ["a"]}, {"transposed": True}, {"block": "h.0"}):
        refused(tmp_path, content, "expected none, since an .onnx file", **options)
    refused(tmp_path, content, "at most 100 bytes", max_bytes=100)
    with pytest.raises(FileNotFoundError):
        av.load_network(tmp_path / "none.onnx")


def test_weights_in_another_file_are_refused_with_the_line_that_helps(tmp_path):
    found = onnx.load_model_from_string(perceptron(random_weights()))
    onnx.save(found, tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(ValueError, match=r"onnx\.save\(onnx\.load\('.*net\.onnx'\), 'whole\.onnx'\)"):
        av.load_network(tmp_path / "net.onnx")


def test_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(tmp_path, perceptron(random_weights()), r"pip install 'analytic_vae\[onnx\]'", ImportError)

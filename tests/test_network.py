"""Networks from weights, from equinox and from files: the same function as the MLP, and no bad file gets through."""

import io
import json
import pickle
import sys
import zipfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytic_vae.activation import ACTIVATIONS, Activation
from analytic_vae.files import read_arrays
from analytic_vae.layer import LinearLayer, RidgeLayer
from analytic_vae.network import from_mlp, from_weights, load_network, weights_of

FORGET = ("each", "last")
SIZES = (3, 4, 3, 2)
SPARSE_MLP = Path(__file__).parents[2] / "shared" / "cases" / "sparse_mlp.npz"


def random_weights(sizes=SIZES, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    return [(rng.normal(size=shape).astype(dtype), rng.normal(size=shape[0]).astype(dtype)) for shape in shapes]


def evaluate(weights, function, x):
    """The MLP, written down once more; NumPy but for the activation."""
    for index, (weight, bias) in enumerate(weights):
        x = x @ weight.T + (0 if bias is None else bias)
        x = x if index == len(weights) - 1 else np.asarray(function(x))
    return x


def assert_same(network, weights, function):
    """Equal at random inputs up to the rounding of sums of the size at hand."""
    dtype = weights[0][0].dtype
    inputs = np.random.default_rng(1).normal(size=(20, weights[0][0].shape[1])).astype(dtype)
    values = jax.vmap(network)(jnp.asarray(inputs))
    assert values.dtype == dtype
    # To compare with, both the weights and the arithmetic in double precision.
    doubles = [tuple(None if part is None else part.astype(np.float64) for part in pair) for pair in weights]
    sizes = [tuple(None if part is None else abs(part) for part in pair) for pair in doubles]
    scale = evaluate(sizes, lambda s: abs(s) + 1, abs(inputs.astype(np.float64)))
    expected = evaluate(doubles, function, inputs.astype(np.float64))
    assert np.all(abs(np.asarray(values) - expected) <= 16 * np.finfo(dtype).eps * scale)


# ------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("dtype", (np.float64, np.float32))
@pytest.mark.parametrize("forget", FORGET)
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_same_function(name, forget, dtype):
    weights = random_weights(dtype=dtype)
    assert_same(from_weights(weights, name, forget=forget), weights, ACTIVATIONS[name])


@pytest.mark.parametrize("forget", FORGET)
def test_declared_activation_and_missing_biases(forget):
    hinge = Activation(lambda b: jnp.clip(b, -1, 1), (-1.0, 1.0), "hard tanh")
    weights = [(weight, None if index == 1 else bias) for index, (weight, bias) in enumerate(random_weights())]
    network = from_weights(weights, hinge, forget=forget)
    assert_same(network, weights, hinge)
    assert all(layer.activation.kinks == (-1.0, 1.0) for layer in network.layers if isinstance(layer, RidgeLayer))


def test_widths():
    weights = random_weights()
    each = [(layer.inputs, layer.outputs) for layer in from_weights(weights, "relu").layers]
    last = [(layer.inputs, layer.outputs) for layer in from_weights(weights, "relu", forget="last").layers]
    assert each == [(3, 4), *[(4, 4)] * 4, (4, 3), *[(3, 3)] * 3, (3, 2)]
    assert last == [(3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 3), (3, 4), (4, 5), (5, 6), (6, 2)]


def test_steps_share_the_identity():
    steps = [layer for layer in from_weights(random_weights((3, 5, 2)), "tanh").layers if isinstance(layer, RidgeLayer)]
    assert len({id(step.linear) for step in steps}) == 1
    assert len({step.activation for step in steps}) == 1


def test_relu_is_exact_to_the_last_bit():
    identity, x = np.eye(6), np.random.default_rng(2).normal(size=6) * 10.0 ** np.arange(-9, 9, 3)
    network = from_weights([(identity, None), (identity, None)], "relu")
    assert np.array_equal(network(jnp.asarray(x)), np.maximum(x, 0))


def test_one_affine_map_is_one_layer():
    network = from_weights(random_weights((3, 2)), "relu")
    assert len(network.layers) == 1 and isinstance(network.layers[0], LinearLayer)


def test_differentiable_in_the_weights():
    weights = [(jnp.asarray(weight), jnp.asarray(bias)) for weight, bias in random_weights((2, 3, 1))]
    x = jnp.array([0.3, -0.8])

    def direct(pairs):
        (w0, b0), (w1, b1) = pairs
        return (w1 @ jnp.tanh(w0 @ x + b0) + b1)[0]

    gradient = jax.jit(jax.grad(lambda pairs: from_weights(pairs, "tanh")(x)[0]))(weights)
    expected = jax.grad(direct)(weights)
    for value, wanted in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-12, atol=1e-12)


@given(st.lists(st.integers(1, 3), min_size=2, max_size=4), st.sampled_from(FORGET), st.integers(0, 2**16))
def test_any_widths(sizes, forget, seed):
    weights = random_weights(sizes, seed=seed)
    network = from_weights(weights, "relu", forget=forget)
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
        ([(W, np.zeros(3))], r"weights\[0\]\[1\]: expected shape \(2,\)"),
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
        from_weights([(W, B)], "relu", forget="never")
    with pytest.raises(ValueError, match=r"activation: expected one of .*, got 'swish'"):
        from_weights([(W, B)], "swish")
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
    assert_same_mlp(from_mlp(mlp, forget=forget), mlp)


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
    for function in (jax.nn.silu, eqx.nn.PReLU()):
        mlp = eqx.nn.MLP(3, 2, 4, 2, activation=function, key=jax.random.key(0))
        with pytest.raises(ValueError, match=r"mlp.activation: expected .* Pass activation= .* kinks"):
            from_mlp(mlp)
    mlp = eqx.nn.MLP(3, 2, 4, 2, activation=jax.nn.silu, key=jax.random.key(0))
    assert_same_mlp(from_mlp(mlp, Activation(jax.nn.silu, ())), mlp)


@pytest.mark.parametrize("size", (2, "scalar"))
@pytest.mark.parametrize("function", (jnp.tanh, jax.nn.relu, jax.nn.relu6, lambda x: x + 1))
def test_mlp_final_activation(function, size):
    mlp = eqx.nn.MLP(3, size, 5, 2, final_activation=function, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"mlp.final_activation: expected the identity"):
        from_mlp(mlp)


def test_mlp_of_another_kind():
    with pytest.raises(TypeError, match=r"mlp: expected an equinox\.nn\.MLP, got Linear"):
        from_mlp(eqx.nn.Linear(2, 2, key=jax.random.key(0)))


# ---------------------------------------------------------------------------------------------------- good files


def named(weights, weight_name, bias_name, numbers=None):
    numbers = numbers or range(len(weights))
    arrays = {weight_name.format(number): weight for number, (weight, _) in zip(numbers, weights, strict=True)}
    return arrays | {bias_name.format(number): bias for number, (_, bias) in zip(numbers, weights, strict=True)}


def save(path, arrays):
    if path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file(arrays, path)
    else:
        np.savez(path, **arrays)
    return path


LAYOUTS = {
    "torch": ("net.{}.weight", "net.{}.bias", (0, 2, 10)),  # 10 after 2: the order is that of the numbers
    "equinox": ("layers[{}].weight", "layers[{}].bias", (0, 1, 2)),
    "letters": ("W{}", "b{}", (8, 9, 10)),
    "underscore": ("w_{}", "b_{}", (1, 2, 3)),
    "nested": ("block.{0}.linear{0}.weight", "block.{0}.linear{0}.bias", (9, 10, 11)),
}


@pytest.mark.parametrize("suffix", (".npz", ".safetensors"))
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_layouts(tmp_path, layout, suffix):
    weights = random_weights()
    path = save(tmp_path / f"network{suffix}", named(weights, *LAYOUTS[layout]))
    assert_same(load_network(path, "tanh"), weights, np.tanh)
    assert_same(load_network(str(path), "tanh", forget="last"), weights, np.tanh)


@pytest.mark.parametrize("biases", (False, True))
def test_stacked_layout(tmp_path, biases):
    """The layout of shared/cases/sparse_mlp.npz; what else is in the file does not matter."""
    weights = random_weights((4, 4, 4, 4))
    arrays = {"weights": np.stack([weight for weight, _ in weights]), "mean_gauss": np.zeros(4), "note": np.array("x")}
    if biases:
        arrays["biases"] = np.stack([bias for _, bias in weights])
    else:
        weights = [(weight, None) for weight, _ in weights]
    assert_same(load_network(save(tmp_path / "network.npz", arrays)), weights, ACTIVATIONS["relu"])


@pytest.mark.parametrize("path", [path for path in [SPARSE_MLP] if path.exists()])
def test_sparse_mlp(path):
    with np.load(path) as arrays:
        weights = [(weight, None) for weight in arrays["weights"]]
    assert_same(load_network(path), weights, ACTIVATIONS["relu"])


def test_dtypes(tmp_path):
    weights = [(np.array([[1, -2], [3, 4]]), np.array([True, False])), (np.array([[1, 1]], np.int8), None)]
    arrays = {"0.weight": weights[0][0], "0.bias": weights[0][1], "1.weight": weights[1][0]}
    network = load_network(save(tmp_path / "integers.npz", arrays))
    assert network(jnp.array([2.0, 1.0])) == 11.0
    half = save(tmp_path / "half.npz", {"weight": np.ones((1, 2), np.float16)})
    assert [weight.dtype for weight, _ in weights_of(half)] == [np.float32]


def test_compressed(tmp_path):
    weights = random_weights()
    np.savez_compressed(tmp_path / "network.npz", **named(weights, "W{}", "b{}"))
    assert_same(load_network(tmp_path / "network.npz"), weights, ACTIVATIONS["relu"])


# ----------------------------------------------------------------------------------------------------- bad files


def refused(path, message, error=ValueError, **options):
    with pytest.raises(error, match=message):
        load_network(path, **options)


def test_no_file(tmp_path):
    refused(tmp_path / "none.npz", r"path: expected a file, found none at .*none\.npz", FileNotFoundError)
    refused(tmp_path, r"path: expected a file, got the directory")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz", r"path: expected a file, got the directory")
    (tmp_path / "network.pt").write_bytes(b"")
    refused(tmp_path / "network.pt", r"path: expected a name that ends in \.npz or \.safetensors")


@pytest.mark.parametrize("suffix", (".npz", ".safetensors"))
@pytest.mark.parametrize("content", (b"", b"PK", b"no archive at all", b"\xff" * 100, b"\x02" + b"\0" * 7 + b"[]"))
def test_not_an_archive(tmp_path, content, suffix):
    path = tmp_path / f"network{suffix}"
    path.write_bytes(content)
    refused(path, rf"path: cannot read .* as a whole {suffix} file")


@pytest.mark.parametrize("suffix", (".npz", ".safetensors"))
@pytest.mark.parametrize("kept", (0.1, 0.5, 0.9, 0.99))
def test_truncated(tmp_path, kept, suffix):
    path = save(tmp_path / f"network{suffix}", named(random_weights(), "W{}", "b{}"))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(path, rf"path: cannot read .* as a whole {suffix} file")


def test_damaged_data(tmp_path):
    path = save(tmp_path / "network.npz", {"W0": np.zeros((30, 30))})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    refused(path, r"cannot read .* CRC")


class Executed:
    """Says so if it is ever unpickled."""

    happened = False

    def __reduce__(self):
        return setattr, (Executed, "happened", True)


def test_objects_are_never_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Executed()))
    assert Executed.happened  # the trap works
    Executed.happened = False
    arrays = {"W0": np.ones((2, 2)), "extra": np.array([Executed()], dtype=object)}
    np.savez(tmp_path / "objects.npz", **arrays)
    refused(tmp_path / "objects.npz", r"array extra\.npy: expected numbers, got Python objects")
    with zipfile.ZipFile(tmp_path / "pickle.npz", "w") as archive:
        archive.writestr("W0.npy", pickle.dumps(Executed()))
    refused(tmp_path / "pickle.npz", r"cannot read .*magic string")
    assert not Executed.happened


def write_header(path, shape, descr="<f8", version=(1, 0), data=b""):
    """An archive with one array that declares a shape and holds other bytes."""
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    writer = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    writer(stream, header)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("W0.npy", stream.getvalue() + data)
    return path


@pytest.mark.parametrize("version", ((1, 0), (2, 0)))
def test_absurd_sizes(tmp_path, version):
    path = tmp_path / "network.npz"
    refused(
        write_header(path, (10**6, 10**6), version=version), r"at most 1073741824 bytes .* declares 8000000000000\."
    )
    refused(write_header(path, (2**62, 2**62), version=version), r"at most 1073741824 bytes")
    refused(write_header(path, (-2, -2), version=version), r"lengths of zero or more, got shape \(-2, -2\)")
    refused(write_header(path, (4, 4), version=version, data=b"\0" * 8), r"cannot read")
    refused(write_header(path, (1, 1), version=version, data=b"\0" * 16), r"expected 8 bytes of data, got more")


def test_archive_that_unpacks_to_too_much(tmp_path):
    path = write_header(tmp_path / "network.npz", (1, 1), data=bytes(2**22))
    assert path.stat().st_size < 2**14
    refused(path, r"at most 1048576 bytes together, but the file declares 4194", max_bytes=2**20)


def test_max_bytes(tmp_path):
    for suffix in (".npz", ".safetensors"):
        path = save(tmp_path / f"network{suffix}", {"weight": np.ones((10, 10))})
        refused(path, r"at most 799 bytes together", max_bytes=799)
        assert len(read_arrays(path, max_bytes=1000)) == 1


def write_safetensors(path, header, data=b"", length=None):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def test_safetensors_headers(tmp_path):
    path = tmp_path / "network.safetensors"
    whole = {"dtype": "F64", "shape": [1, 1], "data_offsets": [0, 8]}
    assert weights_of(write_safetensors(path, {"weight": whole}, bytes(8)))[0][0].shape == (1, 1)
    refused(
        write_safetensors(path, {"weight": whole | {"shape": [10**9, 10**9]}}, bytes(8)), r"at most 1073741824 bytes"
    )
    refused(write_safetensors(path, {"weight": whole}, bytes(8), length=2**60), r"expected a header within the")
    refused(write_safetensors(path, {"weight": whole}, bytes(7)), r"cannot read")
    refused(write_safetensors(path, {"weight": whole | {"dtype": "BF16"}}, bytes(8)), r"array weight: .* got BF16")
    refused(write_safetensors(path, {"weight": {}}, bytes(8)), r"cannot read")
    refused(write_safetensors(path, b"[" * 10**5), r"cannot read")


def test_safetensors_not_installed(tmp_path, monkeypatch):
    path = save(tmp_path / "network.safetensors", {"weight": np.ones((2, 2))})
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    refused(path, r"pip install 'analytic_vae\[files\]'", ImportError)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"found no weights in .* got no arrays"),
        ({"data": W}, r"found no weights in .* got data \(2, 3\)"),
        ({"weights": W}, r"found no weights in .* got weights \(2, 3\)"),
        ({"b0": B}, r"found no weights"),
        ({"W0": W, "W1": W}, r"W1: expected 2 inputs, as many as the outputs of W0, got 3"),
        ({"W0": W, "b0": np.zeros(3)}, r"b0: expected shape \(2,\)"),
        ({"0.weight": W, "1.weight": B}, r"1\.weight: expected shape"),  # a normalisation
        ({"0.weight": W, "1.running_mean": B}, r"nothing else in .*running_mean"),
        ({"0.weight": W, "1.bias": B}, r"nothing else in .*1\.bias"),
        ({"inner.weight": np.eye(2), "outer.weight": np.eye(2)}, r"differ only in their numbers"),
        ({"W1": np.eye(2), "W01": np.eye(2)}, r"differ only in their numbers"),
        ({"W0": np.eye(2), "w0": np.eye(2)}, r"nothing else"),
        ({"W0": np.where(np.eye(2), np.nan, np.inf)}, r"W0: expected finite numbers, got 4 NaN or infinite of 4"),
        ({"W0": W, "b0": np.array([np.nan, 1.0])}, r"b0: expected finite numbers, got 1 NaN or infinite of 2"),
        ({"W0": W * 1j}, r"W0: expected real numbers, got dtype complex128"),
        ({"W0": W.astype(str)}, r"W0: expected real numbers, got dtype <U"),
        ({"W0": np.zeros((2, 0))}, r"W0: expected shape"),
        ({"weights": np.zeros((3, 2, 4))}, r"weights\[1\]: expected 2 inputs"),
        ({"weights": np.full((2, 3, 3), np.nan)}, r"weights\[0\]: expected finite numbers, got 9"),
        ({"weights": np.zeros((0, 3, 3))}, r"weights: expected shape"),
        ({"weights": np.zeros((2, 3, 3)), "biases": np.zeros((2, 2))}, r"biases: expected shape \(2, 3\)"),
    ],
)
def test_bad_arrays(tmp_path, arrays, message):
    refused(save(tmp_path / "network.npz", arrays), message)


@given(st.data())
def test_any_damage_is_a_value_error(tmp_path_factory, data):
    """Whatever bytes a file holds, it is read or refused; nothing else is raised."""
    suffix = data.draw(st.sampled_from((".npz", ".safetensors")))
    path = save(tmp_path_factory.mktemp("damage") / f"network{suffix}", {"W0": np.eye(2), "b0": np.ones(2)})
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read_arrays(path)
    except ValueError as error:
        assert str(error).startswith("path: ")

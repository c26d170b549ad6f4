"""Networks from files: every layout that is understood, and every file that is refused."""

import io
import json
import pickle
import sys
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptrons import assert_same, random_weights

from analytic_vae.io.arrays import read_arrays
from analytic_vae.io.network_files import load_network
from analytic_vae.model.activation import ACTIVATIONS

W, B = np.ones((2, 3)), np.zeros(2)
SPARSE_MLP = Path(__file__).parents[3] / "shared" / "cases" / "sparse_mlp.npz"

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
    assert_same(load_network(str(path), "tanh", layers="ridge", forget="last"), weights, np.tanh)


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
    assert load_network(half).layers[0].weight.dtype == np.float32


def test_compressed(tmp_path):
    weights = random_weights()
    np.savez_compressed(tmp_path / "network.npz", **named(weights, "W{}", "b{}"))
    assert_same(load_network(tmp_path / "network.npz"), weights, ACTIVATIONS["relu"])


BLOCKS = ("blocks.0.fc1", "blocks.0.fc2", "blocks.1.fc1", "blocks.1.fc2")


def residual(path, names=BLOCKS):
    weights = random_weights((3,) * (len(names) + 1))
    arrays = {f"{name}.weight": weight for name, (weight, _) in zip(names, weights, strict=True)}
    return save(path, arrays | {f"{name}.bias": bias for name, (_, bias) in zip(names, weights, strict=True)}), weights


@pytest.mark.parametrize("suffix", (".npz", ".safetensors"))
def test_a_residual_network_is_not_taken_for_a_chain(tmp_path, suffix):
    """Its skips are not in the file: it is off by as much as they carry."""
    path, weights = residual(tmp_path / f"network{suffix}")
    refused(
        path, r"got blocks\.0\.fc1\.weight and blocks\.0\.fc2\.weight, as of a residual block.*--order.*blocks\.1\.fc2"
    )
    assert_same(load_network(path, order=BLOCKS), weights, ACTIVATIONS["relu"])
    turned = [f"{BLOCKS[i]}.weight" for i in (2, 0, 3, 1)]
    assert_same(load_network(path, order=turned), [weights[i] for i in (2, 0, 3, 1)], ACTIVATIONS["relu"])


def test_the_order_of_names_without_numbers_is_said(tmp_path):
    path, weights = residual(tmp_path / "network.npz", ("encoder", "decoder", "head"))
    refused(path, "differ only in their numbers")
    assert_same(load_network(path, order=["encoder", "decoder", "head"]), weights, ACTIVATIONS["relu"])
    path, weights = residual(tmp_path / "letters.npz", BLOCKS[:2])
    pairs = {f"{n}{i}": a for i, pair in enumerate(weights) for n, a in zip("Wb", pair, strict=True)}
    backwards = load_network(save(tmp_path / "letters.npz", pairs), order=["W1", "W0"], transposed=False)
    assert_same(backwards, weights[::-1], ACTIVATIONS["relu"])


@pytest.mark.parametrize(
    ("order", "message", "error"),
    [
        (BLOCKS[:3], "order: expected each of .* once", ValueError),
        ((*BLOCKS, BLOCKS[0]), "order: expected each of .* once", ValueError),
        ((*BLOCKS[:3], "blocks.2.fc1"), "order: expected names among blocks.0.fc1, .*'blocks.2.fc1'", ValueError),
        ((), "order: expected each of .* once", ValueError),
        ("blocks.0.fc1", "order: expected a list", TypeError),
        ([0, 1], "order: expected a list", TypeError),
    ],
)
def test_an_order_names_every_weight_once(tmp_path, order, message, error):
    path, _ = residual(tmp_path / "network.npz")
    refused(path, message, error, order=order)


def test_a_stack_has_an_order(tmp_path):
    path = save(tmp_path / "network.npz", {"weights": np.ones((2, 3, 3))})
    refused(path, "order: expected none", order=["weights"])


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
    refused(
        tmp_path / "network.pt",
        r"ends in \.npz, \.safetensors or \.onnx, got .*torch\.load\('.*network\.pt', weights_only=True\)",
    )


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
    assert load_network(write_safetensors(path, {"weight": whole}, bytes(8))).inputs == 1
    refused(
        write_safetensors(path, {"weight": whole | {"shape": [10**9, 10**9]}}, bytes(8)), r"at most 1073741824 bytes"
    )
    refused(write_safetensors(path, {"weight": whole}, bytes(8), length=2**60), r"expected a header within the")
    refused(write_safetensors(path, {"weight": whole}, bytes(7)), r"cannot read")
    refused(
        write_safetensors(path, {"weight": whole | {"dtype": "F8_E4M3"}}, bytes(8)), r"array weight: .* got F8_E4M3"
    )
    refused(write_safetensors(path, {"weight": {}}, bytes(8)), r"cannot read")
    refused(write_safetensors(path, b"[" * 10**5), r"cannot read")


def test_safetensors_not_installed(tmp_path, monkeypatch):
    path = save(tmp_path / "network.safetensors", {"weight": np.ones((2, 2))})
    monkeypatch.setitem(sys.modules, "safetensors", None)
    refused(path, r"pip install 'analytic_vae\[files\]'", ImportError)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"found no weights in .* got no arrays"),
        ({"data": W}, r"found no weights in .* got data \(2, 3\)"),
        ({"weights": W}, r"found no weights in .* got weights \(2, 3\)"),
        ({"b0": B}, r"found no weights"),
        ({"W0": W, "W1": W}, r"W1: expected 2 inputs, as many as the outputs of W0, got 3"),
        ({"W0": W, "b0": np.zeros(4)}, r"b0: expected shape \[2\]"),
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
        ({"weights": np.zeros((2, 3, 3)), "biases": np.zeros((2, 2))}, r"biases: expected shape \[2, 3\]"),
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

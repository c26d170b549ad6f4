"""Files as an enemy or a bad disk would leave them: good ones of every kind, mutated at random."""

import io
import json
import pickle
import time
import tracemalloc
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

import analytic_vae as av
from analytic_vae.elbo import Elbo, ErrorBounds

KINDS = ("cut", "flip", "noise", "header", "shape", "poison", "pickle", "bomb", "names", "swap")


class Marker:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def mutated(content: bytes, suffix: str, kind: str, rng: np.random.Generator, marker: Path) -> bytes:
    """The bytes of a good file after one mutation; every other kind of file than `.npz` gets what it can have."""
    if suffix == ".npz" and kind not in ("cut", "flip", "noise"):
        return _members_mutated(content, kind, rng, marker)
    if suffix == ".safetensors" and kind in ("header", "shape", "names", "swap"):
        return _safetensors_mutated(content, kind, rng)
    if kind == "pickle":
        return pickle.dumps(Marker(marker)) + content
    if kind == "cut":
        return content[: rng.integers(len(content))]
    changed = bytearray(content)
    if kind == "noise":
        start, length = rng.integers(len(changed)), rng.integers(1, 64)
        changed[start : start + length] = rng.bytes(length)
        return bytes(changed)
    for place in rng.integers(len(changed), size=rng.integers(1, 5)):
        changed[place] ^= 1 << rng.integers(8)
    return bytes(changed)


def _members_mutated(content, kind, rng, marker):
    """The archive written anew, whole and with right checksums, with something else in one of its members."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    chosen = names[rng.integers(len(names))]
    compression, stream = zipfile.ZIP_STORED, io.BytesIO()
    if kind == "header" and "header.json.npy" in members:
        members["header.json.npy"] = _npy(np.frombuffer(_json_mutated(members["header.json.npy"], rng), np.uint8))
    elif kind == "poison":
        members[chosen] = _poisoned(members[chosen], rng)
    elif kind == "pickle":
        objects = np.array([Marker(marker)], dtype=object)
        members[chosen] = pickle.dumps(Marker(marker)) if rng.random() < 0.5 else _npy(objects, allow_pickle=True)
    elif kind == "bomb":
        compression = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)[rng.integers(3)]
        rows = int(rng.integers(1, 100)) * 2**17
        members[chosen] = _npy_header((rows,), "|b1") + bytes(rows)
    elif kind == "names":
        new = ("../../x.npy", "W" * 3000 + ".npy", "W0", "extra.npy", "b9999999999.npy", ".npy")
        members[new[rng.integers(len(new))]] = members.pop(chosen)
    elif kind == "swap":
        members[chosen] = members[names[rng.integers(len(names))]]
    else:
        shape = [(2**62, 2**62), (10**6, 10**6), (-1,), (0, 3), (2**31,), (1,) * 40, ()][rng.integers(7)]
        descr = ("<f8", "<f4", "<c16", "|O", "<U9", "<i2", "|V8", "[('a', '<f8')]", "<V2")[rng.integers(9)]
        members[chosen] = _npy_header(shape, descr) + members[chosen][128:]
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _npy(array, allow_pickle=False):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def _npy_header(shape, descr):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _poisoned(member, rng):
    """The same array with NaN, infinities or absurd numbers in it."""
    array = np.load(io.BytesIO(member))
    if array.dtype.kind != "f" or not array.size:
        return member
    array = array.copy()
    places = rng.integers(array.size, size=rng.integers(1, 4))
    array.flat[places] = (np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320)[rng.integers(6)]
    return _npy(array)


def _json_mutated(member, rng):
    """A checkpoint's header with one value replaced, or one entry lost."""
    header = json.loads(np.load(io.BytesIO(member)).tobytes())
    where = header
    if isinstance(header.get("encoder"), dict) and rng.random() < 0.5:
        where = header["encoder"]
    name = list(where)[rng.integers(len(where))]
    values = (10**9, -1, 2**70, 1.5, None, "x", [], {}, True, 1e308, float("nan"), "__import__('os')", "NeuralEncoder")
    if rng.random() < 0.2:
        del where[name]
    else:
        where[name] = values[rng.integers(len(values))]
    return json.dumps(header).encode()


def _safetensors_mutated(content, kind, rng):
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    entry = header[names[rng.integers(len(names))]]
    if kind == "shape":
        entry["shape"] = ([2**40, 2**40], [-1], [], [0, 2], "x", [1.5], [2**70])[rng.integers(7)]
    elif kind == "header":
        entry["dtype"] = ("F16", "BF16", "I8", 3, None, "F64 ", "BOOL")[rng.integers(7)]
    elif kind == "swap":
        entry["data_offsets"] = ([0, 2**60], [8, 0], [-8, 0], [0], "x", [0, len(data)])[rng.integers(6)]
    else:
        header[("../x", "", "W" * 3000, "W01")[rng.integers(4)]] = header.pop(names[0])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def bfloat16_safetensors(arrays):
    """The bytes of a file that holds the arrays in bfloat16, as PyTorch writes them; NumPy has no such dtype."""
    header, data = {}, b""
    for name, array in arrays.items():
        content = np.asarray(jnp.asarray(array, jnp.bfloat16)).tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def good_files(folder: Path) -> dict[str, tuple[Path, Callable]]:
    """A good file of every kind that the package reads, and what reads it."""
    rng = np.random.default_rng(0)
    source = av.FeatureModel(av.Prior.bernoulli([0.3, 0.4]), rng.normal(size=(3, 2)), 0.5)
    arrays = {"W0": rng.normal(size=(4, 3)), "b0": np.ones(4), "W1": rng.normal(size=(2, 4)), "b1": np.zeros(2)}
    np.savez(folder / "network.npz", **arrays)
    np.savez_compressed(folder / "compressed.npz", **arrays)
    save_file(arrays, folder / "network.safetensors")
    (folder / "brain.safetensors").write_bytes(bfloat16_safetensors(arrays))
    flax = {
        f"params/Dense_{i}/{n}": a
        for i in (0, 1)
        for n, a in (("kernel", arrays[f"W{i}"].T), ("bias", arrays[f"b{i}"]))
    }
    np.savez(folder / "flax.npz", **flax)
    moments = {"running_mean": np.zeros(4), "running_var": np.ones(4), "num_batches_tracked": np.array(3)}
    sequential = {"0.weight": arrays["W0"], "3.weight": arrays["W1"]} | {f"1.{n}": a for n, a in moments.items()}
    save_file(sequential, folder / "norm.safetensors")
    block = {"h.0.mlp.c_fc.weight": arrays["W0"].T, "h.0.mlp.c_proj.weight": arrays["W1"].T}
    np.savez(folder / "block.npz", **block, other=np.ones(3))
    np.savez(folder / "data.npz", data=rng.normal(size=(40, 3)))
    av.save_model(folder / "model.npz", source)
    terms = {name: jnp.ones(()) for name in Elbo.__dataclass_fields__} | {"rates": jnp.ones(2)}
    terms["bounds"] = ErrorBounds(*[jnp.ones(()) for _ in ErrorBounds.__dataclass_fields__])
    fit = av.Fit(source, None, Elbo(**terms), 1e-5, np.ones(3), np.ones(1), av.Stop.CONVERGED, 1.0)
    softmax = av.SoftmaxEncoder(np.ones((2, 1, 3)), np.ones((2, 1, 2)), np.ones((2, 2)))
    neural = av.NeuralEncoder.init(np.ones((2, 1, 3)), 2, key=jax.random.key(0))
    av.save_fit(folder / "softmax.npz", replace(fit, encoder=softmax))
    av.save_fit(folder / "neural.npz", replace(fit, encoder=neural))
    vectors = av.FeatureModel(av.Prior.bernoulli([0.3, 0.4, 0.1, 0.2]), rng.normal(size=(3, 4, 2)), 0.5)
    av.save_encoder(folder / "encoder.npz", av.CarriedEncoder(2, neural))
    autoencoder = av.SparseAutoencoder(
        np.ones((2, 1, 3)), np.ones((2, 1)), np.ones((3, 2)), None, "jumprelu", np.ones(2)
    )
    av.save_encoder(folder / "autoencoder.npz", autoencoder)
    elbo = replace(fit.elbo, rates=jnp.ones(4), bounds=None)
    carried = replace(fit, target=vectors, encoder=av.CarriedEncoder(2, softmax), elbo=elbo, least_remainder=0.1)
    av.save_fit(folder / "carried.npz", carried)
    readers = {
        "network.npz": av.load_network, "compressed.npz": av.load_network, "network.safetensors": av.load_network,
        "brain.safetensors": av.load_network, "flax.npz": av.load_network, "norm.safetensors": av.load_network,
        "block.npz": lambda path: av.load_network(path, block="h.0.mlp"),
        "data.npz": lambda path: av.load_source(path, 2, atoms=4, iterations=50), "model.npz": av.load_model,
        "encoder.npz": av.load_encoder, "autoencoder.npz": av.load_encoder,
        "softmax.npz": av.load_fit, "neural.npz": av.load_fit, "carried.npz": av.load_fit,
    }  # fmt: skip
    from onnx_networks import perceptron  # not all that use this file need onnx

    (folder / "network.onnx").write_bytes(perceptron([(arrays["W0"], arrays["b0"]), (arrays["W1"], arrays["b1"])]))
    readers["network.onnx"] = av.load_network
    return {name: (folder / name, reader) for name, reader in readers.items()}


def attack(folder: Path, count: int, seed: int = 0) -> Counter:
    """Reads so many mutated files: `(file, kind, "loaded" or "refused")` counted. Raises `AssertionError` at a fault.

    A fault is anything but a `ValueError` with a message, a number that is not finite in what was loaded, more than a
    second or a gibibyte for one file, or code of the file that ran.
    """
    rng, marker, results = np.random.default_rng(seed), folder / "executed", Counter()
    good = good_files(folder)
    for path, reader in good.values():
        reader(path)  # compiles what the first reading compiles
    tracemalloc.start()
    for index in range(count):
        name = list(good)[index % len(good)]
        kind = KINDS[index // len(good) % len(KINDS)]
        whole, reader = good[name]
        path = folder / f"mutated{whole.suffix}"
        path.write_bytes(mutated(whole.read_bytes(), whole.suffix, kind, rng, marker))
        what = f"file {index} (seed {seed}): {name}, {kind}"
        tracemalloc.reset_peak()
        begun = time.process_time()  # of this process: the machine may be busy with others
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that shapes fit both ways
                found, outcome = reader(path), "loaded"
        except ValueError as error:
            found, outcome = None, "refused"
            assert str(error), what
        seconds, peak = time.process_time() - begun, tracemalloc.get_traced_memory()[1]
        assert seconds < 1, f"{what}: {seconds:.1f} s"
        assert peak < 2**30, f"{what}: {peak / 2**20:.0f} MiB"
        assert not marker.exists(), f"{what}: executed"
        model = found.target if isinstance(found, av.Fit) else found
        for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)):
            assert np.all(np.isfinite(leaf) | np.isneginf(leaf)), what  # logits of impossible states are -inf
        results[name, kind, outcome] += 1
    tracemalloc.stop()
    return results

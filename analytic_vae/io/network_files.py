"""Files and collections of weights of trained multi-layer perceptrons."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._check import require_instance
from ..model.activation import Activation
from ..model.network import Network, as_numbers, network_of
from .arrays import MAX_BYTES, read_arrays
from .network_layouts import Activations, Reading, steps_of_arrays
from .network_names import chosen
from .onnx_files import onnx_steps

_TORCH = (
    "python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('{name}', weights_only=True), "
    "'{stem}.safetensors')\""
)
_KERAS = (
    "python -c \"import keras, numpy as np; m = keras.models.load_model('{name}'); "
    "np.savez('{stem}.npz', **{{w.path: w.numpy() for w in m.weights}})\""
)
_FLAX = (
    "python -c \"import flax, numpy as np; p = flax.serialization.msgpack_restore(open('{name}', 'rb').read()); "
    "np.savez('{stem}.npz', **flax.traverse_util.flatten_dict(p, sep='/'))\""
)
_SKLEARN = "In Python, if you trust the file: av.from_scikit_learn(joblib.load('{name}'))"

# How to make a file that can be read of one that cannot, by its suffix.
_CONVERSIONS = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), f"To convert a state_dict: {_TORCH}"),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), f"To convert it: {_KERAS}"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), _SKLEARN),
    ".msgpack": f"To convert it: {_FLAX}",
    ".eqx": "In Python: av.from_mlp(eqx.tree_deserialise_leaves('{name}', like)), `like` being a module of its shape",
    ".json": "Of a model in several files, one that holds what is to be read: *.safetensors",
}


def load_network(
    path: str | os.PathLike[str],
    activation: str | Activation | Sequence[str | Activation | None] | None = None,
    *,
    layers: str = "dense",
    forget: str | None = None,
    order: Sequence[str] | None = None,
    transposed: bool | None = None,
    residual: bool = False,
    batch_norm: str | None = None,
    epsilon: float | None = None,
    block: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Network:
    """The multi-layer perceptron in an `.npz`, `.safetensors` or `.onnx` file as a `Network`.

    Of arrays, one of these layouts, every bias being optional (`/` in names is as good as `.`):

    - names that end in `weight` and `bias` and otherwise differ only in their numbers, which give the order, as those
      of torch and equinox: `layers.0.weight`, `fc1.weight`, ...; `encoder` comes before `decoder`; any names with
      `order`;
    - flax's and keras's `Dense_0/kernel`, `dense_1/kernel`, with `params/` or without;
    - the two maps of a transformer's block, `mlp.c_fc.weight`, `mlp.c_proj.weight`, and others;
    - `W0, b0, W1, b1, ...`;
    - `weights: [L, n, n]`, the matrices stacked, with `biases: [L, n]` or none. Other arrays are then ignored.

    Weights may be stored `[out, in]` or `[in, out]`: shapes tell. Where they fit both ways, the name does (`kernel` and
    `c_fc` are `[in, out]`, `weight` is `[out, in]`); `W0` is then taken as `[out, in]`, with a warning.
    Batch normalisations (`running_mean`, `running_var`) are folded into the maps beside them.

    An `.onnx` file holds its activations and its order: it must be a chain of `Gemm`, `MatMul`, `Add` and activations;
    a softmax at its end is left out, so that the outputs are the logits.

    Arguments:
        path: the file. `.safetensors` needs `pip install 'analytic_vae[files]'`, `.onnx` `'analytic_vae[onnx]'`.
        activation: after all but the last affine map, `"relu"` if not given: a name or an `Activation`; or a list, one
            after each map (but the last, or all), `"identity"` where there is none.
        layers, forget: as in `from_weights`.
        order: the names of the weights in the order of application, with or without `.weight`, each once. Needed where
            several share their first number (`blocks.0.fc1.weight`, `blocks.0.fc2.weight`): most such networks have
            skip connections, which a file of weights does not show, and are no chain.
        transposed: whether weights are stored `[in, out]`, where shapes and names do not tell.
        residual: whether two weights that share their first number are a block `x + W2 psi(W1 x + b1) + b2`. Nothing
            follows a block, nor a map outside of one, unless `activation` is a list.
        batch_norm: `"before"` or `"after"` the activation; needed where the file does not show it (`fc1`, `bn1`).
        epsilon: of batch normalisations; if not given, 1e-5 as of torch and flax, 1e-3 where names are those of keras.
        block: the beginning of the names to read, `"h.0.mlp"`; no other array is read.
        max_bytes: the most bytes that the arrays of the file may take.

    Raises `FileNotFoundError` if there is no file, and `ValueError` if the file is damaged, too large, holds Python
    objects or none of the layouts, or if an array, which is then named, is not real, finite and of a shape that fits.

    >>> network = load_network("net.npz", "gelu", order=["encoder.fc1", "encoder.fc2", "head"])
    """
    reading = Reading(order, transposed, residual, batch_norm, epsilon, block is not None)
    _require_readable(Path(path))
    if Path(path).suffix.lower() == ".onnx":
        if activation is not None or reading != Reading():
            raise ValueError(
                "activation, order, transposed, residual, batch_norm, epsilon, block: expected none, since an .onnx "
                "file holds its activations, its order and its skips."
            )
        return network_of(onnx_steps(path, max_bytes=max_bytes), layers=layers, forget=forget)
    short: dict[str, str] = {}

    def choose(names: list[str]) -> list[str]:
        short.update({name: name for name in names} if block is None else chosen(names, block, str(path)))
        return list(short)

    arrays = read_arrays(path, max_bytes=max_bytes, choose=choose)
    arrays = {short[name]: array for name, array in arrays.items()}
    steps = steps_of_arrays(arrays, str(path), "relu" if activation is None else activation, reading)
    return network_of(steps, layers=layers, forget=forget)


def from_arrays(
    arrays: Mapping[str, Any],
    activation: Activations = "relu",
    *,
    layers: str = "dense",
    forget: str | None = None,
    order: Sequence[str] | None = None,
    transposed: bool | None = None,
    residual: bool = False,
    batch_norm: str | None = None,
    epsilon: float | None = None,
    block: str | None = None,
) -> Network:
    """The multi-layer perceptron whose arrays these are, by name: a `state_dict` of torch, the parameters of flax.

    Layouts, arguments and errors are those of `load_network`.

    Arguments:
        arrays: names to arrays of NumPy or JAX or tensors of torch; dictionaries in it are joined with `/`.

    >>> network = from_arrays({"params": {"Dense_0": {"kernel": np.ones((3, 2)), "bias": np.zeros(2)}}})
    """
    require_instance("arrays", arrays, Mapping, "a dictionary of arrays by name")
    flat = _flattened(arrays)
    short = {name: name for name in flat} if block is None else chosen(flat, block, "arrays")
    found = {short[name]: flat[name] for name in flat if name in short}
    reading = Reading(order, transposed, residual, batch_norm, epsilon, block is not None)
    return network_of(steps_of_arrays(found, "arrays", activation, reading), layers=layers, forget=forget)


def _flattened(arrays: Mapping[str, Any], before: str = "") -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        inner = isinstance(value, Mapping)
        found |= _flattened(value, f"{before}{name}/") if inner else {f"{before}{name}": np.asarray(as_numbers(value))}
    return found


def _require_readable(path: Path) -> None:
    """Raise `ValueError` that says how to convert a file of another kind."""
    suffix = path.suffix.lower()
    if suffix in (".npz", ".safetensors", ".onnx") or path.is_dir():
        return
    how = _CONVERSIONS.get(suffix, "Of other kinds: av.from_weights([(W0, b0), (W1, b1), ...]) in Python")
    raise ValueError(
        f"path: expected a name that ends in .npz, .safetensors or .onnx, got {path}. "
        f"{how.format(name=path, stem=path.with_suffix(''))}"
    )

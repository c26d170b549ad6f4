"""A file of ONNX as operators and constants; nothing in it is executed."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .arrays import _DAMAGE


class Node(NamedTuple):
    """An operator with its attributes."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def __str__(self) -> str:
        return f"node {self.name or self.outputs[0]} ({self.kind})"


class Graph(NamedTuple):
    """Operators in an order in which they may be applied, constants, the input, its numbers if known, the outputs."""

    path: Path
    nodes: list[Node]
    constants: dict[str, np.ndarray]
    input: str
    width: int | None
    outputs: list[str]

    def readers(self, tensor: str) -> list[Node]:
        """The operators that read a tensor, less those that read its shape alone."""
        return [node for node in self.nodes if tensor in node.inputs and node.kind != "Shape"]

    def is_used(self, tensor: str) -> bool:
        """Whether an operator reads it, or it is an output."""
        return bool(tensor) and (bool(self.readers(tensor)) or tensor in self.outputs)


def read_graph(path: Path, max_bytes: int) -> Graph:
    """The graph of an `.onnx` file.

    Raises `FileNotFoundError` if there is no file, `ImportError` without the `onnx` package, `ValueError` if the file
    is damaged, too large or has not one input.
    """
    if not path.is_file():
        raise FileNotFoundError(f"path: expected a file, found none at {path}.")
    if path.stat().st_size > max_bytes:
        raise ValueError(f"path: expected at most {max_bytes} bytes (max_bytes), got {path.stat().st_size} in {path}.")
    try:
        import onnx
        from google.protobuf.message import Error
    except ImportError as error:
        raise ImportError("To read .onnx files: pip install 'analytic_vae[onnx]'.") from error
    try:
        return _graph(onnx, onnx.load(path, load_external_data=False).graph, path)
    except (Error, *_DAMAGE) as error:
        raise ValueError(f"path: cannot read {path} as a network in .onnx: {error}") from error


def _graph(onnx, graph, path: Path) -> Graph:
    if any(tensor.external_data for tensor in graph.initializer):
        raise ValueError(
            'its weights are in another file; to have all in one: python -c "import onnx; '
            f"onnx.save(onnx.load('{path}'), 'whole.onnx')\""
        )
    constants = {tensor.name: _array(onnx, tensor) for tensor in graph.initializer}
    nodes = []
    for one in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in one.attribute}
        node = Node(one.op_type, one.name, tuple(one.input), tuple(one.output), attributes)
        if node.kind == "Constant" and "value" in attributes:
            constants[node.outputs[0]] = _array(onnx, attributes["value"])
        elif node.kind == "Constant" and isinstance(attributes.get("value_float"), float):
            constants[node.outputs[0]] = np.float32(attributes["value_float"])
        elif node.kind in ("Identity", "Cast") and node.inputs and node.inputs[0] in constants:
            constants[node.outputs[0]] = constants[node.inputs[0]]
        elif node.kind == "Transpose" and node.inputs and np.ndim(constants.get(node.inputs[0])) == 2:
            constants[node.outputs[0]] = np.transpose(constants[node.inputs[0]], attributes.get("perm"))
        else:
            nodes.append(node)
    inputs = [one for one in graph.input if one.name not in constants]
    if len(inputs) != 1:
        raise ValueError(f"expected one input, got {[one.name for one in inputs]}.")
    lengths = [axis.dim_value for axis in inputs[0].type.tensor_type.shape.dim]
    lengths = lengths[1:] if len(lengths) > 1 else lengths
    width = math.prod(lengths) if lengths and all(lengths) else None
    return Graph(path, nodes, constants, inputs[0].name, width, [one.name for one in graph.output])


def _array(onnx, tensor) -> np.ndarray:
    array = np.asarray(onnx.numpy_helper.to_array(tensor))
    # Half precision and less, of which NumPy knows one at most.
    return array.astype(np.float32) if array.dtype.kind in "V" or array.dtype == np.float16 else array

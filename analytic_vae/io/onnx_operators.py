"""Single operators of ONNX as steps of a network."""

from collections.abc import Callable, Sequence

import numpy as np

from .._check import finite_array, require_shape
from ..model.activation_names import ONNX, steps_of_activation
from ..model.steps import Affine, Scaling, Slopes, Softmax, Step
from .onnx_graph import Graph, Node

# What leaves the numbers of one example as they are.
_FLOATING = (1, 10, 11, 16)  # float, float16, double, bfloat16: ONNX's numbers for what a Cast may go to

PASS = {"Identity", "Dropout", "Flatten", "Reshape", "Cast"}

_LAYER_NORMS = {"LayerNormalization", "InstanceNormalization", "ReduceMean", "MeanVarianceNormalization"}

Others = Sequence[np.ndarray]


def steps_of_node(graph: Graph, node: Node, current: str) -> list[Step]:
    """The steps of one operator that reads `current`, whose other inputs are constants.

    Raises `ValueError` that names it if it is neither affine nor a known function of each coordinate.
    """
    known = all(name in graph.constants for name in node.inputs if name and name != current)
    others = [graph.constants[name] for name in node.inputs if name in graph.constants]
    if node.kind == "Cast" and node.attributes.get("to") not in _FLOATING:
        raise ValueError(f"path: expected numbers that stay floating in {graph.path}, got {node} to another kind.")
    if node.kind in PASS and not (node.kind == "Dropout" and len(others) > 1 and np.any(others[1])):
        return []
    if not known or node.inputs.count(current) != 1:
        unknown = [name for name in node.inputs if name and name not in graph.constants]
        raise ValueError(f"path: expected one input beside constants of {node} in {graph.path}, got {unknown}.")
    if node.kind in ("Softmax", "LogSoftmax"):
        if node.attributes.get("axis", -1) not in (1, -1):
            raise ValueError(f"path: expected a softmax over the classes, the last axis, got another axis in {node}.")
        return [Softmax(f"path: {node}")]
    if node.kind in _AFFINE:
        return _AFFINE[node.kind](node, node.inputs[0] == current, others)
    where = f"path: {node} in {graph.path}"
    if node.kind == "Clip":
        return _clip(node, others, where)
    if node.kind == "PRelu":
        slopes = finite_array(node.inputs[1], others[0])
        if slopes.size and np.all(slopes == slopes.flat[0]):
            return steps_of_activation(where, "leaky_relu", slope=float(slopes.flat[0]))
        return [Slopes(where, slopes.ravel())]
    if node.kind in ONNX:
        name, parameters = ONNX[node.kind]
        found = {key: node.attributes.get(attribute, usual) for key, (attribute, usual) in parameters.items()}
        found = {key: one.decode() if isinstance(one, bytes) else one for key, one in found.items()}
        return steps_of_activation(where, name, **found)
    why = ", part of a normalisation that divides by the spread of all coordinates, which is not linear"
    raise ValueError(
        f"path: expected a chain of Gemm, MatMul, Add, BatchNormalization and activations in {graph.path}, got "
        f"{node}{why if node.kind in _LAYER_NORMS else ''}."
    )


def part_used(graph: Graph, node: Node, width: int) -> slice:
    """The coordinates of the one part of a `Split` that is used: of a policy's output, the mean of its action."""
    used = [index for index, name in enumerate(node.outputs) if graph.is_used(name)]
    given = [graph.constants[name] for name in node.inputs if name in graph.constants]
    sizes = given[0] if given else node.attributes.get("split")
    sizes = [width // len(node.outputs)] * len(node.outputs) if sizes is None else [int(one) for one in sizes]
    if len(used) != 1 or node.attributes.get("axis", 0) not in (1, -1) or sum(sizes) != width:
        raise ValueError(f"path: expected one part of the last axis of {width} to be used, got another of {node}.")
    return slice(sum(sizes[: used[0]]), sum(sizes[: used[0] + 1]))


def _vector(node: Node, array: np.ndarray) -> np.ndarray:
    """A number, or one for each coordinate."""
    array = finite_array(f"path: a constant of {node}", array)
    if array.size == 1:
        return array.reshape(()).astype(np.float64)
    if array.shape[-1:] != (array.size,):
        raise ValueError(f"path: expected a number for each coordinate in {node}, got shape {list(array.shape)}.")
    return array.reshape(-1).astype(np.float64)


def _gemm(node: Node, is_first: bool, others: Others) -> list[Step]:
    """`alpha x W + beta c`."""
    if not is_first or node.attributes.get("transA", 0):
        raise ValueError(f"path: expected x W + c, got another order in {node}.")
    weight = finite_array(node.inputs[1], others[0])
    require_shape(node.inputs[1], weight, (None, None), "inputs, outputs")
    dtype = weight.dtype if weight.dtype.kind == "f" else np.float32
    weight = weight if node.attributes.get("transB", 0) else weight.T
    weight = (node.attributes.get("alpha", 1.0) * weight).astype(dtype)
    if len(others) < 2:
        return [Affine(node.inputs[1], weight)]
    bias = np.broadcast_to(_vector(node, others[1]), (_vector(node, others[1]).size,))
    bias = np.broadcast_to(bias, weight.shape[:1]) if bias.size == 1 else bias
    return [Affine(node.inputs[1], weight, node.inputs[2], (node.attributes.get("beta", 1.0) * bias).astype(dtype))]


def _matmul(node: Node, is_first: bool, others: Others) -> list[Step]:
    if not is_first:
        raise ValueError(f"path: expected x W, got W x in {node}.")
    weight = finite_array(node.inputs[1], others[0])
    require_shape(node.inputs[1], weight, (None, None), "inputs, outputs")
    return [Affine(node.inputs[1], weight.T)]


def _elementwise(node: Node, is_first: bool, others: Others) -> list[Step]:
    """`x + c`, `x - c`, `c - x`, `x c`, `x / c`, each coordinate for itself."""
    c = _vector(node, others[0])
    if node.kind == "Div" and (not is_first or np.any(c == 0)):
        raise ValueError(f"path: expected a chain of affine maps and activations, got c / x or x / 0 in {node}.")
    if node.kind == "Add":
        return [Scaling(str(node), 1.0, c)]
    if node.kind == "Sub":
        return [Scaling(str(node), 1.0, -c) if is_first else Scaling(str(node), -1.0, c)]
    return [Scaling(str(node), 1 / c if node.kind == "Div" else c, 0.0)]


def _negated(node: Node, is_first: bool, others: Others) -> list[Step]:
    del is_first, others
    return [Scaling(str(node), -1.0, 0.0)]


def _batch_norm(node: Node, is_first: bool, others: Others) -> list[Step]:
    if not is_first or len(others) != 4 or node.attributes.get("training_mode", 0):
        raise ValueError(f"path: expected a normalisation by running moments, got another: {node}.")
    gain, bias, mean, variance = (_vector(node, one) for one in others)
    deviation = variance + node.attributes.get("epsilon", 1e-5)
    if np.any(deviation <= 0):
        raise ValueError(f"path: expected variances of zero or more in {node}, got {variance.min():.3g}.")
    scale = gain / np.sqrt(deviation)
    return [Scaling(str(node), scale, bias - scale * mean)]


def _scaler(node: Node, is_first: bool, others: Others) -> list[Step]:
    """scikit-learn's StandardScaler, in ai.onnx.ml."""
    del is_first, others
    offset, scale = (_vector(node, np.asarray(node.attributes[key], np.float32)) for key in ("offset", "scale"))
    return [Scaling(str(node), scale, -offset * scale)]


def _clip(node: Node, others: Others, where: str) -> list[Step]:
    bounds = [node.attributes.get(key) for key in ("min", "max")]
    for index, name in enumerate(node.inputs[1:]):
        bounds[index] = float(others[0 if index == 0 or not node.inputs[1] else 1]) if name else None
    low, high = bounds
    if low == 0 and (high is None or high > 1e30):
        return steps_of_activation(where, "relu")
    if (low, high) == (0, 6):
        return steps_of_activation(where, "relu6")
    return steps_of_activation(
        where, "hardtanh", low=-np.inf if low is None else low, high=np.inf if high is None else high
    )


_AFFINE: dict[str, Callable[[Node, bool, Others], list[Step]]] = {
    "Gemm": _gemm, "MatMul": _matmul, "Add": _elementwise, "Sub": _elementwise, "Mul": _elementwise,
    "Div": _elementwise, "Neg": _negated, "BatchNormalization": _batch_norm, "Scaler": _scaler,
}  # fmt: skip

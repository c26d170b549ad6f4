"""Chains of affine maps, activations and residual blocks in files of ONNX."""

import os
from pathlib import Path

from ..model.activation_names import steps_of_activation
from ..model.folding import scaled
from ..model.steps import Affine, Bend, Block, Scaling, Softmax, Step, require_chain
from .arrays import _DAMAGE
from .onnx_functions import function_from
from .onnx_graph import Graph, Node, read_graph
from .onnx_operators import PASS, part_used, steps_of_node

# What makes a label of the probabilities.
_LABELS = PASS | {"ArgMax", "ZipMap", "ArrayFeatureExtractor", "TopK", "Normalizer", "Squeeze", "Unsqueeze"}


def onnx_steps(path: str | os.PathLike[str], *, max_bytes: int) -> list[Step]:
    """The steps of the chain from the input of an `.onnx` file to its output.

    A softmax at its end is a step of its own. Raises `FileNotFoundError` if there is no file, `ImportError` without the
    `onnx` package, and `ValueError` if the file is damaged, too large or no such chain, naming the node.
    """
    graph = read_graph(Path(path), max_bytes)
    try:
        return _steps_of(graph)
    except ValueError:
        raise
    except _DAMAGE as error:  # operators without inputs or outputs, attributes of another type
        raise ValueError(f"path: cannot read {path} as a network in .onnx: {error!r}.") from error


def _steps_of(graph: Graph) -> list[Step]:
    path = graph.path
    steps, end = _chain(graph, graph.input)
    is_classifier = bool(steps) and isinstance(steps[-1], Softmax)
    if end not in graph.outputs and not is_classifier:
        raise ValueError(f"path: expected a chain from the input to an output in {path}; it ends at {end}.")
    maps = [step for step in steps if isinstance(step, Affine | Block)]
    if not maps:
        raise ValueError(f"path: expected a Gemm or a MatMul in {path}, found none.")
    require_chain([step for step in steps if not isinstance(step, Softmax)])
    width = (maps[0].first if isinstance(maps[0], Block) else maps[0]).weight.shape[1]
    if graph.width not in (None, width):
        raise ValueError(
            f"path: expected {graph.width} inputs of the first map, as many as {graph.input} has, got {width}."
        )
    return steps


def _chain(graph: Graph, start: str, branch: Node | None = None, stop: str = "") -> tuple[list[Step], str]:
    """The steps from a tensor on, and the tensor where they end.

    With `branch`, of the readers of `start` that one alone is followed, up to the tensor `stop`.
    """
    steps: list[Step] = []
    current, left = start, len(graph.nodes)
    while current != stop and (readers := [branch] if branch else graph.readers(current)):
        if steps and isinstance(steps[-1], Softmax):
            _require_labels(graph, readers)
            break
        if current in graph.outputs:
            raise ValueError(
                f"path: expected one output, at the end of the chain, in {graph.path}; {current} is used further."
            )
        if len(readers) > 1 or readers[0].inputs.count(current) > 1:
            found, current = _fork(graph, current, readers)
        else:
            (node,) = readers
            if node.kind == "Split":
                steps, found = _with_part(graph, steps, node), []
            else:
                found = steps_of_node(graph, node, current)
            current = _output(graph, node)
        branch, left = None, left - 1
        if left < 0:
            raise ValueError(f"path: expected a chain in {graph.path}, got a circle through {current}.")
        for step in found:
            if isinstance(step, Scaling) and steps and isinstance(steps[-1], Affine):
                require_chain([steps[-1], step])
                steps[-1] = scaled(steps[-1], step)
            else:
                steps.append(step)
    return steps, current


def _output(graph: Graph, node: Node) -> str:
    used = [name for name in node.outputs if graph.is_used(name)]
    if len(used) != 1:
        raise ValueError(f"path: expected one output of {node} to be used in {graph.path}, got {used}.")
    return used[0]


def _with_part(graph: Graph, steps: list[Step], node: Node) -> list[Step]:
    """With those rows alone of the last map, which a `Split` takes."""
    if not steps or not isinstance(steps[-1], Affine):
        raise ValueError(f"path: expected {node} right after an affine map in {graph.path}.")
    last = steps[-1]
    rows = part_used(graph, node, len(last.weight))
    return [*steps[:-1], last._replace(weight=last.weight[rows], bias=None if last.bias is None else last.bias[rows])]


def _fork(graph: Graph, current: str, readers: list[Node]) -> tuple[list[Step], str]:
    """A tensor that is read more than once: an activation in several operators, or a residual block."""
    if found := function_from(graph, current):
        name, parameters, end = found
        return steps_of_activation(f"path: {readers[0]} in {graph.path}", name, **parameters), end
    sums = [node for node in readers if node.kind == "Add" and not any(i in graph.constants for i in node.inputs)]
    if len(readers) == 2 and len(sums) == 1 and len(sums[0].inputs) == 2:
        (branch,) = [node for node in readers if node is not sums[0]]
        (stop,) = [name for name in sums[0].inputs if name != current] or [""]
        steps, end = _chain(graph, current, branch, stop)
        match steps:
            case [Affine() as first, Bend(activation), Affine() as second] if end == stop:
                return [Block(first, activation, second)], sums[0].outputs[0]
    raise ValueError(
        f"path: expected a chain in {graph.path}, or blocks x + W2 psi(W1 x + b1) + b2; {current} is read by "
        f"{', '.join(map(str, readers))}, which are neither a block nor an activation that is known here."
    )


def _require_labels(graph: Graph, readers: list[Node]) -> None:
    """Raise `ValueError` if what follows a softmax is more than the choice of a class."""
    for node in readers:
        if node.kind not in _LABELS:
            raise ValueError(
                f"path: expected a softmax at the end alone of {graph.path}, where it is left out for the logits; got "
                f"{node} after it."
            )
        _require_labels(graph, [one for name in node.outputs for one in graph.readers(name)])

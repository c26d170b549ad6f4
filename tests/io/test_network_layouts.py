"""Networks as frameworks store them: every layout is the same function, and what is ambiguous is asked."""

import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perceptrons import assert_same, evaluate, random_weights

import analytic_vae as av
from analytic_vae.model.activation import ACTIVATIONS

WEIGHTS = random_weights()
SQUARE = random_weights((3, 3, 3, 3))
RELU = ACTIVATIONS["relu"]


def named(weights, names, kernel=False):
    """`{name}.weight` and so on of each pair, `[in, out]` if they are kernels."""
    arrays = {}
    for (weight, bias), name in zip(weights, names, strict=True):
        weight_name, bias_name = name if isinstance(name, tuple) else (f"{name}.weight", f"{name}.bias")
        arrays[weight_name] = np.ascontiguousarray(weight.T) if kernel else weight
        if bias is not None:
            arrays[bias_name] = bias
    return arrays


def kernels(form, numbers=(0, 1, 2), bias="bias", kernel="kernel"):
    return [(form.format(i, kernel), form.format(i, bias)) for i in numbers]


LAYOUTS = {
    "fc": (["fc1", "fc2", "fc3"], False),
    "fc_": ([(f"fc_{i}_weight", f"fc_{i}_bias") for i in range(3)], False),
    "sequential in a module": (["module.net.0", "module.net.2", "module.net.4"], False),
    "an autoencoder": (["encoder.0", "decoder.0", "decoder.2"], False),
    "a shallow autoencoder": (["enc", "dec"], False),
    "flax": (kernels("params/Dense_{}/{}"), True),
    "flax, joined by dots": (kernels("params.Dense_{}.{}"), True),
    "flax, one module in another": (kernels("params/MLP_0/Dense_{}/{}"), True),
    "keras": (kernels("sequential/dense{}/{}:0", ("", "_1", "_2")), True),
    "keras, later": (kernels("sequential_1/dense_{}/{}", (9, 10, 11)), True),
    "haiku": (kernels("mlp/~/linear_{}/{}", bias="b", kernel="w"), True),
    "letters": ([(f"W{i}", f"b{i}") for i in range(3)], True),
    "GPT-2": (["h.0.mlp.c_fc", "h.0.mlp.c_proj"], True),
    "OPT": (["fc1", "fc2"], False),
    "T5": (["DenseReluDense.wi", "DenseReluDense.wo"], False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_recognised(layout, tmp_path):
    """From a file, from memory, and with weights that are square, where the name says how they are stored."""
    names, kernel = LAYOUTS[layout]
    for weights in (WEIGHTS[: len(names)], SQUARE[: len(names)]):
        arrays = named(weights, names, kernel)
        if weights[0] is SQUARE[0] and layout == "letters":
            continue
        if weights[0] is SQUARE[0] and re.search(r"MLP_0|sequential_1", names[0][0]):
            with pytest.raises(ValueError, match="as of a residual block"):  # it may have a skip
                av.from_arrays(arrays, "tanh")
            continue
        np.savez(tmp_path / "net.npz", **arrays)
        assert_same(av.load_network(tmp_path / "net.npz", "tanh"), weights, np.tanh)
        same(av.from_arrays(arrays, "tanh"), av.load_network(tmp_path / "net.npz", "tanh"))


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_nested_dictionaries_are_those_of_flax():
    arrays = {"params": {f"Dense_{i}": {"kernel": w.T, "bias": b} for i, (w, b) in enumerate(WEIGHTS)}}
    assert_same(av.from_arrays(arrays), WEIGHTS, RELU)
    with pytest.raises(TypeError, match="arrays: expected a dictionary"):
        av.from_arrays([WEIGHTS])


@pytest.mark.parametrize("biases", (True, False))
def test_shapes_tell_how_weights_are_stored_whatever_the_name(biases):
    weights = [(w, b if biases else None) for w, b in WEIGHTS]
    for kernel in (True, False):
        for name in ("weight", "kernel"):
            arrays = named(weights, [(f"{i}.{name}", f"{i}.bias") for i in range(3)], kernel)
            assert_same(av.from_arrays(arrays), weights, RELU)


def test_what_shapes_do_not_tell_is_said():
    letters = [(f"W{i}", f"b{i}") for i in range(3)]
    for kernel in (True, False):
        arrays = named(SQUARE, letters, kernel)
        assert_same(av.from_arrays(arrays, transposed=kernel), SQUARE, RELU)
    with pytest.warns(UserWarning, match=r"taken as \[out, in\]. Say transposed=False"):
        assert_same(av.from_arrays(named(SQUARE, letters)), SQUARE, RELU)
    mixed = {"0.kernel": np.eye(3), "1.weight": np.eye(3)}
    with pytest.raises(ValueError, match=r"transposed: expected True or False for arrays"):
        av.from_arrays(mixed)
    av.from_arrays(mixed, transposed=True)
    with pytest.raises(ValueError, match=r"0\.bias: expected shape \[3\]"):
        av.from_arrays(named(WEIGHTS, ["0", "1", "2"]), transposed=True)
    with pytest.raises(TypeError, match="transposed: expected True, False or None, got 'yes'"):
        av.from_arrays(mixed, transposed="yes")
    stack = {"weights": np.stack([w for w, _ in SQUARE])}
    same(av.from_arrays({"weights": stack["weights"].swapaxes(1, 2)}, transposed=True), av.from_arrays(stack))


@pytest.mark.parametrize("dtype", (np.float64, np.float32))
def test_order_in_memory_does_not_matter(dtype):
    weights = random_weights(dtype=dtype)
    arrays = named(weights, ["fc1", "fc2", "head"])
    fortran = {name: np.asfortranarray(array) for name, array in arrays.items()}
    network = av.from_arrays(fortran, order=["fc1", "fc2", "head"])
    assert_same(network, weights, RELU)
    same(network, av.from_arrays(arrays, order=["fc1.weight", "fc2", "head"]))


def test_an_activation_for_each_map():
    names = ["encoder.0", "encoder.2", "decoder.0"]
    arrays = named(WEIGHTS, names)
    with pytest.warns(UserWarning, match=r"relu is taken to follow the code \(encoder\.2\)"):
        assert_same(av.from_arrays(arrays), WEIGHTS, RELU)
    network = av.from_arrays(arrays, ["tanh", "identity", "sigmoid"])
    x = np.random.default_rng(0).normal(size=3)
    (w0, b0), (w1, b1), (w2, b2) = WEIGHTS
    expected = ACTIVATIONS["sigmoid"](w2 @ (w1 @ np.tanh(w0 @ x + b0) + b1) + b2)
    np.testing.assert_allclose(network(jnp.asarray(x)), expected, rtol=1e-13)
    for wrong in (["tanh"], ["tanh"] * 4, []):
        with pytest.raises(ValueError, match=r"activation: expected one, or a list of 2"):
            av.from_arrays(arrays, wrong)


# ------------------------------------------------------------------------------------------------ normalisations


def moments(size, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "weight": rng.normal(size=size), "bias": rng.normal(size=size), "running_mean": rng.normal(size=size),
        "running_var": rng.uniform(0.5, 2, size=size), "num_batches_tracked": np.array(7),
    }  # fmt: skip


def normalised(x, m, epsilon=1e-5):
    return (x - m["running_mean"]) / np.sqrt(m["running_var"] + epsilon) * m["weight"] + m["bias"]


def norm(name, m):
    return {f"{name}.{key}": array for key, array in m.items()}


(WA, BA), (WB, BB) = random_weights((3, 4, 2))
HIDDEN, INPUTS, OUTPUTS = moments(4, 1), moments(3, 2), moments(2, 3)
X = np.random.default_rng(5).normal(size=(20, 3))


def before(x, epsilon=1e-5):
    return np.maximum(normalised(x @ WA.T + BA, HIDDEN, epsilon), 0) @ WB.T + BB


def after(x):
    return normalised(np.maximum(x @ WA.T + BA, 0), HIDDEN) @ WB.T + BB


def check(network, function, layers=2):
    np.testing.assert_allclose(jax.vmap(network)(jnp.asarray(X)), function(X), rtol=1e-12, atol=1e-12)
    assert len(network.layers) == layers


def two(first, second):
    return named([(WA, BA), (WB, BB)], [first, second])


def test_a_sequential_says_where_its_normalisations_are():
    check(av.from_arrays(two("0", "3") | norm("1", HIDDEN)), before)
    check(av.from_arrays(two("0", "3") | norm("2", HIDDEN)), after)
    check(
        av.from_arrays(two("1", "3") | norm("0", INPUTS)),
        lambda x: evaluate([(WA, BA), (WB, BB)], RELU, normalised(x, INPUTS)),
    )
    last = two("0", "2") | norm("3", OUTPUTS)
    check(av.from_arrays(last), lambda x: normalised(evaluate([(WA, BA), (WB, BB)], RELU, x), OUTPUTS))
    blocks = two("net.0.0", "net.1.0") | norm("net.0.1", HIDDEN)
    check(av.from_arrays(blocks), before)
    check(av.from_arrays(two("0", "3") | norm("1", HIDDEN), layers="ridge"), before, 6)


@pytest.mark.parametrize("place", (("0", "1", "2"), ("0", "2", "4"), ("fc1", "bn1", "fc2")))
def test_a_side_of_the_activation_that_a_file_does_not_show_is_asked(place):
    first, middle, second = place
    arrays = two(first, second) | norm(middle, HIDDEN)
    with pytest.raises(
        ValueError, match=rf"normalisation {middle}\S* comes before or after .* {first}\S*. Say batch_norm"
    ):
        av.from_arrays(arrays)
    check(av.from_arrays(arrays, batch_norm="before"), before)
    check(av.from_arrays(arrays, batch_norm="after"), after)
    check(av.from_arrays(arrays, batch_norm="before", epsilon=0.1), lambda x: before(x, 0.1))


def test_normalisations_without_numbers_are_ordered():
    arrays = two("inner", "outer") | norm("norm", HIDDEN)
    with pytest.raises(ValueError, match="differ only in their numbers"):
        av.from_arrays(arrays, batch_norm="before")
    check(av.from_arrays(arrays, batch_norm="after", order=["inner", "norm", "outer"]), after)
    with pytest.raises(ValueError, match="order: expected each of inner, outer, norm once"):
        av.from_arrays(arrays, batch_norm="after", order=["inner", "outer"])


def test_the_names_of_flax_and_keras():
    flax = {
        "params": {
            "Dense_0": {"kernel": WA.T, "bias": BA}, "Dense_1": {"kernel": WB.T, "bias": BB},
            "BatchNorm_0": {"scale": HIDDEN["weight"], "bias": HIDDEN["bias"]},
        },
        "batch_stats": {"BatchNorm_0": {"mean": HIDDEN["running_mean"], "var": HIDDEN["running_var"]}},
    }  # fmt: skip
    check(av.from_arrays(flax, batch_norm="before"), before)
    keras = {
        "dense/kernel": WA.T, "dense/bias": BA, "dense_1/kernel": WB.T, "dense_1/bias": BB,
        "norm/gamma": HIDDEN["weight"], "norm/beta": HIDDEN["bias"], "norm/moving_mean": HIDDEN["running_mean"],
        "norm/moving_variance": HIDDEN["running_var"],
    }  # fmt: skip
    order = ["dense", "norm", "dense_1"]
    check(av.from_arrays(keras, batch_norm="before", order=order), lambda x: before(x, 1e-3))


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        (two("0", "3") | norm("1", OUTPUTS), {}, r"1\.weight: expected 4 numbers, the outputs of 0\.weight, got 2"),
        (two("0", "3") | norm("1", HIDDEN | {"running_var": -np.ones(4)}), {}, r"1\.running_var: expected variances"),
        (two("0", "3") | norm("1", HIDDEN | {"running_mean": np.full(4, np.nan)}), {}, r"1\.running_mean: .* finite"),
        (two("0", "3") | norm("1", HIDDEN | {"bias": np.ones(3)}), {}, r"1\.bias: expected shape \[4\]"),
        (two("0", "3") | norm("1", HIDDEN), {"residual": True}, "residual: expected False"),
        (two("fc1", "fc2") | norm("bn7", HIDDEN), {}, "a normalisation for each number .* got bn7"),
        (two("0", "3"), {"batch_norm": "before"}, "expected none, since arrays holds no running means"),
        (two("0", "3") | norm("1", HIDDEN), {"batch_norm": "both"}, "batch_norm: expected one of before, after"),
        (two("0", "3") | {"1.weight": np.ones(4), "1.bias": np.ones(4)}, {}, "as of a LayerNorm, which .* not linear"),
        (two("0", "3") | {"1.scale": np.ones(4)}, {}, "as of a LayerNorm"),
    ],
)
def test_normalisations_that_do_not_fit(arrays, options, message):
    with pytest.raises(ValueError, match=message):
        av.from_arrays(arrays, **options)


# --------------------------------------------------------------------------------------------------- residual blocks


BLOCKS = random_weights((3, 5, 3, 5, 3), seed=3)
NAMES = ["blocks.0.fc1", "blocks.0.fc2", "blocks.1.fc1", "blocks.1.fc2"]


def blocks(x, outer=lambda x: x):
    for (w1, b1), (w2, b2) in (BLOCKS[:2], BLOCKS[2:]):
        x = outer(x + np.maximum(x @ w1.T + b1, 0) @ w2.T + (0 if b2 is None else b2))
    return x


def test_residual_blocks_are_dense_layers_with_skips():
    arrays = named(BLOCKS, NAMES)
    with pytest.raises(ValueError, match=r"as of a residual block.*order=\[.*residual=True \(--residual\)"):
        av.from_arrays(arrays)
    network = av.from_arrays(arrays, residual=True)
    check(network, blocks, 4)  # a linear layer for each bias of an output
    assert network.layers[0].has_linear_part
    check(av.from_arrays(arrays, ["relu", "tanh", "relu", "tanh"], residual=True), lambda x: blocks(x, np.tanh), 6)
    single = {name: array for name, array in arrays.items() if "blocks.0" in name}
    with pytest.raises(ValueError, match="as of a residual block"):
        av.from_arrays(single)
    assert len(av.from_arrays(single, residual=True).layers) == 2
    with pytest.raises(ValueError, match="layers: expected 'dense' for residual blocks"):
        av.from_arrays(arrays, residual=True, layers="ridge")


def test_maps_about_residual_blocks_are_ordered():
    (stem, shift), (head, level) = random_weights((3, 3, 2), seed=9)
    arrays = named([*BLOCKS, (stem, shift), (head, level)], [*NAMES, "stem", "head"])
    with pytest.raises(ValueError, match="differ only in their numbers"):
        av.from_arrays(arrays, residual=True)
    order = ["stem", *NAMES, "head"]
    expected = lambda x: blocks(x @ stem.T + shift) @ head.T + level  # noqa: E731
    check(av.from_arrays(arrays, residual=True, order=order), expected, 6)
    for wrong in (WEIGHTS, [*BLOCKS, WEIGHTS[0]]):
        with pytest.raises(ValueError, match="residual: expected blocks of two weights each"):
            av.from_arrays(named(wrong, [f"b.{i // 3}.{i}" for i in range(len(wrong))]), residual=True)
    with pytest.raises(ValueError, match=r"fc2\.weight: expected 3 outputs, .* residual block adds"):
        av.from_arrays(named(random_weights((3, 5, 2)), NAMES[:2]), residual=True)


# ------------------------------------------------------------------------------------------- blocks of transformers


def gpt2(blocks=3):
    rng = np.random.default_rng(0)
    arrays = {"wte.weight": rng.normal(size=(50, 3)), "ln_f.weight": np.ones(3)}
    for i in range(blocks):
        arrays |= named(random_weights((3, 12, 3), seed=i), [f"h.{i}.mlp.c_fc", f"h.{i}.mlp.c_proj"], kernel=True)
        arrays |= {f"h.{i}.attn.c_attn.weight": rng.normal(size=(3, 9)), f"h.{i}.ln_1.weight": np.ones(3)}
    return arrays


@pytest.mark.parametrize("suffix", ("npz", "safetensors"))
def test_one_block_of_a_whole_checkpoint(suffix, tmp_path):
    """No other array is read or counted: some are too large here, or of a kind that cannot be read."""
    path, arrays = tmp_path / f"net.{suffix}", gpt2()
    if suffix == "npz":
        np.savez(path, **arrays, objects=np.array([None], object))
    else:
        header, data = {"strange": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, bytes(2)
        for name, array in arrays.items():
            header[name] = {"dtype": "F64", "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
            data += array.tobytes()
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    weights = random_weights((3, 12, 3), seed=1)
    for block in ("h.1.mlp", "h.1.mlp."):
        assert_same(av.load_network(path, "gelu", block=block, max_bytes=1800), weights, ACTIVATIONS["gelu"])
    for block, message in (
        ("h.7.mlp", "beginning of names of one block"),
        ("mlp", r"h\.0\.mlp, h\.1\.mlp"),
        ("", "block"),
    ):
        with pytest.raises(ValueError, match=f"^block: .*{message}"):
            av.load_network(path, block=block)


def test_a_whole_checkpoint_says_what_may_be_read():
    arrays = {f"transformer.{name}": array for name, array in gpt2().items()}
    with pytest.raises(ValueError, match=r"block='transformer\.h\.0\.mlp' \(of 3\) \(--block\)"):
        av.from_arrays(arrays)
    assert_same(
        av.from_arrays(arrays, "gelu", block="h.2.mlp"), random_weights((3, 12, 3), seed=2), ACTIVATIONS["gelu"]
    )
    with pytest.raises(ValueError, match=r"got also \['extra'\]"):
        av.from_arrays({"0.weight": np.eye(2), "extra": np.ones(3)})


@pytest.mark.parametrize(
    "names",
    (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"), ("gate_up_proj", "down_proj"), ("wi_0", "wi_1", "wo")),
)
def test_gated_blocks_are_no_sums_of_functions_of_projections(names):
    """Llama's own `w1, w2, w3` would chain."""
    shapes = [(6, 3)] * (len(names) - 1) + [(3, 6)]
    arrays = {f"layers.0.mlp.{name}.weight": np.ones(shape) for name, shape in zip(names, shapes, strict=True)}
    for block in (None, "layers.0.mlp"):
        with pytest.raises(ValueError, match=r"gated block .*product of two units is no sum"):
            av.from_arrays(arrays, block=block)


# ---------------------------------------------------------------------------------------------------- other files


@pytest.mark.parametrize("suffix", (".pt", ".pth", ".bin", ".ckpt", ".h5", ".keras", ".msgpack"))
def test_a_file_of_another_kind_is_refused_with_a_line_that_converts_it(suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"ends in \.npz, \.safetensors or \.onnx, got") as found:
        av.load_network(path)
    code = re.search(r'python -c "(.*)"$', str(found.value))
    assert code and str(path) in code[1]
    compile(code[1], "line", "exec")


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (".pkl", r"av\.from_scikit_learn\(joblib\.load"),
        (".eqx", "tree_deserialise_leaves"),
        (".txt", r"av\.from_weights"),
    ],
)
def test_others_say_what_to_do_in_python(suffix, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        av.load_network(tmp_path / f"net{suffix}")


def test_no_layout_warns_without_a_reason():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        av.from_arrays(named(SQUARE, ["0", "2", "4"]))

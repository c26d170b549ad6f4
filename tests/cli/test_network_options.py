"""What the command is told of a file of weights."""

import argparse

import numpy as np
import pytest

import analytic_vae as av
from analytic_vae.cli.network_options import add_network_options, network_from


def network_of(*arguments):
    parser = argparse.ArgumentParser()
    parser.set_defaults(layers="dense")
    add_network_options(parser)
    return network_from(parser.parse_args([str(one) for one in arguments]))


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "net.npz", **{f"{name}.weight": rng.normal(size=(3, 3)) for name in ("fc1", "fc2", "head")})
    return tmp_path / "net.npz"


def same(one, other):
    return all(np.array_equal(a.weight, b.weight) for a, b in zip(one.layers, other.layers, strict=True))


def test_options_are_arguments_of_load_network(path):
    order = ["head", "fc1", "fc2"]
    for given in ((",".join(order),), order, ("head,fc1", "fc2")):
        assert same(network_of("--network", path, "--order", *given), av.load_network(path, order=order))
    one = network_of("--network", path, "--transposed", "--order", "head,fc1,fc2", "--activation", "tanh,identity")
    other = av.load_network(path, ["tanh", "identity"], order=order, transposed=True)
    assert same(one, other) and [len(layer.activations) for layer in one.layers] == [1, 0, 0]
    no = network_of("--network", path, "--order", "head,fc1,fc2", "--transposed", "no")
    assert same(no, av.load_network(path, order=order))


def test_blocks_and_normalisations(tmp_path):
    arrays = {"h.0.mlp.fc1.weight": np.ones((4, 3)), "h.0.mlp.fc2.weight": np.ones((3, 4)), "rest": np.ones(2)}
    np.savez(tmp_path / "net.npz", **arrays)
    network = network_of("--network", tmp_path / "net.npz", "--block", "h.0.mlp", "--activation", "gelu")
    assert network.layers[0].activations[0].name == "gelu"
    moments = {"bn1.running_mean": np.ones(4), "bn1.running_var": np.full(4, 3.0)}
    np.savez(tmp_path / "norm.npz", **{"fc1.weight": np.ones((4, 3)), "fc2.weight": np.ones((3, 4))} | moments)
    network = network_of("--network", tmp_path / "norm.npz", "--batch-norm", "before", "--epsilon", "1")
    np.testing.assert_allclose(network.layers[0].weight, 0.5)


def test_without_a_file_there_is_nothing_to_say():
    assert network_of() is None
    with pytest.raises(ValueError, match="--network: expected a file, of which --batch-norm"):
        network_of("--batch-norm", "after")

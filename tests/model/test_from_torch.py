"""Modules of torch, by the names of their classes; benchmarks/frameworks.py has the same with torch itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_stand_ins as nn
from torch_stand_ins import Sequential, batch_norm, linear

import analytic_vae as av
from analytic_vae.model.activation import ACTIVATIONS

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)

SMALL = batch_norm(3)

KNOWN = [
    nn.ReLU(), nn.LeakyReLU(negative_slope=0.01), nn.LeakyReLU(negative_slope=0.3), nn.LeakyReLU(negative_slope=-0.5),
    nn.PReLU(weight=nn.tensor([0.25])), nn.PReLU(weight=nn.tensor([0.25, -0.5, 2.0, 0.0])), nn.SiLU(),
    nn.GELU(approximate="none"), nn.GELU(approximate="tanh"), nn.ELU(alpha=1.0),
    nn.ELU(alpha=0.5), nn.CELU(alpha=0.3), nn.Tanh(), nn.Sigmoid(), nn.Softplus(beta=1.0, threshold=20.0),
    nn.Softplus(beta=3.0, threshold=20.0), nn.Identity(),
]  # fmt: skip


def assert_same(network, module):
    found, expected = jax.vmap(network)(jnp.asarray(X)), module.of(X.astype(np.float64))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6 * np.max(np.abs(expected)))


@pytest.mark.parametrize("activation", KNOWN, ids=lambda one: type(one).__name__)
def test_activations(activation):
    module = Sequential(linear(4, 3), activation, linear(2, 4, seed=1))
    network = av.from_torch(module)
    assert_same(network, module)
    if activation.__dict__ and activation is not KNOWN[5]:  # two of the same are one
        assert network.layers[0].activations == av.from_torch(module).layers[0].activations


def test_silu_is_known_or_named():
    module = Sequential(linear(4, 3), nn.SiLU(), linear(2, 4))
    if "silu" in ACTIVATIONS:
        assert_same(av.from_torch(module), module)
    else:
        with pytest.raises(ValueError, match=r"module\[1\]: expected an activation that is known here .* got silu"):
            av.from_torch(module)


@pytest.mark.parametrize(
    ("modules", "kinds"),
    [
        ([nn.Flatten(), linear(4, 3), nn.ReLU(), nn.Dropout(p=0.5), linear(2, 4)], "DL"),
        ([linear(4, 3), batch_norm(4), nn.ReLU(), linear(2, 4)], "DL"),
        ([linear(4, 3), nn.Tanh(), batch_norm(4, affine=False), linear(2, 4, bias=False)], "DL"),
        ([batch_norm(3), linear(4, 3), nn.ReLU(), linear(2, 4), batch_norm(2)], "DL"),
        ([Sequential(linear(4, 3), nn.ReLU()), Sequential(linear(2, 4), nn.Sigmoid())], "DD"),
        ([linear(4, 3), linear(2, 4)], "LL"),
        ([linear(4, 3), nn.Identity(), linear(2, 4)], "LL"),
        ([nn.Tanh(), linear(4, 3), nn.ReLU(), nn.Tanh(), linear(2, 4)], "DDDL"),
        ([SMALL, nn.Tanh(), linear(2, 3)], "DL"),
        ([linear(4, 3), nn.Tanh(), batch_norm(4)], "DL"),
    ],
)
def test_sequences(modules, kinds):
    module = Sequential(*modules)
    network = av.from_torch(module)
    assert_same(network, module)
    assert "".join(type(layer).__name__[0] for layer in network.layers) == kinds
    if modules[0] is SMALL:
        assert_same(av.from_torch(module, layers="ridge", forget="last"), module)


def test_a_list_says_what_a_forward_hides():
    class Own(nn.Module):
        fc1, fc2 = linear(4, 3), linear(2, 4, seed=1)

    own = Own()
    with pytest.raises(ValueError, match=r'got a module of class Own, whose forward cannot be read.*"relu", net\.fc2'):
        av.from_torch(own)
    expected = Sequential(own.fc1, nn.ReLU(), own.fc2)
    assert_same(av.from_torch([own.fc1, "relu", own.fc2]), expected)
    assert_same(av.from_torch((own.fc1, ACTIVATIONS["relu"], own.fc2)), expected)
    one = linear(2, 3)
    assert_same(av.from_torch(one), one)


def test_a_softmax_at_the_end_is_left_out():
    module = Sequential(linear(4, 3), nn.ReLU(), linear(2, 4))
    assert_same(av.from_torch(Sequential(*module, nn.Softmax())), module)
    with pytest.raises(ValueError, match=r"module\[1\]: expected a softmax at the end alone"):
        av.from_torch([linear(4, 3), nn.Softmax(), linear(2, 4)])


class Masked(nn.Linear):
    """A subclass that computes something else with the same weight."""

    def forward(self, x):
        return x


class Plain(nn.Linear):
    """One that does not."""


def test_a_class_of_ones_own_is_what_it_inherits_or_refused():
    one = linear(2, 3)
    assert_same(av.from_torch(Plain(**one.__dict__)), one)
    with pytest.raises(ValueError, match="module of class Masked"):
        av.from_torch(Masked(**one.__dict__))
    Linear = type("Linear", (), {"__module__": "mine", "state_dict": None})  # of the name alone
    with pytest.raises(ValueError, match="module of class Linear"):
        av.from_torch(Linear())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.LayerNorm(), r"module\[1\]: .* LayerNorm divides by the spread of all coordinates"),
        (nn.Conv2d(), r"module\[1\]: expected Linear, .* class Conv2d"),
        (
            nn.PReLU(weight=nn.tensor([0.1, 0.2])),
            r"module\[1\]\.weight: expected 4 numbers, the outputs of module\[0\]",
        ),
        (nn.Softplus(beta=1.0, threshold=2.0), r"module\[1\]: expected a threshold of 15"),
        (nn.CELU(alpha=-1.0), r"module\[1\]: expected a finite number above 0 as alpha"),
        (nn.BatchNorm1d(running_mean=None, running_var=None), r"module\[1\]: expected a BatchNorm1d with running mom"),
        (batch_norm(5), r"module\[1\]: expected 4 numbers, the outputs of module\[0\]\.weight, got 5"),
        (linear(2, 5), r"module\[1\]\.weight: expected 4 inputs"),
        (nn.Linear(weight=nn.tensor([[np.nan] * 4]), bias=None), r"module\[1\]\.weight: expected finite numbers"),
        (nn.Linear(weight=abs, bias=None), r"module\[1\]\.weight: expected real numbers|expected a tensor"),
        (nn.Linear(weight_orig=0), r"module\[1\]: expected a plain Linear; call .*prune.remove"),
        (nn.Identity(_forward_hooks={0: print}), r"module\[1\]: expected a module without hooks"),
        (nn.Linear(weight_g=0), r"module\[1\]: expected a plain Linear; call .*remove_weight_norm"),
    ],
)
def test_what_is_no_multi_layer_perceptron_is_refused_by_its_place(module, message):
    with pytest.raises(ValueError, match=message):
        av.from_torch(Sequential(linear(4, 3), module, linear(2, 4)))


@pytest.mark.parametrize("module", (3, "relu", {"0.weight": np.eye(2)}, jnp.eye(2)))
def test_what_is_nothing_of_torch_is_refused(module):
    with pytest.raises(TypeError, match=r"module: expected a torch\.nn\.Sequential or a list of modules"):
        av.from_torch(module)
    with pytest.raises(ValueError, match=r"expected an? .*|weights: expected at least one"):
        av.from_torch([])


def test_tensors_are_weights():
    """On a device, of a graph, of bfloat16: what `numpy()` refuses."""
    weight, bias = np.arange(6.0).reshape(2, 3), np.ones(2)
    expected = av.from_weights([(weight.astype(np.float32), bias.astype(np.float32))], "relu")
    for dtype in ("torch.float32", "torch.bfloat16"):
        tensors = [nn.Tensor(a.astype(np.float32), dtype) for a in (weight, bias)]
        named = {"0.weight": tensors[0], "0.bias": tensors[1]}
        for network in (av.from_weights([tuple(tensors)], "relu"), av.from_arrays(named)):
            assert np.array_equal(network.layers[0].weight, expected.layers[0].weight)
            assert network.layers[0].weight.dtype == np.float32

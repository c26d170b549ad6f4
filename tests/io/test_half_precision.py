"""Models, layers and encoders of float16 and bfloat16: computed and kept in float32, or refused by name."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mutations import bfloat16_safetensors

import analytic_vae as av

HALF = (jnp.float16, jnp.bfloat16)
RESOLUTION = av.Resolution(8)
RNG = np.random.default_rng(0)
DECODER, WEIGHT, READOUT = RNG.normal(size=(3, 2)), RNG.normal(size=(4, 3)), RNG.normal(size=(2, 1, 4))


def rounded(array, dtype):
    return jnp.asarray(array, dtype)


def parts(dtype, given):
    """Source, layer, encoder and autoencoder of numbers rounded to one dtype, which are given in another."""
    a = lambda array: rounded(array, dtype).astype(given)  # noqa: E731
    source = av.FeatureModel(av.Prior.from_masses(a([[0, 1.1], [0, 2]]), a([[0.7, 0.3]] * 2)), a(DECODER), a(0.3))
    layer = av.LinearLayer(a(WEIGHT), a(np.ones(4)))
    encoder = av.SoftmaxEncoder(a(READOUT), a(np.ones((2, 1, 2)) * [0, 1]), a(np.zeros((2, 2))))
    autoencoder = av.SparseAutoencoder(a(READOUT), a(np.zeros((2, 1))), a(np.ones((4, 2))), None, "relu")
    return source, layer, encoder, autoencoder


def in_half(tree, dtype=jnp.bfloat16):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def same(one, other):
    chex.assert_trees_all_equal(one, other, strict=True)


@pytest.mark.parametrize("dtype", HALF)
def test_constructors_keep_it_in_float32(dtype):
    """Everything that is computed with is in float32, bit for bit the numbers that were given."""
    given, expected = parts(dtype, dtype), parts(dtype, jnp.float32)
    same(given, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(given)} == {jnp.dtype(jnp.float32)}
    source, layer, encoder, autoencoder = given
    target = av.best_target(av.expectations(source, layer, source.prior.atoms, encoder, RESOLUTION), source.prior.atoms)
    assert av.elbo(source, layer, target, encoder, RESOLUTION).loss.dtype == jnp.float32
    law = av.pushforward(source, layer, jnp.ones((1, 4), dtype), RESOLUTION)
    assert np.isfinite(law.mean).all()
    assert np.isfinite(av.sparse_loss(source, layer, autoencoder, RESOLUTION).reconstruction)


@pytest.mark.parametrize("dtype", HALF)
def test_networks_and_neural_encoders_keep_it_in_float32(dtype):
    mlp = in_half(eqx.nn.MLP(3, 2, 4, 1, jax.nn.relu, key=jax.random.key(0)), dtype)
    networks = in_half(av.NeuralEncoder.init(READOUT, 2, key=jax.random.key(0)).networks, dtype)
    weights = [(rounded(WEIGHT, dtype), None), (rounded(np.ones((2, 4)), dtype), None)]
    kept = (
        av.from_mlp(mlp),
        av.NeuralEncoder(READOUT, networks).networks,
        av.from_weights(weights, "relu", layers="ridge"),
    )
    leaves = jax.tree.leaves(eqx.filter(kept, eqx.is_inexact_array))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("dtype", HALF)
def test_models_and_encoders_survive_their_files(dtype, tmp_path):
    """Whether constructed or cast as a whole: the file holds the same numbers."""
    source, _, encoder, autoencoder = parts(dtype, dtype)
    av.save_model(tmp_path / "model.npz", in_half(source, dtype))
    for load in (av.load_model, av.load_source):
        same(load(tmp_path / "model.npz"), jax.tree.map(lambda a: a.astype(jnp.float32), in_half(source, dtype)))
    for one in (encoder, autoencoder):
        av.save_encoder(tmp_path / "encoder.npz", in_half(one, dtype))
        same(av.load_encoder(tmp_path / "encoder.npz"), one)


def test_files_of_bfloat16_are_read_exactly(tmp_path):
    arrays = {"W0": WEIGHT, "b0": np.ones(4), "W1": RNG.normal(size=(2, 4))}
    brain = {name: np.asarray(rounded(array, jnp.bfloat16)) for name, array in arrays.items()}
    np.savez(tmp_path / "net.npz", **brain)
    (tmp_path / "net.safetensors").write_bytes(bfloat16_safetensors(arrays))
    expected = av.from_weights([(brain["W0"], brain["b0"]), (brain["W1"], None)], "relu")
    for suffix in ("npz", "safetensors"):
        same(av.load_network(tmp_path / f"net.{suffix}"), expected)
    data = np.asarray(rounded(RNG.normal(size=(50, 3)), jnp.bfloat16))
    same(av.source_from_data(data, 2, atoms=4), av.source_from_data(data.astype(np.float32), 2, atoms=4))


def cast_calls():
    source, layer, encoder, autoencoder = parts(jnp.float32, jnp.float32)
    dense = av.DenseLayer(WEIGHT.astype(np.float32), np.ones(4, np.float32), "relu")
    atoms, readout = source.prior.atoms, np.ones((1, 4), np.float32)
    target = av.best_target(av.expectations(source, layer, atoms, encoder, RESOLUTION), atoms)
    return {
        "source": [
            lambda cast: av.elbo(cast(source), layer, target, encoder, RESOLUTION),
            lambda cast: av.pushforward(cast(source), layer, readout),
            lambda cast: av.bounded_expectation(cast(source), layer, readout, ["relu"]),
            lambda cast: av.linear_pushforward(cast(source), layer),
            lambda cast: av.dense_moments(cast(source), dense),
            lambda cast: av.fit(cast(source), dense),
            lambda cast: av.learn(cast(source), av.Network([dense])),
        ],
        "layer": [lambda cast: av.fit(source, cast(dense)), lambda cast: av.plan(source, cast(layer), encoder)],
        "network": [lambda cast: av.learn(source, cast(av.Network([dense])))],
        "target": [lambda cast: av.elbo(source, layer, cast(target), encoder, RESOLUTION)],
        "encoder": [
            lambda cast: av.elbo(source, layer, target, cast(encoder), RESOLUTION),
            lambda cast: av.expectations(source, layer, atoms, cast(encoder)),
            lambda cast: av.fit(source, layer, encoder=cast(encoder)),
            lambda cast: av.plan(source, layer, cast(encoder)),
        ],
        "autoencoder": [lambda cast: av.sparse_loss(source, layer, cast(autoencoder))],
        "model": [lambda cast: cast(source).moments(), lambda cast: cast(source).project(np.ones((1, 3)))],
    }


def test_what_was_cast_as_a_whole_is_refused_by_name():
    """A model cast for a loop of mixed precision: nothing can be computed in it, and the error says what to do."""
    for name, calls in cast_calls().items():
        for call in calls:
            with pytest.raises(
                ValueError, match=rf"^{name}: expected arrays of float32 or float64, got bfloat16.*astype"
            ):
                call(in_half)

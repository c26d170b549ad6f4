"""Encoders: normalised log masses that equal their formulas in NumPy, and what is refused."""

import cases
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import analytic_vae as av
from analytic_vae.model.encoder import encode

SAME = {"rtol": 1e-11, "atol": 1e-12}


@pytest.mark.parametrize("name", cases.ENCODERS)
def test_log_masses_equal_the_formula_and_are_normalised(name):
    t, make = cases.ENCODERS[name]
    rng = np.random.default_rng(0)
    encoder, atoms = make(rng, cases.M2, t), rng.normal(size=(cases.M2, cases.K2))
    assert (encoder.features, encoder.statistics_read) == (cases.M2, t)
    y = rng.normal(size=(cases.M2, 20, t))
    log_q = eqx.filter_jit(encode)(encoder, jnp.asarray(y), jnp.asarray(atoms))
    np.testing.assert_allclose(np.exp(log_q).sum(axis=-1), 1, **SAME)
    expected = cases.oracle_encoder(encoder, atoms)(y.transpose(1, 0, 2))
    np.testing.assert_allclose(log_q, expected.transpose(1, 0, 2), **SAME)


@pytest.mark.parametrize("name", cases.ENCODERS)
def test_every_leaf_is_an_array_so_that_plain_transforms_take_an_encoder(name):
    t, make = cases.ENCODERS[name]
    encoder = make(np.random.default_rng(0), 2, t)
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(encoder))
    jax.jit(lambda e: e.readout)(encoder)


def test_far_statistics_stay_finite():
    encoder = av.SoftmaxEncoder(np.ones((1, 1, 1)), [[[0.0, 1.0]]], [[0.0, 0.0]])
    log_q = encode(encoder, jnp.array([[[1e4], [-1e4]]]), jnp.array([[0.0, 1.0]]))
    np.testing.assert_allclose(log_q, [[[-1e4, 0.0], [0.0, -1e4]]])


def test_the_softmax_encoder_is_the_posterior_of_orthogonal_features():
    """Section 3 of the design: `T = atoms`, `base = log p - kappa a^2 / 2`, `y = B_j' x / sigma^2`."""
    rng = np.random.default_rng(0)
    prior = av.Prior(rng.normal(size=(2, 3)), rng.normal(size=(2, 3)))
    decoder, sigma = np.diag([2.0, 0.5]), 0.7
    kappa = np.sum(decoder**2, axis=0) / sigma**2
    base = prior.log_masses - kappa[:, None] * prior.atoms**2 / 2
    encoder = av.SoftmaxEncoder((decoder.T / sigma**2)[:, None, :], prior.atoms[:, None, :], base)
    x = rng.normal(size=2)
    y = jnp.asarray((encoder.readout @ x)[:, None, :])
    for j, law in enumerate(encode(encoder, y, prior.atoms)[:, 0]):
        joint = prior.log_masses[j] - (x[j] - decoder[j, j] * prior.atoms[j]) ** 2 / (2 * sigma**2)
        np.testing.assert_allclose(law, jax.nn.log_softmax(joint), rtol=1e-12)


def test_random_networks_differ_between_features_and_follow_the_dtype():
    encoder = av.NeuralEncoder.init(np.zeros((2, 1, 3), np.float32), 4, width=5, depth=2, key=jax.random.key(0))
    leaves = jax.tree.leaves(eqx.filter(encoder, eqx.is_array))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    weight = encoder.networks.layers[0].weight
    assert weight.shape == (2, 5, 1) and not np.allclose(weight[0], weight[1])


R1, R2, R3 = np.ones((2, 1, 3)), np.ones((2, 2, 3)), np.ones((2, 3, 3))


def test_points_of_another_shape_are_refused_by_name():
    encoder = av.SoftmaxEncoder(R1, np.ones((2, 1, 4)), np.ones((2, 4)))
    assert encode(encoder, jnp.ones((2, 5, 1)), jnp.ones((2, 4))).shape == (2, 5, 4)
    for shape in ((2, 1), (3, 5, 1), (2, 5, 2)):
        with pytest.raises(ValueError, match=r"y: expected shape \[2, points, 1\]"):
            encode(encoder, jnp.ones(shape), jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=r"atoms: expected shape \[2, atoms\]"):
        encode(encoder, jnp.ones((2, 5, 1)), jnp.ones(4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: av.SoftmaxEncoder(np.ones((2, 3)), np.ones((2, 1, 4)), np.ones((2, 4))), "readout: expected shape"),
        (lambda: av.SoftmaxEncoder(R1, np.ones((2, 2, 4)), np.ones((2, 4))), "statistics: expected shape"),
        (lambda: av.SoftmaxEncoder(R1, np.ones((2, 1, 4)), np.ones((2, 3))), "base: expected shape"),
        (lambda: av.SoftmaxEncoder(R1 * np.nan, np.ones((2, 1, 4)), np.ones((2, 4))), "readout: expected finite"),
        (lambda: av.SoftmaxEncoder(R1, np.ones((2, 1, 4)), np.full((2, 4), np.inf)), "base: expected finite"),
        (lambda: av.GaussianEncoder(R3, np.ones(2), np.ones(2)), "readout: expected 1 or 2 statistics"),
        (lambda: av.GaussianEncoder(R1, np.ones(3), np.ones(2)), "offset: expected shape"),
        (lambda: av.GaussianEncoder(R1, np.ones(2), np.full(2, np.nan)), "log_scale: expected finite"),
        (lambda: av.ExponentialEncoder(R2, np.ones(2)), "readout: expected 1 statistics"),
        (lambda: av.ExponentialEncoder(R1, np.full(2, np.inf)), "offset: expected finite"),
        (lambda: av.NeuralEncoder.init(np.ones(3), 4, key=jax.random.key(0)), "readout: expected shape"),
        (
            lambda: av.NeuralEncoder(R1, av.NeuralEncoder.init(R1[:1], 4, key=jax.random.key(0)).networks),
            "networks: expected a leading axis of 2 features",
        ),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""The expected loss of sparse autoencoders against enumeration and quadrature."""

import jax
import numpy as np
import pytest
import reference

import analytic_vae as av

RNG = np.random.default_rng(5)
ATOMS, MASSES = RNG.normal(size=(2, 2)), RNG.dirichlet([2, 2], size=2)
DECODER, LINEAR, DIRECTION = RNG.normal(size=(2, 2)), RNG.normal(size=(2, 2)), RNG.normal(size=2)
SOURCE = av.FeatureModel(av.Prior.from_masses(ATOMS, MASSES), DECODER, 0.5)


def autoencoder(kind: str) -> av.SparseAutoencoder:
    rng = np.random.default_rng(6)
    threshold = [0.3, 0.2] if kind == "jumprelu" else None
    arrays = rng.normal(size=(2, 1, 2)), rng.normal(size=(2, 1)) / 2, rng.normal(size=(2, 2)), rng.normal(size=2) / 2
    return av.SparseAutoencoder(*arrays, kind, threshold)


@pytest.mark.coarse
@pytest.mark.parametrize("kind, tolerance", [("relu", 1e-3), ("jumprelu", 1e-2)])
def test_expected_loss(kind, tolerance):
    sae = autoencoder(kind)
    layer = av.RidgeLayer(LINEAR, [0.5, -0.8], DIRECTION, 0.1)
    found = av.sparse_loss(SOURCE, layer, sae)
    key = jax.random.key(0)
    f = jax.vmap(layer)(SOURCE.sample(key, (400_000,)))
    e = np.asarray(jax.vmap(sae.activations)(f))
    missed = np.sum(np.asarray(f - jax.vmap(sae)(f)) ** 2, axis=1)
    error = 4 * missed.std() / len(missed) ** 0.5
    assert abs(found.reconstruction - missed.mean()) < error + tolerance * missed.mean()
    np.testing.assert_allclose(found.l1, e.mean(0), atol=4 * e.std() / len(e) ** 0.5 + 1e-4)
    np.testing.assert_allclose(found.l0, (e > 0).mean(0), atol=4 * 0.5 / len(e) ** 0.5 + 1e-3)
    assert found.loss(0.1) == pytest.approx(float(found.reconstruction + 0.1 * found.l1.sum()))


def test_relu_against_quadrature():
    """A linear layer in one dimension, where the oracle's split at the layer's kink is the encoder's kink."""
    source = av.FeatureModel(av.Prior.from_masses(ATOMS, MASSES), DECODER[:1], 0.5)
    sae = av.SparseAutoencoder([[[1.3]]], [[0.2]], [[0.7]])
    found = av.sparse_loss(source, av.LinearLayer([[1.0]]), sae, av.Resolution(64))
    oracle = reference.Model(ATOMS, MASSES, DECODER[:1], 0.25)
    split = reference.Ridge(np.eye(1), np.zeros(1), np.array([1.3]), 0.2)

    def values(x):
        e = np.maximum(1.3 * x[:, 0] + 0.2, 0)
        return np.stack([e, (x[:, 0] - 0.7 * e) ** 2, e > 0], axis=1)

    exact = reference.expectation(oracle, split, values)
    np.testing.assert_allclose([found.l1[0], found.reconstruction, found.l0[0]], exact, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments, name",
    [
        (([[[1.0]]], [[0.0]], [[1.0]], None, "topk"), "kind"),
        (([[[1.0]]], [[0.0]], [[1.0]], None, "jumprelu"), "threshold"),
        (([[[1.0]]], [[0.0]], [[1.0, 2.0]]), "decoder"),
        (([[[np.nan]]], [[0.0]], [[1.0]]), "readout"),
        (
            ([[[1.0]]], [[0.0]], [[1.0]], None, "jumprelu", [-0.1]),
            "threshold: expected positive numbers or zero, got .*-0.1",
        ),
    ],
)
def test_bad_input(arguments, name):
    with pytest.raises(ValueError, match=name):
        av.SparseAutoencoder(*arguments)


def test_thresholds_may_be_traced():
    """A gradient step may take one below zero: values are looked at where they are known, alone."""
    make = lambda threshold: av.SparseAutoencoder([[[1.0]]], [[0.0]], [[1.0]], None, "jumprelu", threshold)  # noqa: E731
    np.testing.assert_array_equal(jax.jit(make)(np.array([-0.1])).threshold, [-0.1])

"""The law of a source given the states of some of its features: again a feature model."""

from itertools import product

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import analytic_vae as av
from analytic_vae.elbo import _cross_entropy as cross_entropy

RESOLUTION = av.Resolution(16)
LAYERS = {
    "linear": av.LinearLayer([[1.0, 0.3], [-0.4, 1.0]]),
    "ridge": av.RidgeLayer([[1.0, 0.3], [-0.4, 1.0]], [0.5, -1.0], [1.0, 1.0], -0.2, "tanh"),
    "dense": av.DenseLayer([[1.0, 0.3], [-0.4, 1.0]], [0.1, -0.2], "tanh"),
}
pytestmark = pytest.mark.coarse


def source(vectors: bool, noise="scalar"):
    rng = np.random.default_rng(0)
    one = cases.model(rng, 2, 3, 2, noise)
    decoder = rng.normal(size=(2, 3, 2)) if vectors else one.decoder
    return av.FeatureModel(one.prior, decoder, one.noise, one.mean)


def left_out(model, feature, state):
    """The same law with the feature gone, and the mean moved by its vector."""
    others = [j for j in range(model.features) if j != feature]
    index = jnp.asarray(others)
    vectors = model.atom_vectors
    prior = av.Prior(model.prior.atoms[index], model.prior.logits[index])
    return av.FeatureModel(prior, vectors[:, index], model.noise, model.mean + vectors[:, feature, state])


@pytest.mark.parametrize("vectors", [False, True])
def test_it_is_the_law_with_the_feature_gone(vectors):
    model = source(vectors, "full")
    given = model.given({1: 1})
    assert jax.tree.structure(given) == jax.tree.structure(model)
    assert [leaf.shape for leaf in jax.tree.leaves(given)] == [leaf.shape for leaf in jax.tree.leaves(model)]
    np.testing.assert_array_equal(given.prior.masses[1], [0, 1])
    np.testing.assert_array_equal(given.prior.masses[::2], model.prior.masses[::2])
    for one, other in zip(given.moments(), left_out(model, 1, 1).moments(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-14)
    drawn = given.sample(jax.random.key(0), 1000)
    assert float(jnp.abs(drawn.mean(axis=0) - given.moments()[0]).max()) < 0.2
    both = model.given({0: 1}).given({2: 0})
    np.testing.assert_array_equal(both.prior.masses, model.given({0: 1, 2: 0}).prior.masses)


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_laws_of_layers(layer, vectors):
    """Against a sum over all other states without noise; and over the states it sums to the law of the source."""
    model, readout = source(vectors), [[1.0, 0.0]]
    points = av.FeatureModel(model.prior, model.decoder, 0.0, model.mean)
    push = lambda one: av.pushforward(one, LAYERS[layer], readout, RESOLUTION)  # noqa: E731
    masses, vectors = np.asarray(model.prior.masses), np.asarray(model.atom_vectors)
    values = []
    for state in range(2):
        total = 0.0
        for others in product(range(2), repeat=2):
            states = [others[0], state, others[1]]
            x = model.mean + vectors[:, np.arange(3), states].sum(axis=1)
            total += masses[0, others[0]] * masses[2, others[1]] * LAYERS[layer](x)[0]
        assert abs(push(points.given({1: state})).mean[0] - total) < 1e-12
        law = push(model.given({1: state}))
        values.append([float(law.mean[0]), float(law.tail(0.3))])
    whole = push(model)
    np.testing.assert_allclose(masses[1] @ np.array(values), [whole.mean[0], whole.tail(0.3)], atol=1e-9)


def test_losses_take_it_and_nothing_compiles_anew():
    model = source(False)
    _, ridge, target, encoder = cases.problem(0)
    traced = []

    @jax.jit
    def loss(one):
        traced.append(1)
        return av.elbo(one, ridge, target, encoder, RESOLUTION).loss

    losses = [float(loss(one)) for one in (model, model.given({1: 0}), model.given({1: 1}))]
    assert len(traced) == 1
    assert abs(np.asarray(model.prior.masses[1]) @ losses[1:] - losses[0]) < 1e-5  # nats, at 16 frequencies


def test_states_may_be_traced_and_gradients_are_finite():
    model = source(True)
    means = jax.jit(jax.vmap(lambda state: model.given({1: state}).moments()[0]))(jnp.arange(2))
    np.testing.assert_allclose(model.prior.masses[1] @ means, model.moments()[0], atol=1e-14)
    given = model.given({1: 0}).prior
    slope = jax.grad(lambda masses: cross_entropy(masses, given.log_masses).sum())(given.masses)  # the rate's only log
    assert np.all(np.isfinite(slope))
    slope = jax.grad(lambda one: jnp.sum(one.given({1: 0}).moments()[1] ** 2))(model)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


def test_what_is_no_state_is_named():
    model = source(False)
    for states, kind, said in (
        ([0, 1], TypeError, "a dictionary"),
        ({3: 0}, ValueError, "a feature from 0 to 2, got 3"),
        ({-1: 0}, ValueError, "a feature from 0 to 2"),
        ({0: 2}, ValueError, "a state of feature 0 from 0 to 1, got 2"),
        ({0: 1.0}, TypeError, "a state of feature 0 as an integer"),
        ({True: 1}, TypeError, "a feature as an integer"),
        ({"a": 1}, TypeError, "a feature as an integer"),
    ):
        with pytest.raises(kind, match=f"states: expected .*{said}"):
            model.given(states)
    with pytest.raises(ValueError, match="states: expected states that occur, got 0: 0, of mass zero"):
        model.given({0: 1}).given({0: 0})
    assert model.given({}).prior.masses.shape == (3, 2)

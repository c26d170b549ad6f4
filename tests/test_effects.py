"""`E[output | feature = state]`: against enumeration for one layer, against samples through more."""

from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import matplotlib.pyplot as pyplot
import numpy as np
import pytest

import analytic_vae as av
from analytic_vae.effects import Effects, effects_of

QUICK = {"resolution": av.Resolution(16), "check": False, "samples": 0}
rng = np.random.default_rng(0)
PRIOR = av.Prior([[0.0, 1.0, 2.0], [0.0, 1.0, 3.0]], [[0.0, -1.0, -1.5], [-0.5, 0.0, -2.0]])
SOURCE = av.FeatureModel(PRIOR, rng.normal(size=(2, 2)), 0.3, rng.normal(size=2))
NETWORK = av.from_weights(
    [(rng.normal(size=(2, 2)), rng.normal(size=2)), (rng.normal(size=(2, 2)), None), (rng.normal(size=(2, 2)), None)],
    "tanh",
)
pytestmark = pytest.mark.coarse


@pytest.fixture(scope="module", params=[False, True], ids=["carried", "split"])
def trajectory(request):
    return av.learn(SOURCE, NETWORK, split=request.param, **QUICK)


def by_samples(layers, count=200_000):
    """Mean and standard error of the output given each state, from samples whose states are known."""
    states = jax.random.categorical(jax.random.key(1), PRIOR.log_masses[:, None], shape=(2, count))
    z = np.take_along_axis(np.asarray(PRIOR.atoms), np.asarray(states), axis=1)
    noise = 0.3 * np.random.default_rng(2).normal(size=(count, 2))
    x = np.asarray(SOURCE.mean) + z.T @ np.asarray(SOURCE.decoder).T + noise
    for layer in layers:
        x = np.asarray(jax.vmap(layer)(jnp.asarray(x)))
    parts = [[x[np.asarray(states)[j] == k] for k in range(3)] for j in range(2)]
    mean = np.array([[part.mean(axis=0) for part in row] for row in parts])
    return mean, np.array([[part.std(axis=0) / len(part) ** 0.5 for part in row] for row in parts])


def test_one_layer_is_exact():
    """Without noise a sum over all states, of a whole layer and of one unit with learnt features."""
    points = av.FeatureModel(PRIOR, SOURCE.decoder, 0.0, SOURCE.mean)
    masses, vectors = np.asarray(PRIOR.masses), np.asarray(points.atom_vectors)
    dense, ridge = NETWORK.layers[0], av.RidgeLayer(np.eye(2), [0.5, -1.0], [1.0, 1.0], 0.3, "tanh")
    target = av.FeatureModel(av.Prior.bernoulli([0.4]), np.ones((2, 1)), 0.5)
    encoder = av.SoftmaxEncoder(np.ones((1, 1, 2)), [[[0.0, 1.0]]], [[0.0, 0.5]])
    carried = av.learn(points, av.Network([dense]), **QUICK).fits[0]
    for layer, fit in ((dense, carried), (ridge, replace(carried, target=target, encoder=encoder))):
        found = effects_of(points, [layer], [fit])
        assert found.means.shape == np.asarray(found).shape == (2, 3, 2)
        for j, k in product(range(2), range(3)):
            total = 0.0
            for other in range(3):
                states = [k, other] if j == 0 else [other, k]
                x = points.mean + vectors[:, np.arange(2), states].sum(axis=1)
                total += masses[1 - j, other] * np.asarray(layer(x))
            np.testing.assert_allclose(found.means[j, k], total, atol=1e-6)
        for j in range(2):
            np.testing.assert_allclose(masses[j] @ found.means[j], found.mean, atol=1e-6)


def test_through_a_network_it_is_what_samples_say(trajectory):
    """Five standard errors for the first layer; later as good as the models: here a few percent of the effects."""
    for layer in (0, 1, -1):
        found = trajectory.effects(layer)
        index = layer % len(NETWORK.layers)
        mean, error = by_samples(NETWORK.layers[: index + 1])
        apart = np.abs(found.means - mean)
        if layer == 0:
            assert np.all(apart < 5 * error)
        assert np.all(apart < 5 * error + 0.1 * np.abs(found.contrasts).max())
        assert found.layer == index
        np.testing.assert_allclose(found.mean, trajectory.models[layer].moments()[0], atol=1e-12)
        for j in range(2):
            np.testing.assert_allclose(found.masses[j] @ found.means[j], found.mean, atol=1e-9)
    with pytest.raises(ValueError, match="layer: expected a number from"):
        trajectory.effects(9)


def test_states_that_cannot_be_told_apart_are_refused(trajectory):
    prior = av.Prior([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]], [[0.0, -1.0, -1.0], [-0.5, 0.0, 0.0]])
    source = av.FeatureModel(prior, SOURCE.decoder, 0.3, SOURCE.mean)
    with pytest.raises(ValueError, match=r"source: expected a different value \(atom\) for each state"):
        replace(trajectory, source=source).effects()


def test_a_table_and_a_picture():
    """Of ten features of four states, one of which does not occur, and twelve outputs."""
    pyplot.switch_backend("agg")
    means = np.random.default_rng(0).normal(size=(10, 4, 12))
    means[3, 2] = np.nan
    found = Effects(means, np.zeros(12), np.full((10, 4), 0.25), np.tile(np.arange(4.0), (10, 1)), 1)
    lines = str(found).splitlines()
    assert len(lines) == 3 + 24 + 1 and "16 more states and 4 more outputs" in lines[-1]
    first = int(lines[3].split()[0])
    assert first == np.argmax(found.strength)
    assert float(lines[3].split()[4]) == pytest.approx(means[first, 0, 0], rel=1e-3)
    ax = found.plot()
    image = ax.images[0].get_array()
    assert image.shape == (12, 40) and image[0, 0] == means[0, 0, 0]
    assert found.plot(ax=pyplot.figure().subplots()) is not ax
    pyplot.close("all")
    assert repr(found) == "Effects(means=[10, 4, 12], layer=1)"

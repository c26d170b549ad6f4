"""States split in two: second-order effects, what a split keeps, and what it is good for."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from test_dense import FINE, problem

import analytic_vae as av
from analytic_vae.fitting.splitting import MOST, merged, states_of, with_substates
from analytic_vae.moments.second_order import second_effects

pytestmark = pytest.mark.coarse

RESOLUTION = av.Resolution(16)
WIDTH, RATE = 10, 0.12


@functools.cache
def sparse():
    """`(source, layers)`: ten inputs, seldom active and without noise, two ReLU layers."""
    rng = np.random.default_rng(3)
    source = av.FeatureModel(av.Prior.bernoulli(np.full(WIDTH, RATE)), np.eye(WIDTH), 0.0)
    scale = np.sqrt(2 / (WIDTH * RATE))
    layers = [
        av.DenseLayer(scale**one * np.sqrt(2 / WIDTH) ** (1 - one) * rng.normal(size=(WIDTH, WIDTH)), None, "relu")
        for one in (1, 0)
    ]
    return source, layers


@functools.cache
def first(split):
    """The fit of the first layer."""
    source, layers = sparse()
    return av.fit(source, layers[0], resolution=RESOLUTION, check=False, split=split)


def enumerated(prior):
    """All states as atoms' indices, and their masses."""
    masses = np.asarray(prior.masses)
    states = np.array(list(itertools.product(range(masses.shape[1]), repeat=masses.shape[0])))
    return states, np.prod(masses[np.arange(masses.shape[0]), states], axis=1)


def test_second_effects_against_enumeration():
    """Of smooth units, to the accuracy of their series; there are none of a feature with itself."""
    (source, layer, *_), _ = problem(6)
    found = second_effects(source, layer, av.dense_moments(source, layer, FINE))
    states, weights = enumerated(source.prior)
    centres = np.einsum("nmk,smk->sn", source.atom_vectors, np.eye(3)[states]) + np.asarray(source.mean)
    nodes, masses = np.polynomial.hermite_e.hermegauss(60)
    spread = np.sqrt(np.diag(layer.weight @ source.covariance @ layer.weight.T))
    units = (centres @ np.asarray(layer.weight).T + np.asarray(layer.bias))[:, :, None] + spread[:, None] * nodes
    values = np.tanh(units) @ (masses / masses.sum())

    def mean(*pinned):
        inside = weights * np.all([states[:, one] == a for one, a in pinned], axis=0)
        return inside @ values / inside.sum()

    for j, a, k, b in np.ndindex(3, 3, 3, 3):
        both = 0 if j == k else mean((j, a), (k, b)) - mean((j, a)) - mean((k, b)) + weights @ values
        np.testing.assert_allclose(found[:, j, a, k, b], both, atol=1e-6)


def test_a_split_keeps_mean_and_covariance_and_takes_noise():
    """The likeliest state stays; every other becomes two whose mean is its vector; merged, the target is as before."""
    carried, split = first(False), first(True)
    for one, other in zip(split.target.moments(), carried.target.moments(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
    assert split.loss == carried.loss and split.target.decoder.shape == (WIDTH, WIDTH, 3)
    before, after = carried.target.covariance, split.target.covariance
    assert jnp.trace(after) < 0.5 * jnp.trace(before)
    relative = jnp.linalg.solve(carried.target.noise, jnp.linalg.solve(carried.target.noise, after).T)
    assert 1 - MOST - 1e-6 < jnp.linalg.eigvalsh(relative)[0] and jnp.linalg.eigvalsh(relative)[-1] < 1 + 1e-6
    states = states_of(split.target.prior)
    assert states == (0, 1, 1) and states_of(carried.target.prior) == (0, 1)
    again = merged(split.target, states)
    np.testing.assert_allclose(again.decoder, carried.target.decoder, atol=1e-10)
    np.testing.assert_allclose(again.prior.masses, carried.target.prior.masses, atol=1e-12)
    np.testing.assert_allclose(again.covariance, before, atol=1e-8)


def test_the_noise_that_goes_is_that_of_pairs():
    """Without noise and with as many features as outputs it is the second-order covariance, by enumeration."""
    source, layers = sparse()
    states, weights = enumerated(source.prior)
    f = np.maximum(states @ np.asarray(layers[0].weight).T, 0)
    z = states - RATE
    pairs = np.array([z[:, j] * z[:, k] for j, k in itertools.combinations(range(WIDTH), 2)])
    effects = pairs * weights @ f / (RATE * (1 - RATE))  # coefficients of an orthogonal basis, times its length
    gone = first(False).target.covariance - first(True).target.covariance
    second = effects.T @ effects
    assert np.linalg.norm(gone - second) < 0.1 * np.linalg.norm(second)


def test_a_rare_state_gets_no_more_than_its_own_effects():
    """Features of very different rates: the variance of each split is at most that of the feature's second order."""
    source, layers = sparse()
    rates = np.where(np.arange(WIDTH) < 2, 1e-4, RATE)
    source = eqx.tree_at(lambda one: one.prior, source, av.Prior.bernoulli(rates))
    carried, split = (av.fit(source, layers[0], resolution=RESOLUTION, check=False, split=s) for s in (False, True))
    states, weights = enumerated(source.prior)
    f = np.maximum(states @ np.asarray(layers[0].weight).T, 0)
    z = (states - rates) / np.sqrt(rates * (1 - rates))
    whitened = np.linalg.solve(carried.target.noise, f.T)
    direction = (split.target.decoder[:, :, 1] - split.target.decoder[:, :, 2]) / 2
    moved = np.linalg.solve(carried.target.noise, direction) * np.sqrt(rates)
    for j in range(WIDTH):
        others = [k for k in range(WIDTH) if k != j]
        effects = whitened * weights @ (z[:, [j]] * z[:, others])
        assert np.sum(moved[:, j] ** 2) < 1.2 * np.sum(effects**2) + 1e-6
    for one, other in zip(split.target.moments(), carried.target.moments(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_a_state_of_no_mass():
    """It is split as others are, and nothing becomes of it."""
    source, layers = sparse()
    prior = av.Prior(source.prior.atoms, source.prior.logits.at[0, 1].set(-jnp.inf))
    source = eqx.tree_at(lambda one: one.prior, source, prior)
    found = av.fit(source, layers[0], resolution=RESOLUTION, check=False, split=True).target
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in (found.decoder, found.noise, found.mean))
    exact = av.dense_moments(source, layers[0], RESOLUTION).output()
    for one, other in zip(found.moments(), exact, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_equal_atoms_alone_are_no_sub_states():
    """Of a split the masses are equal, too."""
    assert states_of(av.Prior(np.zeros((2, 3)), np.array([[0.0, 1.0, 2.0]] * 2))) == (0, 1, 2)


def means_after(model, weight):
    """Means of ReLU units that read a model: state by state, in closed form."""
    states, weights = enumerated(model.prior)
    centres = np.asarray(model.mean) + sum(np.asarray(model.decoder)[:, j, states[:, j]].T for j in range(WIDTH))
    spread = np.sqrt(np.diag(weight @ np.asarray(model.covariance) @ weight.T))
    t = centres @ weight.T / spread
    return weights @ (spread * (t * norm.cdf(t) + norm.pdf(t)))


def test_the_next_layer_is_nearer_to_the_true_one():
    """Means of the second layer's units against all 1024 inputs: a third of their error, at least, goes."""
    source, layers = sparse()
    states, weights = enumerated(source.prior)
    hidden = np.maximum(states @ np.asarray(layers[0].weight).T, 0)
    weight = np.asarray(layers[1].weight)
    exact = weights @ np.maximum(hidden @ weight.T, 0)
    carried, split = (np.linalg.norm(means_after(first(s).target, weight) - exact) for s in (False, True))
    assert split < 0.67 * carried


def test_states_are_merged_before_the_next_split(tmp_path):
    """Through a network every layer has three atoms a feature, and mean and covariance are those of its source."""
    source, layers = sparse()
    network = av.Network(layers)
    found = av.learn(source, network, folder=tmp_path, resolution=RESOLUTION, check=False, split=True, samples=0)
    assert [model.prior.atoms.shape[1] for model in found.models] == [3, 3]
    exact = av.dense_moments(found.models[0], layers[1], RESOLUTION).output()
    for one, other in zip(found.models[1].moments(), exact, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)
    again = av.learn(source, network, folder=tmp_path, resolution=RESOLUTION, check=False, split=True, samples=0)
    np.testing.assert_array_equal(again.models[1].decoder, found.models[1].decoder)


def test_single_precision():
    """From parts in it, a split is in it and keeps mean and covariance."""
    source, layers = sparse()
    moments = av.dense_moments(source, layers[0], RESOLUTION)
    narrow = lambda leaf: leaf.astype(jnp.complex64 if jnp.iscomplexobj(leaf) else jnp.float32)  # noqa: E731
    single = jax.tree.map(narrow, (source, layers[0], moments, first(False).target))
    found = with_substates(*single, states_of(source.prior))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    for one, other in zip(found.moments(), single[3].moments(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    np.testing.assert_allclose(found.covariance, first(True).target.covariance, atol=1e-3)


@pytest.mark.parametrize(
    "options", [dict(split=1), dict(split=True, noise="diagonal"), dict(split=True, encoder="both")]
)
def test_bad_options(options):
    """And a floor of zero, by which effects would be divided, has a message of its own."""
    source, layers = sparse()
    with pytest.raises((ValueError, TypeError), match="split: expected"):
        av.fit(source, layers[0], **options)
    with pytest.raises(ValueError, match="floor: expected more than 0 with split"):
        av.fit(source, layers[0], split=True, floor=0.0)

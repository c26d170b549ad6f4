"""A law on the cells of a grid (Lemma 3.4 of the paper) beside its own tails, and beside states counted one by one."""

import cases
import jax
import numpy as np
import pytest
import reference
from scipy.special import ndtr
from three_features import BIAS, A, source

import analytic_vae as av


def edges(law, points):
    low, high = (np.asarray(end)[0] for end in law.box)
    return low + (high - low) * np.arange(points + 1) / points


def test_a_linear_law_by_states():
    """The mass of every cell against a mixture of Gaussians."""
    model, layer = source(), av.LinearLayer(np.eye(2))
    _, z, mass = reference.states(cases.oracle_model(model))
    centres = z @ np.asarray(model.decoder).T
    one = av.pushforward(model, layer, np.eye(2)[:1])
    cells, sides = one.grid(40), edges(one, 40)
    exact = mass @ np.diff(ndtr((sides[None] - centres[:, :1]) / 0.3), axis=1)
    np.testing.assert_allclose(cells.masses, exact, atol=1e-9)
    assert cells.nodes.shape == (1, 40) and abs(float(cells.masses.sum() + cells.outside) - 1) < 1e-14
    with pytest.raises(ValueError, match="points: expected an integer of at least 2"):
        one.grid(1)


@pytest.mark.coarse
def test_two_projections_of_a_ridge_layer():
    """By the transform: its rows against the one-dimensional law, which is an image, and against half as many cells."""
    layer = av.RidgeLayer(np.eye(2), [0.5, -1.0], [1.0, 1.0], -0.2, "tanh")
    law = av.pushforward(source(), layer, np.eye(2), av.Resolution(32))
    fine, coarse = (np.asarray(law.grid(points).masses) for points in (48, 24))
    np.testing.assert_allclose(fine.reshape(24, 2, 24, 2).sum(axis=(1, 3)), coarse, atol=2e-5)
    first = av.pushforward(source(), layer, np.eye(2)[:1])
    low, high = (float(end[0]) for end in law.box)
    sides = low + (high - low) * np.arange(49) / 48
    np.testing.assert_allclose(fine.sum(axis=1), -np.diff(first.tail(sides)), atol=5e-5)
    assert abs(float(law.grid(24).outside)) < 1e-4


def test_atoms_are_in_their_cells():
    """A ReLU that rests has its atom in the lowest cell; of two, a corner; and lattices lose nothing."""
    law = av.pushforward(source(), av.DenseLayer(A, BIAS), np.eye(2)[:1])
    cells = law.grid(32)
    holds = int(np.searchsorted(edges(law, 32), 0.0)) - 1
    assert cells.masses[max(holds, 0)] >= law.atoms[1][0] and abs(float(cells.outside)) < 1e-12
    both = av.pushforward(source(), av.DenseLayer(A, BIAS), np.eye(2))
    cells = both.grid(6)
    assert cells.masses.shape == (6, 6) and abs(float(cells.outside)) < 1e-9 and float(cells.masses.min()) > -1e-12
    alone = av.pushforward(source(), av.DenseLayer(A, BIAS), np.eye(2)[:1])
    sides = np.asarray(both.low[0] + both.length[0] * np.arange(7) / 6)
    np.testing.assert_allclose(cells.masses.sum(axis=1)[1:], -np.diff(alone.tail(sides[1:])), atol=1e-9)
    bits = av.FeatureModel(av.Prior.bernoulli([0.5, 0.5]), np.eye(2), 0.0)
    counted = av.pushforward(bits, av.LinearLayer(np.eye(2)), [[1.0, 1.0]]).grid(9)
    np.testing.assert_allclose(np.sort(counted.masses)[-3:], [0.25, 0.25, 0.5], atol=1e-12)
    assert abs(float(counted.outside)) < 1e-12


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mean", [0.0, 1.0, -3.0, 100.0])
def test_nothing_is_lost_at_the_lowest_edge(dtype, mean):
    """A lattice anywhere; and laws that are points, alone and beside others, of which a cell holds all."""
    one = lambda a: np.asarray(a, dtype)  # noqa: E731
    bit = av.FeatureModel(av.Prior.bernoulli(one([0.4])), one([[1.0]]), one(0.0), one([mean]))
    cells = av.pushforward(bit, av.LinearLayer(one([[1.0]])), one([[1.0]])).grid(8)
    np.testing.assert_allclose(np.sort(cells.masses)[-2:], [0.4, 0.6], atol=1e-6)
    flat = av.LinearLayer(one([[1.0], [0.0]]), one([0.0, mean]))
    point = av.pushforward(bit, flat, one([[0.0, 1.0]]))
    places = [float(point.mean[0]), float(point.atoms[0][0, 0])]
    np.testing.assert_allclose(places, mean, rtol=1e-6)
    whole = [point.tail(mean - 0.5), point.grid(8).masses.max()]
    np.testing.assert_allclose(whole, 1, atol=1e-6)
    both = av.pushforward(bit, flat, one(np.eye(2))).grid(4)
    assert both.masses.shape == (4, 4) and abs(float(both.outside)) < 1e-6


def test_a_layer_whose_units_nobody_reads():
    """Its output is a point, whatever its units do."""
    law = av.pushforward(source(), av.DenseLayer(A, BIAS, output=np.zeros((1, 2))), [[1.0]])
    np.testing.assert_array_equal(law.atoms[0], [[0.0]])
    np.testing.assert_allclose(law.atoms[1], [1.0])
    np.testing.assert_allclose(law.grid(5).masses.max(), 1)


def test_grids_are_differentiable_and_jit_able():
    """The derivative of a cell's mass in the noise against a difference."""

    def mass(noise):
        law = av.pushforward(source(noise), av.LinearLayer(np.eye(2)), np.eye(2)[:1])
        return av.Law(law.mean, law.covariance, law.accuracy, *fixed, law.image, law.series).grid(8).masses[4]

    first = av.pushforward(source(), av.LinearLayer(np.eye(2)), np.eye(2)[:1])
    fixed = first.low, first.length
    slope = jax.jit(jax.grad(mass))(0.3)
    step = 1e-4
    np.testing.assert_allclose(slope, (mass(0.3 + step) - mass(0.3 - step)) / (2 * step), rtol=1e-5)

"""Pictures of laws: what is drawn are the law's numbers, which sums over states give, too."""

import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.patches import StepPatch
from scipy.stats import norm

import analytic_vae as av

NOISE, P = 0.4, np.array([0.3, 0.45])
DECODER = np.array([[1.0, -0.6], [0.5, 0.8]])
SOURCE = av.FeatureModel(av.Prior.bernoulli(P), DECODER, NOISE, [-0.2, 0.1])
STATES = np.array(list(itertools.product((0, 1), repeat=2)))
MASSES = np.prod(np.where(STATES, P, 1 - P), axis=1)
POINTS = STATES @ DECODER.T + np.array([-0.2, 0.1])
IDENTITY, RELU = av.LinearLayer(np.eye(2)), av.DenseLayer(np.eye(2), np.zeros(2), "relu")


@pytest.fixture(scope="module")
def mixed():
    """Of a ReLU unit: an atom at 0, a density beyond."""
    return av.pushforward(SOURCE, RELU, [[1.0, 0.0]])


@pytest.fixture(scope="module")
def listed():
    """Of a source without noise: atoms only."""
    still = av.FeatureModel(SOURCE.prior, DECODER, 0.0, SOURCE.mean)
    return av.pushforward(still, IDENTITY, [[1.0, 0.0]])


def above(t):
    """P(x_0 > t)."""
    return np.squeeze(MASSES @ norm.sf(np.atleast_1d(t), POINTS[:, :1], NOISE))


def stairs(ax):
    return [one for one in ax.patches if isinstance(one, StepPatch)]


def stems(ax):
    return [one.get_segments() for one in ax.collections if isinstance(one, LineCollection)]


def test_density_and_atom_of_a_relu_have_axes_of_their_own(mixed):
    axes = mixed.plot()
    assert axes.shape == (2,) and len(axes[0].figure.axes) == 3  # one of them for atoms alone
    heights, edges, _ = stairs(axes[0])[0].get_data()
    exact = -np.diff(above(np.maximum(edges, 0))) / np.diff(edges)
    np.testing.assert_allclose(heights, exact, atol=1e-8)
    assert edges[0] < 0 < edges[-1] and above(edges[-1]) < 1e-4
    twin = axes[0].figure.axes[-1]
    ((stem,),) = stems(twin)
    np.testing.assert_allclose(stem, [[0, 0], [0, 1 - above(0)]], atol=1e-10)
    assert twin.get_ylabel() == "mass of an atom" and axes[0].get_ylabel() == "density"


def test_tails_go_down_to_the_accuracy_and_jump_at_the_atom(mixed):
    upper, lower, line = mixed.plot()[1].lines
    places, values = upper.get_data()
    known = float(mixed.accuracy)
    assert line.get_ydata()[0] == pytest.approx(max(known, 1e-16)) and np.nanmin(values) >= known
    beyond = places > 0
    np.testing.assert_allclose(
        values[beyond], np.where(above(places) >= known, above(places), np.nan)[beyond], atol=1e-9
    )
    at = np.flatnonzero(places == 0)
    np.testing.assert_allclose(values[at[:2]], [1, above(0)], atol=1e-9)
    np.testing.assert_allclose(np.nan_to_num(lower.get_ydata())[beyond], 1 - above(places[beyond]), atol=1e-9)
    assert np.nanmin(values) < 1e-9 and upper.axes.get_yscale() == "log"


def test_atoms_alone_have_no_density(listed):
    axes = listed.plot()
    assert not stairs(axes[0]) and len(axes[0].figure.axes) == 2
    (segments,) = stems(axes[0])
    drawn = {round(segment[0][0], 9): segment[1][1] for segment in segments}
    assert drawn == pytest.approx({round(point[0], 9): mass for point, mass in zip(POINTS, MASSES, strict=True)})
    values = axes[1].lines[0].get_ydata()
    sums = np.cumsum(MASSES[np.argsort(POINTS[:, 0])])
    for value in values[np.isfinite(values)]:
        assert np.abs(np.append(1 - sums, 1) - value).min() < 1e-9  # nothing lies between


def test_a_given_axis_has_the_density_alone(mixed):
    one, other = plt.subplots(1, 2)[1]
    assert mixed.plot(ax=one) is one and not other.has_data()
    assert len(plt.get_fignums()) == 1
    axes = mixed.plot(ax=[one, other])
    assert list(axes) == [one, other] and other.has_data()


def test_a_joint_law_has_the_masses_of_its_cells(monkeypatch):
    monkeypatch.setattr("analytic_vae.laws.histogram.MOST", 48)
    ax = av.pushforward(SOURCE, IDENTITY, np.eye(2)).plot()
    (mesh,) = [one for one in ax.collections if isinstance(one, QuadMesh)]
    corners = mesh.get_coordinates()
    across, up, masses = corners[0, :, 0], corners[:, 0, 1], mesh.get_array()
    sides = [np.diff(norm.cdf(edges, POINTS[:, d, None], NOISE)) for d, edges in enumerate((across, up))]
    exact = np.einsum("s,si,sj->ji", MASSES, *sides)
    # A cell counts nodes of quadrature, here fewer than usual: about two percent in all.
    assert np.abs(np.ma.filled(masses, 0).reshape(exact.shape) - exact).sum() / 2 < 0.03
    assert "correlation" in ax.get_title()


def test_joint_atoms_are_rings_as_large_as_their_mass():
    """Of three projections of a law of atoms: every pair, without a colour bar."""
    still = av.FeatureModel(SOURCE.prior, DECODER, 0.0, SOURCE.mean)
    axes = av.pushforward(still, IDENTITY, [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).plot()
    assert axes.shape == (3,) and len(axes[0].figure.axes) == 3
    three = np.column_stack([POINTS, POINTS.sum(axis=1)])
    for ax, pair in zip(axes, ([0, 1], [0, 2], [1, 2]), strict=True):
        (rings,) = [one for one in ax.collections if isinstance(one, PathCollection)]
        drawn, sizes = np.asarray(rings.get_offsets()), rings.get_sizes()
        order, expected = np.lexsort(drawn.T), np.lexsort(three[:, pair].T)
        np.testing.assert_allclose(drawn[order], three[expected][:, pair], atol=1e-12)
        assert np.array_equal(np.argsort(sizes[order]), np.argsort(MASSES[expected]))


def test_what_cannot_be_drawn_is_said(mixed, monkeypatch):
    with pytest.raises(TypeError, match="ax: expected matplotlib's axes, or None for a new figure, got str"):
        mixed.plot(ax="here")
    with pytest.raises(ValueError, match="ax: expected 2 axes"):
        mixed.plot(ax=plt.subplots(1, 3)[1])
    with pytest.raises(TypeError, match="ax: expected 2 of matplotlib's axes"):
        mixed.plot(ax=[1, 2])
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), mixed)
    with pytest.raises(ValueError, match="law"):
        batch.plot()
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'analytic_vae\[plots\]'"):
        mixed.plot()


def test_nothing_global_is_changed(listed):
    before, backend = dict(plt.rcParams), plt.get_backend()
    listed.plot()
    assert dict(plt.rcParams) == before and plt.get_backend() == backend


def test_the_law_of_a_point_is_one_stem_in_the_middle():
    axes = av.pushforward(SOURCE, IDENTITY, [[0.0, 0.0]]).plot()
    ((stem,),) = stems(axes[0])
    np.testing.assert_allclose(stem, [[0, 0], [0, 1]])
    low, high = axes[0].get_xlim()
    assert low < -0.01 and high > 0.01

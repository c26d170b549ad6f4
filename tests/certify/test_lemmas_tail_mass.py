"""B10 to B14: mass beyond a place, high moments, and Hoelder's inequality."""

import jax.numpy as jnp
import lemma_laws
import numpy as np
import pytest

from analytic_vae.certify.tail_mass import RangeCells, log_mass_above, log_mgf, sixteenth
from analytic_vae.spectral.box import mirror

LAWS = {
    "rare": lemma_laws.single([0.01, 0.2, 0.001], [1.0, 0.5, 4.0], 0.1),
    "many": lemma_laws.random_law(np.random.default_rng(0), 1, 0.5, features=4, atoms=3),
    "noise": lemma_laws.single([0.5], [0.0], 1.0, 2.0),
    "points": lemma_laws.single([0.3, 0.01], [1.0, 2.5], 0.0),
}


@pytest.mark.parametrize("name", LAWS)
def test_chernoff_and_the_end_of_the_support(name):
    """B10, B11: never below the mass, nor `e^8` times it where that is not tiny; nothing beyond the last atom."""
    law = LAWS[name]
    values, _, covariance = lemma_laws.states(law)
    heights = np.linspace(values.min() - 1, values.max() + 12 * np.sqrt(covariance[0, 0]) + 0.5, 200)
    bound, exact = np.asarray(log_mass_above(law, jnp.asarray(heights))), lemma_laws.above(law, heights)
    some = exact > 1e-300
    gap = bound[some] - np.log(exact[some])
    assert np.all(gap >= -1e-12)
    assert np.all(gap[exact[some] > 1e-12] < 8)
    if covariance[0, 0] == 0:
        assert np.all(np.isneginf(bound[heights > values.max() + 1e-9]))


def test_the_generating_function():
    """B10: it is exact."""
    law, theta = LAWS["many"], np.array([-3.0, 0.2, 5.0])
    values, masses, covariance = lemma_laws.states(law)
    exact = [
        np.log(masses @ np.exp(t * (values[:, 0] - float(law.mean[0])))) + covariance[0, 0] * t * t / 2 for t in theta
    ]
    np.testing.assert_allclose(log_mgf(law, jnp.asarray(theta)), exact, rtol=1e-13)


@pytest.mark.parametrize("dependence", ["same", "opposite", "apart"])
def test_cells(dependence):
    """B12: whatever a function h of another variable has to do with Y, its cells bound the mass of `Y + h`."""
    rng = np.random.default_rng(1)
    law = lemma_laws.single([0.3, 0.05], [1.0, 2.0], 0.2)
    points, weights = lemma_laws.points(law)
    y = points[:, 0]
    order = {"same": y, "opposite": -y, "apart": rng.permutation(y)}[dependence]
    b = np.argsort(np.argsort(order)) / y.size  # the other variable, from 0 to 1
    h = np.sin(5 * b) + b
    edges = np.linspace(0, 0.98, 9)  # and 2 percent in no cell
    cell = np.searchsorted(edges, b, side="right") - 1
    least, most, mass = (
        np.array([f(a[cell == c]) for c in range(8)]) for f, a in ((np.min, h), (np.max, h), (np.sum, weights))
    )
    elsewhere = weights[b >= 0.98].sum()
    cells = RangeCells(*map(jnp.asarray, (least, most, np.log(mass), elsewhere)))
    for law_of, bend, sign in ((law, cells, 1), (mirror(law), cells.mirrored, -1)):
        heights = np.linspace(-4, 6, 41)
        bound = np.exp(np.asarray(log_mass_above(law_of, jnp.asarray(heights), bend))) + elsewhere
        exact = np.array([weights[sign * (y + h) >= t].sum() for t in heights])
        assert np.all(bound >= exact - 1e-13)
        assert bound[-1] < 0.5  # and not 1 everywhere


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("centre", [0.0, 3.0])
def test_the_sixteenth_moment(name, centre):
    """B13: above the root of the moment, by a factor of at most 2.5."""
    law = LAWS[name]
    points, weights = lemma_laws.points(law)
    exact = (weights @ (points[:, 0] - centre) ** 16) ** (1 / 16)
    assert exact <= float(sixteenth(law, jnp.asarray(centre))) <= 2.5 * exact + 1e-9


def test_hoelder():
    """B14: with the exponents that the sixteenth moment leaves; the 7/8 cannot be 1."""
    rng = np.random.default_rng(2)
    points, weights = lemma_laws.points(LAWS["rare"])
    y, broken = points[:, 0], 0
    for _ in range(200):
        u = np.clip(rng.normal() + rng.normal() * y, 0, 1) ** rng.integers(1, 6)
        g, h = np.abs(y - rng.normal()), np.abs(y - rng.normal()) ** rng.integers(1, 3)
        norm = lambda f, p: (weights @ f**p) ** (1 / p)  # noqa: E731
        mean = weights @ u
        assert weights @ (g * u) <= norm(g, 8) * mean ** (7 / 8) * (1 + 1e-12)
        assert weights @ (g * h * u) <= norm(g, 8) * norm(h, 8) * mean ** (3 / 4) * (1 + 1e-12)
        assert weights @ (g * h * u) <= norm(g, 16) * norm(h, 16) * mean ** (7 / 8) * (1 + 1e-12)
        broken += weights @ (g * u) > norm(g, 8) * mean
        # u at most 2, and its mean known to be at most 4 times something
        assert norm(2 * u, 8 / 7) <= 2 ** (1 / 8) * (2 * mean) ** (7 / 8) * (1 + 1e-12)
    assert broken > 0
    assert 2 ** (1 / 8) * 4 ** (7 / 8) < 4

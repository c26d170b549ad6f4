"""B15 to B26: the box of one axis, its window, and how fast coefficients fall."""

import math

import jax.numpy as jnp
import lemma_laws
import numpy as np
import pytest
import reference
from scipy.special import erf, erfc, ndtr

from analytic_vae.certify.domain import (
    EDGE,
    RATES,
    SMOOTHING,
    WIDTHS,
    Domain,
    edge_steepness,
    log_geometric,
    periodic,
    smoothed_mass,
)

ORDERS = (16, 64, 400)


def unit(order: int, noise: float = 0.1) -> Domain:
    """A box of length 1 from 0."""
    zero, one = jnp.zeros(()), jnp.ones(())
    return Domain(zero, one, noise * one, zero, one, order)


def copies(axis: Domain, y: np.ndarray) -> np.ndarray:
    """`sum_{n != 0} W(y + n L)`, y in box coordinates."""
    return sum(np.asarray(axis.window(jnp.asarray(y + n))) for n in (-3, -2, -1, 1, 2, 3))


@pytest.mark.parametrize("order", ORDERS)
def test_the_window(order):
    """B15: a product of two normal distribution functions; nothing beyond the extended box."""
    axis, s = unit(order), edge_steepness(order)
    assert 6 <= s * s * (1 + 1e-12) and s * s <= 32 * (1 + 1e-12)
    v = np.linspace(-1, 2, 3001)
    sigma = float(axis.edge_width)
    exact = ndtr((v - EDGE / 2) / sigma) * ndtr((1 - EDGE / 2 - v) / sigma)
    np.testing.assert_allclose(axis.window(jnp.asarray(v)), exact, atol=1e-14)
    depth = np.linspace(0, 2, 50)
    np.testing.assert_allclose(
        1 - ndtr((1 - EDGE / 2 - (1 - EDGE - depth * EDGE)) / sigma), erfc(s * (1 + 2 * depth)) / 2, atol=1e-15
    )
    assert erfc(3 * s) / 2 < 1.4e-25
    apart = (1 - EDGE) / sigma
    assert apart > 31 and ndtr(-apart / 2) ** 2 < 1e-100


@pytest.mark.parametrize("order", ORDERS)
def test_copies_of_the_window(order):
    """B17: at most what the window lacks, also with growth of degree 1 and 2; and less than B16 charges inside."""
    axis, s = unit(order), edge_steepness(order)
    y = np.linspace(-1.5, 2.5, 8001)
    lacks = 1 - np.asarray(axis.window(jnp.asarray(y)))
    assert np.all(copies(axis, y) <= lacks + 1e-14)
    depth = np.linspace(0, (0.5 - EDGE) / EDGE, 100)
    inside = 1 - EDGE - depth * EDGE
    assert np.all(copies(axis, inside) <= erfc(s * (3 + 2 * depth)) + 1e-100)
    radius = np.abs(y - 0.5)
    for degree in (1, 2):
        grown = sum(np.abs(y + n - 0.5) ** degree * np.asarray(axis.window(jnp.asarray(y + n))) for n in (-2, -1, 1, 2))
        far = radius >= 0.25
        assert np.all(grown[far] <= radius[far] ** degree * lacks[far] + 1e-14)
        assert np.all(grown[~far] <= math.exp(-14 * s * s) + 1e-300)


LAWS = {
    "rare": lemma_laws.single([0.01, 0.2, 1e-5], [1.0, 0.5, 4.0], 0.1),
    "noise": lemma_laws.single([0.5], [0.0], 1.0, 2.0),
    "points": lemma_laws.single([0.3, 0.01], [1.0, 2.5], 0.0),
}


@pytest.mark.parametrize("name", LAWS)
def test_what_the_window_lacks(name):
    """B16, B17: `missed` bounds `E (1 - W)`, the copies, and the mass outside of the inner box, for any box."""
    law = LAWS[name]
    points, weights = lemma_laws.points(law)
    whole = Domain.of(law, jnp.asarray(0.0), 32)
    low, high = (float(end) for end in whole.inner)
    seen = []
    for share in (1.0, 0.6, 0.3):  # also boxes that are too small
        axis = lemma_laws.boxed(law, low, low + share * (high - low))
        v = (points[:, 0] - float(axis.low)) / float(axis.length)
        missed = float(axis.missed)
        assert weights @ (1 - np.asarray(axis.window(jnp.asarray(v)))) <= missed + 1e-15
        assert weights @ copies(axis, v) <= missed + 1e-15
        inner = [float(end) for end in axis.inner]
        outside = weights @ ((points[:, 0] < inner[0]) | (points[:, 0] > inner[1]))
        assert outside <= missed + 1e-15
        seen.append(missed / (outside + 1e-14))
    assert float(whole.missed) < 1e-4 and min(seen[1:]) < 30


def test_windowed_periodic_functions():
    """B18: `E |g - P|`, of a bounded g and of one that grows, on a box that is too small."""
    law = LAWS["noise"]
    points, weights = lemma_laws.points(law)
    axis = lemma_laws.boxed(law, 0.5, 5.0)
    low, length, centre = (float(one) for one in (axis.low, axis.length, axis.centre))
    y = points[:, 0]
    for g, norm, power in ((np.sin, 1.0, 1.0), (lambda y: np.abs(y - centre), float(axis.reach), 7 / 8)):
        P = sum(g(y + n * length) * axis.window(jnp.asarray((y + n * length - low) / length)) for n in range(-3, 4))
        error = weights @ np.abs(g(y) - P)
        assert 1e-3 < error <= 2 * norm * float(axis.missed) ** power


def complex_window(order: int, z: np.ndarray) -> np.ndarray:
    """`W` at complex box coordinates."""
    s = edge_steepness(order)
    return (1 + erf(s * (2 * z / EDGE - 1))) * (1 + erf(s * (2 * (1 - z) / EDGE - 1))) / 4


@pytest.mark.parametrize("order", ORDERS)
def test_the_window_off_the_axis(order):
    """B19: the integral of its size along a line, also in strips so wide that both ends meet; not twice too much."""
    axis = unit(order)
    strips, share = np.asarray(axis.strips), np.exp(np.asarray(axis.log_share, dtype=np.longdouble))
    t, weight = reference.composite(np.linspace(-1, 2, 400), 12)
    wide = 0
    for rho, bound in zip(strips, share, strict=True):
        with np.errstate(all="ignore"):
            size = np.abs(complex_window(order, t + 1j * rho))
        if not np.all(np.isfinite(size)):
            continue
        exact = weight @ size
        assert exact <= bound, rho
        assert bound < 5 * exact or rho * 2 * edge_steepness(order) / EDGE > 3
        wide += rho * 2 * edge_steepness(order) / EDGE > 6.5 * edge_steepness(order)
    if order == 16:
        assert wide > 0
    # The proof's three terms are within what is charged, in every strip.
    s = edge_steepness(order)
    v, X = np.float128(2 * s / EDGE) * strips, 2 * s * (1 - EDGE) / EDGE
    ends = EDGE / (s * math.sqrt(math.pi)) * np.exp(v**2)
    both = EDGE / (8 * s) * math.sqrt(math.pi / 2) * np.exp(2 * v**2 - X**2 / 2)
    assert np.all(1 - EDGE + ends + both <= share * (1 + 1e-10))


def test_coefficients_and_their_tails():
    """B19, B20, B21: those of a windowed logistic function, their sum beyond K, and the aliases of a rule."""
    axis = unit(16, noise=0.02)
    slope = 12.0
    g = lambda y: 1 / (1 + np.exp(-slope * (y - 0.4)))  # noqa: E731
    sup = np.where(RATES / float(axis.top) * slope < 0.98 * np.pi, 1.0, np.inf)
    wide = RATES / float(axis.top) * slope >= np.pi / 2
    sup = np.where(wide, sup / np.sin(np.minimum(RATES / float(axis.top) * slope, 3.1)), sup)
    fine = 4096
    v = np.arange(-fine, 2 * fine) / fine
    folded = (g(v) * complex_window(16, v)).reshape(3, fine).sum(axis=0)
    exact = np.fft.fft(folded) / fine
    size = np.abs(np.concatenate([exact[-200:], exact[:201]]))
    index = np.arange(-200, 201)
    for order in (16, 24, 40):
        for noise in (0.0, 0.02):
            tail = size[np.abs(index) > order] @ np.exp(-((noise * 2 * np.pi * index[np.abs(index) > order]) ** 2) / 2)
            bound = float(axis.analytic_tail(jnp.asarray(sup), jnp.asarray(noise), order))
            assert tail <= bound + 1e-15 and bound < 1e3 * tail + 1e-12
    for nodes in (40, 64):
        v = np.asarray(axis.nodes(nodes))
        rule = np.fft.fft(np.asarray(periodic(jnp.asarray(g(v) * complex_window(16, v)), nodes, 0))) / nodes
        error = np.abs(rule[:17] - exact[:17]).max()
        bound = float(axis.alias(jnp.asarray(sup), nodes, 16))
        assert error <= bound + 1e-15 and bound < 1e3 * error + 1e-12


def test_geometric_sums():
    """B20."""
    x = np.array([1e-3, 0.1, 1.0, 30.0])
    np.testing.assert_allclose(
        np.exp(-np.asarray(log_geometric(jnp.asarray(x)))), [np.exp(-one * np.arange(60000)).sum() for one in x]
    )


def test_damping():
    """B22: `|phi|` of one axis given another that may be anything, and of one alone."""
    rng = np.random.default_rng(0)
    law = lemma_laws.random_law(rng, 2, 0.4)
    S = np.asarray(law.covariance)
    given = np.sqrt(S[0, 0] - S[0, 1] ** 2 / S[1, 1])
    w = rng.normal(size=(4000, 2)) * 4
    phi = np.abs(lemma_laws.characteristic(law, w))
    assert np.all(phi <= np.exp(-np.einsum("wd,de,we->w", w, S, w) / 2) * (1 + 1e-12))
    assert np.all(phi <= np.exp(-((given * w[:, 0]) ** 2) / 2) * (1 + 1e-12))
    assert np.any(phi > np.exp(-S[0, 0] * w[:, 0] ** 2 / 2))  # the other axis matters


def test_smoothing_of_a_kink():
    """B23: what the kernel does to `relu`, by quadrature; its moments and its L1 norm; 0.2 is hardly too much."""
    z, weight = reference.normal_axis(reference.Rule(40, 16), (-np.sqrt(3), np.sqrt(3)))
    kernel = (3 - z**2) / 2  # times the normal density
    for power, moment in enumerate((1, 0, 0, 0)):
        np.testing.assert_allclose(weight @ (kernel * z**power), moment, atol=1e-12)
    np.testing.assert_allclose(weight @ np.abs(kernel), 1.1418, atol=1e-3)
    for x in (0.5, 2.0):
        np.testing.assert_allclose(weight @ (kernel * np.cos(x * z)), (1 + x * x / 2) * np.exp(-x * x / 2), atol=1e-12)
    largest = 0.0
    for y in np.linspace(-5, 5, 101):
        node, w = reference.normal_axis(reference.Rule(40, 16), (-y,))
        error = abs(w @ ((3 - node**2) / 2 * np.maximum(y + node, 0)) - max(y, 0))
        assert error <= SMOOTHING * np.exp(-(y**2) / 2) + 1e-13
        largest = max(largest, error)
    assert largest > 0.997 * SMOOTHING
    assert 0.19948 * (1 + 2 * np.exp(-((1 / 0.1) ** 2) / 2)) < SMOOTHING


def test_the_tail_of_a_kink():
    """B24: of a unit jump of the slope, against 200 K terms; within a factor of 1.2."""
    axis, eta = unit(16), np.array([0.0, 1.0, 3.0]) / float(unit(16).top)
    w = 2 * np.pi * np.arange(17, 200 * 16)
    for noise in (0.0, 0.003):
        bound = np.asarray(axis.kink_tail(jnp.asarray(eta), jnp.asarray(noise)))
        x = (eta[:, None] * w[None]) ** 2 / 2
        exact = 2 * ((1 + x) * np.exp(-x - (noise * w[None]) ** 2 / 2) / w**2).sum(axis=1)
        assert np.all(exact <= bound * (1 + 1e-12)) and np.all(bound <= 1.2 * exact)


@pytest.mark.parametrize("name", LAWS)
def test_the_mass_near_a_kink(name):
    """B25: never below `E exp(-(Y - t)^2 / (4 eta^2))`, and, with its copies, within a hundredth of it or 1e-7."""
    law = LAWS[name]
    axis = Domain.of(law, jnp.asarray(0.0), 16)
    points, weights = lemma_laws.points(law)
    low, high = (float(end) for end in axis.inner)
    places, eta = np.linspace(low, high, 5), WIDTHS / float(axis.top)
    assert eta.max() <= 0.1 * float(axis.length)
    found = np.asarray(smoothed_mass(axis, law, jnp.asarray(places), jnp.asarray(eta)))
    for e, width in enumerate(eta[1:], 1):
        apart = points - places[None]
        exact = weights @ np.exp(-(apart**2) / (4 * width**2))
        periods = sum(weights @ np.exp(-((apart + n * float(axis.length)) ** 2) / (4 * width**2)) for n in (-1, 1))
        assert np.all(found[e] >= exact - 1e-15)
        assert np.all(found[e] <= 1.01 * (exact + periods) + 1e-7)

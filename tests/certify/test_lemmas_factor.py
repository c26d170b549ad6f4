"""B27 to B33: one function of one axis, against fine Fourier transforms and quadrature."""

import jax.numpy as jnp
import lemma_laws
import numpy as np
import pytest
import reference
from scipy.special import ndtr

from analytic_vae.certify.domain import EDGE, WIDTHS, Domain
from analytic_vae.certify.factor import Inside, Transform, factor
from analytic_vae.certify.functions import PiecewiseLinear, as_function
from analytic_vae.model.activation import ACTIVATIONS

LAW = lemma_laws.single([0.3, 0.05], [1.0, 2.5], 0.15, -0.8)
ORDER = 16


def axis_of(law=LAW, order=ORDER) -> Domain:
    """Its axis."""
    return Domain.of(law, jnp.sqrt(law.covariance[0, 0]), order)


def hinges(places, jumps, intercept=0.0, slope=0.0) -> PiecewiseLinear:
    """With those kinks."""
    return PiecewiseLinear(*(jnp.asarray(one, float) for one in (places, jumps, intercept, slope)))


def evaluate(line: PiecewiseLinear, y: np.ndarray) -> np.ndarray:
    """At real y."""
    return (
        line.intercept + line.slope * y + np.maximum(y[:, None] - np.asarray(line.places), 0) @ np.asarray(line.jumps)
    )


def fine_coefficients(axis: Domain, windowed, kinks=(), count=400) -> np.ndarray:
    """`c_0 .. c_count` of a windowed function of box coordinates, by quadrature."""
    cuts = [(float(kink) - float(axis.low)) / float(axis.length) for kink in kinks]
    v, weight = reference.composite(np.union1d(np.linspace(-0.5, 1.5, 900), cuts), 10)
    values = windowed(v) * weight
    return np.array([values @ np.exp(-2j * np.pi * k * v) for k in range(count + 1)])


def own_window(axis: Domain, v: np.ndarray, place=None) -> np.ndarray:
    """B29: of the line, from one Gaussian end to the other; of a kink, the function that its transform stands for."""
    sigma = float(axis.edge_width) / float(axis.length)
    upper = ndtr((v - 1 + EDGE / 2) / sigma)
    if place is None:
        return ndtr((v - EDGE / 2) / sigma) - upper
    return (v > (place - float(axis.low)) / float(axis.length)) - upper


def test_transform():
    """B29: closed forms against quadrature of the function with its own windows, which are W but for B16's share."""
    axis = axis_of()
    low, length, centre = (float(one) for one in (axis.low, axis.length, axis.centre))
    inner = [float(end) for end in axis.inner]
    places = np.array([inner[0], 0.1, inner[1] - 0.05])
    jumps, line = np.array([1.0, -0.7, 2.0]), np.array([0.3, -1.2])

    def windowed(v):
        y = low + length * v
        total = (line[0] + line[1] * (y - centre)) * own_window(axis, v)
        return total + sum(j * (y - t) * own_window(axis, v, t) for j, t in zip(jumps, places, strict=True))

    exact = fine_coefficients(axis, windowed, places, 60)
    w = axis.step * jnp.arange(61.0)
    found = Transform.of(axis, w, jnp.asarray(places), jnp.asarray(jumps), jnp.asarray(line))
    np.testing.assert_allclose(np.asarray(found.kinks + found.ends), exact, atol=1e-12)
    # The windows' difference from W, part by part.
    v = np.linspace(-0.3, 1.3, 1601)
    y, W = low + length * v, np.asarray(axis.window(jnp.asarray(v)))
    sigma = float(axis.edge_width) / length
    left, right = ndtr((EDGE / 2 - v) / sigma), ndtr((v - 1 + EDGE / 2) / sigma)
    assert np.all(np.abs(own_window(axis, v) - W) <= 1e-100 + 1e-15)
    for t in places:
        off = np.abs((y - t) * own_window(axis, v, t) - np.maximum(y - t, 0))
        assert np.all(off <= np.abs(y - t) * right + 1e-14)
    assert np.all(1 - W <= left + right + 1e-15)


def test_ends_beyond_the_band():
    """B31: the tail of the window's ends, at most a geometric series; within a factor of 3."""
    axis = axis_of()
    places, jumps, line = jnp.asarray([0.1]), jnp.asarray([1.0]), jnp.asarray([0.3, -1.2])
    w = axis.step * jnp.arange(ORDER + 1.0, 40 * ORDER)
    ends = np.abs(np.asarray(Transform.of(axis, w, places, jumps, line).ends))
    first = Transform.of(axis, axis.top[None] + axis.step, places, jumps, line).end_sizes[0]
    ratio = np.exp(-float(axis.edge_width**2 * axis.step * axis.top))
    bound = 2 * float(first) / (1 - ratio)
    assert 2 * ends.sum() <= bound < 10 * 2 * ends.sum()


FUNCTIONS = {
    "relu": hinges([0.0], [1.0]),
    "hat": hinges([-0.5, 0.2, 0.8], [1.0, -2.0, 1.0], 0.1),
    "beyond": hinges([-9.0, 0.1, 40.0], [0.5, 1.0, 3.0], 1.0, -0.2),  # two kinks far outside of the box
    "near": hinges([-1.9], [1.0]),  # one within the lower edge
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_piecewise_linear_factor(name):
    """B23, B24, B30 to B33, one by one: smoothing, tail, box, sizes; and `E g` of it all."""
    line, axis = FUNCTIONS[name], axis_of()
    found = factor(axis, LAW, line)
    kinks = np.asarray(line.places)
    points, weights = lemma_laws.points(LAW, ((), tuple(kinks)))
    y = points[:, 0]
    values, phi_at = evaluate(line, y), lambda w: lemma_laws.characteristic(LAW, w[:, None])
    low, step, length = (float(one) for one in (axis.low, axis.step, axis.length))
    # Sizes; of the first, which is one part, not much too large.
    assert (weights @ np.abs(values) ** 16) ** (1 / 16) <= float(found.norm)
    assert name != "relu" or float(found.norm) < 6 * (weights @ values**16) ** (1 / 16)
    assert float(found.slope) >= np.abs(np.diff(evaluate(line, np.linspace(-50, 50, 2001)))).max() / 0.05 - 1e-9
    # All coefficients, smoothed: up to the band as found, beyond by their closed form.
    inside = Inside.of(axis, line)
    w = step * np.arange(40 * ORDER + 1)
    parts = Transform.of(axis, jnp.asarray(w), inside.places, inside.jumps, inside.line)
    eta = [e for e in np.asarray([0, *np.arange(1.0, 10.01, 0.5)]) / float(axis.top)]

    def smoothed(e):
        x = (e * w) ** 2 / 2
        return np.asarray(parts.ends) + (1 + x) * np.exp(-x) * np.asarray(parts.kinks)

    width = min(eta, key=lambda e: np.abs(smoothed(e)[: ORDER + 1] - np.asarray(found.coefficients)).max())
    np.testing.assert_allclose(smoothed(width)[: ORDER + 1], found.coefficients, atol=1e-14)
    noise = float(axis.noise)
    beyond = 2 * np.abs(smoothed(width)[ORDER + 1 :])
    for bound, share in ((found.tail, 1.0), (found.half_tail, 0.5)):
        assert beyond @ np.exp(-share * (noise * w[ORDER + 1 :]) ** 2 / 2) <= float(bound) * (1 + 1e-12)
    # The periodic function, plain and smoothed, at the law's points (from many coefficients, kinks are soft).
    wave = np.exp(1j * np.outer(y - low, w))
    twice = np.where(w > 0, 2, 1)
    P, P_smooth = ((wave @ (twice * c)).real for c in (smoothed(0.0), smoothed(width)))
    left_out = 2 * np.abs(np.asarray(parts.kinks)[-1]) * w.size  # of the plain series
    assert weights @ np.abs(P - P_smooth) <= float(found.bias) + left_out
    assert np.sqrt(weights @ (P - P_smooth) ** 2) <= float(found.bias_norm) + left_out
    assert weights @ np.abs(values - P) <= float(found.outside) + left_out
    grid = np.exp(1j * np.outer(np.linspace(0, length, 500), w)) @ (twice * smoothed(width))
    assert np.abs(grid).max() <= float(found.sup)
    # All of it.
    total = (np.asarray(found.coefficients) * twice[: ORDER + 1]) @ (
        phi_at(w[: ORDER + 1]) * np.exp(-1j * w[: ORDER + 1] * low)
    )
    error = abs(total.real - weights @ values)
    assert error <= float(found.outside + found.bias + found.tail) + 1e-14


def on_points(axis: Domain, line: PiecewiseLinear, found, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P at places, plain (from many coefficients: its kinks are soft) and smoothed as in the factor."""
    inside, w = Inside.of(axis, line), float(axis.step) * np.arange(60 * axis.order + 1)
    parts = Transform.of(axis, jnp.asarray(w), inside.places, inside.jumps, inside.line)
    kinks, ends = np.asarray(parts.kinks), np.asarray(parts.ends)

    def smoothed(eta):
        x = (eta * w) ** 2 / 2
        return ends + (1 + x) * np.exp(-x) * kinks

    widths = WIDTHS / float(axis.top)
    order = axis.order + 1
    eta = min(widths, key=lambda e: np.abs(smoothed(e)[:order] - np.asarray(found.coefficients)).max())
    nodes = np.arange(4001) / 4000
    wave = np.exp(2j * np.pi * np.outer(nodes, np.arange(w.size))) * np.where(w > 0, 2, 1)
    at = ((y - float(axis.low)) / float(axis.length)) % 1.0
    return tuple(np.interp(at, nodes, (wave @ smoothed(one)).real) for one in (0.0, eta))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_box_that_is_too_small(name):
    """B18, B30: what is outside of it, part by part; within a factor of 10^4."""
    line = FUNCTIONS[name]
    for low, high in ((-0.9, 1.2), (-0.5, 2.5)):
        axis = lemma_laws.boxed(LAW, low, high, ORDER)
        found = factor(axis, LAW, line)
        points, weights = lemma_laws.points(LAW, ((), tuple(np.asarray(line.places))))
        P, _ = on_points(axis, line, found, points[:, 0])
        error = weights @ np.abs(evaluate(line, points[:, 0]) - P)
        assert 1e-3 < error <= float(found.outside) < 1e4 * error


def test_smoothing_of_products():
    """B34: what smoothing two functions changes of their product, periodic as they are; within a factor of 1000."""
    law = lemma_laws.random_law(np.random.default_rng(0), 2, 0.05, features=2)
    points, weights = lemma_laws.points(law)
    plain, smooth, found = [], [], []
    for d in range(2):
        axis = Domain.of(law.alone(d), jnp.asarray(0.0), ORDER)
        line = hinges([float(law.total_mean[d])], [1.0])
        found.append(factor(axis, law.alone(d), line))
        one, other = on_points(axis, line, found[d], points[:, d])
        plain.append(one)
        smooth.append(other)
    changed = weights @ np.abs(plain[0] * plain[1] - smooth[0] * smooth[1])
    a, b = found
    assert float(a.bias + b.bias) > 0 and changed > 2e-5
    assert changed <= float(a.bias * b.sup + b.bias * a.sup) < 1e3 * changed


@pytest.mark.parametrize("name", ["tanh", "gelu", "sigmoid"])
@pytest.mark.parametrize("square", [False, True])
def test_analytic_factor(name, square):
    """B27, B28, B32: coefficients up to the alias, tails, box and sizes."""
    axis, function = axis_of(), as_function(ACTIVATIONS[name], jnp.float64)
    function = function.squared() if square else function
    found = factor(axis, LAW, function)
    low, length = float(axis.low), float(axis.length)
    call = lambda y: np.asarray(function.function(jnp.asarray(y)))  # noqa: E731
    windowed = lambda v: call(low + length * v) * np.asarray(axis.window(jnp.asarray(v)))  # noqa: E731
    exact = fine_coefficients(axis, windowed)
    error = np.abs(exact[: ORDER + 1] - np.asarray(found.coefficients)).max()
    rounding = 4 * float(found.roundoff.max()) + 1e-15
    assert error <= float(found.aliasing) + rounding
    w, noise = float(axis.step) * np.arange(exact.size), float(axis.noise)
    for bound, share in ((found.tail, 1.0), (found.half_tail, 0.5)):
        tail = 2 * np.abs(exact[ORDER + 1 :]) @ np.exp(-share * (noise * w[ORDER + 1 :]) ** 2 / 2)
        assert tail <= float(bound) + 400 * 1e-15 and float(bound) < 1e3 * tail + 1e-11
    points, weights = lemma_laws.points(LAW)
    y = points[:, 0]
    P = sum(windowed((y - low) / length + n) for n in (-2, -1, 0, 1, 2))
    assert weights @ np.abs(call(y) - P) <= float(found.outside) + 1e-15
    power = 16 if not square else 8
    norm = (weights @ np.abs(call(y)) ** power) ** (1 / power)
    assert norm <= float(found.norm) < 20 * norm
    box = np.linspace(low, low + length, 2001)
    assert np.abs(call(box)).max() <= float(found.sup)
    box = np.linspace(*(float(end) for end in axis.inner), 2001)
    assert np.abs(np.diff(call(box))).max() / (box[1] - box[0]) <= 1.01 * float(found.slope)

"""The engine piece by piece: characteristic functions, boxes, series, rules, each against its definition."""

import cases
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import analytic_vae as av
from analytic_vae.moments.quadrature_rule import StatisticLaw, law_series, least_squares_series
from analytic_vae.moments.reading import Reading
from analytic_vae.moments.ridge_axis import RidgeAxis
from analytic_vae.moments.statistic import Statistic
from analytic_vae.spectral import box, characteristic, fourier, projected_law, quadrature
from analytic_vae.spectral.least_squares import least_squares
from analytic_vae.spectral.projected_law import Projection

RNG = np.random.default_rng

# ------------------------------------------------------------------------------------------ characteristic functions


def enumerated(model: av.FeatureModel, matrix: np.ndarray, offset: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """`E exp(i <w, G x + offset>)`, state by state: `[W]`."""
    given = cases.oracle_model(model)
    _, z, mass = reference.states(given)
    centres = (given.mean + z @ given.decoder.T) @ matrix.T + offset
    quadratic = np.einsum("wd,de,we->w", frequency, matrix @ given.covariance_matrix @ matrix.T, frequency)
    return np.exp(1j * frequency @ centres.T) @ mass * np.exp(-quadratic / 2)


@pytest.mark.parametrize("noise", cases.NOISES)
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_characteristic_equals_enumeration(noise, dimension):
    rng = RNG(dimension)
    model = cases.model(rng, 3, 4, 3, noise)
    matrix, offset, frequency = (
        rng.normal(size=(dimension, 3)),
        rng.normal(size=dimension),
        rng.normal(size=(9, dimension)),
    )
    law = Projection.of(model, jnp.asarray(matrix), jnp.asarray(offset))
    phi = jax.vmap(lambda w: projected_law.characteristic(law, w))(frequency)
    np.testing.assert_allclose(phi, enumerated(model, matrix, offset, frequency), atol=1e-14)
    moved, shift = rng.normal(size=(2, dimension)), rng.normal(size=2)
    again = law.transform(jnp.asarray(moved), jnp.asarray(shift))
    frequency = frequency[:, :1] * np.array([1.0, -0.5])
    phi = jax.vmap(lambda w: projected_law.characteristic(again, w))(frequency)
    np.testing.assert_allclose(phi, enumerated(model, moved @ matrix, moved @ offset + shift, frequency), atol=1e-14)
    mean, covariance = model.moments()
    np.testing.assert_allclose(law.total_mean, matrix @ mean + offset, rtol=1e-12)
    np.testing.assert_allclose(law.total_covariance, matrix @ covariance @ matrix.T, rtol=1e-12)


@pytest.mark.parametrize("features", [1, 2, 5])
def test_the_fast_grid_equals_the_formula(features):
    """Frequencies on the axes of the statistics times frequencies on the ridge axis."""
    rng = RNG(features)
    law = Projection.of(cases.model(rng, 3, features, 3), jnp.asarray(rng.normal(size=(3, 3))))
    w, omega = jnp.asarray(rng.normal(size=(7, 2))), jnp.asarray(rng.normal(size=5))
    table = characteristic.ridge_table(omega, law.atoms[2], law.masses)
    waves = characteristic.phases(w, law.atoms[:2])
    fast = characteristic.product_over_features(law.masses[:, 0], waves, table)
    s = law.covariance
    fast = fast * characteristic.gaussian_factor(w, omega, law.mean[:2], law.mean[2], s[:2, :2], s[:2, 2], s[2, 2])
    for i, j in np.ndindex(7, 5):
        slow = projected_law.characteristic(law, jnp.append(w[i], omega[j]))
        np.testing.assert_allclose(fast[i, j], slow, atol=1e-14)


# ------------------------------------------------------------------------------------------------------------- boxes


def integer_law(steps: np.ndarray, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact law of a sum of independent integers `steps [m, K]`: its values and masses, by dynamic programming."""
    law, low = np.ones(1), 0
    for values, weights in zip(steps, masses, strict=True):
        start = values.min()
        step = np.bincount(values - start, weights)
        law, low = np.convolve(law, step), low + start
    return low + np.arange(law.size), law


def law_of(steps: np.ndarray, masses: np.ndarray, variance: float = 0.0) -> Projection:
    """The same sum, and noise, as the engine sees it."""
    return Projection(jnp.zeros(1), jnp.asarray(steps, float)[None], jnp.asarray(masses), jnp.full((1, 1), variance))


interval = jax.jit(box.interval, static_argnums=1)


@pytest.mark.parametrize("c", [12.0, 24.0, 34.0])
@pytest.mark.parametrize("probability", [1e-3, 0.05, 0.5])
def test_a_box_leaves_out_no_more_mass_than_it_says(probability, c):
    """Weighted sums of rare features have most of their variance in rare values."""
    steps = np.stack([np.zeros(40, int), np.arange(1, 41) * np.where(np.arange(40) % 3, 1, -1)], axis=1)
    masses = np.tile([1 - probability, probability], (40, 1))
    values, law = integer_law(steps, masses)
    low, high = interval(law_of(steps, masses), c)
    assert law[values < low].sum() <= np.exp(-c) and law[values > high].sum() <= np.exp(-c)


@given(st.integers(0, 1 << 30), st.floats(-6, 0))
def test_a_box_bounds_the_mass_of_any_law(seed, log_skew):
    rng = RNG(seed)
    steps = rng.integers(-20, 21, (6, 3))
    logits = rng.normal(size=(6, 3)) + np.array([0.0, log_skew, log_skew])
    masses = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    values, law = integer_law(steps, masses)
    low, high = interval(law_of(steps, masses), 12.0)
    outside = np.exp(-12.0) * (1 + 1e-9)
    assert low < high and law[values < low].sum() <= outside and law[values > high].sum() <= outside


def test_a_constant_has_a_box_and_a_gaussian_a_box_of_its_size():
    low, high = interval(law_of(np.full((2, 2), 3), np.full((2, 2), 0.5)), 20.0)
    assert low < 6 <= high
    low, high = interval(law_of(np.zeros((1, 2)), np.full((1, 2), 0.5), 4.0), 20.0)
    np.testing.assert_allclose([low, high], [-2 * np.sqrt(40), 2 * np.sqrt(40)], rtol=0.05)
    assert -low >= 2 * np.sqrt(40) - 1e-9 <= high + 2e-9


# ------------------------------------------------------------------------------------------------------------ series


@pytest.mark.parametrize(("order", "dimension"), [(4, 1), (3, 2), (3, 3)])
def test_half_spaces_hold_one_of_each_pair(order, dimension):
    half = fourier.half_space(order, dimension)
    assert not half[0].any()
    full = np.concatenate([half, -half[1:]])
    cube = np.stack(np.meshgrid(*[np.arange(-order, order + 1)] * dimension), -1).reshape(-1, dimension)
    inside = cube[(cube**2).sum(axis=1) <= order**2]
    assert len(full) == len(inside) and set(map(tuple, full)) == set(map(tuple, inside.astype(float)))


def test_half_and_full_coefficients_are_one_function():
    rng, order = RNG(0), 5
    real = jnp.asarray(rng.normal(size=2 * order + 1))
    frequency, y = jnp.arange(order + 1.0), jnp.asarray(rng.normal(size=20))
    by_basis = fourier.real_basis(jnp.outer(y, frequency)) @ real
    half = fourier.half_coefficients(real)
    full, both = fourier.full_coefficients(half), fourier.full_frequencies(frequency)
    np.testing.assert_allclose((jnp.exp(1j * jnp.outer(y, frequency)) @ half).real, by_basis, rtol=1e-12)
    np.testing.assert_allclose(jnp.exp(1j * jnp.outer(y, both)) @ full, by_basis + 0j, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("count", [40, 15])
def test_least_squares_is_the_projection_in_l2_of_the_weights(count):
    """Values in the span are kept; what is left of others is orthogonal to it; also where the basis is dependent."""
    rng = RNG(count)
    basis, weight = rng.normal(size=(count, 12)), rng.uniform(size=count)
    basis[:, -1] = basis[:, 0]
    operator = least_squares(jnp.asarray(basis), jnp.asarray(weight))
    inside, values = basis @ rng.normal(size=12), rng.normal(size=count)
    np.testing.assert_allclose(basis @ (operator @ inside), inside, rtol=1e-8, atol=1e-8)
    left = values - basis @ (operator @ values)
    np.testing.assert_allclose(basis.T @ (weight * left), 0, atol=1e-9)


@pytest.mark.parametrize("moved", ["weights", "basis", "both"])
def test_the_projection_is_differentiated(moved):
    """First and second derivatives of a function of the fitted coefficients, against NumPy's pseudo-inverse."""
    rng = RNG(0)
    basis, values, probe = rng.normal(size=(20, 4)), rng.normal(size=20), np.cos(np.arange(20.0))
    basis[:, -1] = basis[:, 0]
    weight, weight_moves, basis_moves = rng.uniform(0.5, 1.5, 20), rng.normal(size=20), rng.normal(size=(20, 4))
    basis_moves[:, -1] = basis_moves[:, 0]

    def at(step):
        return (
            basis + step * basis_moves if moved != "weights" else basis,
            weight + step * weight_moves if moved != "basis" else weight,
        )

    def fitted(step):
        moved_basis, moved_weight = at(step)
        operator = least_squares(jnp.asarray(moved_basis), jnp.asarray(moved_weight))
        return probe @ (moved_basis @ (operator @ values))

    def exact(step):
        moved_basis, moved_weight = at(step)
        root = np.sqrt(moved_weight)
        return probe @ (moved_basis @ (np.linalg.pinv(moved_basis * root[:, None]) @ (root * values)))

    step = 1e-3
    slope = (8 * (exact(step) - exact(-step)) - exact(2 * step) + exact(-2 * step)) / (12 * step)
    curvature = (exact(step) - 2 * exact(0.0) + exact(-step)) / step**2
    np.testing.assert_allclose(jax.jit(jax.grad(fitted))(0.0), slope, rtol=1e-8)
    np.testing.assert_allclose(jax.jit(jax.hessian(fitted))(0.0), curvature, rtol=1e-4)


def test_directions_that_the_law_does_not_know_are_left_alone():
    """A weight that should be zero but is -1e-6 shows that nothing of variance 1e-7 is known."""
    basis, weight = jnp.eye(3), jnp.array([1.0, 1e-7, 0.0])
    np.testing.assert_allclose(least_squares(basis, weight), np.diag([1, 1, 0]), rtol=1e-12)
    np.testing.assert_allclose(least_squares(basis, weight.at[2].set(-1e-6)), np.diag([1, 0, 0]), rtol=1e-12)


@pytest.mark.parametrize("order", [32, 128, 512])
def test_the_window_is_one_inside_and_zero_at_the_ends(order):
    v = jnp.linspace(0, 1, 1001)
    value = np.asarray(fourier.window(v, order))
    inside = (v >= fourier.MARGIN) & (v <= 1 - fourier.MARGIN)
    # The steepness squared is pi MARGIN order / 2, at most 32: an error function leaves exp(-that) at its ends.
    left_over = np.exp(-np.clip(np.pi * fourier.MARGIN * order / 2, 3, 32))
    assert np.all(np.abs(value[inside] - 1) <= left_over) and value[0] <= left_over and value[-1] <= left_over
    low, length = fourier.widen(jnp.array(-1.0), jnp.array(3.0))
    np.testing.assert_allclose(
        [low + fourier.MARGIN * length, low + (1 - fourier.MARGIN) * length], [-1, 3], rtol=1e-12
    )


def test_panels_are_split_at_the_kinks():
    """Piecewise polynomials are integrated exactly; a kink outside the interval does no harm."""
    low, high, kinks = -1.3, 2.1, (-5.0, 0.4, 1.0)
    nodes, weights = quadrature.split_panels(jnp.array(low), jnp.array(high), jnp.array(kinks), 2)
    for function, exact in [
        (lambda y: np.abs(y - 0.4) ** 3, ((0.4 - low) ** 4 + (high - 0.4) ** 4) / 4),
        (lambda y: np.maximum(y - 1.0, 0) ** 2, (high - 1.0) ** 3 / 3),
        (np.ones_like, high - low),
    ]:
        np.testing.assert_allclose(weights @ function(np.asarray(nodes)), exact, rtol=1e-13)


# ------------------------------------------------------------------------------------------- laws as quadrature rules


@pytest.mark.parametrize("activation", ["relu", None])
@pytest.mark.parametrize(
    ("t", "frequencies", "tolerance"), [(1, 96, 1e-10), pytest.param(2, 64, 1e-7, marks=pytest.mark.optimised)]
)
def test_the_weights_of_statistics_give_expectations(activation, t, frequencies, tolerance):
    """`grid_weights` on the box of `y = C f(x)`, against enumeration; the series of a smooth function of y."""
    source, layer, *_ = cases.problem(3, activation=activation)
    readout = RNG(1).normal(size=(t, cases.N2)) / np.sqrt(cases.N2)
    resolution = av.Resolution(frequencies)

    @jax.jit
    def rule(source):
        reading = Reading.of(source, layer, resolution)
        one = Statistic.of(reading, jnp.asarray(readout))
        nodes = StatisticLaw.of(one, reading.axis.law_grid(resolution, t), resolution).nodes
        _, remainder = least_squares_series(one, nodes, jnp.tanh(nodes.points.sum(axis=1)), order=10)
        return nodes, remainder

    nodes, remainder = rule(source)
    functions = [lambda y: np.ones(len(y)), lambda y: y[:, 0], lambda y: np.tanh(y.sum(-1)), lambda y: y[:, -1] ** 2]
    oracle_layer = cases.oracle_layer(layer, activation)
    for function in functions:
        exact = reference.expectation(
            cases.oracle_model(source), oracle_layer, lambda x, g=function: g(oracle_layer(x) @ readout.T)
        )
        found = nodes.weights @ function(np.asarray(nodes.points))
        np.testing.assert_allclose(found, exact, rtol=tolerance, atol=tolerance)
    assert 0 <= remainder < 1e-3


@pytest.mark.parametrize(("t", "frequencies"), [(1, 48), (2, 24)])
def test_the_series_of_a_law_has_the_expectation_of_its_values(t, frequencies):
    """`Re sum_p gamma_p phi(w_p) = weights . values`, with phi by enumeration; the values are any, step or noise."""
    source, layer, *_ = cases.problem(3)
    readout = RNG(1).normal(size=(t, cases.N2)) / np.sqrt(cases.N2)
    resolution = av.Resolution(frequencies)

    @jax.jit
    def law(source):
        reading = Reading.of(source, layer, resolution)
        return StatisticLaw.of(
            Statistic.of(reading, jnp.asarray(readout)), reading.axis.law_grid(resolution, t), resolution
        )

    found = law(source)
    one, nodes = found.statistic, found.nodes
    values = jnp.stack([jnp.sign(nodes.points[:, 0]), RNG(2).normal(size=len(nodes.weights))])
    series = jax.jit(jax.vmap(lambda v: law_series(found, v)))(values)
    frequency, coefficients = np.asarray(series.frequency[0]), np.asarray(series.coefficients)
    oracle_layer = cases.oracle_layer(layer)

    def function(x):
        y = oracle_layer(x) @ readout.T - np.asarray(one.centre)
        standardised = np.linalg.solve(np.asarray(one.basis), y.T).T
        return np.real(np.exp(1j * standardised @ frequency.T) @ coefficients.T)

    exact = reference.expectation(cases.oracle_model(source), oracle_layer, function, reference.Rule(8, 12))
    np.testing.assert_allclose(values @ nodes.weights, exact, rtol=0, atol=1e-6)


def ridge_expectation(prior, decoder, noise: float, mean: float, frequencies: int, kink: float = 0.0) -> float:
    """`E relu(x - kink)` for a law of one neuron, by the ridge axis alone."""
    source = av.FeatureModel(prior, decoder, noise, [mean])
    layer = av.RidgeLayer([[1.0]], [1.0], [1.0], -kink, "relu")

    @jax.jit
    def expectation(source):
        axis = RidgeAxis.of(source, layer.read_form(), av.Resolution(frequencies))
        return axis.weights @ axis.values

    return float(expectation(source))


NOTHING = av.Prior([[0.0, 0.0]], [[0.0, 0.0]])


# /work/shared/cases/README.md, "Activation identities"; all the digits that it gives.
@pytest.mark.parametrize(
    ("mean", "variance", "expected", "last_digit"), [(1.0, 2.0, 1.199641228, 1e-9), (-3.0, 1.0, 3.82154317e-4, 1e-12)]
)
def test_relu_of_a_gaussian(mean, variance, expected, last_digit):
    assert abs(ridge_expectation(NOTHING, [[1.0]], np.sqrt(variance), mean, 32) - expected) < last_digit


# The same page, "Weighted sum of sparse features": S = sum_j j z_j, j = 1 .. 64, z_j ~ Bernoulli(1/20).
@pytest.mark.parametrize(("kink", "expected"), [(104.0, 26.028838179485620987), (300.0, 0.20149510110269576326)])
def test_relu_of_a_sum_of_sparse_features(kink, expected):
    """No noise to speak of, on a lattice: nothing decays but the coefficients, and the window keeps those decaying."""
    prior = av.Prior.bernoulli(np.full(64, 0.05))
    found = ridge_expectation(prior, np.arange(1.0, 65.0)[None], 1e-9, 0.0, 64, kink)
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("frequencies", [24, 32])
def test_pairs_of_sharp_encoders_are_wrong_by_no_more_than_their_remainders(frequencies):
    """`|Cov(s_1, s_2) - exact| <= |rest_1| |rest_2|`: an optimiser found such encoders by the error of short series."""
    angle = np.pi / 6
    source = av.FeatureModel(av.Prior.bernoulli([0.3, 0.3]), [[1, np.cos(angle)], [0, np.sin(angle)]], 0.2)
    layer = av.RidgeLayer(np.eye(2), [0.5, -1.0], [1.0, 1.0], -0.2)
    readout, base = [[[10.0, -11.0]], [[44.9, 3.24]]], [[0.0, -38.7], [0.0, -51.0]]
    encoder = av.SoftmaxEncoder(np.array(readout), np.array([[[0.0, 1.0]]] * 2), np.array(base))
    found = eqx.filter_jit(av.expectations)(source, layer, source.prior.atoms, encoder, av.Resolution(frequencies))
    model, ridge, target, readout, log_q = cases.oracle_parts(source, layer, source, encoder)
    exact = reference.second_moments(model, ridge, target, readout, log_q, reference.Rule(24, 16))
    covariance = exact["ss"][0, 1] - exact["s"][0] * exact["s"][1]
    assert abs(found.latent_covariance[0, 1] - covariance) < found.remainder[0] * found.remainder[1]

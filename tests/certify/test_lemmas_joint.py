"""B52 to B60, B64, B65: characteristic functions of statistics, expectations of functions of them, and pairs."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import lemma_laws
import numpy as np
import pytest
import reference

from analytic_vae.certify.box_series import box_coefficients, expectations, frequencies
from analytic_vae.certify.domain import Domain, periodic
from analytic_vae.certify.encoder_functions import Bounds
from analytic_vae.certify.joint_law import Joint, _conditional, _given_last, _given_other, waves
from analytic_vae.certify.pairs import Parts, by_parts, by_series
from analytic_vae.certify.ridge_function import RidgeFunction
from analytic_vae.model.activation import ACTIVATIONS
from analytic_vae.spectral.fourier import Series

NUMPY = {"relu": lambda b: np.maximum(b, 0), "tanh": np.tanh}
RULE = reference.Rule(16, 12)


def joint_of(name, D=1, noise=0.4, spread=1.0, order=24, ridge_order=32) -> Joint:
    """Statistics `y'' = a'' + kappa(b)`, `F = a_F + 1.2 psi(b)`, of two features, b with this standard deviation."""
    rng = np.random.default_rng(D)
    scale = np.array([1.0] * (D + 1) + [spread])
    factor = noise * scale[:, None] * (np.eye(D + 2) + np.tril(rng.normal(size=(D + 2, D + 2)) / 3, -1))
    atoms = scale[:, None, None] * rng.normal(size=(D + 2, 2, 2)) * np.array([0.7, 0.4])[None, :, None]
    law = lemma_laws.projection(
        [[0.7, 0.3], [0.4, 0.6]], atoms, factor @ factor.T, 0.3 * scale * rng.normal(size=D + 2)
    )
    centre, activation = jnp.asarray(0.1), ACTIVATIONS[name]
    ridge = Domain.of(law.alone(D + 1), _conditional(law.covariance, D), ridge_order)
    bend = RidgeFunction(jnp.asarray([0.2, -0.3][:D]) / spread, jnp.asarray([0.6, -0.5][:D]), centre, activation)
    weight = RidgeFunction(jnp.zeros(1), jnp.asarray([1.2]), centre, activation)
    given = _given_last(law.covariance, D)
    cells = bend.cells(law.alone(D + 1), ridge)
    axes = tuple(Domain.of(law.alone(d), jnp.sqrt(_given_other(given, d)), order, cells[d]) for d in range(D))
    return Joint(law, jnp.zeros(D + 2), bend, weight, ridge, axes, given)


def given_b(joint: Joint, D: int):
    """Of every state and node of b: masses, b, and mean and covariance `(a'', a_F)`."""
    values, masses, S = lemma_laws.states(joint.law)
    rest = S[:-1, :-1] - np.outer(S[:-1, -1], S[:-1, -1]) / S[-1, -1]
    deviation = np.sqrt(S[-1, -1])
    for value, mass in zip(values, masses, strict=True):
        node, weight = reference.normal_axis(RULE, [-value[-1] / deviation])
        b = value[-1] + deviation * node
        yield mass * weight, b, value[:-1][None] + node[:, None] * (S[:-1, -1] / deviation)[None], rest


def exact_waves(joint: Joint, name: str, frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`phi(w)` and `phi_F(w)` by quadrature of b, the other Gaussians in closed form."""
    D = frequency.shape[1]
    plain, weighted = (np.zeros(frequency.shape[0], complex) for _ in range(2))
    low, psi = np.asarray(joint.low), NUMPY[name]
    for weight, b, mean, S in given_b(joint, D):
        kappa = np.asarray(joint.bend(jnp.asarray(b)))
        phase = frequency @ (mean[:, :D].T + kappa - low[:, None])
        damp = np.exp(-np.einsum("wd,de,we->w", frequency, S[:D, :D], frequency) / 2)
        wave = np.exp(1j * phase) * damp[:, None]
        F = mean[:, D][None] + 1j * (frequency @ S[:D, D])[:, None] + 1.2 * psi(b)[None]
        plain, weighted = plain + wave @ weight, weighted + (wave * F) @ weight
    return plain, weighted


@pytest.mark.parametrize(
    ("name", "spread", "noise"), [("relu", 1, 0.4), ("relu", 1, 0.05), ("tanh", 1, 0.4), ("tanh", 40, 0.5)]
)
def test_characteristic_functions(name, spread, noise):
    """B52 to B54: also of a b so wide that `tanh` is a step to the axis' nodes."""
    joint = joint_of(name, noise=noise, spread=spread)
    frequency = np.concatenate([[[0.0]], np.random.default_rng(0).normal(size=(12, 1)) * 3])
    found = waves(joint, jnp.asarray(frequency), weighted=True)
    plain, weighted = exact_waves(joint, name, frequency)
    error, more = np.abs(np.asarray(found.plain) - plain), np.abs(np.asarray(found.weighted) - weighted)
    assert np.all(error <= np.asarray(found.plain_error) + 4 * np.asarray(found.plain_jitter) + 1e-13)
    assert np.all(more <= np.asarray(found.weighted_error) + 4 * np.asarray(found.weighted_jitter) + 1e-13)
    if spread == 1 and noise == 0.4:
        assert np.asarray(found.weighted_error).max() < 1e-3


def test_covariance_given_the_last():
    """B55: below, as a matrix, and below again given the other; in exact arithmetic, with entries rounded."""
    rng = np.random.default_rng(1)
    for apart in (1.0, 1e-3, 1e-6, 1e-8):
        for _ in range(30):
            rows = rng.normal(size=(3, 4))
            rows[:2] = rows[2] * rng.normal(size=(2, 1)) + apart * rows[:2]
            S = jnp.asarray(rows @ rows.T)
            noise = np.asarray(_given_last(S, 2))
            exact = [[Fraction(x) for x in row] for row in rows]
            dot = lambda u, v: sum(x * y for x, y in zip(u, v, strict=True))  # noqa: E731
            gram = [[dot(u, v) for v in exact] for u in exact]
            given = [[gram[i][j] - gram[i][2] * gram[j][2] / gram[2][2] for j in range(2)] for i in range(2)]
            difference = np.array([[float(given[i][j] - Fraction(noise[i, j])) for j in range(2)] for i in range(2)])
            assert np.linalg.eigvalsh(difference).min() >= -1e-17
            left = given[0][0] - given[0][1] ** 2 / given[1][1]
            assert float(_given_other(jnp.asarray(noise), 0)) <= float(left) * (1 + 1e-14)


def exact_conditional(rows: np.ndarray) -> float:
    """Variance of the last of Gaussians with these factors given all others, without rounding."""
    exact = [[Fraction(float(x)) for x in row] for row in rows]
    gram = [[sum(x * y for x, y in zip(u, v, strict=True)) for v in exact] for u in exact]
    while len(gram) > 1:
        pivot = gram[0][0]
        gram = [
            [gram[i][j] - gram[i][0] * gram[0][j] / pivot for j in range(1, len(gram))] for i in range(1, len(gram))
        ]
    return float(gram[0][0])


@pytest.mark.parametrize("D", [1, 2, 4])
def test_elimination(D):
    """B56: never above the exact conditional variance, for rows that are nearly dependent one after the other."""
    rng, close = np.random.default_rng(D), 0
    for trial in range(300):
        rows = rng.normal(size=(D + 1, D + 1))
        for i in range(1, D + 1):
            apart = 10 ** rng.uniform(-8.5, 0) if trial % 3 else 1.0
            rows[i] = rng.normal(size=i) @ rows[:i] + apart * rows[i]
        found = float(_conditional(jnp.asarray(rows @ rows.T), D)) ** 2
        exact = exact_conditional(rows)
        assert found <= exact * (1 + 1e-12)
        close += found > 0.5 * exact
    assert close > 50


def logistic(slope, axes, D) -> tuple:
    """`1 / (1 + exp(-slope y))` of the sum of the statistics, as `box_coefficients` wants it; and of y less a half."""
    strips = jnp.stack(
        jnp.meshgrid(*[axis.strips[:: 1 if D == 1 else 4] for axis in axes], indexing="ij"), axis=-1
    ).reshape(-1, D)
    width = slope * jnp.sum(strips, axis=1)
    inside = width < 0.95 * jnp.pi
    size = jnp.where(inside, 1 / jnp.sin(jnp.clip(width, jnp.pi / 2, 3.1)), jnp.inf)
    log_sup = jnp.stack([jnp.log(size), jnp.log(size + 0.5)])
    bounds = Bounds(strips, log_sup, jnp.array([1.0, 0.5]), jnp.full((2, D), slope / 4), jnp.zeros(2))

    def values(points):
        one = 1 / (1 + jnp.exp(-slope * points.sum(axis=1)))
        return jnp.stack([one, one - 0.5])

    return values, bounds


@pytest.mark.parametrize(("D", "order"), [(1, 8), (2, 4)])
def test_coefficients_of_functions(D, order):
    """B57, B58: aliases, what is dropped and what is beyond, by a finer transform."""
    joint = joint_of("tanh", D, order=order, ridge_order=8)
    values, bounds = logistic(3.0, joint.axes, D)
    given = box_coefficients(joint.axes, values, bounds)
    fine = {1: 2048, 2: 256}[D]
    v = np.arange(-fine // 2, 3 * fine // 2) / fine
    places = np.stack(np.meshgrid(*[float(a.low) + float(a.length) * v for a in joint.axes], indexing="ij"), axis=-1)
    window = np.asarray(joint.axes[0].window(jnp.asarray(v)))
    for axis in joint.axes[1:]:
        window = window[:, None] * np.asarray(axis.window(jnp.asarray(v)))[None]
    P = np.asarray(values(jnp.asarray(places.reshape(-1, D))))[0].reshape(*[v.size] * D) * window
    for d in range(D):
        P = np.asarray(periodic(jnp.asarray(P), fine, d))
    exact = np.fft.fftn(P) / fine**D
    index = np.asarray(given.index).astype(int)
    error = np.abs(np.asarray(given.kept[0]) - exact[tuple(index.T)]).max()
    assert error <= float(given.aliasing[0]) + 1e-14 and float(given.aliasing[0]) < 1e7 * error
    dropped = np.asarray(given.dropped_index).astype(int)
    twice = np.where(dropped[:, -1] > 0, 2, 1)
    assert np.all(np.abs(exact[tuple(dropped.T)]) * twice <= np.asarray(given.dropped[0]) + 1e-14)
    k = np.fft.fftfreq(fine, 1 / fine).astype(int)
    for d in range(D):
        far = np.moveaxis(np.abs(exact), d, 0)[np.abs(k) >= given.first].sum()
        assert far <= float(given.beyond[0, d]) + 1e-10


def exact_expectations(joint: Joint, name: str, D: int, slope: float) -> tuple[float, float]:
    """`E g` and `E F (g - 1/2)` by quadrature of b and of what is left of `a''`."""
    plain = weighted = 0.0
    for weight, b, mean, S in given_b(joint, D):
        kappa = np.asarray(joint.bend(jnp.asarray(b))).sum(axis=0)
        variance = S[:D, :D].sum()
        node, inner = reference.normal_axis(RULE)
        u = (mean[:, :D].sum(axis=1) + kappa)[:, None] + np.sqrt(variance) * node[None]
        g = 1 / (1 + np.exp(-slope * u))
        F = (mean[:, D] + 1.2 * NUMPY[name](b))[:, None] + S[:D, D].sum() / np.sqrt(variance) * node[None]
        plain, weighted = plain + weight @ (g @ inner), weighted + weight @ ((F * (g - 0.5)) @ inner)
    return plain, weighted


@pytest.mark.parametrize(("name", "D", "noise"), [("relu", 1, 0.4), ("tanh", 1, 0.05), ("tanh", 2, 0.4)])
def test_expectations_of_functions(name, D, noise):
    """B59, B60."""
    joint = joint_of(name, D, noise, order=32 if D == 1 else 8, ridge_order=48 if D == 1 else 16)

    @jax.jit
    def both(joint):
        given = box_coefficients(joint.axes, *logistic(2.0, joint.axes, D))
        return expectations(joint, waves(joint, frequencies(joint.axes, given.index), True), given, 1)

    plain, weighted = both(joint)
    exact = exact_expectations(joint, name, D, 2.0)
    assert abs(float(plain.value[0]) - exact[0]) <= float(plain.error_bound[0]) + 1e-13
    assert abs(float(weighted.value) - exact[1]) <= float(weighted.error_bound) + 1e-13
    if noise == 0.4 and D == 1:
        assert float(plain.error_bound[0]) < 1e-4 and float(weighted.error_bound) < 1e-2


def test_pairs():
    """B64, B65: with short series that leave much out, the exact one is within both; and by parts is tighter."""
    joint = joint_of("tanh", 2, 0.4, order=24, ridge_order=24)
    given = [box_coefficients(joint.axes[d : d + 1], *logistic(2.0, joint.axes[d : d + 1], 1)) for d in range(2)]
    mean = lambda y: np.tanh(y) / 2  # noqa: E731  (the function of index 1)
    points, weights = [], []
    node, inner = reference.normal_axis(reference.Rule(8, 10))
    for weight, b, centre, S in given_b(joint, 2):
        factor = np.linalg.cholesky(S[:2, :2])
        kappa = np.asarray(joint.bend(jnp.asarray(b)))
        u, v = np.meshgrid(node, node, indexing="ij")
        noise = np.einsum("de,epq->dpq", factor, np.stack([u, v]))
        at = (centre[:, :2].T + kappa)[:, :, None, None] + noise[:, None]
        points.append(at.reshape(2, -1))
        weights.append((weight[:, None, None] * np.outer(inner, inner)[None]).ravel())
    y, mass = np.concatenate(points, axis=1), np.concatenate(weights)
    exact = mass @ (mean(y[0]) * mean(y[1]))
    parts, norms = [], []
    for d, axis in enumerate(joint.axes):
        w = 0.9 * np.pi / float(axis.length) * np.arange(4)[:, None]
        basis = np.concatenate([np.cos(w * y[d]), np.sin(w[1:] * y[d])])
        root = np.sqrt(mass)
        fit = np.linalg.lstsq((basis * root).T, mean(y[d]) * root, rcond=1e-6)[0]
        series = Series(jnp.asarray(w), jnp.asarray(fit[:4] - 1j * np.concatenate([[0], fit[4:]])))
        rest = np.sqrt(mass @ (mean(y[d]) - fit @ basis) ** 2)
        assert rest > 1e-3
        parts.append(Parts(series, given[d], jnp.asarray(rest)))
        norms.append([np.sqrt(mass @ mean(y[d]) ** 2), rest])
    first = jax.jit(lambda a, b: by_parts(joint, a, b, 1))(*parts)
    second = jax.jit(lambda a, b: by_series(joint, a, b, jnp.asarray(norms)))(parts[0].series, parts[1].series)
    for found in (first, second):
        assert abs(float(found.value) - exact) <= float(found.error_bound) + 1e-12
    assert float(first.error_bound) < float(second.error_bound) < 0.5

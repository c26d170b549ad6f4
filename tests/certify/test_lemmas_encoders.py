"""B61, B62: what encoders' masses, and functions of them, are off the real axis."""

import cases
import jax
import jax.numpy as jnp
import lemma_laws
import numpy as np
import pytest

import analytic_vae as av
from analytic_vae.certify.domain import Domain
from analytic_vae.certify.encoder_functions import CodeTables, encoder_functions, latent_mean
from analytic_vae.spectral.fourier import Series


def test_masses_of_complex_logits():
    """B61, B62: sizes and arguments of the masses, for random logits within a spread; and the secant is attained."""
    rng = np.random.default_rng(0)
    for theta in (0.3, 2.0, 3.0):
        real, turn = 3 * rng.normal(size=(4000, 5)), rng.uniform(-theta / 2, theta / 2, (4000, 5))
        real[0], turn[0] = [0, 0, -99, -99, -99], [-theta / 2, theta / 2, 0, 0, 0]
        weight = np.exp(real + 1j * turn)
        q, p = weight / weight.sum(axis=1, keepdims=True), np.abs(weight) / np.abs(weight).sum(axis=1, keepdims=True)
        sec = 1 / np.cos(theta / 2)
        ratio = np.abs(q) / p
        assert ratio.min() >= 1 - 1e-12 and 0.99 * sec < ratio.max() <= sec * (1 + 1e-12)
        assert np.abs(np.angle(q)).max() <= theta + 1e-12
        prior = np.log(rng.dirichlet(np.ones(5)))
        divergence = np.abs((q * (np.log(np.abs(q)) + 1j * np.angle(q) - prior)).sum(axis=1)).max()
        assert divergence <= sec * (np.log(5) + np.log(sec) + theta + np.abs(prior).max())


def logits(encoder, name: str, y: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """At complex statistics `[P, t]`."""
    if name.startswith("softmax"):
        return np.asarray(encoder.base) + y @ np.asarray(encoder.statistics)
    scale = np.exp(np.asarray(encoder.log_scale) + (y[:, 1] if y.shape[1] == 2 else 0 * y[:, 0]))[:, None]
    mean = (y[:, 0] + np.asarray(encoder.offset))[:, None]
    return (atoms * mean - atoms**2 / 2) / scale**2  # up to what all atoms share


@pytest.mark.parametrize("name", ["softmax", "gaussian", "softmax2", "gaussian2"])
def test_functions_off_the_axis(name):
    """B62: sizes in every strip, at real y, slopes; and values are those of the formulas."""
    rng = np.random.default_rng(1)
    _, _, target, made = cases.problem(2, name)
    encoder = jax.tree.map(lambda leaf: leaf[0], made)
    atoms, t = target.prior.atoms[0], made.statistics_read
    siblings = jnp.asarray(rng.normal(size=(2, atoms.size)))
    log_masses = jnp.log(jnp.asarray(rng.dirichlet(np.ones(atoms.size))))
    axes = tuple(Domain.of(lemma_laws.single([0.3], [1.0], 0.2), jnp.asarray(0.2), 64) for _ in range(t))
    basis = jnp.asarray([[0.8, 0.0], [0.06, 0.1]])[:t, :t]
    statistic = lemma_laws.statistic(basis, [0.2, -0.1][:t])
    series = Series(jnp.asarray(rng.normal(size=(3, t))), jnp.asarray(rng.normal(size=3) + 1j * rng.normal(size=3)))
    tables = CodeTables(atoms, siblings[0], siblings, log_masses)
    values, bounds = encoder_functions(encoder, tables, statistic, axes, series)

    def of(z):
        logit = logits(encoder, name, np.asarray(statistic.centre) + z @ np.asarray(basis).T, np.asarray(atoms))
        # Turned towards the real axis, all of them alike: so the logarithm of their sum is the analytic one.
        logit = logit - logit.real.max(axis=1, keepdims=True) - 1j * logit.imag.mean(axis=1, keepdims=True)
        log_q = logit - np.log(np.exp(logit).sum(axis=1, keepdims=True))
        q = np.exp(log_q)
        codes = np.asarray(siblings)
        codes = codes - (codes.max(axis=1, keepdims=True) + codes.min(axis=1, keepdims=True)) / 2
        means = q @ codes.T
        rate = (q * (log_q - np.asarray(log_masses))).sum(axis=1)
        covariance = np.einsum("pk,k,rk->rp", q, codes[0], codes) - means[:, 0] * means.T
        w, gamma = np.asarray(series.frequency), np.asarray(series.coefficients)
        left = np.exp(1j * z @ w.T) @ gamma / 2 + np.exp(-1j * z @ w.T) @ gamma.conj() / 2
        return np.stack([rate, means[:, 0], *covariance, *(means[:, 0] * means.T), (means[:, 0] - left) ** 2])

    ends = np.array([[float(end) for end in axis.extended] for axis in axes])
    real = rng.uniform(ends[:, 0], ends[:, 1], (500, t))
    np.testing.assert_allclose(values(jnp.asarray(real)), of(real + 0j).real, atol=1e-10)
    sizes = np.abs(of(real + 0j)).max(axis=1)
    assert np.all(sizes <= np.asarray(bounds.sup) * (1 + 1e-12))
    tight = []
    finite = np.flatnonzero(np.isfinite(np.asarray(bounds.log_sup)).all(axis=0))
    for s in finite[:: 1 + finite.size // 12]:
        strip, log_sup = np.asarray(bounds.strips)[s], np.asarray(bounds.log_sup)[:, s]
        v = rng.uniform(-1, 1, (500, t))
        v[:300] = np.sign(v[:300])
        size = np.log(np.abs(of(real + 1j * strip * v)).max(axis=1))
        assert np.all(size <= log_sup + 1e-9)
        tight.append(log_sup - size)
    assert np.median(np.array(tight)[:, 1]) < 3
    step = 1e-5
    for d in range(t):
        apart = step * np.eye(t)[d]
        slope = np.abs(of(real + apart + 0j) - of(real - apart + 0j)).max(axis=1) / (2 * step)
        assert np.all(slope <= np.asarray(bounds.slope)[:, d] * (1 + 1e-6))


def test_a_latent_mean():
    """B61: of one statistic; at real y half of the range, in a strip the secant more."""
    _, _, target, made = cases.problem(2, "softmax")
    encoder, atoms = jax.tree.map(lambda leaf: leaf[0], made), target.prior.atoms[0]
    code = jnp.asarray([0.5, -1.0, 2.0])
    mean = latent_mean(encoder, atoms, code)
    y = np.linspace(-5, 5, 401)
    spread = float(jnp.ptp(encoder.statistics[0]))
    for width in np.array([0.0, 0.3, 0.9]) * np.pi / spread:
        z = (y[:, None] + 1j * np.array([0, width, -width])[None]).reshape(-1, 1)
        weight = np.exp(logits(encoder, "softmax", z, np.asarray(atoms)))
        size = np.abs((weight / weight.sum(axis=1, keepdims=True)) @ (np.asarray(code) - 0.5)).max()
        assert size <= float(mean.sup(jnp.asarray(-5.0), jnp.asarray(5.0), jnp.asarray(width))) < 20 * size
    # Of two atoms, whose mean is half of the range times i tan at an imaginary statistic: the secant is needed.
    two = av.SoftmaxEncoder(np.ones((1, 1, 1)), [[[-1.0, 1.0]]], np.zeros((1, 2)))
    two = latent_mean(jax.tree.map(lambda leaf: leaf[0], two), jnp.arange(2.0), jnp.asarray([-1.0, 1.0]))
    for width in (0.5, 1.0, 1.4):
        assert np.tan(width) <= float(two.sup(jnp.asarray(-1.0), jnp.asarray(1.0), jnp.asarray(width)))
    log_q = np.asarray(jax.vmap(lambda x: encoder.log_masses(x[None], atoms))(jnp.asarray(y)))
    np.testing.assert_allclose(mean.function(jnp.asarray(y)), np.exp(log_q) @ (np.asarray(code) - 0.5), atol=1e-13)

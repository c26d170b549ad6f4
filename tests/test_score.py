"""The loss of real rows: row by row against a sum over all latents, on average against the exact loss."""

from itertools import product

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import analytic_vae as av

ROWS = 7
RESOLUTION = av.Resolution(16)
pytestmark = pytest.mark.coarse


def slow(model, encoder, row, read):
    """`E[log Q - log P(z) - log P(row | z)]` of one row: all states listed, densities by SciPy."""
    atoms = np.asarray(model.prior.atoms)
    y = np.einsum("mtn,n->mt", encoder.readout, read)
    log_q = np.asarray(cases.oracle_encoder(encoder, atoms)(y[None]))[0]
    vectors, log_p = np.asarray(model.atom_vectors), np.asarray(model.prior.log_masses)
    total, features = 0.0, np.arange(model.features)
    for states in product(range(atoms.shape[1]), repeat=model.features):
        own = log_q[features, states].sum()
        mean = np.asarray(model.mean) + vectors[:, features, states].sum(axis=1)
        density = multivariate_normal(mean, np.asarray(model.covariance)).logpdf(row)
        total += np.exp(own) * (own - log_p[features, states].sum() - density)
    return total


@pytest.mark.parametrize(("encoder", "noise", "vectors"), [
    ("softmax", "scalar", False), ("gaussian", "diagonal", True), ("exponential", "full", False),
    ("neural", "full", True), ("gaussian2", "scalar", True),
])  # fmt: skip
def test_every_row_is_the_sum_over_all_latents(encoder, noise, vectors):
    """Batches that do not divide the rows, and a posterior that is the encoder's."""
    _, _, target, read_by = cases.problem(1, encoder, None, target_noise=noise)
    rng = np.random.default_rng(2)
    if vectors:
        shape = (target.neurons, *target.prior.atoms.shape)
        target = av.FeatureModel(target.prior, rng.normal(size=shape), target.noise, target.mean)
    data, inputs = rng.normal(size=(2, ROWS, target.neurons))
    found = av.score(target, read_by, data, batch=3)
    by_hand = [slow(target, read_by, row, row) for row in data]
    np.testing.assert_allclose(found.losses, by_hand, rtol=1e-10)
    np.testing.assert_allclose(found.loss, np.mean(by_hand))
    np.testing.assert_allclose(found.standard_error, np.std(by_hand, ddof=1) / np.sqrt(ROWS))
    np.testing.assert_allclose(found.rate + found.R2 + found.distortion, found.loss)
    apart = av.score(target, read_by, data[:2], inputs[:2])
    np.testing.assert_allclose(
        apart.losses, [slow(target, read_by, *pair) for pair in zip(data, inputs[:2], strict=False)], rtol=1e-10
    )
    masses = jax.vmap(read_by.posterior, (0, None))(data, target.prior.atoms)
    y = np.einsum("mtn,pn->pmt", read_by.readout, data)
    log_q = cases.oracle_encoder(read_by, np.asarray(target.prior.atoms))(y)
    np.testing.assert_allclose(masses, np.exp(log_q), rtol=1e-10)


@pytest.mark.parametrize("activation", ["tanh", None], ids=["ridge", "linear"])
def test_on_average_it_is_the_exact_loss(activation):
    """Over 1e5 samples of the layer's output within four standard errors."""
    source, layer, target, encoder = cases.problem(0, activation=activation)
    data = jax.jit(jax.vmap(layer))(source.sample(jax.random.key(3), 100_000))
    found, exact = av.score(target, encoder, data), av.elbo(source, layer, target, encoder, RESOLUTION)
    for name, per_row in (("loss", found.losses), ("rate", found.rates), ("distortion", found.distortions)):
        error = float(per_row.std()) / 100_000**0.5
        assert abs(float(getattr(found, name) - getattr(exact, name))) < 4 * error < 0.2, name


def test_a_source_of_a_few_points_has_the_exact_loss():
    source, layer, target, encoder = cases.problem(0, activation=None)
    points = av.FeatureModel(source.prior, source.decoder, 0.0, source.mean)
    vectors, masses = np.asarray(points.atom_vectors), np.asarray(points.prior.masses)
    m, K = masses.shape
    states = np.array(list(product(range(K), repeat=m)))
    rows = [layer(points.mean + vectors[:, np.arange(m), state].sum(axis=1)) for state in states]
    weights = np.prod(masses[np.arange(m), states], axis=1)
    found = av.score(target, encoder, np.stack(rows))
    exact = av.elbo(points, layer, target, encoder, RESOLUTION)
    assert abs(weights @ found.losses - exact.loss) < 1e-6


def test_jit_grad_and_single_precision():
    _, _, target, encoder = cases.problem(0, activation=None)
    data = jax.random.normal(jax.random.key(0), (ROWS, target.neurons))
    loss = lambda scale: av.score(target.shift(scale * jnp.ones(target.neurons)), encoder, data, batch=2).loss  # noqa: E731
    value, slope = jax.jit(jax.value_and_grad(loss))(0.1)
    np.testing.assert_allclose(value, loss(0.1))
    np.testing.assert_allclose(slope, (loss(0.1 + 1e-5) - loss(0.1 - 1e-5)) / 2e-5, rtol=1e-6)
    single = av.score(cases.cast(target, jnp.float32), cases.cast(encoder, jnp.float32), data)
    assert single.losses.dtype == jnp.float32
    np.testing.assert_allclose(single.loss, loss(0.0), rtol=1e-5)
    assert np.isnan(av.score(target, encoder, data[:1]).standard_error)
    assert "standard error of 7 rows" in str(av.score(target, encoder, data))


def test_what_does_not_fit_is_named():
    _, _, target, encoder = cases.problem(0, activation=None)
    data = np.zeros((4, target.neurons))
    bare = av.FeatureModel(target.prior, target.decoder, 0.0)
    short = av.SoftmaxEncoder(encoder.readout[:, :, :2], encoder.statistics, encoder.base)
    few = av.SoftmaxEncoder(encoder.readout[:2], encoder.statistics[:2], encoder.base[:2])
    holes = np.where(np.arange(12).reshape(4, 3) == 5, np.nan, 0.0)
    for arguments, kind, said in (
        ((None, encoder, data), TypeError, "model"),
        ((bare, encoder, data), ValueError, "model: expected noise"),
        ((target, None, data), TypeError, "encoder"),
        ((target, av.CarriedEncoder(3), data), TypeError, "encoder: .* CarriedEncoder, which hands on the states"),
        ((target, few, data), ValueError, "model: expected 2 features"),
        ((target, encoder, data[:, :2]), ValueError, r"data: expected shape \[rows, 3\]"),
        ((target, encoder, data[:0]), ValueError, "data"),
        ((target, encoder, holes), ValueError, "data: expected finite numbers, got 1"),
        ((target, encoder, [["a"]]), ValueError, "data"),
        ((target, short, data), ValueError, "inputs: expected rows of the 2 neurons that encoder reads"),
        ((target, encoder, data, data[:2]), ValueError, "inputs: expected 4 rows"),
        ((target, encoder, data, data[:, :2]), ValueError, "inputs"),
    ):
        with pytest.raises(kind, match=said):
            av.score(*arguments)
    with pytest.raises(ValueError, match="batch"):
        av.score(target, encoder, data, batch=0)


def test_posteriors_say_what_they_need():
    _, _, target, encoder = cases.problem(0, activation=None)
    row = jnp.zeros(target.neurons)
    np.testing.assert_array_equal(encoder.posterior(row), encoder.posterior(row, target.prior.atoms))
    gaussian = cases.problem(0, "gaussian", None)[3]
    with pytest.raises(ValueError, match="atoms: expected those of the target, which a GaussianEncoder reads"):
        gaussian.posterior(row)
    with pytest.raises(ValueError, match="x: expected shape"):
        encoder.posterior(row[:2])
    with pytest.raises(TypeError, match="encoder: expected one that reads a vector, got a CarriedEncoder"):
        av.CarriedEncoder(3).posterior(row)

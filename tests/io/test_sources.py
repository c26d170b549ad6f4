"""Feature models from data and from files: their moments are those of the data, and bad data are refused."""

import logging
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analytic_vae.cli.digits import digits_data
from analytic_vae.io.source_files import load_source
from analytic_vae.model.feature_model import FeatureModel
from analytic_vae.model.from_data import _histogram, source_from_data
from analytic_vae.model.prior import Prior

NOISES = ("full", "diagonal", "scalar")


@pytest.fixture(scope="module")
def digits():
    return digits_data()[0]


def sparse_data(samples=4000, noise=0.05, seed=0):
    """Four sparse features in six neurons, with the directions they have."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(6, 4))
    values = rng.exponential(size=(samples, 4)) * (rng.random((samples, 4)) < 0.2)
    return 2.0 + values @ directions.T + noise * rng.normal(size=(samples, 6)), directions


def moments_of(source: FeatureModel):
    mean, covariance = source.moments()
    return np.asarray(mean), np.asarray(covariance)


def relative_error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


# --------------------------------------------------------------------------------------------------------- moments


def test_digits_data():
    images, labels = digits_data()
    assert images.shape == (1797, 64) and labels.shape == (1797,)
    assert images.min() == 0 and images.max() == 1 and set(labels) == set(range(10))


@pytest.mark.parametrize("features", (1, 32, 61))
def test_digits_full_covariance(digits, features):
    """Exact mean; the covariance differs by the floor in every raised direction, so by at most `sqrt(64) floor`.

    32 and 61: FastICA's own whitening loses a component here, the first pixel being constant.
    """
    floor = 1e-4
    mean, covariance = moments_of(source_from_data(digits, features, atoms=8, floor=floor))
    expected = np.cov(digits.T, ddof=0)
    np.testing.assert_allclose(mean, digits.mean(axis=0), atol=1e-14)
    assert np.linalg.norm(covariance - expected) <= 8 * floor * np.trace(expected) / 64 * (1 + 1e-9)
    assert relative_error(covariance, expected) < floor


@pytest.mark.parametrize("noise", NOISES)
def test_noise(digits, noise):
    source = source_from_data(digits, 10, noise=noise, floor=1e-6)
    mean, covariance = moments_of(source)
    expected = np.cov(digits.T, ddof=0)
    np.testing.assert_allclose(mean, digits.mean(axis=0), atol=1e-14)
    assert source.noise.shape == {"full": (64, 64), "diagonal": (64,), "scalar": ()}[noise]
    floor = 1e-6 * np.trace(expected) / 64
    np.testing.assert_allclose(np.trace(covariance), np.trace(expected), atol=64 * floor)
    if noise != "scalar":
        np.testing.assert_allclose(np.diagonal(covariance), np.diagonal(expected), atol=2 * floor)


def test_constant_neurons_get_the_floor():
    data, _ = sparse_data()
    data = np.concatenate([data, np.full((len(data), 1), 7.0)], axis=1)
    source = source_from_data(data, 4, noise="diagonal", floor=1e-3)
    np.testing.assert_allclose(source.noise[-1] ** 2, 1e-3 * data.var(axis=0).mean(), rtol=1e-12)
    np.testing.assert_allclose(source.mean[-1] + source.decoder[-1] @ source.prior.mean, 7.0, rtol=1e-12)


def test_finds_independent_features():
    """Each true direction is one of those found, up to sign and what 4000 samples allow."""
    data, directions = sparse_data()
    found = np.asarray(source_from_data(data, 4).decoder)
    cosines = (directions / np.linalg.norm(directions, axis=0)).T @ (found / np.linalg.norm(found, axis=0))
    assert np.all(abs(cosines).max(axis=1) > 0.99)
    assert sorted(abs(cosines).argmax(axis=1)) == [0, 1, 2, 3]


def test_repeatable_and_seeded():
    data, _ = sparse_data(500)
    first, again, other = (source_from_data(data, 3, seed=seed) for seed in (0, 0, 1))
    assert jnp.array_equal(first.decoder, again.decoder) and jnp.array_equal(first.prior.atoms, again.prior.atoms)
    assert other.decoder.shape == first.decoder.shape


def test_as_many_features_as_neurons():
    data, _ = sparse_data()
    _, covariance = moments_of(source_from_data(data, 6, floor=1e-9))
    assert relative_error(covariance, np.cov(data.T, ddof=0)) < 1e-8


def test_fewer_samples_than_neurons():
    data = np.random.default_rng(0).normal(size=(7, 20))
    source = source_from_data(data, 6, atoms=4)
    assert relative_error(moments_of(source)[1], np.cov(data.T, ddof=0)) < 1e-3


@pytest.mark.parametrize("dtype", (np.float16, np.float32, np.float64, np.int64, bool))
def test_dtypes(dtype):
    data = (10 * sparse_data(300)[0]).astype(dtype) if dtype is not bool else sparse_data(300)[0] > 2
    source = source_from_data(data, 3, atoms=4)
    expected = np.float32 if dtype in (np.float16, np.float32) else np.float64
    assert {leaf.dtype for leaf in (source.prior.atoms, source.decoder, source.noise, source.mean)} == {
        np.dtype(expected)
    }
    mean, covariance = moments_of(source)
    np.testing.assert_allclose(mean, data.mean(axis=0, dtype=np.float64), rtol=1e-4, atol=1e-4)
    assert relative_error(covariance, np.cov(data.astype(np.float64).T, ddof=0)) < 1e-3


def test_not_converged_is_logged_and_valid(digits, caplog):
    with caplog.at_level(logging.WARNING, "analytic_vae"):
        source = source_from_data(digits, 8, iterations=1)
    tolerances = [record.args[0] for record in caplog.records]
    np.testing.assert_allclose(tolerances, [1e-4, 1e-3, 1e-2, 1e-1])
    assert relative_error(moments_of(source)[1], np.cov(digits.T, ddof=0)) < 1e-4


# ------------------------------------------------------------------------------------------------------ histograms


@given(
    hnp.arrays(np.float64, st.integers(6, 60), elements=st.integers(-8, 8).map(lambda i: i / 4)),
    st.integers(2, 6),
)
def test_histogram(values, atoms):
    """Whatever ties there are: `K` atoms in order, no mass zero, and the mean and the variance of the values."""
    values = np.append(values, values.min() - 1)  # not all the same
    places, masses = _histogram(values, atoms)
    assert places.shape == masses.shape == (atoms,)
    assert np.all(masses > 0) and np.all(np.diff(places) >= 0)
    np.testing.assert_allclose(masses.sum(), 1, rtol=1e-13)
    np.testing.assert_allclose(masses @ places, values.mean(), atol=1e-13)
    np.testing.assert_allclose(masses @ (places - values.mean()) ** 2, values.var(), rtol=1e-12)


def test_histogram_of_few_values_is_exact():
    places, masses = _histogram(np.repeat([0.0, 1.0, 5.0], [70, 20, 10]), 3)
    np.testing.assert_allclose(places, [0, 1, 5], atol=1e-14)
    np.testing.assert_allclose(masses, [0.7, 0.2, 0.1], rtol=1e-14)


def test_histogram_reaches_the_tails():
    """Rare large values have atoms of their own, and little is left to scale."""
    values = np.random.default_rng(0).standard_t(3, size=5000)
    places, masses = _histogram(values, 16)
    assert places.max() > 0.5 * values.max() and places.min() < 0.5 * values.min()
    halfway = np.searchsorted(np.cumsum(masses), 0.5)
    assert abs(places[halfway]) < 1.0


# -------------------------------------------------------------------------------------------------------- bad data

DATA = np.random.default_rng(0).normal(size=(30, 4))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (DATA[0], {}, r"data: expected shape \[samples, neurons\], got \[4\]"),
        (DATA[None], {}, r"data: expected shape \[samples, neurons\], got \[1, 30, 4\]"),
        (DATA[:0], {}, r"data: expected shape"),
        (DATA[:1], {}, r"data: expected at least 2 samples"),
        (DATA * 1j, {}, r"data: expected real numbers"),
        (DATA.astype(str), {}, r"data: expected real numbers"),
        (np.where(DATA > 1, np.nan, DATA), {}, r"data: expected finite numbers, got \d+ NaN or infinite of 120"),
        (np.ones((30, 4)), {}, r"features: expected at most 0"),
        (DATA[:, [0, 1, 1, 1]], {"features": 3}, r"features: expected at most 2, .*, got 3"),
        (DATA, {"features": 0}, r"features: expected an integer from 1 to 4, got 0"),
        (DATA, {"features": 5}, r"features: expected an integer from 1 to 4, got 5"),
        (DATA[:3], {"features": 3, "atoms": 2}, r"features: expected an integer from 1 to 2, got 3"),
        (DATA, {"features": 2.0}, r"features: expected an integer from 1 to 4, got 2\.0"),
        (DATA, {"atoms": 1}, r"atoms: expected an integer from 2 to 30, got 1"),
        (DATA, {"atoms": 31}, r"atoms: expected an integer from 2 to 30, got 31"),
        (DATA, {"noise": "none"}, r"noise: expected one of 'full', 'diagonal', 'scalar', got 'none'"),
        (DATA, {"floor": 0.0}, r"floor: expected a positive finite number, got 0\.0"),
        (DATA, {"floor": np.nan}, r"floor: expected a positive"),
        (DATA, {"tolerance": -1.0}, r"tolerance: expected a positive"),
        (DATA, {"iterations": 0}, r"iterations: expected an integer from 1"),
        (DATA, {"seed": -1}, r"seed: expected an integer from 0"),
    ],
)
def test_bad_data(data, options, message):
    with pytest.raises(ValueError, match=message):
        source_from_data(data, **{"features": 2, **options})


def test_without_sklearn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for call in (digits_data, lambda: source_from_data(DATA, 2)):
        with pytest.raises(ImportError, match=r"pip install 'analytic_vae\[data\]'"):
            call()


# ----------------------------------------------------------------------------------------------------------- files

ATOMS, MASSES, DECODER = np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([[0.9, 0.1], [0.5, 0.5]]), np.ones((3, 2))
MODEL = {"atoms": ATOMS, "masses": MASSES, "decoder": DECODER, "noise": np.array(0.3), "mean": np.arange(3.0)}


def without(*names):
    return {name: array for name, array in MODEL.items() if name not in names}


def save(path, arrays):
    np.savez(path, **arrays)
    return path


def assert_same_law(source, expected):
    for value, wanted in zip(source.moments(), expected.moments(), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-14)


@pytest.mark.parametrize("noise", (np.array(0.3), np.array([0.1, 0.2, 0.3]), np.tril(np.ones((3, 3)))), ids=np.shape)
def test_load_model(tmp_path, noise):
    expected = FeatureModel(Prior.from_masses(ATOMS, MASSES), DECODER, noise, MODEL["mean"])
    assert_same_law(load_source(save(tmp_path / "model.npz", MODEL | {"noise": noise})), expected)
    logits = without("masses") | {"noise": noise, "logits": np.log(MASSES) + 3.0}
    assert_same_law(load_source(save(tmp_path / "logits.npz", logits)), expected)


def test_load_model_without_mean_and_with_a_mass_of_zero(tmp_path):
    logits = np.array([[0.0, -np.inf], [0.0, 0.0]])
    source = load_source(save(tmp_path / "model.npz", without("masses", "mean") | {"logits": logits}))
    np.testing.assert_allclose(source.moments()[0], 1.0)


def test_load_safetensors(tmp_path):
    from safetensors.numpy import save_file

    save_file(MODEL, tmp_path / "model.safetensors")
    assert_same_law(load_source(tmp_path / "model.safetensors"), load_source(save(tmp_path / "model.npz", MODEL)))


def test_load_data(tmp_path):
    path = save(tmp_path / "data.npz", {"data": DATA, "labels": np.zeros(30)})
    source, expected = (
        load_source(path, 2, atoms=5, noise="diagonal"),
        source_from_data(DATA, 2, atoms=5, noise="diagonal"),
    )
    assert_same_law(source, expected)
    with pytest.raises(ValueError, match=r"features: expected how many"):
        load_source(path)
    for features in (None, 2):
        with pytest.raises(ValueError, match=r"data: expected shape \[samples, neurons\], got \[1, 30, 4\]"):
            load_source(save(tmp_path / "images.npz", {"data": DATA[None]}), features)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({}, {}, r"path: expected atoms, decoder, noise, .* got no arrays"),
        ({"labels": np.zeros(3)}, {}, r"path: expected atoms, .* got labels"),
        (without("decoder"), {}, r"path: expected atoms, decoder"),
        (without("masses"), {}, r"one of masses and logits"),
        (MODEL | {"logits": MASSES}, {}, r"one of masses and logits"),
        (MODEL | {"means": np.zeros(3)}, {}, r"got atoms, .*means"),
        (MODEL | {"data": DATA}, {}, r"got atoms, data"),
        (MODEL, {"features": 2}, r"features: expected data to use it on"),
        (MODEL, {"noise": "full"}, r"noise: expected data to use it on"),
        (MODEL | {"masses": -MASSES}, {}, r"masses: expected non-negative"),
        (MODEL | {"noise": np.array(-1.0)}, {}, r"noise: expected positive"),
        (MODEL | {"decoder": np.ones((3, 3))}, {}, r"decoder: expected shape"),
        (MODEL | {"decoder": DECODER * np.nan}, {}, r"decoder: expected finite numbers, got 6"),
        (MODEL | {"mean": np.arange(3) * 1j}, {}, r"mean: expected real numbers"),
        (MODEL | {"mean": np.array([None])}, {}, r"array mean\.npy: expected numbers, got Python objects"),
        (MODEL, {"max_bytes": 100}, r"at most 100 bytes together"),
    ],
)
def test_bad_files(tmp_path, arrays, options, message):
    path = save(tmp_path / "source.npz", arrays)
    with pytest.raises(ValueError, match=message):
        load_source(path, **options)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: expected a file, found none"):
        load_source(tmp_path / "none.npz")

"""Pictures of fits, losses, models and runs: what is drawn are their numbers. All made by hand, nothing is learnt."""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import analytic_vae as av
from analytic_vae.plots.deviations import draw_deviations, draw_outputs
from analytic_vae.plots.features import MainDirections
from analytic_vae.samples import Typical

TERMS = dict(R1=0.9, R2=-0.4, R3=2.0, S1=1.0, S2=3.0, T1=9.0, T2=-8.0, T3=2.0, U1=4.0, U2=3.0, U3=2.0)
MODEL = av.FeatureModel(av.Prior.bernoulli([0.3, 0.4, 0.1]), [[1.0, 0.0, 2.0], [0.0, -3.0, 0.5]], 0.5)


def elbo(bounds=None, rates=(0.5, 0.4, 0.0)):
    numbers = {name: jnp.array(value) for name, value in TERMS.items()}
    return av.Elbo(
        **numbers, rates=jnp.array(rates), moment_error=jnp.array(0.0), accuracy=jnp.array(0.0), bounds=bounds
    )


def fit(**changes):
    history = np.array([5.0, 3.5, 2.5])
    terms = np.array([[1.0, 2.0, 2.0], [0.95, 0.55, 2.0], [0.9, -0.4, 2.0]])
    parts = dict(target=MODEL, encoder=None, elbo=elbo(), error_estimate=None, history=history)
    parts |= dict(start_losses=np.ones(1), stop=av.Stop.CONVERGED, seconds=1.0, terms=terms)
    return av.Fit(**(parts | changes))


def widths(ax):
    return [bar.get_width() for bar in ax.patches]


def labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_terms_of_a_loss_are_bars_in_nats():
    axes = elbo().plot()
    assert axes.shape == (3,)
    np.testing.assert_allclose(widths(axes[0]), [2.5, 0.9, -0.4, 2.0])
    assert labels(axes[0]) == ["loss: 2.5", "rate: 0.9", "R2: -0.4", "distortion: 2"]
    np.testing.assert_allclose(widths(axes[1]), np.array([1, 3, 9, -8, 2, 4, 3, 2]) / 2)  # over 2 sigma^2
    assert labels(axes[1])[2] == "T1 of S2: 4.5"
    np.testing.assert_allclose([bar.get_height() for bar in axes[2].patches], [0.5, 0.4, 0.0])
    assert "1 unused" in axes[2].get_xlabel()


def test_bounds_are_error_bars():
    bounds = av.ErrorBounds(**{name: jnp.array(0.25) for name in TERMS}, loss=jnp.array(0.5))
    (bars,) = elbo(bounds).plot()[0].collections
    np.testing.assert_allclose([np.ptp(one[:, 0]) / 2 for one in bars.get_segments()], [0.5, 0.25, 0.25, 0.25])


def test_many_rates_are_sorted():
    rates = np.random.default_rng(0).exponential(size=100)
    line = elbo(rates=rates).plot()[2].lines[0]
    np.testing.assert_allclose(line.get_ydata(), np.sort(rates)[::-1])


def test_a_fit_shows_its_history_and_its_terms():
    above, trade = fit().plot()
    np.testing.assert_allclose(above.lines[0].get_ydata(), [2.5, 1.0, np.nan])
    assert above.get_yscale() == "log" and "2.5" in above.get_title()
    drawn = [line.get_ydata() for line in trade.lines[:3]]
    np.testing.assert_allclose(drawn, [[0.1, 0.05, 0], [2.4, 0.95, 0], [0, 0, 0]], atol=1e-12)


def test_a_fit_without_steps_shows_its_loss_or_says_why():
    none = np.zeros(0)
    terms, rates = fit(history=none, terms=np.zeros((0, 3)), stop=av.Stop.CLOSED).plot()
    np.testing.assert_allclose(widths(terms), [2.5, 0.9, -0.4, 2.0])
    assert len(rates.patches) == 3
    for ax in fit(elbo=None, history=none, terms=np.zeros((0, 3)), stop=av.Stop.EXACT).plot():
        assert ax.texts[0].get_text() == av.Stop.EXACT.value


def test_main_directions_are_the_decoders():
    found = MODEL.main_directions()
    spread = np.sqrt(np.asarray(MODEL.prior.variance))
    np.testing.assert_allclose(found.directions, np.asarray(MODEL.decoder) * spread, atol=1e-12)
    centred = (np.asarray(MODEL.prior.atoms) - np.asarray(MODEL.prior.mean)[:, None]) / spread[:, None]
    np.testing.assert_allclose(found.places, centred, atol=1e-12)
    whole = np.trace(np.asarray(MODEL.moments()[1]))
    np.testing.assert_allclose(found.shares, (found.directions**2).sum(axis=0) / whole)


@pytest.mark.parametrize("noise", ["scalar", "diagonal", "factor"])
def test_main_directions_of_vectors_are_principal_components(noise):
    rng = np.random.default_rng(0)
    atoms, masses, vectors = rng.normal(size=(2, 4)), rng.dirichlet(np.ones(4), size=2), rng.normal(size=(5, 2, 4))
    noise = {"scalar": 0.3, "diagonal": rng.uniform(0.1, 1, 5), "factor": np.tril(rng.uniform(0.1, 1, (5, 5)))}[noise]
    found = MainDirections.of(atoms, masses, vectors, noise)
    for j in range(2):
        centred = (vectors[:, j] - (vectors[:, j] @ masses[j])[:, None]) * np.sqrt(masses[j])
        left, sizes, _ = np.linalg.svd(centred)
        assert abs(found.directions[:, j] @ left[:, 0]) == pytest.approx(sizes[0])
        assert np.linalg.norm(found.directions[:, j]) == pytest.approx(sizes[0])
        assert masses[j] @ found.places[j] == pytest.approx(0, abs=1e-12)
        assert masses[j] @ found.places[j] ** 2 == pytest.approx(1)
        assert masses[j] * found.places[j] @ atoms[j] > 0
    model = av.FeatureModel(av.Prior.from_masses(atoms, masses), vectors, noise)
    whole = np.trace(np.asarray(model.moments()[1]))
    own = np.trace(np.asarray(model.covariance))
    assert MainDirections.of(atoms, masses, vectors, model.noise).shares.sum() == pytest.approx(1 - own / whole)


def test_a_feature_that_never_moves_is_drawn_too():
    still = av.FeatureModel(av.Prior.from_masses([[1.0, 2.0]], [[1.0, 0.0]]), [[1.0]], 0.0)
    found = still.main_directions()
    assert found.shares == 0 and found.directions == 0
    still.plot()


def test_a_model_shows_its_largest_features():
    atoms, directions = MODEL.plot()
    found = MODEL.main_directions().largest()
    assert list(found.numbers) == [1, 2, 0]
    np.testing.assert_allclose(directions.images[0].get_array(), found.directions.T)
    (dots,) = [one for one in atoms.collections if len(one.get_sizes())]
    np.testing.assert_allclose(np.asarray(dots.get_offsets())[:, 0], found.places.ravel())
    masses = np.asarray(MODEL.prior.masses)[found.numbers].ravel()
    np.testing.assert_allclose(dots.get_sizes(), 4 + 160 * masses)
    assert labels(atoms)[0].startswith("1: ")


def test_many_features_are_left_out_and_counted():
    many = av.FeatureModel(av.Prior.bernoulli(np.full(30, 0.5)), np.arange(30.0)[None] / 30, 0.5)
    directions = many.plot()[1]
    assert directions.get_title() == "the largest 12 of 30 features"
    assert labels(directions)[0].startswith("29: ") and len(directions.patches) == 12  # bars: there is one neuron


def sampled(worst, pairs=True):
    typical = Typical(0.5 * worst, worst, 0.01, 0.01)
    return av.SampledErrors(10_000, typical, typical, typical if pairs else None)


def trajectory(errors):
    network = av.Network([av.LinearLayer(np.eye(2)), av.LinearLayer(np.eye(2))])
    return av.Trajectory(MODEL, network, (fit(), fit()), errors)


def test_a_run_shows_every_layer_against_samples():
    given = plt.subplots(2, 1)[1]
    axes = trajectory((sampled(0.02), sampled(0.5, pairs=False))).plot(ax=given)
    assert list(axes) == list(given)
    drawn = [np.sort(line.get_ydata()) for line in axes[0].lines]
    np.testing.assert_allclose(drawn, [[1, 2], [25, 50], [1, 2], [25, 50], [1, 2]])  # in standard errors
    assert "10000 samples" in axes[0].get_title()
    shares = MODEL.main_directions().largest().directions
    np.testing.assert_allclose(axes[1].images[0].get_array(), shares.T)


def test_a_run_without_samples_shows_what_is_explained():
    bars = trajectory(None).plot()[0].patches
    np.testing.assert_allclose([bar.get_height() for bar in bars], [fit().explained] * 2)


def test_the_worst_neuron_is_named():
    layers = [{"means": np.array([0.0, 50.0])}, {"means": np.array([1.0])}]
    ax = plt.subplots()[1]
    draw_deviations(ax, layers, 100, ["neuron 7", "neuron 8"])
    assert [text.get_text() for text in ax.texts] == ["neuron 7"]  # that of the other layer is not off
    assert ax.get_ylim()[0] > 0  # zero, too, has a place on a log scale


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_outputs_of_very_different_size_are_in_spreads(scale):
    ax = plt.subplots()[1]
    own = sampled_ = np.array([1.0, scale]), np.array([0.5, 0.5 * scale])
    edges = np.array([0.0, 0.5, 1.0]) * scale
    draw_outputs(
        ax, ["0", "1"], own, sampled_, [(edges / scale, *[np.full(2, 0.5)] * 2), (edges, *[np.full(2, 0.5)] * 2)]
    )
    places = ax.containers[0].lines[0].get_ydata()
    np.testing.assert_allclose(places, [1, 1] if scale == 1 else [0, 0])
    assert ("spreads" in ax.get_ylabel()) == (scale > 1)
    low, high = ax.get_ylim()
    assert high - low < 5

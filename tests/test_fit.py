"""Closed forms and the learning of one layer, through the public face."""

from dataclasses import replace
from types import SimpleNamespace

import density
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import analytic_vae as av
from analytic_vae.closed_form import residual_covariance
from analytic_vae.fitting import lbfgs, problem, starts
from analytic_vae.fitting.result import Stop

pytestmark = pytest.mark.coarse

# Two Bernoulli(0.3) features at an angle, noise 0.2: entropy of x (tests/density.py; the table of
# shared/cases is 1e-7 off) and the lowest known loss of two logistic encoders (shared/cases).
ANGLES = {
    90: (0.809479332542, 0.809479267),
    75: (0.808880344100, 0.815053536),
    60: (0.804112234349, 0.839921826),
    45: (0.782252298532, 0.909669864),
    30: (0.716610590898, 0.882932815),
    20: (0.641751558614, 0.735111400),
    10: (0.563463282954, 0.630057204),
    5: (0.537128237300, 0.601464117),
}
COARSE = av.Resolution(16)


def two_features(angle: float) -> av.FeatureModel:
    radians = np.deg2rad(angle)
    return av.FeatureModel(av.Prior.bernoulli([0.3, 0.3]), [[1, np.cos(radians)], [0, np.sin(radians)]], 0.2)


@pytest.mark.optimised
@pytest.mark.parametrize("angle", ANGLES)
def test_two_features_at_an_angle(angle):
    entropy, best = ANGLES[angle]
    source, identity = two_features(angle), av.LinearLayer(np.eye(2))
    starts = 4 if angle <= 30 else 2  # the fourth is the first that finds it at 30 degrees
    options = {"noise": "scalar", "floor": 0.0, "resolution": av.Resolution(48), "check": angle == 90}
    result = av.fit(source, identity, starts=starts, **options)
    assert result.loss <= best + 1e-4
    assert result.loss >= entropy - 1e-8
    if angle == 90:
        assert abs(result.loss - entropy) < 1e-6
        assert result.error_estimate < 1e-8


def test_entropies_are_the_oracles():
    source = two_features(60)
    prior = source.prior
    model = reference.Model(np.asarray(prior.atoms), np.asarray(prior.masses), np.asarray(source.decoder), 0.04)
    assert abs(density.entropy(model) - ANGLES[60][0]) < 1e-10


@pytest.mark.optimised
def test_probabilistic_pca():
    """Gaussian x with covariance eigenvalues (4, 2, 1, 0.5, 0.25), two Gaussian features: shared/cases."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    covariance = (rotation * np.array([4, 2, 1, 0.5, 0.25])) @ rotation.T
    source = av.FeatureModel(av.Prior.bernoulli([0.5]), np.zeros((5, 1)), np.linalg.cholesky(covariance))
    grid = np.linspace(-6.5, 6.5, 53)
    atoms = np.stack([grid, grid])
    # The posterior given the principal directions: a Gaussian of mean y and variance sigma^2 / (sigma^2 + |w|^2).
    readout = np.stack([rotation[:, 0] / 2 * np.sqrt(1 - 0.583333 / 4), rotation[:, 1] / np.sqrt(2) * 0.8])
    readout = readout + 0.02 * np.random.default_rng(1).normal(size=readout.shape)
    encoder = av.GaussianEncoder(readout[:, None], np.zeros(2), np.log([0.4, 0.55]))
    result = av.fit(
        source, av.LinearLayer(np.eye(5)), atoms=atoms, encoder=encoder, noise="scalar", floor=0.0, tolerance=1e-9
    )
    assert abs(result.loss - 7.32591868576425) < 1e-6
    assert abs(float(result.target.noise) ** 2 - 0.583333) < 1e-3


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(3)
    source = av.FeatureModel(av.Prior.bernoulli([0.3, 0.4]), rng.normal(size=(2, 2)), 0.4, rng.normal(size=2))
    layer = av.RidgeLayer(rng.normal(size=(2, 2)), rng.normal(size=2), rng.normal(size=2), 0.1)
    return source, layer


@pytest.mark.parametrize("noise", ["scalar", "diagonal", "full"])
def test_closed_forms_are_stationary(small, noise):
    """At the closed form no small change of prior, decoder, mean or noise lowers the loss; and the formula holds."""
    source, layer = small
    rng = np.random.default_rng(4)
    atoms = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    encoder = av.SoftmaxEncoder(rng.normal(size=(2, 1, 2)), atoms[:, None], rng.normal(size=(2, 2)))
    given = jax.jit(av.expectations)(source, layer, atoms, encoder, COARSE)
    target = av.best_target(given, atoms, noise, floor=0.0)
    from analytic_vae.elbo import elbo_of

    def loss(prior_step, decoder_step, mean_step, noise_step):
        prior = av.Prior(atoms, target.prior.logits + prior_step)
        factor = target.noise * (1 + noise_step)
        moved = av.FeatureModel(prior, target.decoder + decoder_step, factor, target.mean + mean_step)
        return elbo_of(given, moved).loss

    zeros = (jnp.zeros((2, 2)), jnp.zeros((2, 2)), jnp.zeros(2), jnp.zeros_like(target.noise))
    gradient = jax.grad(loss, argnums=(0, 1, 2, 3))(*zeros)
    assert max(float(jnp.max(jnp.abs(g))) for g in gradient) < 1e-6
    _, log_det = jnp.linalg.slogdet(2 * jnp.pi * jnp.e * target.covariance)
    assert abs(loss(*zeros) - (given.information.sum() + log_det / 2)) < 1e-7


def test_closed_forms_ask_for_expectations_by_name(small):
    atoms = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    encoder = av.SoftmaxEncoder(np.ones((2, 1, 2)), atoms[:, None], np.zeros((2, 2)))
    given = av.expectations(small[0], av.LinearLayer(np.eye(2)), atoms, encoder, av.Resolution(8))
    for call in (
        lambda: av.best_target(atoms, encoder),
        lambda: av.best_target(small[0], atoms),
        lambda: av.best_prior(atoms, given),
        lambda: av.best_decoder(atoms),
        lambda: av.best_noise(encoder, atoms, "full"),
        lambda: residual_covariance(atoms, given),
    ):
        with pytest.raises(TypeError, match=r"given: expected the Expectations that av.expectations returns, got"):
            call()
    for call, message in (
        (lambda: av.best_target(given, encoder), "atoms: expected an array of real numbers, got SoftmaxEncoder"),
        (lambda: av.best_target(given, atoms[:1]), r"atoms: expected shape \[2, 2\] .* got \[1, 2\]"),
        (lambda: av.best_prior(given, atoms[0]), r"atoms: expected shape \[2, 2\] .* got \[2\]"),
        (lambda: av.best_noise(given, np.ones((2, 3)), "full"), r"decoder: expected shape \[2, 2\] .* got \[2, 3\]"),
        (lambda: av.best_target(given, atoms, "ful"), "noise: expected one of scalar, diagonal, full, got 'ful'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_profiled_gradient_is_the_derivative(small):
    source, layer = small
    atoms = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    encoder = av.SoftmaxEncoder([[[1.0, -0.5]], [[0.3, 0.8]]], atoms[:, None], np.zeros((2, 2)))

    @jax.jit
    def loss(readout):
        moved = av.SoftmaxEncoder(readout, encoder.statistics, encoder.base)
        return av.profiled_loss(source, layer, atoms, moved, av.Resolution(64))[0].loss

    direction = jnp.asarray(np.random.default_rng(0).normal(size=(2, 1, 2)))
    exact = jnp.vdot(jax.jit(jax.grad(loss))(encoder.readout), direction)

    def value(step):
        return loss(encoder.readout + step * direction)

    step = 1e-3
    numeric = (8 * (value(step) - value(-step)) - (value(2 * step) - value(-2 * step))) / (12 * step)
    assert abs(exact - numeric) < 1e-6


def test_both_optimisers_agree(small):
    source, layer = small
    common = dict(noise="scalar", resolution=COARSE, check=False)
    lines = []
    profiled = av.fit(source, layer, log=lines.append, **common)
    assert profiled.history[-1] < profiled.history[0]
    # Adam on the whole loss, begun with one and a half times the noise, comes back to it.
    begin = eqx.tree_at(lambda model: model.noise, profiled.target, 1.5 * profiled.target.noise)
    before = float(av.elbo(source, layer, begin, profiled.encoder, COARSE).loss)
    whole = av.fit(
        source, layer, encoder=profiled.encoder, target=begin, optimizer=optax.adam(0.02), steps=50, **common
    )
    assert len(whole.history) <= 50
    for one in (profiled, whole):  # rate, R2 and distortion of every step
        np.testing.assert_allclose(one.terms.sum(axis=1), one.history, rtol=0, atol=1e-9)
    np.testing.assert_allclose(profiled.terms[-1], [profiled.elbo.R1, profiled.elbo.R2, profiled.elbo.R3], atol=1e-6)
    assert profiled.stop in (Stop.CONVERGED, Stop.STUCK)
    assert profiled.loss - 1e-2 < whole.loss < profiled.loss + 0.1 * (before - profiled.loss)
    for rates, said in (([1.0, 1.0], ""), ([1e-9, 1.0], "; 1 of 2 features unused")):
        shown = str(replace(profiled, elbo=eqx.tree_at(lambda elbo: elbo.rates, profiled.elbo, jnp.array(rates))))
        assert shown.startswith("loss ") and shown.endswith(profiled.stop.value + said)
    assert float(profiled.elbo.loss) == pytest.approx(profiled.history[-1], abs=1e-6)


def test_a_round_that_uses_up_its_evaluations_without_a_step_ends(small, monkeypatch):
    """SciPy's status 1 with no step taken: beginning the round again would go on for ever."""
    rounds = []

    def no_step(fun, x, **_):
        rounds.append(fun(x))
        assert len(rounds) < 3, "the same round again and again"
        return SimpleNamespace(status=1)

    monkeypatch.setattr(
        "analytic_vae.fitting.lbfgs.profiled_value_and_grad",
        lambda step, columns, encoder, *_: (
            (1.0, (encoder, SimpleNamespace(loss=1.0, moment_error=0.0, accuracy=0.0), None)),
            jnp.ones_like(step),
        ),
    )
    monkeypatch.setattr("analytic_vae.fitting.lbfgs.minimize", no_step)
    result = av.fit(*small, noise="scalar", resolution=COARSE, check=False)
    assert result.stop is Stop.STUCK and result.history.size == 0


def test_a_doubted_result_is_kept_if_finer_grids_give_none(small, monkeypatch):
    """Every finer resolution has no finite loss: the result comes back and says that it is doubtful."""
    exact, fitted = lbfgs.profiled_lbfgs, problem.compiled_elbo

    def only_coarse(*arguments):
        if arguments[0].resolution.frequencies > 8:
            raise problem.TooCoarse("resolution: expected one at which the loss is finite")
        return exact(*arguments)

    def far_at_finer(*arguments):
        result = fitted(*arguments)
        return eqx.tree_at(lambda r: r.R1, result, result.R1 + (arguments[0].resolution.frequencies > 8))

    monkeypatch.setattr(starts, "profiled_lbfgs", only_coarse)
    monkeypatch.setattr(starts, "compiled_elbo", far_at_finer)
    lines = []
    linear = av.LinearLayer(np.eye(2))
    result = av.fit(small[0], linear, noise="scalar", steps=2, resolution=av.Resolution(8), log=lines.append)
    assert result.doubtful and result.resolution.frequencies == 8
    assert any("finite" in line for line in lines)


@pytest.mark.parametrize(
    ("kind", "statistics"), [("softmax", 2), ("gaussian", 1), ("gaussian", 2), ("exponential", 1), ("neural", None)]
)
def test_every_encoder_can_be_fitted(small, kind, statistics):
    """On a linear layer: the derivatives for a ridge layer, with every encoder, are tested in `test_derivatives.py`."""
    source, linear = small[0], av.LinearLayer([[1.0, 0.3], [-0.2, 0.8]])
    options = {"encoder": kind, "statistics": statistics, "steps": 4, "resolution": av.Resolution(12)}
    result = av.fit(source, linear, noise="full", check=False, **options)
    assert np.isfinite(result.loss)
    assert result.history[-1] <= result.history[0] + 1e-9


@pytest.mark.parametrize(
    "options, name",
    [
        ({"noise": "isotropic"}, "noise"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"steps": 0}, "steps"),
        ({"starts": -1}, "starts"),
        ({"atoms": 1}, "atoms"),
        ({"atoms": [[0.0, np.nan]]}, "atoms"),
        ({"features": 3, "atoms": np.zeros((2, 2))}, "atoms"),
        ({"encoder": "transformer"}, "encoder"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"floor": float("nan")}, "floor"),
    ],
)
def test_bad_options_name_themselves(small, options, name):
    with pytest.raises(ValueError, match=name):
        av.fit(*small, **options)


def test_bad_targets_are_refused(small):
    optimizer = optax.adam(1e-3)
    target = av.FeatureModel(av.Prior.bernoulli([0.5, 0.5]), np.eye(2), [[1.0, 0.0], [0.5, 1.0]])
    singular = eqx.tree_at(lambda model: model.noise, target, jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="target: expected noise in every direction"):
        av.fit(*small, optimizer=optimizer, target=singular)
    with pytest.raises(ValueError, match="target: expected atoms of shape"):
        av.fit(*small, optimizer=optimizer, target=target, atoms=np.arange(6.0).reshape(2, 3))


def test_parts_of_the_profiled_loss_are_checked(small):
    encoder = av.SoftmaxEncoder(np.ones((2, 1, 2)), np.ones((2, 1, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="atoms: expected 2 atoms per feature"):
        av.profiled_loss(*small, np.zeros((2, 3)), encoder)
    with pytest.raises(ValueError, match="atoms: expected 2 features"):
        av.profiled_loss(*small, np.zeros((3, 2)), encoder)
    with pytest.raises(ValueError, match="noise"):
        av.profiled_loss(*small, np.zeros((2, 2)), encoder, noise="isotropic")
    with pytest.raises(ValueError, match="atoms: expected finite numbers, got 1 NaN"):
        av.expectations(*small, [[0.0, np.nan], [0.0, 1.0]], encoder)
    with pytest.raises(ValueError, match=r"floor: expected a number of at least 0, got -1\.0"):
        av.profiled_loss(*small, [[0.0, 1.0], [0.0, 1.0]], encoder, COARSE, floor=-1.0)


def test_a_key_and_a_check_of_another_kind_are_refused(small):
    with pytest.raises(TypeError, match=r"key: expected one such as jax\.random\.key\(0\), got 3"):
        av.fit(*small, key=3)
    with pytest.raises(TypeError, match="check: expected True or False"):
        av.fit(*small, check="no")


def test_a_constant_layer_has_nothing_to_learn(small):
    with pytest.raises(ValueError, match="layer: expected an output that varies"):
        av.fit(small[0], av.RidgeLayer(np.zeros((2, 2)), [1.0, 0.0], [1.0, 0.0]), resolution=COARSE)


def test_too_little_memory_is_said_before_a_fit(small, monkeypatch):
    monkeypatch.setattr("analytic_vae.moments.budget.available_bytes", lambda: 1000)
    with pytest.raises(MemoryError, match="resolution"):
        av.fit(*small)


def test_the_finest_resolution_is_refused_for_its_memory_alone(small):
    with pytest.raises(MemoryError, match="resolution: about"):
        av.fit(*small, resolution=av.Resolution(4096))


def sharp_fit(log):
    """Three steps from a sharp encoder at 8 frequencies, where the loss is wrong by 0.012 nats; and that encoder."""
    base = [[0.0, -50.0], [0.0, -50.0]]
    encoder = av.SoftmaxEncoder([[[100.0, -50.0]], [[-30.0, 100.0]]], [[[0.0, 1.0]], [[0.0, 1.0]]], base)
    options = {"noise": "scalar", "steps": 3, "resolution": av.Resolution(8), "log": log}
    return av.fit(two_features(30), av.LinearLayer(np.eye(2)), encoder=encoder, **options), encoder


def test_a_doubted_fit_goes_on_or_begins_anew_at_a_finer_resolution(monkeypatch):
    """It goes on where the loss moves by less than 0.1 nats; the check at 12 frequencies is also made to move more."""
    exact, judge = lbfgs.profiled_lbfgs, problem.compiled_elbo
    for off, how in ((0.0, "going on"), (1.0, "beginning anew")):
        runs, lines = [], []

        def judged(*arguments, off=off):
            result = judge(*arguments)
            return eqx.tree_at(lambda r: r.R1, result, result.R1 + off * (arguments[0].resolution.frequencies == 12))

        def recorded(*arguments, runs=runs):
            found = exact(*arguments)
            runs.append((arguments[0].resolution.frequencies, arguments[1], found.encoder))
            return found

        monkeypatch.setattr(starts, "compiled_elbo", judged)
        monkeypatch.setattr(starts, "profiled_lbfgs", recorded)
        result, encoder = sharp_fit(lines.append)
        assert any(f"{how} at 16 frequencies" in line for line in lines), lines
        assert [frequencies for frequencies, *_ in runs] == [8, 16]
        assert runs[0][1] is encoder and runs[1][1] is (runs[0][2] if how == "going on" else encoder)
        assert result.resolution.frequencies == 16 and not result.doubtful and len(result.start_losses) == 1
        assert result.loss == pytest.approx(result.history[-1], abs=1e-6)


def test_a_loss_that_is_never_finite_returns_the_beginning(small):
    """Adam begun where the noise of the target is so small that the loss overflows."""
    source, linear = small[0], av.LinearLayer(np.eye(2))
    target = av.FeatureModel(source.prior, np.eye(2), 1e-200)
    options = {"resolution": av.Resolution(8), "check": False, "steps": 5}
    result = av.fit(source, linear, optimizer=optax.adam(1e-3), target=target, **options)
    assert result.stop is Stop.NOT_FINITE and not np.isfinite(result.loss)
    np.testing.assert_array_equal(result.target.decoder, target.decoder)

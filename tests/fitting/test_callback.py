"""What a callback is told, by both optimisers, by carried fits and by `learn`; and what it raises."""

import jax
import numpy as np
import optax
import pytest

import analytic_vae as av

pytestmark = pytest.mark.coarse

QUICK = {"resolution": av.Resolution(8), "check": False}
SOURCE = av.FeatureModel(av.Prior.bernoulli([0.3, 0.4]), [[1.0, 0.5], [0.0, 1.0]], 0.4)
DENSE = av.DenseLayer(np.eye(2), [0.1, -0.2], "tanh")
LINEAR = av.LinearLayer([[1.0, 0.2], [-0.3, 1.0]])
ADAM = optax.adam(1e-2)
NAMES = {"loss", "rate", "R2", "distortion", "gradient_norm", "seconds", "start", "frequencies"}


class Record:
    """What a logger would keep."""

    def __init__(self):
        self.steps, self.numbers = [], []

    def __call__(self, step, numbers):
        self.steps.append(step)
        self.numbers.append(numbers)

    def all(self, name):
        return [one[name] for one in self.numbers]


def told(names=NAMES, **options):
    """The fit without and with a callback, which are the same to the bit, and what it was told."""
    record = Record()
    plain = av.fit(SOURCE, LINEAR, **QUICK, **options)
    watched = av.fit(SOURCE, LINEAR, callback=record, **QUICK, **options)
    for one, other in zip(*(jax.tree.leaves((fit.target, fit.encoder)) for fit in (plain, watched)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert record.steps == list(range(1, len(record.steps) + 1))
    for numbers in record.numbers:
        assert set(numbers) == names
        assert {type(numbers[name]) for name in ("start", "frequencies")} == {int}
        assert {type(numbers[name]) for name in names - {"start", "frequencies", "layer"}} == {float}
        assert np.all(np.isfinite(list(numbers.values())))
    assert np.all(np.diff(record.all("seconds")) >= 0)
    return watched, record


def test_lbfgs_tells_every_step_of_every_start():
    fit, record = told(steps=4, starts=2)
    assert record.all("start") == [0] * 4 + [1] * 4 and set(record.all("frequencies")) == {8}
    best = [one for one in record.numbers if one["start"] == int(np.argmin(fit.start_losses))]
    np.testing.assert_array_equal([one["loss"] for one in best][:-1], fit.history[:-1])  # the last: on boxes of its own
    assert abs(best[-1]["loss"] - fit.loss) < 1e-2
    log_det = np.linalg.slogdet(2 * np.pi * np.asarray(fit.target.covariance))[1] / 2
    assert abs(best[-1]["rate"] + best[-1]["distortion"] + log_det - best[-1]["loss"]) < 1e-2
    assert best[0]["gradient_norm"] > best[-1]["gradient_norm"] > 0


def test_optax_tells_every_step():
    fit, record = told(steps=20, optimizer=ADAM, tolerance=0.0)
    np.testing.assert_array_equal(record.all("loss"), fit.history)
    assert len(record.steps) == 20 and record.all("gradient_norm")[0] > 0


def test_a_carried_fit_is_one_step():
    record = Record()
    fit = av.fit(SOURCE, DENSE, callback=record, **QUICK)
    assert record.steps == [1] and record.all("loss") == [fit.loss]
    assert record.all("rate") == [float(fit.elbo.rate)] and record.all("gradient_norm") == [0.0]


@pytest.mark.parametrize("error", [StopIteration, KeyboardInterrupt, MemoryError, ValueError])
@pytest.mark.parametrize("optimizer", ["lbfgs", ADAM], ids=["lbfgs", "optax"])
def test_what_a_callback_raises_passes_through(optimizer, error):
    """Nothing on the way catches it: neither SciPy, which takes a StopIteration for its own, nor the fit."""
    mine = error("mine")

    def callback(step, numbers):
        if step == 2:
            raise mine

    with pytest.raises(error) as raised:
        av.fit(SOURCE, LINEAR, optimizer=optimizer, callback=callback, steps=10, **QUICK)
    assert raised.value is mine and mine.__context__ is None


def test_learn_counts_on_and_its_folder_does_not_know_of_the_callback(tmp_path):
    """Stopped in the second of two bent layers the run goes on, with another callback or none, to the same bits."""
    network, options, record = av.Network([DENSE, LINEAR, DENSE]), QUICK | {"samples": 0}, Record()
    whole = av.learn(SOURCE, network, callback=record, **options)
    assert record.steps == [1, 2] and record.all("layer") == [0, 2]
    assert set(record.numbers[0]) == NAMES | {"layer"}

    def stop(step, numbers):
        if numbers["layer"] == 2:
            raise StopIteration

    with pytest.raises(StopIteration):
        av.learn(SOURCE, network, callback=stop, folder=tmp_path, **options)
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["layer_000.npz", "layer_001.npz"]
    again = Record()
    found = av.learn(SOURCE, network, callback=again, folder=tmp_path, **options)
    assert again.steps == [1] and again.all("layer") == [2]
    for one, other in zip(*(jax.tree.leaves(each.models) for each in (whole, found)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_no_callback_is_refused_before_anything_starts(tmp_path):
    for call in (
        lambda: av.fit(SOURCE, LINEAR, callback=3),
        lambda: av.learn(SOURCE, av.Network([LINEAR]), callback=[], folder=tmp_path / "run"),
    ):
        with pytest.raises(TypeError, match="callback: expected a function of a step and a dictionary, or None, got"):
            call()
    assert not (tmp_path / "run").exists()

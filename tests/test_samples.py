"""What samples say of the models of a network's layers, and lines of progress."""

import subprocess
import sys
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import analytic_vae as av
from analytic_vae.fitting.progress import kept_talking
from analytic_vae.samples import BATCH, SampledErrors, sampled_moments

pytestmark = pytest.mark.coarse

OPTIONS = dict(resolution=av.Resolution(12), check=False)


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(0)
    source = av.FeatureModel(av.Prior.bernoulli([0.3, 0.1, 0.4]), rng.normal(size=(3, 3)), 0.3)
    weights = [(rng.normal(size=(4, 3)), np.zeros(4)), (rng.normal(size=(4, 4)), np.zeros(4)), (np.ones((1, 4)), None)]
    return source, av.from_weights(weights, "relu")


@pytest.fixture(scope="module")
def trajectory(run):
    return av.learn(*run, samples=50_000, **OPTIONS)


def test_every_layer_is_compared_with_samples(run, trajectory):
    """The first dense layer's moments are exact; what the second one's lose, samples drawn apart find, too."""
    source, network = run
    first, second, last = trajectory.sampled
    for errors in (first.means, first.spreads, first.correlations):
        assert errors.median < errors.worst < 4.5 * errors.worst_standard_error
    assert first.means.standard_error == 50_000**-0.5
    x = source.sample(jax.random.key(7), (200_000,))
    f = np.asarray(jax.vmap(lambda one: network.layers[1](network.layers[0](one)))(x))
    mean, covariance = (np.asarray(moment) for moment in trajectory.models[1].moments())
    spread = f.std(axis=0)
    np.testing.assert_allclose(second.means.worst, np.max(np.abs(mean - f.mean(axis=0)) / spread), rtol=0.03)
    correlation = covariance / np.outer(*(2 * [np.sqrt(np.diagonal(covariance))]))
    worst = np.max(np.abs(correlation - np.corrcoef(f.T)))
    np.testing.assert_allclose(second.correlations.worst, worst, atol=0.03)
    assert second.correlations.worst > 5 * second.correlations.standard_error  # so there is something to find
    assert last.correlations is None  # a single output


def test_a_trajectory_says_it(trajectory):
    lines = str(trajectory).splitlines()[1:]
    for line, errors in zip(lines, trajectory.sampled, strict=True):
        said = (
            f"spreads: means off by up to {errors.means.worst:.1e} +- {errors.means.worst_standard_error:.1e} (median"
        )
        assert "against 50000 samples" in line and said in line
    assert "correlations by up to" in lines[0] and "correlations by up to" not in lines[2]


def test_samples_change_nothing_that_is_learnt(run, trajectory, tmp_path):
    """And a run is continued with another number of them, or none."""
    silent = av.learn(*run, samples=0, folder=tmp_path, **OPTIONS)
    assert silent.sampled is None and "samples" not in str(silent)
    lines = []
    again = av.learn(*run, samples=50_000, folder=tmp_path, log=lines.append, **OPTIONS)
    chex.assert_trees_all_equal(silent.models, again.models, strict=True)
    assert again.sampled == trajectory.sampled  # the same draws
    assert lines[0].startswith("pushing 50000 samples") and "read from the run folder" in lines[1]
    assert str(again.sampled[0]) in lines[1]


def test_samples_are_drawn_with_the_key(run):
    source, _ = run
    linear = av.Network([av.LinearLayer(np.ones((2, 3)))])
    found = [av.learn(source, linear, samples=100, key=jax.random.key(seed)).sampled for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("samples", (1, -1, True, 2.5, "many"))
def test_a_wrong_number_of_samples(run, samples):
    with pytest.raises(ValueError, match="samples: expected 0 for none, or at least 2"):
        av.learn(*run, samples=samples)


def test_batches_are_as_good_as_all_at_once(run):
    """The last batch is filled up, and what fills it does not count. The products are of float64, in float32, too."""
    source, _ = run
    source = jax.tree.map(lambda a: a.astype(jnp.float32), source.shift(1e3 * np.ones(3)))
    linear = av.Network([av.LinearLayer(np.eye(3, dtype=np.float32))])
    samples = BATCH + 17
    (found,), counts = sampled_moments(source, linear, samples, jax.random.key(0))
    keys = [jax.random.fold_in(jax.random.key(0), index) for index in (0, 1)]
    drawn = [np.asarray(source.sample(key, (BATCH,)), np.float64) for key in keys]
    x = np.concatenate([drawn[0], drawn[1][:17]])
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(found.covariance, np.cov(x.T, bias=True), atol=1e-4)
    d = x - x.mean(axis=0)
    np.testing.assert_allclose(found.products, (d**2).T @ d**2 / samples, rtol=1e-3)
    np.testing.assert_array_equal(counts, np.bincount(x.argmax(axis=1), minlength=3))


def test_a_constant_layer_is_no_fault(run):
    source, _ = run
    constant = av.Network([av.LinearLayer(np.zeros((2, 3)), np.ones(2))])
    (errors,) = av.learn(source, constant, samples=100).sampled
    assert (errors.means.worst, errors.spreads.worst, errors.correlations.worst) == (0, 0, 0)
    assert isinstance(errors, SampledErrors)


@pytest.mark.optimised
def test_a_report_takes_little_memory():
    """A million samples of 13 features of 12 atoms took 4 GB when they were drawn all at once."""
    code = """
import resource, jax, numpy as np
jax.config.update("jax_enable_x64", True)
import analytic_vae as av
from analytic_vae.cli.report import compare
rng = np.random.default_rng(0)
source = av.FeatureModel(av.Prior(rng.normal(size=(13, 12)), np.zeros((13, 12))), rng.normal(size=(13, 13)), 0.1)
found = av.learn(source, av.Network([av.LinearLayer(np.ones((3, 13)))]), samples=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
compare(found, samples=200_000, key=jax.random.key(0))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400e6


def test_a_long_silence_is_filled():
    lines = []
    with kept_talking(lines.append, 0.05) as say:
        say("compiling")
        time.sleep(0.5)
        say("ready")
    assert lines[0] == "compiling" and lines[-1] == "ready" and "compiling ... 0 s" in lines[1:-1]
    time.sleep(0.2)
    assert lines[-1] == "ready"
    with kept_talking(None) as say:
        say("to nobody")


def test_what_a_log_raises_is_not_lost():
    def log(line):
        if "..." in line:
            raise KeyError(line)

    with pytest.raises(KeyError, match="working"), kept_talking(log, 0.05) as say:
        say("working")
        time.sleep(0.5)


def test_progress_within_a_layer(run):
    lines = []
    av.learn(*run, log=lines.append, samples=0, resolution=av.Resolution(12))
    said = [line for line in lines if line.startswith("layer 0 (1/3): ") and not line.endswith(" s")]
    expected = (
        "moments of 4 units and their pairs at 12",
        "the best target, in closed form, and its loss",
        "moments of 4 units",
        "its loss at 18",
    )
    for line, begins in zip(said, expected, strict=False):
        assert line.startswith(f"layer 0 (1/3): {begins}")

"""How many programs a call compiles: few the first time, none the second time, whatever kind of numbers is given."""

from contextlib import contextmanager

import cases
import chex
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

import analytic_vae as av

RESOLUTION = av.Resolution(14)  # of no other test: nothing is compiled before

pytestmark = pytest.mark.coarse


@contextmanager
def counted():
    """A list that has an entry for every program that is compiled, or read from a cache of compiled ones."""
    programs, counting = [], [True]

    def count(event, _, **about):
        if counting[0] and event.endswith("backend_compile_duration"):
            programs.append(about.get("fun_name", event))

    jax.monitoring.register_event_duration_secs_listener(count)
    yield programs
    counting[0] = False


def test_a_law_and_its_tails_are_a_handful_of_programs():
    source, layer, *_ = cases.problem(0)
    with counted() as first:
        law = av.pushforward(source, layer, np.array([[1.0, -1.0, 0.5]]), RESOLUTION)
        _ = law.tail(2.0), law.tail(jnp.asarray(1.0)), str(law)  # a weak type is cast first
    assert 1 <= len(first) <= 16, first
    thresholds = 1, 0.5, np.float32(2), np.float64(3), jnp.asarray(1.0)
    with counted() as again:
        law = av.pushforward(source, layer, [[2.0, 1, 0]], RESOLUTION)
        for threshold in thresholds:
            law.tail(threshold)
        str(law)
    assert not again, again


def test_a_loss_is_one_program():
    parts = cases.problem(0)
    with counted() as first:
        av.elbo(*parts, RESOLUTION)
    assert 1 <= len(first) <= 4, first
    source, layer, target, encoder = cases.problem(1)
    moved = av.FeatureModel(
        av.Prior(np.asarray(target.prior.atoms).tolist(), np.asarray(target.prior.logits)),
        np.asarray(target.decoder).tolist(),
        np.float64(target.noise),
        np.asarray(target.mean),
    )
    with counted() as again:
        str(av.elbo(source, layer, moved, encoder, RESOLUTION))
    assert not again, again


def test_a_fit_is_a_dozen_programs_and_the_next_one_none():
    source, layer, *_ = cases.problem(0)
    with counted() as first:
        str(av.fit(source, layer, steps=2, resolution=RESOLUTION))
    assert 4 <= len(first) <= 24, first
    source, layer, *_ = cases.problem(1)
    with counted() as again:
        str(av.fit(source, layer, steps=2, resolution=RESOLUTION))
    assert not again, again


def test_a_users_own_function_is_traced_once():
    parts = cases.problem(0)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def loss(source, layer, target, encoder):
        return av.elbo(source, layer, target, encoder, RESOLUTION).loss

    assert float(loss(*parts)) != float(loss(*cases.problem(1)))


def test_compiled_programs_are_kept_where_one_says(tmp_path, monkeypatch):
    """Unless JAX knows a folder already."""
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        assert av.keep_compiled(tmp_path / "here") == tmp_path / "here"
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "here") and (tmp_path / "here").is_dir()
        assert av.keep_compiled(tmp_path / "there") == tmp_path / "here"
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert av.keep_compiled() == tmp_path / "analytic_vae"
    finally:
        jax.config.update("jax_compilation_cache_dir", before[0])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])

"""The package's own functions compile alone, inside of other programs, and where XLA does not know the option."""

import cases
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import analytic_vae as av
from analytic_vae import _jit
from analytic_vae.moments.budget import brief


@pytest.fixture(autouse=True)
def no_options_known():
    _jit._options.cache_clear()
    yield
    _jit._options.cache_clear()


def cubed():
    traces = []

    @_jit.compiled
    def function(x, power=3):
        traces.append(None)
        return power(x) if callable(power) else x**power

    return function, traces


def test_alone_and_in_every_transform(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # the tests' own flags make the choice
    function, traces = cubed()
    x = jnp.array(2.0)
    assert function(x) == function(x) == 8 and len(traces) == 1
    if jax.default_backend() == "cpu":
        assert _jit._options(False) == {_jit.CHOICE: False}
        assert _jit._options(True) == {_jit.CHOICE: False, _jit.LEVEL: 0}
    assert jax.jit(function)(x) == eqx.filter_jit(lambda: function(x))() == 8
    assert jax.grad(function)(x) == jax.jit(jax.grad(function))(x) == jax.grad(jax.jit(function))(x) == 12
    scaled = lambda a: function(x, power=lambda y: a * y)  # noqa: E731
    assert jax.grad(scaled)(3.0) == jax.linearize(scaled, 3.0)[1](1.0) == jax.vmap(jax.grad(scaled))(x[None])[0] == 2
    assert jax.vmap(function)(x[None]) == jax.lax.map(lambda _: function(x), x[None]) == 8
    assert function(x, power=2) == 4
    assert jax.eval_shape(function, x).shape == ()


def test_a_choice_that_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(_jit, "CHOICE", "xla_cpu_no_such_choice")
    function, _ = cubed()
    assert _jit._options(False) is None and function(jnp.array(2.0)) == 8


def test_the_users_choice_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{_jit.CHOICE}=true")
    assert _jit._options(False) is None
    assert jax.default_backend() != "cpu" or _jit._options(True) == {_jit.LEVEL: 0}
    monkeypatch.setenv("XLA_FLAGS", f"--{_jit.CHOICE}=true --{_jit.LEVEL}=3")
    _jit._options.cache_clear()
    assert _jit._options(True) is None


def test_small_problems_are_not_optimised_and_large_ones_are():
    """What is called once is optimised where that would take less time than it saves."""
    source, layer, *_ = cases.problem(0)
    asked = lambda features, calls: brief(source, layer, (1, features, 3), av.Resolution(24), calls)  # noqa: E731
    assert asked(3, 1) and asked(3, 100) and not asked(3, 100_000) and not asked(200, 10)
    levels = []
    function = _jit.compiled(lambda x: x + 1, quick=lambda x: levels.append(x.size) or x.size < 3)
    assert function(jnp.zeros(2)).shape == (2,) and function(jnp.zeros(4)).shape == (4,)
    assert jax.jit(function)(jnp.zeros(2)).shape == (2,) and levels == [2, 4]  # inside of a program it is not asked

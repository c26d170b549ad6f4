"""A user's own programs of the public functions: jit or none, the same numbers; traced once; nothing compiled twice."""

import cases
import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

import analytic_vae as av

COARSE = av.Resolution(8)
pytestmark = pytest.mark.coarse


def functions() -> dict:
    """Name -> a function of a scale of the source's noise, and of arrays alone."""
    source, layer, target, encoder = cases.problem(0)
    model = lambda scale: eqx.tree_at(lambda one: one.noise, source, source.noise * scale)  # noqa: E731
    dense = av.DenseLayer(np.eye(cases.N1)[:2], [0.1, -0.2], "tanh")
    readout, atoms = jnp.eye(cases.N2)[:1], target.prior.atoms
    return {
        "elbo": lambda scale: av.elbo(model(scale), layer, target, encoder, COARSE).loss,
        "expectations": lambda scale: (
            av.expectations(model(scale), layer, target.prior.atoms, encoder, COARSE).latent_mean
        ),
        "profiled_loss": lambda scale: av.profiled_loss(model(scale), layer, atoms, encoder, COARSE)[0].loss,
        "dense_moments": lambda scale: av.dense_moments(model(scale), dense, COARSE).psi_covariance,
        "pushforward": lambda scale: av.pushforward(model(scale), layer, readout, COARSE).mean,
    }


FUNCTIONS = functions()


class Variants(chex.TestCase):
    """With jit and without: numbers and gradients are the same."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters([(name, name) for name in FUNCTIONS])
    def test_values(self, name):
        function = FUNCTIONS[name]
        chex.assert_trees_all_close(self.variant(function)(1.1), jax.vmap(function)(jnp.array([1.1]))[0], rtol=1e-9)

    @chex.variants(with_jit=True, without_jit=True)
    def test_gradients(self):
        slope = self.variant(jax.grad(FUNCTIONS["elbo"]))(1.0)
        step = 1e-4
        ends = [FUNCTIONS["elbo"](1 + sign * step) for sign in (1, -1)]
        chex.assert_trees_all_close(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-4)


def test_a_users_step_is_traced_once():
    """Whatever the values: shapes, dtypes and the resolution are all that a trace depends on."""

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(scale):
        return jax.value_and_grad(FUNCTIONS["elbo"])(scale)

    found = [step(scale)[0] for scale in (1.0, 1.2, 1.5)]
    assert len({float(one) for one in found}) == 3


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_compiled_twice(name):
    """The package's own programs, called as they are: other numbers of the same shapes compile nothing."""
    compiled = []
    event = "/jax/core/compile/backend_compile_duration"
    listener = lambda one, duration, **_: compiled.append(duration) if one == event else None  # noqa: E731
    FUNCTIONS[name](1.0)
    FUNCTIONS[name](1.05)  # what depends on whether something was concrete is compiled by now, too
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.jit(lambda x: x * 3.5 + len(name))(jnp.zeros(7))  # so that the event has not been renamed
        first = len(compiled)
        FUNCTIONS[name](1.3)
    finally:
        jax.monitoring.clear_event_listeners()
    assert first >= 1 and len(compiled) == first

"""Activations: their values, their declared kinks, and what is refused."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import analytic_vae as av
from analytic_vae.model.activation import ACTIVATIONS, get_activation, residual


@pytest.mark.parametrize("name", cases.ACTIVATIONS)
def test_values_and_kinks_are_those_of_the_table(name):
    given, function, kinks = cases.ACTIVATIONS[name]
    activation = get_activation(given)
    b = np.linspace(-6, 6, 101)
    np.testing.assert_allclose(activation(jnp.asarray(b)), function(b), rtol=1e-13, atol=1e-15)
    assert activation.kinks == kinks
    np.testing.assert_allclose(residual(given)(jnp.asarray(b)), function(b) - b, rtol=1e-12, atol=1e-14)
    assert residual(given).kinks == kinks


def test_every_name_is_covered():
    assert set(ACTIVATIONS) <= set(cases.ACTIVATIONS)


def test_an_activation_is_static_under_jit_and_keeps_the_dtype():
    for activation in ACTIVATIONS.values():
        assert not jax.tree.leaves(activation)
        assert jax.jit(activation)(jnp.float32(0.5)).dtype == jnp.float32
    assert residual("relu") == residual("relu")


def test_kinks_are_sorted():
    assert av.Activation(jnp.abs, kinks=(1, -1)).kinks == (-1.0, 1.0)


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match=r"activation: expected one of .*relu.*, got 'rleu'"):
        get_activation("rleu")
    with pytest.raises(TypeError, match=r"activation: expected .*declares its kinks"):
        get_activation(jnp.tanh)
    with pytest.raises(TypeError, match="function: expected a callable"):
        av.Activation(3.0)
    with pytest.raises(ValueError, match="kinks: expected finite"):
        av.Activation(jnp.abs, kinks=(np.nan,))

"""What objects print: names, shapes and dtypes in at most three lines, never contents; and `help` without unions."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from beartype.roar import BeartypeCallHintParamViolation

import analytic_vae as av
from analytic_vae.effects import Effects
from analytic_vae.types import ArrayLike, PRNGKeyArray

pytestmark = pytest.mark.coarse
SOURCE = av.FeatureModel(av.Prior.bernoulli([0.3, 0.4]), jnp.array([[1.0, 0.5], [0.0, 1.0]]), 0.4)
DENSE, LINEAR = av.DenseLayer(np.eye(2), np.full(2, 0.12345), "relu"), av.LinearLayer(np.eye(2))
ENCODER = av.SoftmaxEncoder(np.ones((2, 1, 2)), np.ones((2, 1, 2)), np.ones((2, 2)))
NEURAL = av.NeuralEncoder.init(np.ones((2, 1, 2)), 2, key=jax.random.key(0))
TERMS = [jnp.zeros(())] * 11


def objects():
    elbo = av.Elbo(*TERMS, jnp.zeros(2), *TERMS[:2], av.ErrorBounds(*TERMS, TERMS[0]))
    none = np.zeros(0)
    fit = av.Fit(SOURCE, ENCODER, elbo, 1e-3, np.zeros(7), none, av.Stop.CONVERGED, 1.23456)
    network = av.Network([DENSE, LINEAR] * 30)
    yield from (SOURCE, SOURCE.prior, DENSE, LINEAR, ENCODER, NEURAL, av.CarriedEncoder(2, ENCODER), elbo, elbo.bounds)
    yield from (av.RidgeLayer(np.eye(2), np.ones(2), np.ones(2)), network, fit)
    yield av.Trajectory(SOURCE, network, (fit,) * 60)
    yield from (DENSE.activations[0], av.Resolution(8), av.pushforward(SOURCE, LINEAR, [[1.0, 0.0]], av.Resolution(8)))
    yield av.SparseAutoencoder(np.ones((2, 1, 2)), np.ones((2, 1)), np.ones((2, 2)))
    yield Effects(np.zeros((2, 2, 2)), np.zeros(2), np.zeros((2, 2)), np.zeros((2, 2)), 0)
    yield av.Score(*[jnp.zeros(5)] * 3, TERMS[0])
    yield av.Plan(None, jnp.zeros((2, 1)), jnp.ones((2, 1)), 12.0)


def test_they_are_short_and_say_shapes():
    for one in objects():
        said = repr(one)
        assert said.startswith(f"{type(one).__name__}(") and said.endswith(")")
        assert said.count("\n") < 3 and max(map(len, said.split("\n"))) <= 105, said
        assert "0x" not in said and "array(" not in said and "0.12345" not in said
        assert said.count("(") == said.count(")"), said


def test_what_it_says():
    expected = (
        "FeatureModel(prior=Prior(atoms=f64[2,2], logits=f64[2,2]), decoder=f64[2,2], noise=f64[],\n  mean=f64[2])"
    )
    assert repr(SOURCE) == expected
    assert repr(DENSE.activations[0]) == "Activation('relu')"


def test_batched_traced_and_odd_fields():
    batched = jax.vmap(av.LinearLayer)(jnp.ones((3, 2, 2)))
    assert repr(batched) == "LinearLayer(weight=f64[3,2,2], bias=f64[3,2])"
    seen = []

    @jax.jit
    def look(weight):
        seen.append(repr(av.LinearLayer(weight)))
        return jax.vmap(lambda row: seen.append(repr(av.Prior(row[None], row[None]))) or row)(weight)

    look(jnp.ones((2, 2), jnp.float32))
    assert seen == ["LinearLayer(weight=f32[2,2], bias=f32[2])", "Prior(atoms=f32[1,2], logits=f32[1,2])"]
    assert repr(jax.tree.map(lambda leaf: None, batched)) == "LinearLayer()"
    assert repr(jax.tree.map(lambda leaf: leaf.shape, batched)) == "LinearLayer(weight=(3, 2, 2), bias=(3, 2))"
    assert repr(jax.eval_shape(lambda: batched)) == "LinearLayer(weight=f64[3,2,2], bias=f64[3,2])"


@pytest.mark.parametrize("name", [name for name in av.__all__ if callable(getattr(av, name))])
def test_help_shows_no_unrolled_union(name):
    try:
        signature = str(inspect.signature(getattr(av, name)))
    except ValueError:  # an enumeration of some versions of Python has none
        return
    assert "Union[" not in signature and "UInt32" not in signature


def test_the_types_behind_it_still_check():
    @beartype
    def checked(array: ArrayLike, key: PRNGKeyArray | None = None):
        return array

    for one in (1, 1.0, True, np.ones(2), jnp.ones(2), np.float32(1)):
        checked(one)
    for key in (jax.random.key(0), jax.random.PRNGKey(0), None):
        checked(1, key)
    for wrong in (("a",), (1, 3), (1, jnp.ones(2))):
        with pytest.raises(BeartypeCallHintParamViolation):
            checked(*wrong)

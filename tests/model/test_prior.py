"""Priors: masses, moments and entropy of independent discrete features, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

import analytic_vae as av


@given(st.integers(0, 1 << 30), st.floats(0.1, 20.0))
def test_moments_are_those_of_the_masses(seed, spread):
    rng = np.random.default_rng(seed)
    atoms, logits = spread * rng.normal(size=(3, 4)), spread * rng.normal(size=(3, 4))
    prior = av.Prior(atoms, logits)
    masses = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mean = (masses * atoms).sum(axis=1)
    np.testing.assert_allclose(prior.masses, masses, rtol=1e-12)
    np.testing.assert_allclose(prior.mean, mean, rtol=1e-12, atol=1e-14 * spread)
    np.testing.assert_allclose(prior.variance, (masses * atoms**2).sum(axis=1) - mean**2, atol=1e-12 * spread**2)
    np.testing.assert_allclose(prior.entropy, entropy(masses, axis=1), rtol=1e-10, atol=1e-14)


def test_a_constant_in_the_logits_changes_nothing():
    prior = av.Prior([[0.0, 1.0, 2.0]], [[1.0, 2.0, 3.0]])
    moved = av.Prior([[0.0, 1.0, 2.0]], [[701.0, 702.0, 703.0]])
    np.testing.assert_allclose(prior.masses, moved.masses, rtol=1e-12)


def test_a_mass_of_zero_is_allowed_and_keeps_values_and_gradients_finite():
    prior = av.Prior([[0.0, 1.0, 5.0]], [[0.0, 0.0, -jnp.inf]])
    np.testing.assert_allclose(prior.masses, [[0.5, 0.5, 0.0]])
    np.testing.assert_allclose(prior.entropy, [np.log(2)])
    gradient = jax.grad(lambda p: (p.mean + p.variance).sum())(prior)
    assert np.isfinite(gradient.atoms).all() and np.isfinite(gradient.logits).all()


def test_named_constructors():
    prior = av.Prior.bernoulli([0.3, 1e-3])
    np.testing.assert_allclose(prior.masses, [[0.7, 0.3], [0.999, 1e-3]], rtol=1e-12)
    np.testing.assert_array_equal(prior.atoms, [[0, 1], [0, 1]])
    np.testing.assert_allclose(av.Prior.from_masses([[0, 1, 2]], [[2, 1, 1]]).masses, [[0.5, 0.25, 0.25]], rtol=1e-12)


def test_dtypes_follow_the_inputs():
    assert av.Prior(np.array([[0, 1]]), np.array([[0, 0]])).atoms.dtype == jnp.float64  # integers are promoted
    single = av.Prior(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves((single, single.masses, single.entropy))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: av.Prior([[0.0, 1.0]], [[0.0, 0.0, 0.0]]), "logits: expected shape"),
        (lambda: av.Prior([0.0, 1.0], [0.0, 0.0]), "atoms: expected shape"),
        (lambda: av.Prior.from_masses([[0.0, 1.0]], [0.5, 0.5]), r"masses: expected shape \[1, 2\] .*, got \[2\]"),
        (lambda: av.Prior(np.zeros((0, 2)), np.zeros((0, 2))), "atoms: expected shape"),
        (lambda: av.Prior(np.zeros((2, 0)), np.zeros((2, 0))), "atoms: expected shape"),
        (lambda: av.Prior([[0.0, np.nan]], [[0.0, 0.0]]), "atoms: expected finite numbers"),
        (lambda: av.Prior([[0.0, np.inf]], [[0.0, 0.0]]), "atoms: expected finite numbers"),
        (lambda: av.Prior([[0.0, 1.0]], [[0.0, np.nan]]), "logits: expected"),
        (lambda: av.Prior([[0.0, 1.0]], [[0.0, np.inf]]), "logits: expected"),
        (lambda: av.Prior([[0.0, 1.0]], [[-np.inf, -np.inf]]), "logits: expected"),
        (lambda: av.Prior([[0.0, 1.0j]], [[0.0, 0.0]]), "atoms: expected real"),
        (lambda: av.Prior(object(), [[0.0, 0.0]]), "atoms: expected an array"),
        (lambda: av.Prior.from_masses([[0.0, 1.0]], [[0.5, -0.5]]), "masses: expected non-negative"),
        (lambda: av.Prior.from_masses([[0.0, 1.0]], [[0.5, np.nan]]), "masses: expected finite"),
        (lambda: av.Prior.bernoulli([0.5, 1.0]), "probability: expected numbers strictly"),
        (lambda: av.Prior.bernoulli(0.5), "probability: expected shape"),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_masses_that_are_all_zero_are_refused():
    with pytest.raises(ValueError, match="masses: expected a positive sum"):
        av.Prior.from_masses([[0.0, 1.0]], [[0.0, 0.0]])

"""The Fisher metric of an encoder, and steps in its coordinates."""

import cases
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import analytic_vae as av
from analytic_vae.fitting.fisher import DAMPING, directions, fisher, step_in_metric
from analytic_vae.model.encoder import encode


@pytest.mark.parametrize("name", cases.ENCODERS)
def test_fisher_is_the_hessian_of_the_divergence(name):
    """`F_j` is the second derivative of `E KL(Q_j(theta_j) || Q_j(theta_j + d))` at `d = 0`: exact for Gaussian x2."""
    rng = np.random.default_rng(1)
    source = av.FeatureModel(av.Prior.bernoulli([0.5]), np.zeros((cases.N1, 1)), 0.8, rng.normal(size=cases.N1))
    layer = av.LinearLayer(rng.normal(size=(cases.N2, cases.N1)), rng.normal(size=cases.N2))
    _, _, target, encoder = cases.problem(0, name)
    atoms = target.prior.atoms
    arrays, static = eqx.partition(encoder, eqx.is_inexact_array)
    node, weight = np.polynomial.hermite_e.hermegauss(60)
    weights = jnp.asarray(np.outer(weight, weight).ravel() / (2 * np.pi))
    grid = np.stack(np.meshgrid(node, node, indexing="ij"), axis=-1).reshape(-1, 2)
    points = jax.vmap(layer)(source.mean[None] + 0.8 * jnp.asarray(grid))

    def log_masses(arrays):
        y = jnp.einsum("jtn,qn->jqt", arrays.readout, points)
        return encode(eqx.combine(arrays, static), y, atoms)

    given = jax.jit(log_masses)(arrays)
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], arrays))

    def divergence(theta):
        moved_first = jax.tree.map(lambda leaf, first: leaf.at[0].set(first), arrays, unravel(theta))
        return weights @ jnp.sum(jnp.exp(given[0]) * (given[0] - log_masses(moved_first)[0]), axis=1)

    found = jax.jit(fisher)(source, layer, atoms, encoder)
    assert found.shape == (encoder.features, flat.size, flat.size)
    exact = jax.jit(jax.hessian(divergence))(flat)
    np.testing.assert_allclose(found[0], exact, atol=1e-4 * float(jnp.trace(found[0])))


def test_directions_are_orthonormal_in_the_damped_metric():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 4, 6))
    metric = jnp.asarray(np.einsum("jri,jrk->jik", rows, rows))  # of rank 4, as metrics are
    columns = directions(metric)
    damped = metric + DAMPING * jnp.trace(metric, axis1=1, axis2=2)[:, None, None] / 6 * jnp.eye(6)[None]
    identity = jnp.einsum("jia,jik,jkb->jab", columns, damped, columns)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(6), (2, 6, 6)), atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_the_metric_of_a_sharp_encoder_is_one(seed):
    """It sees a few points of a coarse law, whose weights may be negative there: a fit must not end for that."""
    source, layer, target, encoder = cases.problem(seed)
    source = eqx.tree_at(lambda model: model.noise, source, source.noise / 10)
    source = eqx.tree_at(lambda model: model.prior.logits, source, source.prior.logits.at[:, 0].add(7.0))
    encoder = eqx.tree_at(lambda e: e.readout, encoder, 300 * encoder.readout)
    metric = jax.jit(fisher)(source, layer, target.prior.atoms, encoder)
    eigenvalues = np.linalg.eigvalsh(metric)
    assert np.all(eigenvalues[:, 0] >= -1e-10 * np.abs(eigenvalues).max(axis=1)), eigenvalues
    assert np.all(np.isfinite(directions(metric)))


def test_directions_of_a_metric_that_rounding_left_indefinite():
    columns = directions(jnp.diag(jnp.array([2.0, 0.0, -1.0]))[None])[0]
    assert np.all(np.isfinite(columns)) and np.linalg.matrix_rank(columns) == 3


def test_steps_go_along_the_columns():
    encoder = cases.problem(0, "gaussian2")[3]
    size = ravel_pytree(encoder)[0].size // encoder.features
    eye = jnp.broadcast_to(jnp.eye(size), (encoder.features, size, size))
    still = step_in_metric(encoder, eye, jnp.zeros((encoder.features, size)))
    jax.tree.map(np.testing.assert_array_equal, still, encoder)
    everywhere = step_in_metric(encoder, 2 * eye, jnp.ones((encoder.features, size)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 2), everywhere, encoder)

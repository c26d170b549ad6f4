"""The Fisher metric of an encoder, and steps in its coordinates."""

import cases
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from analytic_vae.encoder import encode
from analytic_vae.natural import CHUNK, DAMPING, directions, fisher, moved


@pytest.mark.parametrize("name", cases.ENCODERS)
def test_fisher_is_the_hessian_of_the_divergence(name):
    """`F_j` is the second derivative of `E_x KL(Q_j(theta_j) || Q_j(theta_j + d))` at `d = 0`."""
    _, _, target, encoder = cases.problem(0, name)
    atoms, points = target.prior.atoms, jnp.asarray(np.random.default_rng(1).normal(size=(2 * CHUNK, cases.N2)))
    arrays, static = eqx.partition(encoder, eqx.is_inexact_array)

    def log_masses(arrays):
        y = jnp.einsum("jtn,qn->jqt", arrays.readout, points)
        return encode(eqx.combine(arrays, static), y, atoms)

    given = log_masses(arrays)
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], arrays))

    def divergence(theta):
        moved_first = jax.tree.map(lambda leaf, first: leaf.at[0].set(first), arrays, unravel(theta))
        return jnp.sum(jnp.exp(given[0]) * (given[0] - log_masses(moved_first)[0])) / points.shape[0]

    found = jax.jit(fisher)(encoder, atoms, points)
    assert found.shape == (encoder.features, flat.size, flat.size)
    np.testing.assert_allclose(found[0], jax.hessian(divergence)(flat), atol=1e-12 * float(jnp.trace(found[0])))


def test_directions_are_orthonormal_in_the_damped_metric():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 4, 6))
    metric = jnp.asarray(np.einsum("jri,jrk->jik", rows, rows))  # of rank 4, as metrics are
    columns = directions(metric)
    damped = metric + DAMPING * jnp.trace(metric, axis1=1, axis2=2)[:, None, None] / 6 * jnp.eye(6)[None]
    identity = jnp.einsum("jia,jik,jkb->jab", columns, damped, columns)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(6), (2, 6, 6)), atol=1e-10)


def test_steps_go_along_the_columns():
    encoder = cases.problem(0, "gaussian2")[3]
    size = ravel_pytree(encoder)[0].size // encoder.features
    eye = jnp.broadcast_to(jnp.eye(size), (encoder.features, size, size))
    still = moved(encoder, eye, jnp.zeros((encoder.features, size)))
    jax.tree.map(np.testing.assert_array_equal, still, encoder)
    everywhere = moved(encoder, 2 * eye, jnp.ones((encoder.features, size)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 2), everywhere, encoder)

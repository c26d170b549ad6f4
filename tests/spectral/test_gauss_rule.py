"""Gauss rules of discrete laws: moments, exactness where few atoms have mass, and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import analytic_vae as av
from analytic_vae.spectral.gauss_rule import compress, gauss_rule

RNG = np.random.default_rng
rule = jax.jit(gauss_rule, static_argnums=2)


def law(seed: int, count: int = 32, support: int | None = None):
    """Random points and masses, of which only the first `support` are not zero."""
    rng = RNG(seed)
    masses = np.exp(rng.normal(size=count)) * (np.arange(count) < (support or count))
    return jnp.asarray(rng.normal(size=count)), jnp.asarray(masses / masses.sum())


@pytest.mark.parametrize("count", [2, 4, 6, 8])
def test_the_rule_has_the_moments_of_the_law(count):
    points, masses = law(count)
    nodes, weights = rule(points, masses, count)
    assert np.all(weights > 0)
    for degree in range(2 * count):
        np.testing.assert_allclose(weights @ nodes**degree, masses @ points**degree, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("support", "count"), [(1, 2), (3, 4), (3, 8), (5, 6), (3, 16)])
def test_a_law_of_few_points_is_kept(support, count):
    """There are fewer points with mass than nodes: the others get no mass, and nothing is nan."""
    points, masses = law(support, support=support)
    nodes, weights = rule(points, masses, count)
    order = np.argsort(points[:support])
    used = np.asarray(weights) > 1e-8
    np.testing.assert_allclose(np.asarray(nodes)[used], points[:support][order], atol=1e-7)
    np.testing.assert_allclose(np.asarray(weights)[used], masses[:support][order], atol=1e-7)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(jnp.multiply(*gauss_rule(points, p, count)))))(masses)
    assert np.all(np.isfinite(gradient))


def test_derivatives_are_those_of_the_law():
    """Of E cos(1.3 z) in all points and masses, forwards and backwards, and twice."""
    points, masses = law(0)

    def compressed(points, masses):
        nodes, weights = gauss_rule(points, masses, 8)
        return weights @ jnp.cos(1.3 * nodes)

    def direct(points, masses):
        return masses @ jnp.cos(1.3 * points)

    def derivatives(function):
        moves = (points, masses), (moved, 0 * masses)
        forward = jax.jvp(function, *moves)[1]
        gradient, twice = jax.jvp(jax.grad(function, (0, 1)), *moves)
        return forward, gradient, twice

    moved = jnp.asarray(RNG(1).normal(size=32))
    found, exact = (jax.jit(derivatives, static_argnums=0)(function) for function in (compressed, direct))
    for a, b, atol in zip(found, exact, (1e-8, 1e-8, 1e-6), strict=True):
        jax.tree.map(lambda x, y, atol=atol: np.testing.assert_allclose(x, y, atol=atol), a, b)


def test_a_source_of_many_atoms_gives_the_same_loss():
    """32 atoms as they are (Resolution(96) keeps them) and as Gauss rules of 9 (Resolution(48))."""
    rng = RNG(0)
    prior = av.Prior(rng.normal(size=(3, 32)), rng.normal(size=(3, 32)))
    source = av.FeatureModel(prior, rng.normal(size=(2, 3)) / 2, 0.4)
    assert compress(source, 16) is source
    few = compress(source, 8)
    assert few.prior.atoms.shape == (3, 8)
    for found, exact in zip(few.moments(), source.moments(), strict=True):
        np.testing.assert_allclose(found, exact, atol=1e-12)
    layer = av.RidgeLayer(rng.normal(size=(2, 2)), rng.normal(size=2), rng.normal(size=2), 0.1, "relu")
    target = av.FeatureModel(av.Prior.bernoulli([0.3, 0.4]), rng.normal(size=(2, 2)), 0.7)
    encoder = av.SoftmaxEncoder(rng.normal(size=(2, 1, 2)), rng.normal(size=(2, 1, 2)), rng.normal(size=(2, 2)))
    coarse, fine = (av.elbo(source, layer, target, encoder, av.Resolution(n)).loss for n in (48, 96))
    assert float(coarse) == pytest.approx(float(fine), abs=2e-6)

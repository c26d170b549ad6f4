"""Derivatives of the loss: every argument against differences of the oracle; forward mode; Hessian-vector products."""

import cases
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_elbo import oracle

import analytic_vae as av

RESOLUTION = av.Resolution()

slope = jax.jit(jax.value_and_grad(lambda parts, resolution: av.elbo(*parts, resolution).loss), static_argnums=1)


def random_direction(rng, path, leaf):
    """Of length 1 in every array; that of a lower-triangular factor is one."""
    direction = rng.normal(size=leaf.shape)
    if jax.tree_util.keystr(path).endswith(".noise") and leaf.ndim == 2:
        direction = np.tril(direction)
    return direction / np.linalg.norm(direction)


def central_difference(value, step: float = 2e-3) -> float:
    """Fourth-order derivative at 0: an error of step^4 and of rounding / step."""
    near, far = (value(h) - value(-h) for h in (step, 2 * step))
    return (8 * near - far) / (12 * step)


GRADIENTS = [
    ("softmax", "relu", "scalar", "scalar"),
    ("gaussian", "gelu", "full", "diagonal"),
    ("exponential", "hard_tanh", "diagonal", "full"),
    ("neural", "tanh", "scalar", "scalar"),
    pytest.param("softmax2", "relu", "scalar", "scalar", marks=pytest.mark.optimised),
]


@pytest.mark.parametrize(("encoder", "activation", "source_noise", "target_noise"), GRADIENTS)
def test_gradients_equal_finite_differences_of_the_oracle(encoder, activation, source_noise, target_noise):
    assert_slope(cases.problem(0, encoder, activation, source_noise, target_noise), activation)


@pytest.mark.optimised
def test_gradients_with_two_nearly_equal_statistics():
    """A feature reads `y` and `y` moved by 1e-2 of its size: their law is nearly singular.

    The loss is as exact as ever, but its error depends on the direction in which they differ, so the error of the
    readout's derivative grows as they approach: 1e-7 at 0.1, 2e-6 at 1e-2, 2e-5 at 1e-3, relative to the largest, at 64
    frequencies.
    """
    source, layer, target, encoder = cases.problem(0, "softmax2")
    first = encoder.readout[:, :1]
    readout = jnp.concatenate([first, first + 1e-2 * encoder.readout[:, 1:]], axis=1)
    parts = source, layer, target, eqx.tree_at(lambda one: one.readout, encoder, readout)
    assert_slope(parts, "relu", tolerance=1e-5, loss_tolerance=1e-6)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.coarse
def test_gradients_with_two_proportional_statistics(seed):
    """The second adds nothing that varies, but a derivative. Along a random direction of the readout."""
    source, layer, target, encoder = cases.problem(seed, "softmax2", "softplus")
    first = encoder.readout[:, :1]
    direction = np.random.default_rng(seed).normal(size=encoder.readout.shape)

    def loss(step):
        readout = jnp.concatenate([first, 0.7 * first], axis=1) + step * direction
        parts = source, layer, target, eqx.tree_at(lambda one: one.readout, encoder, readout)
        return av.elbo(*parts, RESOLUTION).loss

    along = jax.jit(jax.value_and_grad(loss))
    exact = central_difference(lambda step: float(along(step)[0]), 1e-2)
    assert abs(float(along(0.0)[1]) - exact) < 1e-2 * max(1, abs(exact))


def assert_slope(parts, activation, tolerance=1e-7, loss_tolerance=1e-8):
    """A random direction in source, layer, target and encoder each, with a part of length 1 in every array of it.

    The differences are the oracle's: they also tell a right derivative of a wrong loss. The error is relative to the
    largest derivative of all four, or to 100 times the part's own if that is less.
    """
    loss, gradient = slope(parts, av.Resolution(48 if parts[3].statistics_read == 2 else 64))
    assert float(loss) == pytest.approx(oracle(parts, activation)["loss"], rel=loss_tolerance)
    rng = np.random.default_rng(0)
    found = []
    for index, own in enumerate(gradient):
        direction = jax.tree_util.tree_map_with_path(lambda path, leaf: random_direction(rng, path, leaf), own)
        analytic = sum(float(np.vdot(*pair)) for pair in zip(*map(jax.tree.leaves, (own, direction)), strict=True))

        def moved(step, index=index, direction=direction):
            part = jax.tree.map(lambda leaf, d: leaf + step * d, parts[index], direction)
            return oracle((*parts[:index], part, *parts[index + 1 :]), activation)["loss"]

        found.append((analytic, central_difference(moved)))
    scale = max(abs(analytic) for analytic, _ in found)
    assert len(jax.tree.leaves(gradient)) >= 14
    within = [tolerance * min(scale, 100 * abs(analytic)) for analytic, _ in found]
    assert all(abs(a - b) < least for (a, b), least in zip(found, within, strict=True)), found


def test_forward_mode_equals_reverse_mode():
    parts, resolution = cases.problem(0), av.Resolution(64)
    _, gradient = slope(parts, resolution)
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), parts)
    _, forward = jax.jit(lambda p, d: jax.jvp(lambda q: av.elbo(*q, resolution).loss, (p,), (d,)))(parts, direction)
    dots = jax.tree.map(lambda a, b: jnp.sum(a * b), gradient, direction)
    assert float(forward) == pytest.approx(float(sum(jax.tree.leaves(dots))), rel=1e-9)


def test_hessian_vector_products():
    """Forward over reverse, against differences of the gradient that the same program gives.

    Differences move the boxes, too, which derivatives leave out.
    """
    _, *rest = cases.problem(0)
    source = cases.model(np.random.default_rng(0), cases.N1, 3, 12)  # 12 atoms: compressed
    learnt, static = eqx.partition((source, *rest), eqx.is_inexact_array)
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), learnt)

    def loss(learnt):
        return av.elbo(*eqx.combine(learnt, static), RESOLUTION).loss

    run = jax.jit(lambda learnt: jax.jvp(jax.grad(loss), (learnt,), (direction,)))

    def gradient(step):
        return run(jax.tree.map(lambda leaf, d: leaf + step * d, learnt, direction))[0]

    near, far = (jax.tree.map(jnp.subtract, gradient(h), gradient(-h)) for h in (1e-3, 2e-3))
    differences = jax.tree.map(lambda a, b: (8 * a - b) / 12e-3, near, far)
    product = run(learnt)[1]
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(product))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5 * scale), product, differences)


def test_the_gradient_is_that_of_the_loss_at_the_default_resolution():
    """A sharp encoder: what the loss is wrong by does not hang on the boxes, which the gradient leaves out."""
    rng = np.random.default_rng(0)
    prior = av.Prior.bernoulli([0.3, 0.4])
    source = av.FeatureModel(prior, rng.normal(size=(2, 2)), 0.5, rng.normal(size=2))
    layer = av.RidgeLayer(np.eye(2), [1.0, 0.0], [1.0, 0.0], -0.2)
    encoder = av.SoftmaxEncoder([[[4.0, 0.0]], [[0.1, -0.3]]], prior.atoms[:, None], [[1.1, -7.5], [0.4, -0.8]])

    def loss(step):
        moved = eqx.tree_at(lambda one: one.readout, encoder, encoder.readout * (1 + step))
        return av.profiled_loss(source, layer, prior.atoms, moved)[0].loss

    value, gradient = jax.jit(jax.value_and_grad(loss))(0.0)
    moved = jax.jit(loss)
    differences = [(float(moved(h)) - float(value)) / h for h in (1e-3, -1e-3, 1e-5, -1e-5)]
    np.testing.assert_allclose(differences, float(gradient), rtol=2e-2)


def test_gradients_are_finite_where_a_mass_is_zero():
    source, layer, target, encoder = cases.problem(0)
    logits = source.prior.logits.at[0, 0].set(-jnp.inf)
    source = eqx.tree_at(lambda model: model.prior.logits, source, logits)
    loss, gradient = slope((source, layer, target, encoder), av.Resolution(64))
    assert np.isfinite(loss) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))

"""Plans: the same numbers while they fit, a moment error that says so when they do not, and errors for wrong ones."""

import cases
import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import analytic_vae as av

RESOLUTION = av.Resolution(24)


@jax.jit
def value_and_grad(parts, plan):
    return jax.value_and_grad(lambda p: av.elbo(*p, RESOLUTION, plan=plan).loss)(parts)


@eqx.filter_jit
def elbo(parts, plan):
    return av.elbo(*parts, RESOLUTION, plan=plan)


def plan_of(parts):
    source, layer, _, encoder = parts
    return av.plan(source, layer, encoder, RESOLUTION)


def moved(parts, by: float):
    """All readouts and the source's directions and mean moved by `by`, relative to their size; the mean by more."""
    rng = np.random.default_rng(1)
    source, layer, target, encoder = parts
    move = lambda a: a * (1 + by * jnp.asarray(rng.normal(size=a.shape)))  # noqa: E731
    source = eqx.tree_at(lambda s: (s.decoder, s.mean), source, (move(source.decoder), move(source.mean) + by))
    return source, layer, target, eqx.tree_at(lambda e: e.readout, encoder, move(encoder.readout))


def test_a_new_plan_is_the_one_that_the_loss_makes():
    parts = cases.problem(0)
    (alone, gradient), (planned, same) = value_and_grad(parts, None), value_and_grad(parts, plan_of(parts))
    assert float(planned) == pytest.approx(float(alone), rel=1e-11)
    chex.assert_trees_all_close(gradient, same, rtol=1e-8, atol=1e-8)


def test_an_old_plan_costs_accuracy_and_says_so():
    """A step of training moves the loss much more than the plan's age; a source elsewhere shows in the moment error."""
    parts = cases.problem(0)
    plan, fresh = plan_of(parts), elbo(parts, None)
    near = moved(parts, 0.02)
    planned, exact = elbo(near, plan), elbo(near, None)
    assert abs(float(planned.loss - exact.loss)) < 1e-3 * abs(float(exact.loss - fresh.loss))
    assert float(planned.moment_error) < 10 * float(exact.moment_error) + 1e-6
    far = moved(parts, 3.0)
    assert float(elbo(far, plan).moment_error) > 100 * float(elbo(far, None).moment_error) + 1e-3


@pytest.mark.coarse
def test_the_moment_error_of_a_coarse_resolution_falls():
    parts = cases.problem(0)
    coarse, fine = float(av.elbo(*parts, av.Resolution(8)).moment_error), float(elbo(parts, None).moment_error)
    assert fine < coarse / 100 and fine < 1e-6


def test_mass_that_leaves_on_both_sides_shows():
    """Mass stays 1 and the mean 0 when a symmetric law outgrows its box: the variance tells."""
    source = av.FeatureModel(av.Prior([[-1.0, 0.0, 1.0]], jnp.log(jnp.array([[0.05, 0.9, 0.05]]))), [[1.0]], 0.3)
    layer = av.LinearLayer([[1.0]])
    target = av.FeatureModel(av.Prior.bernoulli([0.5]), [[1.0]], 0.5)
    encoder = av.SoftmaxEncoder([[[1.0]]], [[[0.0, 1.0]]], [[0.0, -0.5]])
    plan = av.plan(source, layer, encoder)
    rare = jnp.log(jnp.array([[0.001, 0.998, 0.001]]))
    wide = eqx.tree_at(lambda s: (s.decoder, s.prior.logits), source, (6 * source.decoder, rare))
    assert float(av.elbo(source, layer, target, encoder, plan=plan).moment_error) < 1e-6
    # Where the source is concrete, its clusters would be found, each on boxes of its own.
    traced = jax.jit(lambda source: av.elbo(source, layer, target, encoder, plan=plan).moment_error)(wide)
    assert float(traced) > 0.05


def test_wrong_plans_are_named():
    source, _, _, encoder = parts = cases.problem(0)
    plan = plan_of(parts)
    fewer = eqx.tree_at(lambda p: p.low, plan, plan.low[:1])
    with pytest.raises(ValueError, match="plan: expected boxes of 3 features"):
        av.elbo(*parts, RESOLUTION, plan=fewer)
    linear = av.LinearLayer(np.ones((cases.N2, cases.N1)))
    with pytest.raises(ValueError, match="plan: expected one of a linear layer, got one of a ridge layer"):
        av.elbo(source, linear, parts[2], encoder, RESOLUTION, plan=plan)
    with pytest.raises(ValueError, match="plan: expected one of a ridge layer, got one of a linear layer"):
        av.elbo(*parts, RESOLUTION, plan=av.plan(source, linear, encoder, RESOLUTION))
    with pytest.raises(ValueError, match=r"plan: expected boxes that leave out a mass of e\^-20 .* got e\^-12"):
        av.elbo(*parts, RESOLUTION, plan=av.plan(source, parts[1], encoder, av.Resolution(8)))
    with pytest.raises(TypeError, match="plan: expected a Plan"):
        av.elbo(*parts, RESOLUTION, plan="boxes")
    with pytest.raises(TypeError, match="mesh: expected a "):
        av.elbo(*parts, RESOLUTION, mesh=2)
    with pytest.raises(ValueError, match="encoder: expected a readout"):
        av.plan(source, av.LinearLayer(np.ones((2, cases.N1))), encoder)


def test_an_output_that_hardly_varies_is_no_moment_error():
    """Its covariance is known relative to itself: `psi` varies by 1e-6 of its mean."""
    source, layer, target, encoder = cases.problem(0)
    still = eqx.tree_at(lambda ridge: (ridge.linear, ridge.bias), layer, (1e-6 * layer.linear, jnp.asarray(0.7)))
    assert float(elbo((source, still, target, encoder), None).moment_error) < 1e-4

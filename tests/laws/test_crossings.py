"""Where functions that somebody wrote down cross a level: their turns are found, or said to be missed."""

from contextlib import nullcontext

import equinox as eqx
import exact_laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import analytic_vae as av
from analytic_vae.laws.crossings import MANY, Cells, _found_turns

CLIP = av.Activation(lambda b: jnp.clip(b, -1, 1), (-1.0, 1.0), "clip")


@pytest.mark.parametrize(
    "function, kinks, turns",
    [
        (lambda b: jnp.clip(b, -1, 1), (-1.0, 1.0), (-1.0, 1.0)),
        (lambda b: b * jax.nn.sigmoid(b), (), (-1.2784645427610738,)),
        (lambda b: (b - 3) ** 2 * (b + 1), (), (1 / 3, 3.0)),
        (lambda b: jnp.where(b > 500, 1000 - b, b), (500.0,), (500.0,)),
        (lambda b: b + jnp.sin(b) / 2, (), ()),
    ],
)
def test_turns_of_functions(function, kinks, turns):
    np.testing.assert_allclose(_found_turns(av.Activation(function, kinks)), turns, rtol=1e-9, atol=1e-9)


def test_a_function_with_many_turns_has_cells_of_its_window():
    """There its turns are looked for anew, and what is missed of them is in the accuracy."""
    wiggly = av.Activation(lambda b: jnp.sin(5 * b))
    assert _found_turns(wiggly) is None and 5 * 80 / np.pi > MANY
    ends = jnp.asarray([-4.0, 4.0])
    cells = Cells.of(wiggly, *ends, ends[None])
    roots = np.unique(np.asarray(cells.crossings(jnp.asarray(1.0), jnp.asarray(0.3))))
    exact = np.concatenate(
        [np.arcsin(0.3) + 2 * np.pi * np.arange(-4, 4), np.pi - np.arcsin(0.3) + 2 * np.pi * np.arange(-4, 4)]
    )
    exact = np.sort(exact[np.abs(exact) < 20]) / 5
    np.testing.assert_allclose(roots[roots < 4], exact, atol=1e-12)
    assert float(cells.more) == 0


def test_turns_that_are_too_narrow_are_told():
    """A bump of a width of 1e-7 at 1/3: seen by none of the nodes beforehand, but by those of a window about it."""
    bump = av.Activation(lambda b: b + 1e-3 * jnp.exp(-(((b - 1 / 3) / 1e-7) ** 2)))
    ends = jnp.asarray([-1.0, 1.0])
    assert _found_turns(bump) == ()
    near = 1 / 3 + 4e-7 * ends
    assert float(Cells.of(bump, *ends, near[None]).more) > 0


@pytest.mark.parametrize(
    "function, kinks, level",
    [
        (lambda b: jnp.where(jnp.abs(b) < 1, 1.0, 0.0), (-1.0, 1.0), 0.5),
        (lambda b: jnp.where(b < 1, b, 0.0), (1.0,), 0.2),
        (lambda b: b - jnp.floor(b), tuple(range(-12, 13)), 0.5),
        (lambda b: jnp.where(jnp.abs(b) < 1, 1.0, 0.0), (), 0.5),
    ],
)
def test_functions_that_jump(function, kinks, level):
    """At a kink, or where nobody said: between one-sided values a level would be crossed unseen."""
    with (
        nullcontext()
        if kinks
        else pytest.warns(av.AccuracyWarning, match="kinks: the activation '<lambda>' .* at -1, 1,")
    ):
        activation = av.Activation(function, kinks)
    assert _found_turns(activation) is None
    model = av.FeatureModel(av.Prior.bernoulli([0.3, 0.4]), np.array([[1.0, -0.7]]), 0.3)
    law = av.pushforward(model, av.DenseLayer([[1.3]], [0.2], activation), [[1.0]])
    z = 1.3 * model.sample(jax.random.key(0), 1_000_000)[:, 0] + 0.2
    sampled = float(np.mean(np.asarray(function(z)) > level))
    assert float(law.tail(level)) == pytest.approx(sampled, abs=4 * np.sqrt(sampled * (1 - sampled) / 1e6))
    assert float(law.length[0]) > 0.9


def test_turns_that_are_too_narrow_are_told_beside_kinks():
    bump = av.Activation(lambda b: b + 1e-3 * jnp.exp(-(((b - 1 / 3) / 1e-7) ** 2)), (-0.5, 0.5))
    ends = jnp.asarray([-1.0, 1.0])
    assert _found_turns(bump) == (-0.5, 0.5)
    assert float(Cells.of(bump, *ends, (1 / 3 + 4e-7 * ends)[None]).more) > 0


class Unhashable:
    """A function with parameters."""

    def __hash__(self):
        raise TypeError("unhashable")

    def __call__(self, b):
        return jnp.clip(b, -1, 1)


def test_functions_that_cannot_be_told_apart_are_looked_at_each_time():
    assert _found_turns(av.Activation(Unhashable(), (-1.0, 1.0))) == (-1.0, 1.0)
    with jax.enable_x64(False):
        single = _found_turns(av.Activation(jax.nn.silu))
    assert single != _found_turns(av.Activation(jax.nn.silu)) == pytest.approx((-1.2784645427610738,), abs=1e-12)


def test_two_units_of_a_function_of_ones_own_take_little_memory():
    """It was 66 GB: thousands of cells at each of thousands of nodes, for several states."""
    rng = np.random.default_rng(0)
    model = av.FeatureModel(
        av.Prior.from_masses(np.array([[0, 1, 2.0]] * 3), np.full((3, 3), 1 / 3)), np.eye(2, 3) + 0.3, 0.2
    )
    W, bias = rng.normal(size=(2, 2)), rng.normal(size=2)
    law = av.pushforward(model, av.DenseLayer(W, bias, [CLIP, CLIP]), np.eye(2))
    arrays, static = eqx.partition(law.image, eqx.is_array)
    tail = jax.jit(lambda arrays, t: eqx.combine(arrays, static).tail(t, False)).lower(arrays, jnp.zeros(2)).compile()
    assert tail.memory_analysis().temp_size_in_bytes < 1e9
    z, p = exact_laws.states(np.array([[0, 1, 2.0]] * 3), np.full((3, 3), 1 / 3))
    means = z @ (np.eye(2, 3) + 0.3).T @ W.T + bias
    exact = exact_laws.two(["hard", "hard"], np.zeros(2), means, p, 0.04 * W @ W.T, False)
    assert float(tail(arrays, jnp.zeros(2))) == pytest.approx(exact, abs=1e-10)

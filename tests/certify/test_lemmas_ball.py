"""B1 to B5: numbers with errors, and what roundings are charged."""

import jax.numpy as jnp
import numpy as np
import pytest

from analytic_vae.certify.ball import SAFETY, SIGMAS, Ball, Bounded, bounded, einsum


def test_sums_and_products():
    """B1: the worst errors of the parts are within the bound of the sum, and all but 2 percent of it."""
    rng = np.random.default_rng(0)
    value, error, weight = rng.normal(size=9), rng.uniform(0, 1, 9), rng.normal(size=9)
    found = (Ball.of(Bounded(jnp.asarray(value), jnp.asarray(error))) @ weight).bounded()
    worst = np.abs(weight) @ error
    assert worst <= float(found.error_bound) <= 1.02 * worst
    total = sum(Ball.of(Bounded(jnp.asarray(v), jnp.asarray(e))) for v, e in zip(value, error, strict=True)).bounded()
    assert error.sum() <= float(total.error_bound) <= 1.02 * error.sum()
    a, d, b, e = rng.normal(size=(4, 1000))
    d, e, sign = np.abs(d), np.abs(e), rng.choice([-1, 1], (2, 1000))
    assert np.all(
        np.abs((a + sign[0] * d) * (b + sign[1] * e) - a * b) <= np.abs(a) * e + np.abs(b) * d + d * e + 1e-14
    )
    assert np.isinf(bounded(jnp.asarray(1.0), jnp.asarray(jnp.nan)).error_bound)


def test_independent_roundings():
    """B2: a sum of independent errors of mean 0 exceeds `SIGMAS` root squares in 6.7e-4 of cases at most."""
    rng = np.random.default_rng(1)
    for size in (rng.uniform(0, 1, 40), np.ones(3), 2.0 ** -np.arange(12)):
        sums = rng.choice([-1.0, 1.0], (200_000, size.size)) @ size
        limit = SIGMAS * np.sqrt(np.sum(size**2))
        assert np.mean(np.abs(sums) > limit) <= 2 * np.exp(-(SIGMAS**2) / 2) < 7e-4
        assert np.mean(np.abs(sums) > limit / 4) > 0.1  # and one root square would not do


def test_roundings_of_sums():
    """B3, B4: a float32 sum of a thousand products is within what it is charged; so is a bound, summed up."""
    rng = np.random.default_rng(2)
    for _ in range(50):
        weight, value, error = (rng.normal(size=1000).astype(np.float32) for _ in range(3))
        found = (Ball.of(jnp.asarray(value)) @ jnp.asarray(weight)).bounded()
        exact = weight.astype(float) @ value.astype(float)
        off = abs(float(found.value) - exact)
        assert found.value.dtype == jnp.float32 and off <= float(found.error_bound)
        summed = float(jnp.sum(jnp.abs(jnp.asarray(error))))
        assert SAFETY * summed >= np.abs(error.astype(float)).sum()


@pytest.mark.parametrize("product", ["times", "matrix", "einsum", "sum"])
def test_arithmetic_of_balls(product):
    """B72: factors at the ends of their intervals reach the bound of a product of positive ones, and never pass it."""
    rng = np.random.default_rng(3)
    make = {
        "times": lambda a, b: (a * b).sum(),
        "matrix": lambda a, b: (a @ b.T).sum(),
        "einsum": lambda a, b: (einsum if isinstance(a, Ball) else jnp.einsum)("ij,kj->ik", a, b).sum(),
        "sum": lambda a, b: (a - b + 1.0).sum(),
    }[product]
    a, b, r, s = (jnp.asarray(rng.uniform(size=(3, 4))) for _ in range(4))
    largest = {"sum": -1}.get(product, 1)
    for signed in (1, -1):
        first, second = Ball.of(Bounded(a, r)), Ball.of(Bounded(signed * b, s))
        found = make(first, second).bounded()
        worst = float(make(a + r, signed * (b + largest * s))) - float(found.value)
        assert abs(worst) <= float(found.error_bound)
        if signed > 0:
            assert float(found.error_bound) <= 1.02 * abs(worst)
        for _ in range(100):
            moved = a + r * rng.uniform(-1, 1, a.shape), signed * b + s * rng.uniform(-1, 1, a.shape)
            assert abs(float(make(*moved)) - float(found.value)) <= float(found.error_bound)


def test_what_cancels_keeps_its_size():
    """B72: the rounding of a difference of large numbers is that of the numbers."""
    rng = np.random.default_rng(4)
    for _ in range(100):
        a, b, c = (rng.normal(size=n).astype(np.float32) for n in ((1, 300), (300, 300), (300, 1)))
        first = Ball.of(jnp.asarray(a)) @ jnp.asarray(b) @ jnp.asarray(c)
        found = (first - first.value + jnp.float32(1e-3)).bounded()
        off = abs(float(first.value[0, 0]) - (a.astype(float) @ b.astype(float) @ c.astype(float))[0, 0])
        assert off <= float(found.error_bound[0, 0])
        assert found.value[0, 0] == jnp.float32(1e-3)


def test_a_factor_that_cancels_is_charged_beside_what_is_unknown():
    """B72: a computed 0 may be `8 eps size`, and an unknown other factor multiplies that."""
    a = jnp.asarray([1e3])
    zero = Ball.of(a) - a
    eps = np.finfo(float).eps
    assert float((zero * Bounded(jnp.asarray([1e-6]), jnp.asarray([1e6]))).bounded().error_bound[0]) >= 8 * eps * 2e9
    assert np.isinf((zero * Bounded(jnp.asarray([1.0]), jnp.asarray([jnp.inf]))).bounded().error_bound[0])


def test_a_factor_of_zero_takes_no_part():
    """B72: however little is known of the other one."""
    unknown = Ball.of(Bounded(jnp.ones(2), jnp.asarray([jnp.inf, 1.0])))
    found = (unknown * jnp.asarray([0.0, 2.0])).sum().bounded()
    assert 2 <= float(found.error_bound) < 2.1
    assert np.isinf((unknown * jnp.asarray([1.0, 2.0])).sum().bounded().error_bound)

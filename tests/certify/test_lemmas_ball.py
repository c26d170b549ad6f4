"""B1 to B5: numbers with errors, and what roundings are charged."""

import jax.numpy as jnp
import numpy as np

from analytic_vae.certify.ball import SAFETY, SIGMAS, Bounded, added, bounded, weighted_sum


def test_sums_and_products():
    """B1: the worst errors of the parts are within the bound of the sum, and all but 2 percent of it."""
    rng = np.random.default_rng(0)
    value, error, weight = rng.normal(size=9), rng.uniform(0, 1, 9), rng.normal(size=9)
    found = weighted_sum(Bounded(jnp.asarray(value), jnp.asarray(error)), jnp.asarray(weight))
    worst = np.abs(weight) @ error
    assert worst <= float(found.error_bound) <= 1.02 * worst
    total = added(*(Bounded(jnp.asarray(v), jnp.asarray(e)) for v, e in zip(value, error, strict=True)))
    assert error.sum() <= float(total.error_bound) <= 1.0001 * error.sum()
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
        found = weighted_sum(Bounded(jnp.asarray(value), jnp.asarray(0 * error)), jnp.asarray(weight))
        exact = weight.astype(float) @ value.astype(float)
        off = abs(float(found.value) - exact)
        assert found.value.dtype == jnp.float32 and off <= float(found.error_bound)
        summed = float(jnp.sum(jnp.abs(jnp.asarray(error))))
        assert SAFETY * summed >= np.abs(error.astype(float)).sum()

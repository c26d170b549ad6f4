"""Bounds of the loss of dense layers, and of carried features through layers of every kind, against enumeration."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_dense
from test_dense import both, exact_terms, layer_of, problem

import analytic_vae as av

pytestmark = pytest.mark.coarse


def dense():
    """Three smooth units beside a linear map, a vector per atom."""
    return *both(vectors=True, extra=False), reference.Rule(12, 12)


def kinked():
    """Units of several kinds of one input, without a linear map, a direction per feature; full noise."""
    rng = np.random.default_rng(2)
    names = ("relu", "gelu", "relu")
    source = cases.model(rng, 1, 3, 2)
    layer, oracle = layer_of(rng, 1, names, skip=False)
    layer = av.DenseLayer(layer.weight, layer.bias, names, layer.output)
    target = cases.model(rng, 3, 3, 2, "full")
    return (source, layer, target, av.CarriedEncoder(3)), oracle, reference.Rule(40, 16)


def ridge(activation):
    """A ridge layer, which is one unit beside a linear map; or a linear layer."""
    source, layer, *_ = cases.problem(1, activation=activation)
    form = layer.form()
    target = cases.model(np.random.default_rng(3), cases.N2, cases.M1, cases.K1)
    arrays = form.weight, form.bias, form.output, form.linear
    oracle = reference_dense.Dense(*(np.asarray(array) for array in arrays), [(np.tanh, ())] * layer.units)
    if activation is None:  # its offset as that of the mean of what is modelled
        layer = av.LinearLayer(layer.weight)
    return (source, layer, target, av.CarriedEncoder(cases.M1)), oracle, reference.Rule(12, 12)


def vectors():
    """Carried features and two that read the input, with a vector for each of three atoms; smooth units."""
    return *both(vectors=True), reference.Rule(12, 12)


def extra():
    """Carried features and, beside them, two that read the input; a direction each.

    The target's noise is nearly singular: whitened directions are differences of large numbers, whose rounding counts.
    """
    (source, layer, target, encoder), oracle = both(vectors=False)
    factor = np.array([[1, 0, 0], [1000.3, 0.01, 0], [0.2, 0.1, 1]])
    decoder = 0.01 * np.asarray(target.decoder) + factor[:, :1]
    target = av.FeatureModel(target.prior, decoder, factor, target.mean)
    return (source, layer, target, encoder), oracle, reference.Rule(12, 12)


CASES = {
    "vectors": (vectors, np.float64, 1e-5),
    "kinked": (kinked, np.float32, 0.5),  # of one input no unit has noise given another: the worst for pairs
    "both": (extra, np.float32, np.inf),
    "ridge": (lambda: ridge("tanh"), np.float64, 1e-4),
    "linear": (lambda: ridge(None), np.float32, 1e-2),
}


@pytest.mark.parametrize("case", CASES)
def test_no_term_is_farther_off_than_its_bound(case):
    make, dtype, limit = CASES[case]
    parts, oracle, rule = make()
    parts = cases.cast(parts, dtype)
    found = av.elbo(*parts, av.Resolution(12), certify=True)
    exact = exact_terms(cases.cast(parts, np.float64), oracle, rule)
    for name in ("R1", "S1", "S2", "loss"):
        error = abs(float(getattr(found, name)) - exact[name])
        assert error <= float(getattr(found.bounds, name)) + 1e-13 * (1 + abs(exact[name])), name
    assert found.error_bound.dtype == dtype and found.error_bound < limit


def test_a_certified_fit():
    (source, layer, *_), oracle = problem(6)
    found = av.fit(source, layer, certify=True, check=False, resolution=av.Resolution(16))
    exact = exact_terms((source, layer, found.target, found.encoder), oracle)
    assert abs(found.loss - exact["loss"]) <= float(found.elbo.error_bound) < 1e-2
    with pytest.raises(ValueError, match="certify: expected False with split"):
        av.fit(source, layer, certify=True, split=True)
    unknown = av.DenseLayer(layer.weight, layer.bias, av.Activation(jnp.sin, name="sin"))
    with pytest.raises(ValueError, match="layer: expected an activation of known regularity"):
        av.fit(source, unknown, certify=True)


def test_bounds_have_no_gradient():
    parts, *_ = dense()

    def bound(by):
        return av.elbo(*parts[:2], parts[2].shift(by), parts[3], av.Resolution(12), certify=True).error_bound

    assert np.all(jax.grad(bound)(jnp.zeros(3)) == 0)


def test_bad_arguments():
    (source, layer, target, encoder), *_ = dense()
    unknown = av.DenseLayer(layer.weight, layer.bias, av.Activation(jnp.sin, name="sin"), layer.output, layer.skip)
    with pytest.raises(ValueError, match=r"layer: expected an activation of known regularity"):
        av.elbo(source, unknown, target, encoder, certify=True)
    parts, _ = problem(1, "softmax2")
    with pytest.raises(ValueError, match="encoder: expected one statistic per feature of a DenseLayer's input"):
        av.elbo(*parts, certify=True)

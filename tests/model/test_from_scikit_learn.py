"""Perceptrons of scikit-learn: equal to its own predictions."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import analytic_vae as av

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)) * [1, 10, 0.1] + [0, 5, 1]
THREE = (X[:, 0] > 0).astype(int) + (X[:, 1] > 5)


def fitted(estimator, y, x=X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(x, y)


def classifier(activation="relu", sizes=(4,)):
    return MLPClassifier(hidden_layer_sizes=sizes, activation=activation, max_iter=3, random_state=0)


def outputs(network, x=X):
    return np.asarray(jax.vmap(network)(jnp.asarray(x)))


@pytest.mark.parametrize("activation", ("identity", "logistic", "tanh", "relu"))
def test_logits_of_a_classifier(activation):
    estimator = fitted(classifier(activation, (4, 3)), THREE)
    network = av.from_scikit_learn(estimator)
    np.testing.assert_allclose(jax.nn.softmax(outputs(network)), estimator.predict_proba(X), rtol=1e-10, atol=1e-14)


def test_two_classes_and_several_labels_have_a_logit_each():
    for y in (THREE > 0, np.stack([THREE > 0, THREE > 1], axis=1)):
        estimator = fitted(classifier(), y)
        network = av.from_scikit_learn(estimator, layers="ridge")
        found, expected = jax.nn.sigmoid(outputs(network)), estimator.predict_proba(X)
        np.testing.assert_allclose(found, expected[:, -found.shape[1] :], rtol=1e-10)


@pytest.mark.parametrize(
    "options", ({}, {"with_mean": False}, {"with_std": False}, {"with_mean": False, "with_std": False})
)
def test_scalers_are_folded(options):
    regressor = MLPRegressor(hidden_layer_sizes=(4,), activation="tanh", max_iter=3, random_state=0)
    inner = Pipeline([("again", StandardScaler()), ("same", "passthrough"), ("net", regressor)])
    estimator = fitted(make_pipeline(StandardScaler(**options), inner), X[:, :2])
    network = av.from_scikit_learn(estimator)
    assert len(network.layers) == 2
    np.testing.assert_allclose(outputs(network), estimator.predict(X), rtol=1e-10)


def test_a_constant_column_and_single_precision():
    x = np.concatenate([X, np.full((60, 1), 7.0)], axis=1).astype(np.float32)
    estimator = fitted(make_pipeline(StandardScaler(), classifier()), THREE, x)
    network = av.from_scikit_learn(estimator)
    assert network.layers[0].weight.dtype == np.float32
    np.testing.assert_allclose(jax.nn.softmax(outputs(network, x)), estimator.predict_proba(x), rtol=2e-4, atol=1e-6)


class Poisson(MLPRegressor):
    """Its predictions are exponentials, as of loss='poisson' in newer versions."""


def poisson():
    estimator = fitted(Poisson(max_iter=1), X[:, 0])
    estimator.out_activation_ = "exp"
    return estimator


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classifier(), r"estimator: expected a fitted MLPClassifier, got one without coefs_; call fit"),
        (lambda: make_pipeline(StandardScaler(), classifier()), r"estimator\['standardscaler'\]: expected a fitted"),
        (lambda: fitted(make_pipeline(MinMaxScaler(), classifier()), THREE), "StandardScalers before .* MinMaxScaler"),
        (lambda: fitted(LogisticRegression(), THREE), r"estimator: expected an MLPClassifier, .* LogisticRegression"),
        (lambda: fitted(make_pipeline(StandardScaler(), LogisticRegression()), THREE), "LogisticRegression"),
        (lambda: Pipeline([("nothing", "passthrough")]), "got an empty one"),
        (poisson, "whose output is linear"),
    ],
)
def test_others_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        av.from_scikit_learn(make())


def test_what_is_no_estimator_is_refused():
    with pytest.raises(TypeError, match="estimator: expected an estimator of scikit-learn, got int"):
        av.from_scikit_learn(3)

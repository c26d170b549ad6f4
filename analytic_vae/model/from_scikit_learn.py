"""Multi-layer perceptrons of scikit-learn as networks; scikit-learn is not imported."""

from typing import Any

import numpy as np

from .activation_names import steps_of_activation
from .network import Network, network_of
from .steps import Affine, Scaling, Step

_ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}


def from_scikit_learn(estimator: Any, *, layers: str = "dense", forget: str | None = None) -> Network:
    """A fitted `MLPClassifier` or `MLPRegressor`, or a `Pipeline` of `StandardScaler`s and one, as a `Network`.

    The outputs of a regressor are its predictions. Those of a classifier are **logits**, before the softmax of
    `predict_proba` (before the logistic function, where there are two classes, of which it has one output, or several
    labels): `softmax(network(x))` is what `predict_proba` gives. Scalers are folded into the first layer.

    Arguments:
        estimator: fitted. A pipeline's steps that pass everything through are fine.
        layers, forget: as in `from_weights`.

    Raises `ValueError` that names the estimator if it is not fitted or a step is another one; `TypeError` if it is no
    estimator.

    >>> network = from_scikit_learn(estimator)  # make_pipeline(StandardScaler(), MLPClassifier()).fit(X, y)
    """
    if not hasattr(estimator, "get_params"):
        raise TypeError(f"estimator: expected an estimator of scikit-learn, got {type(estimator).__name__}.")
    steps: list[Step] = []
    *scalers, last = _flat("estimator", estimator)
    for name, one in scalers:
        steps.append(_scaling(name, one))
    return network_of([*steps, *_perceptron(*last)], layers=layers, forget=forget)


def _flat(name: str, estimator: Any) -> list[tuple[str, Any]]:
    """The steps of a pipeline, one within another included, less those that pass everything through."""
    if not _is(estimator, "Pipeline"):
        return [(name, estimator)]
    steps = [(f"{name}[{key!r}]", one) for key, one in estimator.steps if one not in (None, "passthrough")]
    found = [pair for inner, one in steps for pair in _flat(inner, one)]
    if not found:
        raise ValueError(
            f"{name}: expected a pipeline that ends in an MLPClassifier or an MLPRegressor, got an empty one."
        )
    return found


def _is(estimator: Any, *names: str) -> bool:
    return any(base.__name__ in names and base.__module__.startswith("sklearn.") for base in type(estimator).__mro__)


def _require_fitted(name: str, estimator: Any, attribute: str) -> None:
    if not hasattr(estimator, attribute):
        raise ValueError(
            f"{name}: expected a fitted {type(estimator).__name__}, got one without {attribute}; call fit."
        )


def _scaling(name: str, scaler: Any) -> Scaling:
    """`(x - mean) / scale`."""
    if not _is(scaler, "StandardScaler"):
        raise ValueError(
            f"{name}: expected StandardScalers before the perceptron, got {type(scaler).__name__}; give the network of "
            "the perceptron alone a source of what it puts out."
        )
    _require_fitted(name, scaler, "n_features_in_")
    scale = np.ones(1) if scaler.scale_ is None or not scaler.with_std else 1 / np.asarray(scaler.scale_, np.float64)
    mean = 0.0 if scaler.mean_ is None or not scaler.with_mean else np.asarray(scaler.mean_, np.float64)
    scale = np.broadcast_to(scale, (scaler.n_features_in_,))
    return Scaling(name, scale, -scale * mean)


def _perceptron(name: str, estimator: Any) -> list[Step]:
    if not _is(estimator, "MLPClassifier", "MLPRegressor"):
        raise ValueError(
            f"{name}: expected an MLPClassifier, an MLPRegressor or a Pipeline that ends in one, got "
            f"{type(estimator).__name__}."
        )
    _require_fitted(name, estimator, "coefs_")
    out = getattr(estimator, "out_activation_", "identity")
    if _is(estimator, "MLPRegressor") and out != "identity":
        raise ValueError(
            f"{name}: expected an MLPRegressor whose output is linear (squared_error), got one with {out}."
        )
    steps: list[Step] = []
    for index, (coefs, intercepts) in enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True)):
        if index:
            steps += steps_of_activation(f"{name}.activation", _ACTIVATIONS[estimator.activation])
        steps.append(Affine(f"{name}.coefs_[{index}]", coefs.T, f"{name}.intercepts_[{index}]", intercepts))
    return steps

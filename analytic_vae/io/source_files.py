"""Files of feature models and of data."""

import os
from typing import Any

import numpy as np

from .._check import finite_array, real_array
from ..model.feature_model import FeatureModel
from ..model.from_data import _checked_data, source_from_data
from ..model.prior import Prior
from .arrays import MAX_BYTES, read_arrays

_MODEL_KEYS = {"atoms", "decoder", "noise", "masses", "logits", "mean"}


def load_source(
    path: str | os.PathLike[str], features: int | None = None, *, max_bytes: int = MAX_BYTES, **options: Any
) -> FeatureModel:
    """The feature model in an `.npz` or `.safetensors` file, or that of the data in it.

    Arguments:
        path: a file that holds the arguments of a model, `atoms [m, K]`, `masses` or `logits [m, K]`, `decoder`,
            `noise` and, if not zero, `mean`, as in `Prior` and `FeatureModel`; or one that holds `data [samples, n]`,
            for `source_from_data`, whatever else (labels) it holds.
        features: how many to find in data; not for a model.
        max_bytes: the most bytes that the arrays of the file may take.
        options: the keywords of `source_from_data`; not for a model.

    Raises `FileNotFoundError` if there is no file, and `ValueError` if it is damaged, too large, holds Python objects,
    or arrays that are neither a model nor data, or that do not fit.
    """
    arrays = read_arrays(path, max_bytes=max_bytes)
    arrays.pop("header.json", None)  # what save_model adds
    if "data" in arrays and not _MODEL_KEYS & set(arrays):
        data = _checked_data(arrays["data"])
        if features is None:
            raise ValueError(f"features: expected how many to find in the data of {path}, got None.")
        return source_from_data(data, features, **options)
    _require_model(arrays, path)
    given = [name for name, value in {"features": features, **options}.items() if value is not None]
    if given:
        raise ValueError(f"{given[0]}: expected data to use it on, but {path} holds a model.")
    arrays = {
        name: real_array(name, array) if name == "logits" else finite_array(name, array)
        for name, array in arrays.items()
    }
    if "logits" in arrays:
        prior = Prior(arrays["atoms"], arrays["logits"])
    else:
        prior = Prior.from_masses(arrays["atoms"], arrays["masses"])
    return FeatureModel(prior, arrays["decoder"], arrays["noise"], arrays.get("mean"))


def _require_model(arrays: dict[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    keys = set(arrays)
    if not {"atoms", "decoder", "noise"} <= keys or len(keys & {"masses", "logits"}) != 1 or keys - _MODEL_KEYS:
        raise ValueError(
            f"path: expected atoms, decoder, noise, one of masses and logits, and perhaps mean; or data; in {path}; "
            f"got {', '.join(sorted(keys)) or 'no arrays'}."
        )

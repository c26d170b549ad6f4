"""Files of feature models and of data."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from .._check import finite_array, real_array
from ..model.columns import columns_of
from ..model.feature_model import FeatureModel
from ..model.from_data import source_from_data
from ..model.prior import Prior
from .arrays import MAX_BYTES, read_arrays, read_npy
from .tables import Table, read_table

_MODEL_KEYS = {"atoms", "decoder", "noise", "masses", "logits", "mean"}


def load_source(
    path: str | os.PathLike[str],
    features: int | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    label: str | int | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    **options: Any,
) -> FeatureModel:
    """The feature model in an `.npz` or `.safetensors` file, or that of the data in one of these, `.npy` or `.csv`.

    Arguments:
        path: a file that holds the arguments of a model, `atoms [m, K]`, `masses` or `logits [m, K]`, `decoder`,
            `noise` and, if not zero, `mean`, as in `Prior` and `FeatureModel`; or one that holds `data [samples, n]`,
            for `source_from_data`, whatever else (labels) it holds; or an array `[samples, n]` (`.npy`); or a table
            with a line of names or none (`.csv`).
        features: how many to find in data; not for a model.
        max_bytes: the most bytes that the arrays of the file may take.
        label: of a `.csv` file: a column that is no part of the data, by its name or, from 0, its number.
        delimiter: of a `.csv` file: what separates its fields; found if not given.
        header: of a `.csv` file: whether its first line are names; found if not given, but where it is 0, 1, 2, ...
        options: the keywords of `source_from_data`; not for a model.

    Raises `FileNotFoundError` if there is no file, and `ValueError` if it is damaged, too large, holds Python objects,
    or arrays that are neither a model nor data, or that do not fit.
    """
    found = read_source(path, max_bytes=max_bytes, label=label, delimiter=delimiter, header=header)
    if not isinstance(found, dict):
        columns_of(found)
        if features is None:
            raise ValueError(f"features: expected how many to find in the data of {path}, got None.")
        return source_from_data(found, features, **options)
    given = [name for name, value in {"features": features, **options}.items() if value is not None]
    if given:
        raise ValueError(f"{given[0]}: expected data to use it on, but {path} holds a model.")
    return _model(found)


def read_source(
    path: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
    label: str | int | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
) -> Table | np.ndarray | dict[str, np.ndarray]:
    """What a file holds: a table or an array of data, or the arrays of a model by name."""
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        return read_table(path, label=label, delimiter=delimiter, header=header, max_bytes=max_bytes)
    for name, value in (("label", label), ("delimiter", delimiter), ("header", header)):
        if value is not None:
            raise ValueError(f"{name}: expected None but for a .csv file, got {value!r} for {path}.")
    if suffix == ".npy":
        return read_npy(path, max_bytes=max_bytes)
    if suffix not in (".npz", ".safetensors"):
        raise ValueError(f"path: expected a name that ends in .npz, .npy, .csv or .safetensors, got {path}.")
    arrays = read_arrays(path, max_bytes=max_bytes)
    arrays.pop("header.json", None)  # what save_model adds
    if "data" in arrays and not _MODEL_KEYS & set(arrays):
        return arrays["data"]
    _require_model(arrays, path)
    return arrays


def _model(arrays: dict[str, np.ndarray]) -> FeatureModel:
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

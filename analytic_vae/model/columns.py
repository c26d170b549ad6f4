"""Tables of data: what a user has them in, and what is wrong with some of their columns, by name."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._check import real_array, require_shape, shown

SHOWN = 5  # columns, or places, that a message names

LARGEST = 1e100  # whose squares can be added


def columns_of(data: Any) -> tuple[np.ndarray, list[str]]:
    """Data as an array `[samples, neurons]` of floats, and what its columns are called: by name, or by number.

    Of NumPy, JAX, or anything that has `columns` (a frame of pandas or polars) or a `name` (one column: a series) and
    `to_numpy`. Raises `ValueError` that names `data`, and the columns and rows that are wrong.
    """
    names = None
    if hasattr(data, "to_numpy"):
        names = [repr(str(name)) for name in getattr(data, "columns", [getattr(data, "name", None)])]
        data = data.to_numpy()
        data = data[:, None] if data.ndim == 1 else data
    array = np.asarray(data)
    names = names or [str(i) for i in range(array.shape[1] if array.ndim == 2 else 0)]
    if array.dtype.kind == "O" and array.ndim == 2:
        array = _numbers(array, names)
    array = real_array("data", array)
    require_shape("data", array, (None, None), "samples, neurons")
    _require_finite(array, names)
    if (largest := np.max(np.abs(array.astype(np.float64)))) > LARGEST:
        raise ValueError(f"data: expected numbers whose squares can be added, below 1e100, got {largest:.3g}.")
    if len(array) < 2:
        raise ValueError(f"data: expected at least 2 samples, got shape {shown(array.shape)}.")
    # In one order of memory: sums, and so the last bits of a source, do not depend on what the data came in.
    return np.ascontiguousarray(array if array.dtype.kind == "f" else array.astype(np.float64)), names


def said_of_columns(data: np.ndarray, names: Sequence[str]) -> list[str]:
    """Sentences on columns that say nothing by themselves: those that never vary, and those that repeat another."""
    still = np.flatnonzero(np.all(data == data[:1], axis=0))
    first: dict[bytes, int] = {}
    repeats = []
    for i in range(data.shape[1]):
        if i not in set(still.tolist()):
            earlier = first.setdefault(np.ascontiguousarray(data[:, i]).tobytes(), i)
            if earlier != i:
                repeats.append(f"{names[i]} repeats {names[earlier]}")
    said = [f"columns that never vary: {_listed([names[i] for i in still])}"] * bool(still.size)
    return said + [f"columns that repeat others: {_listed(repeats)}"] * bool(repeats)


def _numbers(array: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Objects as floats, a missing one as NaN."""
    found = np.empty(array.shape)
    for i, name in enumerate(names):
        for row, value in enumerate(array[:, i]):
            if value is None or type(value).__name__ in ("NAType", "NaTType"):
                value = np.nan
            if not isinstance(value, int | float | np.number | np.bool_):
                raise ValueError(
                    f"data: expected numbers, got {value!r} in row {row} of column {name}; leave that column out, of a "
                    f"frame by data.drop(columns=[...]), of a .csv file by label=."
                )
            found[row, i] = value
    return found


def _require_finite(array: np.ndarray, names: Sequence[str]) -> None:
    bad = ~np.isfinite(array)
    count = int(np.count_nonzero(bad))
    if count:
        rows, columns = np.nonzero(bad)
        places = _listed([f"row {i} of column {names[j]}" for i, j in zip(rows[:SHOWN], columns[:SHOWN], strict=True)])
        rest = f", ... in {len(set(rows.tolist()))} rows" if count > SHOWN else ""
        raise ValueError(
            f"data: expected finite numbers, got {count} NaN or infinite of {array.size}: {places}{rest}, rows from 0. "
            "Leave out these rows, data[np.isfinite(data).all(axis=1)], or fill in what is missing."
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

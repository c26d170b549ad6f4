"""Tables of numbers in .csv files: a header or none, a column of labels left out, sizes bounded, nothing executed."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .arrays import MAX_BYTES, require_file

DELIMITERS = "\t;|,"  # in the order in which they are tried

LOOKED_AT = 50  # lines, to find the delimiter


class Table(NamedTuple):
    """Numbers `[rows, columns]` with the names of the columns, and the labels of the rows if there was such a column.

    `to_numpy()` and `columns` are those of a pandas frame.
    """

    values: np.ndarray
    columns: list[str]
    labels: list[str] | None

    def to_numpy(self) -> np.ndarray:
        """The numbers."""
        return self.values


def read_table(
    path: str | os.PathLike[str],
    *,
    label: str | int | None = None,
    delimiter: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Table:
    """The table in a `.csv` file. The first line is a header unless all of it are numbers; empty fields are NaN.

    Arguments:
        path: the file, in UTF-8.
        label: a column to leave out: its name in the header or, from 0, its number.
        delimiter: one character; if not given the first of tab, `;`, `|` and `,` that splits all lines alike.
        max_bytes: the most bytes that the file, and the numbers in it, may take.

    Raises `FileNotFoundError` if there is no such file, and `ValueError` that says which line and column is wrong.
    """
    path = require_file(path, (".csv",))
    if (size := path.stat().st_size) > max_bytes:
        raise ValueError(f"path: expected at most {max_bytes} bytes, got {size} in {path}; pass a larger max_bytes.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"path: expected a .csv file in UTF-8, got other bytes in {path} ({error.reason}).") from error
    delimiter = _delimiter(text) if delimiter is None else _checked_delimiter(delimiter)
    lines = _lines(text, delimiter, path)
    if not lines:
        raise ValueError(f"path: expected lines of numbers, got none in {path}.")
    header = None
    if not all(map(_is_number, lines[0][1])):
        header, lines = [field.strip() for field in lines[0][1]], lines[1:]
    if not lines:
        raise ValueError(f"path: expected lines of numbers below the header, got none in {path}.")
    names = header or [str(i) for i in range(len(lines[0][1]))]
    if 8 * len(lines) * len(names) > max_bytes:
        raise ValueError(f"path: expected at most {max_bytes} bytes of numbers, got more in {path}.")
    left_out = None if label is None else _label_column(label, names)
    kept = [i for i in range(len(names)) if i != left_out]
    values = np.array([[_number(fields[i], names[i], number, path) for i in kept] for number, fields in lines])
    labels = None if left_out is None else [fields[left_out].strip() for _, fields in lines]
    return Table(values.reshape(len(lines), len(kept)), [names[i] for i in kept], labels)


def _lines(text: str, delimiter: str, path: Path) -> list[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers from 1, all of one length."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        lines = [(reader.line_num, fields) for fields in reader if any(field.strip() for field in fields)]
    except csv.Error as error:
        raise ValueError(f"path: cannot read {path} as a .csv file: line {reader.line_num}: {error}.") from error
    for number, fields in lines:
        if len(fields) != len(lines[0][1]):
            raise ValueError(
                f"path: expected {len(lines[0][1])} fields in line {number} of {path}, as in the first, got "
                f"{len(fields)}; if {delimiter!r} is not what separates them, say so by delimiter=."
            )
    return lines


def _delimiter(text: str) -> str:
    lines = [line for line in text[: 2**20].splitlines()[:LOOKED_AT] if line.strip()]
    for one in DELIMITERS:
        try:
            counts = {len(fields) for fields in csv.reader(lines, delimiter=one, skipinitialspace=True) if fields}
        except csv.Error:  # said when the file is read
            continue
        if len(counts) == 1 and counts != {1}:
            return one
    return ","


def _checked_delimiter(delimiter: str) -> str:
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '\r\n"':
        raise ValueError(f"delimiter: expected one character, got {delimiter!r}.")
    return delimiter


def _label_column(label: str | int, names: Sequence[str]) -> int:
    count = list(names).count(str(label))
    if count == 1:
        return list(names).index(str(label))
    if count == 0 and str(label).isdigit() and int(label) < len(names):
        return int(label)
    what = "one column of that name" if count else f"a column among {', '.join(names[:20])}"
    raise ValueError(f"label: expected {what}, got {label!r}.")


def _is_number(field: str) -> bool:
    try:
        float(field or "nan")
    except ValueError:
        return not field.strip()
    return "_" not in field


def _number(field: str, name: str, line: int, path: Path) -> float:
    if not _is_number(field):
        raise ValueError(
            f"data: expected numbers, got {field!r} in line {line} of {path}, column {name}; leave that column out by "
            f"label={name!r} (--label), or mend it (decimals need a point)."
        )
    return float(field) if field.strip() else np.nan

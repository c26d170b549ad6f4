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
    """Numbers `[rows, columns]` with the names of the columns.

    `to_numpy()` and `columns` are those of a pandas frame.
    """

    values: np.ndarray
    columns: list[str]

    def to_numpy(self) -> np.ndarray:
        """The numbers."""
        return self.values


def read_table(
    path: str | os.PathLike[str],
    *,
    label: str | int | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    max_bytes: int = MAX_BYTES,
) -> Table:
    """The table in a `.csv` file; empty fields are NaN.

    A first column without a name that counts the rows from 0, as pandas writes its index, is left out.

    Arguments:
        path: the file, in UTF-8.
        label: a column to leave out: its name in the header or, from 0, its number.
        delimiter: one character; if not given the first of tab, `;`, `|` and `,` that splits all lines alike.
        header: whether the first line are names. If not given: if a field of it is text where the second line has a
            number, or all of it is text. It must be given where that line is 0, 1, 2, ...
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
    names = [str(i) for i in range(len(lines[0][1]))]
    if _has_header(lines, label, path) if header is None else header:
        names, lines = [field.strip() for field in lines[0][1]], lines[1:]
    if not lines:
        raise ValueError(f"path: expected lines of numbers below the header, got none in {path}.")
    if 8 * len(lines) * len(names) > max_bytes:
        raise ValueError(f"path: expected at most {max_bytes} bytes of numbers, got more in {path}.")
    left_out = None if label is None else _label_column(label, names)
    counts = names[0] == "" and [fields[0].strip() for _, fields in lines] == [str(i) for i in range(len(lines))]
    kept = [i for i in range(len(names)) if i != left_out and not (counts and i == 0)]
    values = np.array([[_number(fields[i], names[i], number, path) for i in kept] for number, fields in lines])
    return Table(values.reshape(len(lines), len(kept)), [names[i] for i in kept])


def _has_header(lines: list[tuple[int, list[str]]], label: str | int | None, path: Path) -> bool:
    """Whether the first line are names, as far as can be told."""
    first = [field.strip() for field in lines[0][1]]
    if str(label) in first and not str(label).isdigit():
        return True
    counted = [str(i) for i in range(len(first))]
    if len(first) > 1 and first in (counted, ["", *counted[:-1]]):
        raise ValueError(
            f"header: expected True or False (--header yes, --header no), since the first line of {path} is 0, 1, 2, "
            "...: names of columns, or numbers."
        )
    texts = [i for i, field in enumerate(first) if not _is_number(field)]
    if len(texts) == len(first) or len(lines) == 1:
        return bool(texts)
    return any(_is_number(lines[1][1][i]) for i in texts if str(i) != str(label))


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

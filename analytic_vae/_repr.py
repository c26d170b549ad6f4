"""Objects in a line or three: names of fields, shapes and dtypes of arrays, never what is in them."""

import dataclasses
import enum
import textwrap
from typing import Any

import equinox as eqx

WIDTH, LINES = 100, 3

DEPTH = 3  # of objects in objects, at most; fewer where that would take more lines

LISTED = 4  # of the members of a tuple


def short_repr(self) -> str:
    """The `__repr__` of an object of the package, whether its arrays are known, traced, batched or something else."""
    lines: list[str] = []
    for depth in range(DEPTH, 0, -1):
        lines = textwrap.wrap(_shown(self, depth), WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        if len(lines) <= LINES:
            return "\n".join(lines)
    text = "\n".join(lines[:LINES])
    text = text[: text.rfind(", ")]
    return f"{text}, ...{')' * (text.count('(') - text.count(')'))}"


def _shown(value: Any, depth: int) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return eqx.tree_pformat(value, short_arrays=True, struct_as_array=True, width=10_000).replace("(numpy)", "")
    if isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        return _of_fields(value, depth)
    if isinstance(value, tuple | list):
        if depth == 0 and len(value):
            return f"<{len(value)}>"
        members = [_shown(one, depth) for one in value[:LISTED]] + [f"... {len(value)} in all"] * (len(value) > LISTED)
        return f"({', '.join(members)}{',' * (len(value) == 1)})"
    if callable(value) and not isinstance(value, type):
        return getattr(value, "__name__", type(value).__name__)
    return textwrap.shorten(repr(value), 60, placeholder="...")


def _of_fields(value: Any, depth: int) -> str:
    name = type(value).__name__
    if isinstance(value, eqx.Module) and type(value).__repr__ not in (short_repr, eqx.Module.__repr__):
        return repr(value)  # one of its own
    if depth == 0:
        return f"{name}(...)"
    names = getattr(value, "_fields", None) or [one.name for one in dataclasses.fields(value) if one.repr]
    given = [(one, getattr(value, one, None)) for one in names]
    return f"{name}({', '.join(f'{one}={_shown(v, depth - 1)}' for one, v in given if v is not None)})"

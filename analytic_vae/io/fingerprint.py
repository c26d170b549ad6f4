"""A digest of everything that the numbers of a run depend on: arguments, code, versions."""

import dataclasses
import functools
import hashlib
import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..model.feature_model import FeatureModel
from ..model.network import Network

DIGEST = "sha256:"


def _versions() -> dict[str, str]:
    """Of everything that computes the numbers of a run; the package may be at hand as its source, and changed."""
    found = {name: version(name) for name in ("jax", "jaxlib", "numpy", "optax", "scipy")}
    with suppress(PackageNotFoundError):  # used from its source
        found["analytic_vae"] = version("analytic_vae")
    return found | {"code": CODE}


def _code_digest(package: Path) -> str:
    """A digest of the source files of the package, whatever line ends they have."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py"), key=lambda file: file.relative_to(package).parts):
        digest.update(f"[{file.relative_to(package).as_posix()}]".encode() + file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


CODE = _code_digest(Path(__file__).parents[1])  # as it is imported: it may be edited while it runs


def _fingerprint(source: FeatureModel, network: Network, options: dict[str, Any]) -> str:
    """A digest of all that the numbers depend on: arrays, options by name, functions by code and values, versions."""
    return _digest_of({"source": source, "network": network, "options": options, "versions": _versions()})


def _digest_of(value: Any) -> str:
    digest = hashlib.sha256()
    _digest(digest, value)
    return DIGEST + digest.hexdigest()


def _digest(digest, value: Any) -> None:
    digest.update(f"<{type(value).__module__}.{type(value).__qualname__}>".encode())
    if isinstance(value, dict):
        for name in sorted(value):
            digest.update(f"[{name}]".encode())
            _digest(digest, value[name])
    elif isinstance(value, jax.Array | np.ndarray | np.generic):
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        digest.update(str((array.shape, array.dtype)).encode() + array.tobytes())
    elif isinstance(value, tuple | list):
        for item in value:
            _digest(digest, item)
    elif isinstance(value, eqx.Module):
        _digest(digest, {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)})
    elif inspect.iscode(value):
        digest.update(value.co_code)
        _digest(digest, [*value.co_names, *value.co_consts])
    elif isinstance(value, functools.partial):
        _digest(digest, [value.func, value.args, value.keywords])
    elif inspect.isfunction(value):
        digest.update(f"{value.__module__}.{value.__qualname__}".encode() + _computed_by(value))
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell.cell_contents is not value]
        _digest(digest, [value.__code__, value.__defaults__, value.__kwdefaults__, cells])
    elif callable(value):
        digest.update(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}".encode())
        digest.update(_computed_by(value))
        _digest(digest, getattr(value, "__wrapped__", None))
    elif isinstance(value, set | frozenset):
        _digest(digest, sorted(map(repr, value)))
    else:
        digest.update(re.sub(r"0x[0-9a-f]+", "", repr(value)).encode())  # less addresses


def _computed_by(function: Callable) -> bytes:
    """What a function of one number (an activation) computes: its program with its constants, and some values.

    The code of a function does not tell all: it may call others, read globals or be wrapped.
    """
    points = np.linspace(-3, 3, 13)
    try:
        program = jax.make_jaxpr(function)(points[0])
        values = [np.asarray(function(x)) for x in points]
    except Exception:  # a function of something else
        return b""
    shown = re.sub(r"0x[0-9a-f]+", "", str(program))
    parts = [np.asarray(constant).tobytes() for constant in program.consts] + [value.tobytes() for value in values]
    return shown.encode() + b"".join(parts)

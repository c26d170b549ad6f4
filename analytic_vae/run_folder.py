"""The folder of a run: one process at a time, and a fingerprint of everything that its numbers depend on."""

import dataclasses
import functools
import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import equinox as eqx
import jax
import numpy as np

from .checkpoint import write_text
from .layer import Network
from .model import FeatureModel

try:
    import fcntl
except ImportError:  # Windows: two processes then do the same work, and write the same bits
    fcntl = None


@contextmanager
def run_folder(folder: Path, source: FeatureModel, network: Network, options: dict[str, Any]) -> Iterator[Path]:
    """The run folder, made or recognised by its fingerprint, for this process alone as long as it is open.

    Raises `ValueError` if it is not a folder or belongs to another run, `BlockingIOError` if another process works in
    it, `OSError` if it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder: expected a folder, got the file {folder}.")
    fingerprint = _fingerprint(source, network, options)
    with _alone(folder):
        _claim(folder, fingerprint, len(network.layers))
        for name in ("layer_*.npz", "output.npz", "run.json", "report.*"):  # half-written, of a process that was killed
            for left in folder.glob(f".{name}.*"):
                left.unlink(missing_ok=True)
        yield folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else's while open. The system lets go of the lock when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        if (folder / "output.npz").exists():  # a finished run is only read
            yield
            return
        raise type(error)(f"folder: cannot write to {folder} ({error.strerror}); choose another folder.") from error
    with lock:
        _lock(lock, folder)
        yield


def _lock(lock: IO[str], folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise BlockingIOError(
            f"folder: process {lock.read() or 'unknown'} works in {folder}; wait for it, or choose another folder."
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def _claim(folder: Path, fingerprint: str, layers: int) -> None:
    """Write what run the folder is of, or see that it is this one."""
    manifest, versions = folder / "run.json", _versions()
    if manifest.exists():
        try:
            found = json.loads(manifest.read_text())
            same, theirs = found["fingerprint"] == fingerprint, found.get("versions", versions)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"folder: {manifest} is damaged; remove the folder or choose another.") from error
        if theirs != versions:
            raise ValueError(
                f"folder: {folder} was begun with {theirs}, here are {versions}: it would not end in the same numbers; "
                "choose another folder, or install those."
            )
        if not same:
            raise ValueError(
                f"folder: {folder} belongs to a run of another source, network or options; choose another folder."
            )
        return
    stray = sorted(folder.glob("layer_*.npz"))
    if stray:
        raise ValueError(f"folder: {folder} holds {stray[0].name} but no run.json; choose another folder.")
    write_text(manifest, json.dumps({"fingerprint": fingerprint, "layers": layers, "versions": versions}) + "\n")


def _versions() -> dict[str, str]:
    """Of everything that computes the numbers of a run."""
    found = {name: version(name) for name in ("jax", "numpy", "optax", "scipy")}
    with suppress(PackageNotFoundError):  # used from its source
        found["analytic_vae"] = version("analytic_vae")
    return found


def _fingerprint(source: FeatureModel, network: Network, options: dict[str, Any]) -> str:
    """A digest of all that the numbers depend on: arrays, options by name, functions by code and values, versions."""
    digest = hashlib.sha256()
    _digest(digest, {"source": source, "network": network, "options": options, "versions": _versions()})
    return digest.hexdigest()


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

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
from .spectral.resolution import Resolution

try:
    import fcntl
except ImportError:  # Windows: two processes then do the same work, and write the same bits
    fcntl = None

DIGEST = "sha256:"


@contextmanager
def run_folder(folder: Path, source: FeatureModel, network: Network, options: dict[str, Any]) -> Iterator[Path]:
    """The run folder, made or recognised by its fingerprint, for this process alone as long as it is open.

    Raises `ValueError` if it is not a folder or belongs to another run, and says what differs; `BlockingIOError` if
    another process works in it, `OSError` if it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder: expected a folder, got the file {folder}.")
    with _alone(folder):
        _claim(folder, source, network, options)
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


def _claim(folder: Path, source: FeatureModel, network: Network, options: dict[str, Any]) -> None:
    """Write what run the folder is of, or see that it is this one."""
    manifest = folder / "run.json"
    here = {
        "fingerprint": _fingerprint(source, network, options),
        "layers": len(network.layers),
        "versions": _versions(),
        "parts": _parts(source, network, options),
    }
    if manifest.exists():
        _recognise(folder, manifest, here)
        return
    stray = sorted(folder.glob("layer_*.npz"))
    if stray:
        raise ValueError(f"folder: {folder} holds {stray[0].name} but no run.json; choose another folder.")
    write_text(manifest, json.dumps(here) + "\n")


def _recognise(folder: Path, manifest: Path, here: dict[str, Any]) -> None:
    """Raise `ValueError`, which says what differs, unless the folder is of the same run."""
    try:
        found = json.loads(manifest.read_text())
        same = found["fingerprint"] == here["fingerprint"]
        versions = _other_versions(found.get("versions", here["versions"]), here["versions"])
        parts = [] if same else _other_parts(found.get("parts", {}), here["parts"])  # {}: of an older analytic_vae
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"folder: {manifest} is damaged; remove the folder or choose another.") from error
    if versions:
        raise ValueError(
            f"folder: {folder} was begun with {', '.join(versions)}: it would not end in the same numbers; choose "
            "another folder, or install what it was begun with (`show` prints what the folder holds)."
        )
    if not same:
        what = ", ".join(parts) or "source, network or options"
        raise ValueError(f"folder: {folder} belongs to another run: it differs in {what}; choose another folder.")


def _other_versions(theirs: dict[str, str], ours: dict[str, str]) -> list[str]:
    """What a person should read of the versions that differ."""
    names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    shown = [f"{name} {theirs.get(name, 'none')} (here {ours.get(name, 'none')})" for name in names if name != "code"]
    return shown + ["other code of analytic_vae"] * (not shown and "code" in names)


def _other_parts(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """The names of what differs; of options that are short to write their values, too."""
    names = [name for name in ("source", "network") if name in theirs and theirs[name] != ours[name]]
    others, options = theirs.get("options", ours["options"]), ours["options"]
    for name in {**others, **options}:
        there, here = others.get(name, "none"), options.get(name, "none")
        if there != here:
            digests = there.startswith(DIGEST) or here.startswith(DIGEST)
            names.append(name if digests else f"{name} ({there} there, {here} here)")
    return names


def _parts(source: FeatureModel, network: Network, options: dict[str, Any]) -> dict[str, Any]:
    """What a run is of, each part by a digest or as it is written, so that a message can say which differs."""
    return {
        "source": _digest_of(source),
        "network": _digest_of(network),
        "options": {name: _written(value) for name, value in options.items()},
    }


def _written(value: Any) -> str:
    """A number, a word or a resolution as it is written, anything else by its digest."""
    short = value is None or isinstance(value, bool | int | float | str | np.generic | Resolution)
    return repr(value) if short and len(repr(value)) < 100 else _digest_of(value)


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


CODE = _code_digest(Path(__file__).parent)  # as it is imported: it may be edited while it runs


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

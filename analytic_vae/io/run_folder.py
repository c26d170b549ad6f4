"""The folder of a run: one process at a time, and a fingerprint of everything that its numbers depend on."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..model.feature_model import FeatureModel
from ..model.network import Network
from ..spectral.resolution import Resolution
from .atomic import write_text
from .fingerprint import DIGEST, _digest_of, _fingerprint, _versions

try:
    import fcntl
except ImportError:  # Windows: two processes then do the same work, and write the same bits
    fcntl = None


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

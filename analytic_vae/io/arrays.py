"""Arrays out of files that may come from anywhere: names, sizes and dtypes are read first, and nothing is executed."""

import json
import lzma
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import jax.numpy as jnp
import numpy as np

MAX_BYTES = 2**30

BOMB = 2**26, 200  # more bytes than this, and than so many times the file's own, are a bomb: weights hardly shrink

_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

_SAFETENSORS_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BOOL": np.bool_} | {
    f"{letter}{bits}": np.dtype(f"{letter.lower()}{bits // 8}") for letter in "IU" for bits in (8, 16, 32, 64)
}

_BFLOAT16 = "BF16"  # NumPy has none: it is read as float32, which holds all its numbers

_NPY_BFLOAT16 = np.dtype("V2")  # what an .npy file makes of it: two bytes without a meaning

# What the standard library and NumPy raise for bytes that are not what they claim to be.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    tokenize.TokenError,
    EOFError,
    OSError,
    RuntimeError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    SyntaxError,
    TypeError,
    ValueError,
)


# Which of the names in a file are to be read.
Choose = Callable[[list[str]], Iterable[str]]


def read_arrays(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, choose: Choose = list
) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` or `.safetensors` file by name, in the order of the file.

    The sizes that the file declares are added up before any array is read, so a small file cannot claim a large
    memory; object arrays (which hold pickles) are refused unread, and so are files that unpack to more than 64 MiB
    and 200 times their own size. Arrays of bfloat16 come back in float32, number for number.

    Arguments:
        path: the file; its suffix says the format. `.safetensors` needs `pip install 'analytic_vae[files]'`.
        max_bytes: the most bytes that the arrays may take together.
        choose: takes the names in the file, returns those to read; no others are read or counted.

    Raises `FileNotFoundError` if there is no such file, and `ValueError` if it is a directory, has another suffix, is
    damaged or cut short, holds Python objects, or declares more than `max_bytes`.
    """
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    path = require_file(path, tuple(readers))
    return readers[path.suffix.lower()](path, max_bytes, choose)


def read_npy(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array of an `.npy` file, whose size is read first; raised is what `read_arrays` raises."""
    path = require_file(path, (".npy",))
    try:
        with path.open("rb") as stream:
            _require_fits(_declared_of(stream, path.name), max_bytes)
            stream.seek(0)
            return _whole_array(stream, path.name)
    except _DAMAGE as error:
        raise ValueError(f"path: cannot read {path} as a whole .npy file: {error}") from error


def require_file(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    """The path of a file that can be read and has one of these suffixes; raises an error that names `path` else."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"path: expected a file, got the directory {path}.")
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"path: expected a name that ends in {' or '.join(suffixes)}, got {path}.")
    if not path.is_file():
        raise FileNotFoundError(f"path: expected a file, found none at {path}.")
    with path.open("rb") as stream:  # a file that may not be read is said to be so, not to be damaged
        stream.read(1)
    return path


def _require_fits(declared: int, max_bytes: int) -> None:
    if declared > max_bytes:
        raise ValueError(
            f"expected arrays of at most {max_bytes} bytes together, but the file declares {declared}. "
            f"If it is to be trusted, pass max_bytes={declared} or more."
        )


def _read_npz(path: Path, max_bytes: int, choose: Choose) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            found = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            wanted = set(_chosen(choose, [member.filename.removesuffix(".npy") for member in found]))
            members = [member for member in found if member.filename.removesuffix(".npy") in wanted]
            # A member yields no more bytes than its entry in the archive says: this bounds the headers, too.
            unpacked = sum(member.file_size for member in members)
            _require_fits(unpacked, max_bytes)
            if unpacked > max(BOMB[0], BOMB[1] * path.stat().st_size):
                raise ValueError(
                    f"expected at most {BOMB[1]} times the size of the file, but it unpacks to {unpacked}."
                )
            _require_fits(sum(_declared_bytes(archive, member) for member in members), max_bytes)
            return {member.filename.removesuffix(".npy"): _read_member(archive, member) for member in members}
    except _NotThere as error:
        raise ValueError(str(error)) from error
    except _DAMAGE as error:
        raise ValueError(f"path: cannot read {path} as a whole .npz file: {error}") from error


class _NotThere(Exception):
    """What is to be read is not in the file, which is whole."""


def _chosen(choose: Choose, names: list[str]) -> Iterable[str]:
    try:
        return choose(names)
    except ValueError as error:
        raise _NotThere(str(error)) from error


def _declared_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    with archive.open(member) as stream:
        return _declared_of(stream, member.filename)


def _declared_of(stream: IO[bytes], name: str) -> int:
    shape, dtype = _read_header(stream)
    if dtype.hasobject:
        raise ValueError(f"array {name}: expected numbers, got Python objects, which are never unpickled.")
    if any(length < 0 for length in shape):
        raise ValueError(f"array {name}: expected lengths of zero or more, got shape {shape}.")
    return math.prod(shape) * (4 if dtype == _NPY_BFLOAT16 else dtype.itemsize)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADER_READERS:
        raise ValueError(f"expected the .npy format 1.0 or 2.0, got {version[0]}.{version[1]}.")
    shape, _, dtype = _HEADER_READERS[version](stream)
    return shape, dtype


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        return _whole_array(stream, member.filename)


def _whole_array(stream: IO[bytes], name: str) -> np.ndarray:
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if stream.read(1):  # also reads on to the checksum
        raise ValueError(f"array {name}: expected {array.nbytes} bytes of data, got more.")
    return array.view(jnp.bfloat16).astype(np.float32) if array.dtype == _NPY_BFLOAT16 else array


def _read_safetensors(path: Path, max_bytes: int, choose: Choose) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError("To read .safetensors files: pip install 'analytic_vae[files]'.") from error
    try:
        start, entries = _safetensors_entries(path, max_bytes)
        wanted = {name: entries[name] for name in _chosen(choose, list(entries))}
        _require_fits(_declared_safetensors(wanted), max_bytes)
        with safe_open(path, "np"):  # it checks the whole header, and that the data are what it says
            pass
        with path.open("rb") as stream:
            return {name: _tensor(stream, start, **entry) for name, entry in wanted.items()}
    except _NotThere as error:
        raise ValueError(str(error)) from error
    except (SafetensorError, *_DAMAGE) as error:
        raise ValueError(f"path: cannot read {path} as a whole .safetensors file: {error}") from error


def _tensor(stream: IO[bytes], start: int, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    begin, end = data_offsets
    stream.seek(start + begin)
    data = stream.read(end - begin)
    if dtype == _BFLOAT16:
        return np.frombuffer(data, jnp.bfloat16).reshape(shape).astype(np.float32)
    return np.frombuffer(data, _SAFETENSORS_DTYPES[dtype]).reshape(shape)


def _safetensors_entries(path: Path, max_bytes: int) -> tuple[int, dict[str, dict]]:
    """Where the data begin, and what the header says of each array."""
    with path.open("rb") as stream:
        length, rest = int.from_bytes(stream.read(8), "little"), path.stat().st_size - 8
        if not 0 < length <= rest:
            raise ValueError(
                f"expected a header within the {max(rest, 0)} bytes that follow, got a length of {length}."
            )
        _require_fits(length, max_bytes)
        header = json.loads(stream.read(length))
    return 8 + length, {name: entry for name, entry in header.items() if name != "__metadata__"}


def _declared_safetensors(entries: dict[str, dict]) -> int:
    sizes = {name: np.dtype(dtype).itemsize for name, dtype in _SAFETENSORS_DTYPES.items()} | {_BFLOAT16: 4}
    for name, entry in entries.items():
        if entry["dtype"] not in sizes:
            raise ValueError(f"array {name}: expected a dtype among {', '.join(sizes)}, got {entry['dtype']}.")
    return sum(math.prod(entry["shape"]) * sizes[entry["dtype"]] for entry in entries.values())

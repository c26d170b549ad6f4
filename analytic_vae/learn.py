"""Learning a network layer after layer: each layer's model is the next layer's source."""

import dataclasses
import functools
import hashlib
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh

from ._check import require_instance
from .arguments import check_mesh
from .checkpoint import load_fit, savable_parts, save_fit, save_model, write_text
from .fit import Fit, check_options, fit
from .layer import LinearLayer, Network
from .model import FeatureModel
from .optimise import Stop
from .pushforward import linear_pushforward
from .spectral.resolution import Resolution

Log = Callable[[str], None]


@dataclass(frozen=True)
class Trajectory:
    """What was learnt of a network.

    Fields:
        source: the law of the network's input.
        network: the network.
        fits: a `Fit` per layer; a linear layer's says that nothing was learnt.
    """

    source: FeatureModel
    network: Network
    fits: tuple[Fit, ...]

    @property
    def models(self) -> tuple[FeatureModel, ...]:
        """A `FeatureModel` of every layer's output; the last is the network's output."""
        return tuple(one.target for one in self.fits)

    def __str__(self) -> str:
        lines = [f"{'layer':>5}  {'neurons':>7}  what was found"]
        lines += [f"{i:>5}  {one.target.neurons:>7}  {one}" for i, one in enumerate(self.fits)]
        return "\n".join(lines)


def learn(
    source: FeatureModel,
    network: Network,
    *,
    folder: str | os.PathLike[str] | None = None,
    log: Log | None = None,
    mesh: Mesh | None = None,
    **options: Any,
) -> Trajectory:
    """Learn every layer of a network, without samples.

    Through a linear layer the model passes exactly; for every other layer `fit` learns the output's model, which is
    the source of the next layer.

    Arguments:
        source: law of the network's input.
        network: its layers (`from_weights`, `from_mlp`, `load_network` make one of an MLP).
        folder: where to keep a checkpoint after every layer. If it holds a run of the same source, network and
            options, the run continues after its last whole layer and ends in the same numbers to the last bit.
        log: called with lines of progress (`print`, say).
        mesh: devices to share the work among, as in `elbo`. A run may be continued on others; its numbers then differ
            in rounding.
        options: of `fit`, the same for every layer.

    Returns a `Trajectory`. Raises `ValueError` that names the argument if the parts do not fit together, or if the
    folder belongs to another run; `TypeError` for an unknown option.

    Source: sections 2.1 and 2.4 (a) of "Analytically Learning Variational Auto-Encoders".

    >>> trajectory = learn(source, from_weights(weights, "relu"), folder="run", log=print)
    >>> trajectory.models[-1].moments()
    """
    require_instance("source", source, FeatureModel, "a FeatureModel")
    require_instance("network", network, Network, "a Network")
    if source.neurons != network.inputs:
        raise ValueError(f"source: expected {network.inputs} neurons, the inputs of network, got {source.neurons}.")
    options = _checked_options(options)
    check_options(**options)
    check_mesh(mesh)
    if folder is not None and not isinstance(options["encoder"], str):
        savable_parts(options["encoder"])  # better refused now than after it is learnt
    checkpoints = None if folder is None else _open(Path(folder), source, network, options)
    fits: list[Fit] = []
    total = len(network.layers)
    for index, layer in enumerate(network.layers):
        path = None if checkpoints is None else checkpoints / f"layer_{index:03d}.npz"
        say = _prefixed(log, f"layer {index} ({index + 1}/{total}): ")
        if path is not None and path.exists():
            found = load_fit(path)
            say("read from the run folder")
        else:
            model = fits[-1].target if fits else source
            found = _learn_layer(model, layer, say, mesh, options)
            if path is not None:
                save_fit(path, found)
            say(str(found))
        fits.append(found)
    if checkpoints is not None:
        save_model(checkpoints / "output.npz", fits[-1].target)
    return Trajectory(source, network, tuple(fits))


def _learn_layer(model: FeatureModel, layer, say: Log, mesh: Mesh | None, options: dict[str, Any]) -> Fit:
    if not isinstance(layer, LinearLayer):
        return fit(model, layer, log=say, mesh=mesh, **options)
    begun = time.perf_counter()
    target = jax.block_until_ready(eqx.filter_jit(linear_pushforward)(model, layer))
    none = np.zeros(0)
    resolution = options.get("resolution") or Resolution()
    return Fit(target, None, None, None, none, none, Stop.EXACT, time.perf_counter() - begun, resolution)


def _prefixed(log: Log | None, prefix: str) -> Log:
    return (lambda line: None) if log is None else (lambda line: log(prefix + line))


def _open(folder: Path, source: FeatureModel, network: Network, options: dict[str, Any]) -> Path:
    """The run folder, made or recognised by a fingerprint of everything that the numbers depend on."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder: expected a folder, got the file {folder}.")
    fingerprint = _fingerprint(source, network, options)
    manifest = folder / "run.json"
    if manifest.exists():
        try:
            found = json.loads(manifest.read_text())["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"folder: {manifest} is damaged; remove the folder or choose another.") from error
        if found != fingerprint:
            raise ValueError(
                f"folder: {folder} belongs to a run of another source, network or options; choose another folder."
            )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    stray = sorted(folder.glob("layer_*.npz"))
    if stray:
        raise ValueError(f"folder: {folder} holds {stray[0].name} but no run.json; choose another folder.")
    write_text(manifest, json.dumps({"fingerprint": fingerprint, "layers": len(network.layers)}) + "\n")
    return folder


def _fingerprint(source: FeatureModel, network: Network, options: dict[str, Any]) -> str:
    """A digest of all that the numbers depend on: arrays, options by name, functions by code and values, versions."""
    digest = hashlib.sha256()
    versions = {name: sys.modules[name].__version__ for name in ("jax", "numpy", "optax", "scipy")}
    _digest(digest, {"source": source, "network": network, "options": options, "versions": versions})
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


def _checked_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options of `fit` with its defaults. Raises `TypeError` for one that `fit` does not have."""
    parameters = inspect.signature(fit).parameters
    known = {
        name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY and name not in ("log", "mesh")
    }
    for name in options:
        if name not in known:
            raise TypeError(f"{name}: expected an option of fit ({', '.join(known)}), got an unknown one.")
    return known | options

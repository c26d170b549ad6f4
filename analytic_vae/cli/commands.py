"""The command line: `python -m analytic_vae learn` and `python -m analytic_vae show FOLDER`."""

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections import Counter
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._jit import keep_compiled
from ..closed_form import NOISES
from ..fitting.options import KINDS
from ..fitting.progress import kept_talking
from ..io.checkpoint import load_fit
from ..io.source_files import load_source, read_source
from ..learn import Trajectory, learn
from ..model.columns import columns_of, said_of_columns
from ..model.feature_model import FeatureModel
from ..model.from_data import source_from_data
from ..model.network import Network, from_weights
from ..spectral.resolution import Resolution
from .digits import digits_data, train_classifier
from .network_options import add_network_options, network_from
from .progress_bar import progress
from .report import compare, laws_of_outputs, save_report
from .tables import short

CHECKED = 100_000  # samples for the lines of progress; the report takes all

COMPONENTS = 16  # found in data, or as many as it has columns


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status. Errors that a user can mend are one line on standard error."""
    options = _parser().parse_args(arguments)
    try:
        with _one_blas_thread(), warnings.catch_warnings():
            warnings.showwarning = lambda message, category, *_: _say(f"{category.__name__}: {message}")
            return options.run(options)
    except BrokenPipeError:  # `show FOLDER | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        print(f"analytic_vae: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nanalytic_vae: interrupted; the same command continues where it was.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analytic_vae",
        description="The law of a network's activations, and the features that make it up, without sampling.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser(
        "learn",
        help="learn every layer of a network; without arguments: a network trained on scikit-learn's digits",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    one.set_defaults(run=_learn)
    add_network_options(one)
    one.add_argument("--source", type=Path, help="a FeatureModel (.npz) or data (.npz, key 'data'; .npy; .csv)")
    one.add_argument("--label", metavar="COLUMN", help="of a .csv --source: a column that is no part of the data")
    one.add_argument("--delimiter", help="of a .csv --source: what separates its fields, if it is not found")
    one.add_argument("--header", choices=("yes", "no"), help="of a .csv --source: whether its first line are names")
    one.add_argument("--features", type=int, help="independent components to find in data; at most 16 if not given")
    one.add_argument("--atoms", type=int, default=12, help="atoms of each component found in data")
    one.add_argument("--layers", default="dense", choices=("dense", "ridge"), help="whole layers, or unit by unit")
    about = "features carried on, learnt (or of which kind), or both; carried, or softmax for ridge layers"
    one.add_argument("--encoder", choices=KINDS, help=f"{about}, if not given")
    one.add_argument("--statistics", type=int, help="that each learnt feature reads: 1, or 2 (softmax, gaussian)")
    one.add_argument("--noise", default="full", choices=NOISES, help="noise of the source and of every learnt model")
    one.add_argument("--split", action="store_true", help="split states in two (dense layers, carried features)")
    one.add_argument("--frequencies", type=int, default=24, help="resolution: frequencies per axis")
    one.add_argument("--steps", type=int, default=60, help="largest number of steps per layer")
    one.add_argument("--tolerance", type=float, default=2e-3, help="stop when ten steps gain fewer nats than this")
    one.add_argument("--certify", action="store_true", help="bounds of the losses (slow)")
    one.add_argument(
        "--samples", type=int, default=1_000_000, help="samples to compare with; at most 100000 layer by layer"
    )
    hidden = "hidden units of the digits network, a number for each of its hidden layers"
    one.add_argument("--hidden", type=int, nargs="+", default=[32], metavar="UNITS", help=hidden)
    one.add_argument("--seed", type=int, default=0, help="of the training, the sampling and random encoders")
    one.add_argument("--devices", type=int, default=1, help="share the work among so many devices (CPU: cores)")
    one.add_argument("--folder", type=Path, default=Path("runs/learn"), help="results; an unfinished run is continued")
    two = commands.add_parser("show", help="print what a run folder holds")
    two.set_defaults(run=_show)
    two.add_argument("folder", type=Path)
    return parser


def _version() -> str:
    """Of the package and of what computes its numbers, as a report of a fault needs them."""
    try:
        own = version("analytic_vae")
    except PackageNotFoundError:  # used from its source
        own = "(not installed)"
    return f"analytic_vae {own}; jax {jax.__version__}, Python {platform.python_version()}"


def _learn(options: argparse.Namespace) -> int:
    begun = time.perf_counter()
    resolution = Resolution(options.frequencies)
    for name, least in (("features", 1), ("atoms", 2), ("steps", 1), ("samples", 2), ("hidden", 1), ("devices", 1)):
        value = getattr(options, name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and one < least:
                raise ValueError(f"--{name}: expected at least {least}, got {one}.")
    # The command, unlike the library, may choose: double precision.
    jax.config.update("jax_enable_x64", True)
    keep_compiled()
    mesh = _mesh(options.devices)
    with kept_talking(_say) as say:
        say("reading or making the source and the network")
        source, network, data, about = _inputs(options)
    for line in about:
        _say(line)
    trajectory = _learnt(source, network, options, resolution, mesh)
    with kept_talking(_say) as say:
        say(f"comparing with {options.samples} samples of the source pushed through the network")
        report = compare(trajectory, samples=options.samples, data=data, key=jax.random.key(options.seed + 1))
    with kept_talking(_say) as say:
        say("the laws of the outputs")
        report["laws"] = laws_of_outputs(trajectory, report, key=jax.random.key(options.seed + 2))
    report["about"] = [*about, f"Device: {jax.devices()[0].device_kind}; jax {jax.__version__}."]
    report["seconds"] = time.perf_counter() - begun
    files = save_report(options.folder, report)
    print(short(report), end="")
    _say(f"{report['seconds']:.0f} s in all; written: {', '.join(str(file) for file in files)}")
    return 0


def _learnt(source: FeatureModel, network: Network, options: argparse.Namespace, resolution, mesh) -> Trajectory:
    """The network learnt as the options say, with lines and, on a terminal, a bar of progress."""
    with progress(len(network.layers)) as shown:
        return learn(
            source,
            network,
            folder=options.folder,
            log=shown.log,
            callback=shown.callback,
            noise=options.noise,
            encoder=options.encoder,
            statistics=options.statistics,
            steps=options.steps,
            tolerance=options.tolerance,
            floor=1e-8,
            resolution=resolution,
            certify=options.certify,
            split=options.split,
            key=jax.random.key(options.seed),
            mesh=mesh,
            samples=min(options.samples, CHECKED),
        )


def _mesh(devices: int) -> Mesh | None:
    """The first so many devices; on a CPU each is a share of its cores."""
    if devices == 1:
        return None
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:  # JAX has started already, with as many as it has
        pass
    if len(jax.devices()) < devices:
        raise ValueError(f"--devices: expected at most {len(jax.devices())}, as many as there are, got {devices}.")
    return Mesh(np.array(jax.devices()[:devices]), ("devices",))


def _show(options: argparse.Namespace) -> int:
    if not options.folder.is_dir():
        raise ValueError(f"folder: expected a run folder, found none at {options.folder}.")
    report = options.folder / "report.json"
    if report.exists():
        try:
            print(short(json.loads(report.read_text())), end="")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"folder: {report} is damaged ({error}); run learn again to renew it.") from error
        return 0
    layers = sorted(options.folder.glob("layer_*.npz"))
    if not layers and not (options.folder / "run.json").exists():
        raise ValueError(f"folder: {options.folder} holds no run.")
    jax.config.update("jax_enable_x64", True)
    state = "all layers learnt, no report" if (options.folder / "output.npz").exists() else "unfinished"
    print(f"{options.folder}: {state}, {len(layers)} layers so far; the same learn command continues it.")
    for path in layers:
        print(f"{path.stem}: {load_fit(path)}")
    return 0


def _inputs(options: argparse.Namespace) -> tuple[FeatureModel, Network, Any, list[str]]:
    """Source, network, real inputs if any, and sentences that say what they are."""
    if options.source is not None and options.network is None:
        raise ValueError("--network: expected a file, since --source is not the digits; got none.")
    for name in ("label", "delimiter", "header"):
        if getattr(options, name) is not None and options.source is None:
            raise ValueError(f"--{name}: expected a .csv file by --source, got none.")
    about, data, labels = [], None, None
    network = network_from(options)
    if options.source is not None:
        found = {"noise": options.noise, "atoms": options.atoms, "seed": options.seed}
        header = None if options.header is None else options.header == "yes"
        read = read_source(options.source, label=options.label, delimiter=options.delimiter, header=header)
        if isinstance(read, dict):
            source = load_source(options.source)
        else:
            data, names = columns_of(read)
            features = options.features or min(COMPONENTS, int(np.linalg.matrix_rank(data - data.mean(axis=0))))
            if network is not None and data.shape[1] != network.inputs:
                raise ValueError(
                    f"--source: expected {network.inputs} columns, the inputs of --network, got {data.shape[1]}."
                )
            source = source_from_data(read, max(features, 1), **found)
            about += [f"Of the data: {one}." for one in said_of_columns(data, names)]
        about.append(f"Source: {options.source}, {source.neurons} neurons, {source.features} features.")
    else:
        data, labels = digits_data()
        features = options.features or COMPONENTS
        source = source_from_data(data, features, atoms=options.atoms, noise=options.noise, seed=options.seed)
        about.append(
            f"Source: scikit-learn's digits ({data.shape[0]} images of {data.shape[1]} pixels), {source.features} "
            f"independent components of {options.atoms} atoms, {options.noise} noise."
        )
    if network is not None:
        about.append(f"Network: {options.network}, {_counted(network)}.")
    else:
        weights, accuracy = train_classifier(data, labels, hidden=options.hidden, seed=options.seed)
        network = from_weights(weights, "relu", layers=options.layers)
        widths = "-".join(map(str, [data.shape[1], *(len(bias) for _, bias in weights)]))
        about.append(
            f"Network: {widths} ReLU, trained here on the digits: "
            f"{accuracy:.1%} of the training images right; {_counted(network)}."
        )
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), source), network, data, about


def _counted(network: Network) -> str:
    """What layers there are: `1 DenseLayer, 1 LinearLayer`."""
    kinds = Counter(type(layer).__name__ for layer in network.layers)
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in kinds.items())


def _one_blas_thread():
    """OpenBLAS's threads wait for work by spinning, and fight those of XLA; one is enough for small matrices."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return threadpool_limits(1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

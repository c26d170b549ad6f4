"""Learning a network layer after layer: each layer's model is the next layer's source."""

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh

from ._check import require_instance, require_precision
from ._repr import short_repr
from ._sharding import check_mesh
from .accuracy import warns
from .effects import Effects, effects_of
from .fit import fitted
from .fitting.options import FitOptions
from .fitting.progress import Teller, Watch, kept_talking
from .fitting.result import Fit, Stop
from .io.checkpoint import load_fit, savable_parts, save_fit, save_model
from .io.run_folder import run_folder
from .laws.law import Law
from .model.encoder import AbstractEncoder
from .model.feature_model import FeatureModel
from .model.layer import AbstractLayer
from .model.network import Network
from .plots.axes import panels
from .plots.deviations import draw_deviations, draw_explained
from .plots.features import draw_directions
from .pushforward import linear_pushforward, pushforward
from .samples import SampledErrors, SampledMoments, sampled_moments
from .spectral.resolution import Resolution
from .types import ArrayLike, Callback, Log

SAMPLES_KEY = 2**31 - 1  # folded into the key of a run for its samples: no start has this number


@dataclass(frozen=True)
class Trajectory:
    """What was learnt of a network.

    Fields:
        source: the law of the network's input.
        network: the network.
        fits: a `Fit` per layer; a linear layer's says that nothing was learnt.
        sampled: for every layer how far its model is from samples pushed through the true network; None without any.
            What a fit says of its loss is the engine's error alone; here is what models of models lose on the way, too.
    """

    __repr__ = short_repr

    source: FeatureModel
    network: Network
    fits: tuple[Fit, ...]
    sampled: tuple[SampledErrors, ...] | None = None

    @property
    def accuracy(self) -> float:
        """How far the loss of a layer may be off, in nats, at most: what the engine has wrong, not what models lose."""
        return max(one.accuracy for one in self.fits)

    @property
    def models(self) -> tuple[FeatureModel, ...]:
        """A `FeatureModel` of every layer's output; the last is the network's output."""
        return tuple(one.target for one in self.fits)

    def law(self, readout: ArrayLike, layer: int = -1, resolution: Resolution | None = None) -> Law:
        """The law of one to three projections `[D, n]` of a layer's output: of a logit, say, or of a unit.

        Of the network's true layer (counted from 0, or from the end), fed by the model of the layer before it: exact
        for the first one, else as good as that model. Of a dense layer the projections may involve two units at most.
        Raises `ValueError` that names the argument.

        >>> trajectory.law([[1.0, -1.0]]).tail(0.0)  # how often the first output is above the second
        """
        index = self._index(layer)
        source = self.models[index - 1] if index else self.source
        return pushforward(source, self.network.layers[index], readout, resolution)

    def effects(self, layer: int = -1) -> Effects:
        """What each feature of the source does to a layer's outputs: `E[output | feature = state]`, `[m, K, n]`.

        For the first layer exact, to the engine's accuracy; through later ones as good as the models. Carried features,
        the default of whole layers, cost nothing; learnt ones an evaluation of the loss for every state and layer.
        Raises `ValueError` that names the argument.

        >>> print(trajectory.effects())
        """
        last = self._index(layer) + 1
        return effects_of(self.source, self.network.layers[:last], self.fits[:last])

    def _index(self, layer: int) -> int:
        count = len(self.fits)
        if isinstance(layer, bool) or not isinstance(layer, int | np.integer) or not -count <= layer < count:
            raise ValueError(f"layer: expected a number from {-count} to {count - 1}, got {layer!r}.")
        return int(layer) % count

    def plot(self, ax: Any = None) -> Any:
        """Draw with matplotlib how far every layer's model is from samples, and the features of the output.

        The first picture has the worst and the median neuron of every layer, in standard errors of the samples (without
        samples: the share of each layer's variance that is in its features). The second is that of
        `models[-1].plot()`: the directions of the largest features.

        Arguments:
            ax: two axes; a new figure if not given.

        Returns the axes `[2]`. Raises `TypeError` or `ValueError` if `ax` is something else, `ImportError` without
        matplotlib.

        >>> axes = trajectory.plot()
        """
        axes = panels(ax, 2)
        if self.sampled is None:
            draw_explained(axes[0], np.array([one.explained for one in self.fits]))
        else:
            draw_deviations(axes[0], [one.in_standard_errors() for one in self.sampled], self.sampled[0].samples)
        draw_directions(axes[1], self.models[-1].main_directions().largest(), "output")
        return axes

    def __str__(self) -> str:
        lines = [f"{'layer':>5}  {'neurons':>7}  what was found"]
        errors = self.sampled or (None,) * len(self.fits)
        lines += [
            f"{i:>5}  {one.target.neurons:>7}  {_found(one, error)}"
            for i, (one, error) in enumerate(zip(self.fits, errors, strict=True))
        ]
        return "\n".join(lines)


@warns
def learn(
    source: FeatureModel,
    network: Network,
    *,
    folder: str | os.PathLike[str] | None = None,
    log: Log | None = None,
    callback: Callback | None = None,
    mesh: Mesh | None = None,
    samples: int = 100_000,
    **options: Any,
) -> Trajectory:
    """Learn every layer of a network, without samples: these only check what was found.

    Through a linear layer the model passes exactly; for every other layer `fit` finds the output's model, which is the
    source of the next layer. Dense layers carry the source's features on unless `encoder` says otherwise (`learnt`,
    `both`): nothing is then to be optimised.

    Arguments:
        source: law of the network's input.
        network: its layers (`from_weights`, `from_mlp`, `load_network` make one of an MLP).
        folder: where to keep a checkpoint after every layer. If it holds a run of the same source, network and
            options, the run continues after its last whole layer and ends in the same numbers to the last bit.
        log: called with lines of progress (`print`, say); where one thing takes longer (compilations do), every five
            seconds from another thread, with the line of before and for how long that has been.
        callback: called after every step as `callback(step, numbers)`, as in `fit`; `step` counts on from layer to
            layer, `numbers` holds `layer` (from 0), too. There are no steps of linear layers, nor of those read from
            the folder: of a run that is continued the first step is 1 again. What it raises passes through; the layers
            before are in the folder, and nothing there depends on the callback.
        mesh: devices to share the work among, as in `elbo`. A run may be continued on others; its numbers then differ
            in rounding.
        samples: how many samples of the source to push through the network, to say how far the model of every layer is
            from them (`Trajectory.sampled`); 0 for none. Nothing that is learnt depends on them, so a run may be
            continued with another number. They are drawn with a key made of `key`.
        options: of `fit`, the same for every layer.

    Returns a `Trajectory`. Raises `ValueError` that names the argument if the parts do not fit together, or if the
    folder belongs to another run; `TypeError` for an unknown option; `OSError` that names the folder if it cannot be
    written, or if another process works in it. What was learnt before is kept.

    Source: sections 2.1 and 2.4 (a) of "Analytically Learning Variational Auto-Encoders".

    >>> trajectory = learn(source, from_weights(weights, "relu"), folder="run", log=print)
    >>> trajectory.models[-1].moments()
    """
    require_instance("source", source, FeatureModel, "a FeatureModel")
    require_instance("network", network, Network, "a Network")
    require_precision(source=source, network=network)
    if source.neurons != network.inputs:
        raise ValueError(f"source: expected {network.inputs} neurons, the inputs of network, got {source.neurons}.")
    _check_samples(samples)
    watch = Watch(callback)
    asked = FitOptions.of(options)
    for layer in network.layers:
        if layer.units:
            asked.for_layer(source, layer)
    check_mesh(mesh)
    if folder is not None and isinstance(asked.encoder, AbstractEncoder):
        _require_savable(asked.encoder)  # better refused now than after it is learnt
    with nullcontext() if folder is None else run_folder(Path(folder), source, network, vars(asked)) as checkpoints:
        moments = _sampled(source, network, samples, asked.random_key, log)
        learning = _Learning(asked, mesh, log, watch, checkpoints)
        fits, errors = _learn_layers(source, network, learning, moments)
    return Trajectory(source, network, tuple(fits), tuple(errors) if samples else None)


def _sampled(source, network, samples: int, key, log: Log | None) -> Sequence[SampledMoments | None]:
    """The moments of every layer over samples, if there are to be any."""
    if not samples:
        return [None] * len(network.layers)
    with kept_talking(log) as say:
        say(f"pushing {samples} samples through the network, to compare every layer's model with")
        return sampled_moments(source, network, samples, jax.random.fold_in(key, SAMPLES_KEY))[0]


class _Learning(NamedTuple):
    """How every layer is learnt."""

    options: FitOptions
    mesh: Mesh | None
    log: Log | None
    watch: Watch
    checkpoints: Path | None


def _learn_layers(
    source: FeatureModel, network: Network, learning: _Learning, moments: Sequence[SampledMoments | None]
) -> tuple[list[Fit], list[SampledErrors | None]]:
    """A fit per layer, and its errors; fits that are in the folder are read, the others written to it."""
    fits: list[Fit] = []
    errors: list[SampledErrors | None] = []
    total, log, checkpoints = len(network.layers), learning.log, learning.checkpoints
    for index, layer in enumerate(network.layers):
        path = None if checkpoints is None else checkpoints / f"layer_{index:03d}.npz"
        say = _prefixed(log, f"layer {index} ({index + 1}/{total}): ")
        if path is not None and path.exists():
            found, where = _read_layer(path, layer), "read from the run folder: "
        else:
            model = fits[-1].target if fits else source
            with kept_talking(None if log is None else say) as talk:
                found, where = _learn_layer(model, layer, Teller(talk, learning.watch, layer=index), learning), ""
            if path is not None:
                save_fit(path, found)
        fits.append(found)
        errors.append(None if moments[index] is None else SampledErrors.of(found.target, moments[index]))
        say(where + _found(found, errors[-1]))
    if checkpoints is not None and not (checkpoints / "output.npz").exists():
        save_model(checkpoints / "output.npz", fits[-1].target)
    return fits, errors


def _found(fit: Fit, errors: SampledErrors | None) -> str:
    """What was found of a layer, in one line."""
    return str(fit) if errors is None else f"{fit}; {errors}"


def _read_layer(path: Path, layer) -> Fit:
    """The fit of a layer from its checkpoint. Raises `ValueError` that names the file and says what to do."""
    advice = f"Delete {path} to learn that layer again."
    try:
        found = load_fit(path)
    except ValueError as error:
        raise ValueError(f"folder: {error} {advice}") from error
    if found.target.neurons != layer.outputs:
        raise ValueError(f"folder: expected a layer of {layer.outputs} neurons, got {found.target.neurons}. {advice}")
    return found


def _learn_layer(model: FeatureModel, layer: AbstractLayer, say: Teller, learning: _Learning) -> Fit:
    if layer.units:
        return fitted(model, layer, learning.options, say, learning.mesh)
    begun = time.perf_counter()
    target = jax.block_until_ready(eqx.filter_jit(linear_pushforward)(model, layer))
    none = np.zeros(0)
    seconds, resolution = time.perf_counter() - begun, learning.options.resolution
    return Fit(target, None, None, None, none, none, Stop.EXACT, seconds, resolution)


def _require_savable(encoder: AbstractEncoder) -> None:
    try:
        savable_parts(encoder)
    except ValueError as error:
        raise ValueError(f"{error} Leave out the folder to learn it.") from error


def _prefixed(log: Log | None, prefix: str) -> Log:
    return (lambda line: None) if log is None else (lambda line: log(prefix + line))


def _check_samples(samples: int) -> None:
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 0 or samples == 1:
        raise ValueError(f"samples: expected 0 for none, or at least 2, got {samples!r}.")

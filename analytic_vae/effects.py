"""What the features of a source do to the outputs of a network: `E[output | feature = state]`, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .closed_form import best_prior
from .expectations import expectations
from .fitting.result import Fit
from .fitting.splitting import states_of
from .model.carried_encoder import CarriedEncoder
from .model.feature_model import FeatureModel
from .model.host import HostModel
from .model.layer import AbstractLayer
from .plots.effects import draw_effects
from .pushforward import linear_pushforward

ROWS, COLUMNS = 24, 8  # of a table: states, and outputs


@dataclass(frozen=True)
class Effects:
    """`E[f(x) | z_j = a_jk]` of a layer's outputs, for all features `j` of the source and all their states `k`.

    An array of shape `[m, K, n]` to NumPy; `print` shows the strongest features as a table, `plot` all.

    Fields:
        means: `[m, K, n]`, NaN where a state has no mass.
        mean: `[n]`, `E[f(x)]`, computed in the same way. With carried features, and after one layer, the means of each
            feature, weighted by the masses, sum to it; elsewhere nearly.
        masses, values: `[m, K]`, of the source: probabilities and atoms.
        layer: of which layer's output, counted from 0.
    """

    means: np.ndarray
    mean: np.ndarray
    masses: np.ndarray
    values: np.ndarray
    layer: int

    @property
    def contrasts(self) -> np.ndarray:
        """`[m, K, n]`: by how much a state moves the mean, `E[f | z_j = a_jk] - E[f]`."""
        return self.means - self.mean

    @property
    def strength(self) -> np.ndarray:
        """`[m]`: the variance of the outputs, summed, that each feature accounts for by its means alone."""
        squares = np.nansum(self.contrasts**2, axis=2)
        return np.sum(self.masses * squares, axis=1)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        del copy  # a frozen array would have to be copied: NumPy copies where it is asked to
        return np.array(self.means, dtype)

    def plot(self, ax=None):
        """The contrasts as a map of colours on matplotlib's axes, or new ones; returns them.

        Raises `ImportError` without matplotlib (`pip install 'analytic_vae[plots]'`).
        """
        return draw_effects(self.contrasts, self.values, ax)

    def __str__(self) -> str:
        m, K, n = self.means.shape
        shown = min(n, COLUMNS)
        outputs = [f"output {i}" for i in range(shown)]
        lines = [f"E[output of layer {self.layer} | feature = state], the strongest features first"]
        lines.append(" ".join(f"{name:>11}" for name in ("feature", "state", "value", "probability", *outputs)))
        overall = " ".join(f"{one:>11.4g}" for one in self.mean[:shown])
        lines.append(f"{'all':>11} {'':>11} {'':>11} {1:>11} {overall}")
        order = [(j, k) for j in np.argsort(-self.strength, kind="stable") for k in np.argsort(self.values[j])]
        for j, k in order[:ROWS]:
            cells = [self.values[j, k], self.masses[j, k], *self.means[j, k, :shown]]
            lines.append(f"{j:>11} {k:>11} " + " ".join(f"{one:>11.4g}" for one in cells))
        left = [f"{m * K - ROWS} more states"] * (m * K > ROWS) + [f"{n - shown} more outputs"] * (n > shown)
        return "\n".join(lines + [f"... {' and '.join(left)}: means, [{m}, {K}, {n}]"] * bool(left))

    def __repr__(self) -> str:
        return f"Effects(means={list(self.means.shape)}, layer={self.layer})"


def effects_of(source: FeatureModel, layers: Sequence[AbstractLayer], fits: Sequence[Fit]) -> Effects:
    """The effects on the output of the last of some layers, and of what was learnt of them.

    Where features are carried on, the model of a layer is the source of the next, and its decoder says what
    `E[f | z_j = a]` is for that source. Where they are learnt, the source given the state goes through every layer: the
    mean of its output is exact again, the features of the next source have the law that the encoder gives them on
    average.
    """
    here, values = HostModel.of(source), np.asarray(source.prior.atoms)
    m, K = here.masses.shape
    means = np.full((m, K, layers[-1].outputs), np.nan)
    for j in range(m):
        for k in np.flatnonzero(here.masses[j] > 0):
            means[j, k] = _mean(source, layers, fits, _State(j, int(k), values[j]))
    return Effects(means, _mean(source, layers, fits, None), here.masses, values, len(layers) - 1)


class _State(NamedTuple):
    """A state of a feature of the source, and the values of all of its states."""

    feature: int
    number: int
    values: np.ndarray

    def of(self, model: FeatureModel) -> FeatureModel:
        """A model that carries the source's features, given this one; its states may have been split, and sorted."""
        if model.prior.atoms.shape[1] == self.values.size:
            return model.given({self.feature: self.number})
        same = model.prior.atoms[self.feature] == self.values[self.number]
        kept = jnp.ones(model.prior.atoms.shape, bool).at[self.feature].set(same)
        return eqx.tree_at(lambda one: one.prior, model, model.prior.among(kept))


def _mean(source: FeatureModel, layers, fits: Sequence[Fit], state: _State | None) -> np.ndarray:
    """Of the last layer's output, given a state of the source or nothing."""
    carried = True  # whether the features are still those of the source, which itself is only given that state
    pinned = lambda model: model if state is None else state.of(model)  # noqa: E731
    model = pinned(source)
    for layer, fit in zip(layers, fits, strict=True):
        if fit.encoder is None:
            model = linear_pushforward(model, layer)
        elif carried and _carries(fit):
            _check_split(source, fit)
            model = pinned(fit.target)
        else:
            model, carried = _through(model, layer, fit), False
    return np.asarray(model.moments()[0])


def _carries(fit: Fit) -> bool:
    """Whether the decoder is the conditional mean given each state of the source."""
    encoder = fit.encoder
    return isinstance(encoder, CarriedEncoder) and encoder.extra is None and fit.target.decoder.ndim == 3


def _check_split(source: FeatureModel, fit: Fit) -> None:
    """Raise `ValueError` if states may have been split that cannot be told apart."""
    values, K = np.asarray(source.prior.atoms), source.prior.atoms.shape[1]
    split = fit.target.prior.atoms.shape[1] != K and any(np.unique(row).size < K for row in values)
    halves = len(set(states_of(source.prior))) < K
    if split or halves:
        raise ValueError(
            "source: expected a different value (atom) for each state of a feature, as states of equal values may be "
            "halves of one that was split, got equal ones. Where each state has a vector of its own, values are free."
        )


def _through(model: FeatureModel, layer: AbstractLayer, fit: Fit) -> FeatureModel:
    """The model of the layer's output where its input is another than the one that it was learnt for."""
    target = fit.target
    if isinstance(fit.encoder, CarriedEncoder) and target.prior.atoms.shape[1] != model.prior.atoms.shape[1]:
        raise ValueError("split: expected a run without it where features are learnt before others are carried on.")
    given = expectations(
        model, layer, target.prior.atoms, fit.encoder, fit.resolution, vectors=target.decoder.ndim == 3
    )
    found = eqx.tree_at(lambda one: one.prior, target, best_prior(given, target.prior.atoms))
    return found.shift(given.layer.output()[0] - found.moments()[0])

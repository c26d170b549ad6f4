"""Samples pushed through the true network, in batches: what the models of its layers are compared with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._jit import compiled, exact_products
from ._repr import short_repr
from .model.feature_model import FeatureModel
from .model.network import Network
from .types import Array, PRNGKeyArray

BATCH = 20_000  # samples at a time

VALUES = 2**25  # numbers that a batch may hold together, or fewer samples are taken at a time

TINY = 1e-70  # a spread, where nothing varies, whose square can be divided by

LEAST_SPREAD = 1e-2  # of a layer's mean spread: a neuron that moves less says little relative to its own


class SampledMoments(NamedTuple):
    """Of one layer over so many samples: `mean [n]`, `covariance [n, n]`, and `products [n, n] = E d_i^2 d_k^2`.

    `d` is what a sample differs from the mean by. All is float64, whatever the network's dtype.
    """

    samples: int
    mean: np.ndarray
    covariance: np.ndarray
    products: np.ndarray


class Deviations(NamedTuple):
    """How far a model's moments are from the sampled ones, and how far those are from the exact ones (one sigma).

    In units of the neuron's sampled spread (at least 1% of the layer's mean spread): `means [n]`, `spreads [n]`
    (standard deviations). `correlations [pairs]` are of each law's own spreads (at least as much).
    """

    means: np.ndarray
    means_error: np.ndarray
    spreads: np.ndarray
    spreads_error: np.ndarray
    correlations: np.ndarray
    correlations_error: np.ndarray

    @classmethod
    def of(cls, model: FeatureModel, sampled: SampledMoments) -> "Deviations":
        """Of a layer's model."""
        mean, covariance = (np.asarray(moment, np.float64) for moment in _on_host(model).moments())
        spread, sampled_spread = (_spread(moment) for moment in (covariance, sampled.covariance))
        least = max(LEAST_SPREAD * float(np.mean(sampled_spread)), TINY)
        own, unit = np.maximum(spread, least), np.maximum(sampled_spread, least)
        units, pairs = np.outer(unit, unit), np.triu_indices(mean.size, 1)
        errors = np.sqrt(np.maximum(sampled.products - sampled.covariance**2, 0) / sampled.samples)  # of covariances
        variance_errors = np.maximum(np.diagonal(errors), (2 / sampled.samples) ** 0.5 * least**2)
        # s^2 - s'^2 = (s - s') (s + s'); where both spreads are less than the error's root, that is the error of s'.
        spread_errors = variance_errors / np.maximum(spread + sampled_spread, np.sqrt(variance_errors))
        return cls(
            means=np.abs(mean - sampled.mean) / unit,
            means_error=np.full(mean.size, sampled.samples**-0.5),
            spreads=np.abs(spread - sampled_spread) / unit,
            spreads_error=spread_errors / unit,
            correlations=np.abs(covariance / np.outer(own, own) - sampled.covariance / units)[pairs],
            correlations_error=(errors / units)[pairs],
        )

    def in_standard_errors(self, samples: int) -> dict[str, np.ndarray]:
        """Of means, spreads `[n]` and correlations `[pairs]`: how far off, in standard errors of the samples."""
        return {
            "means": _in_errors(self.means, self.means_error, samples),
            "spreads": _in_errors(self.spreads, self.spreads_error, samples),
            "correlations": _in_errors(self.correlations, self.correlations_error, samples),
        }


class Typical(NamedTuple):
    """The median and the worst of several errors; the samples' standard errors: their median, and that of the worst."""

    median: float
    worst: float
    standard_error: float
    worst_standard_error: float

    @classmethod
    def of(cls, errors: np.ndarray, standard_errors: np.ndarray) -> "Typical":
        """Of at least one error."""
        worst = int(np.argmax(errors))
        return cls(*map(float, (np.median(errors), errors[worst], np.median(standard_errors), standard_errors[worst])))

    def __str__(self) -> str:
        return (
            f"{self.worst:.1e} +- {self.worst_standard_error:.1e} (median {self.median:.1e} +- "
            f"{self.standard_error:.1e})"
        )


@dataclass(frozen=True)
class SampledErrors:
    """How far a layer's model is from samples pushed through the true network.

    Fields:
        samples: how many.
        means, spreads: over the neurons, in units of the neuron's sampled spread (its standard deviation; at least 1%
            of the layer's mean spread).
        correlations: over all pairs of neurons, of each law's own spreads (at least as much); None for a single neuron.
    """

    __repr__ = short_repr

    samples: int
    means: Typical
    spreads: Typical
    correlations: Typical | None

    @classmethod
    def of(cls, model: FeatureModel, sampled: SampledMoments) -> "SampledErrors":
        """Of a layer's model."""
        found = Deviations.of(model, sampled)
        pairs = Typical.of(found.correlations, found.correlations_error) if found.correlations.size else None
        means, spreads = Typical.of(found.means, found.means_error), Typical.of(found.spreads, found.spreads_error)
        return cls(sampled.samples, means, spreads, pairs)

    def in_standard_errors(self) -> dict[str, np.ndarray]:
        """Of means, spreads and correlations: the median and the worst, `[2]`, in standard errors of the samples."""
        kinds = {"means": self.means, "spreads": self.spreads, "correlations": self.correlations}
        known = {name: kind for name, kind in kinds.items() if kind is not None}
        return {
            name: _in_errors([kind.median, kind.worst], [kind.standard_error, kind.worst_standard_error], self.samples)
            for name, kind in known.items()
        }

    def __str__(self) -> str:
        pairs = "" if self.correlations is None else f", correlations by up to {self.correlations}"
        return (
            f"against {self.samples} samples, +- their standard error, in spreads: means off by up to {self.means}, "
            f"spreads by up to {self.spreads}{pairs}"
        )


def sampled_moments(
    source: FeatureModel, network: Network, samples: int, key: PRNGKeyArray
) -> tuple[list[SampledMoments], np.ndarray]:
    """The moments of every layer's output over samples of the source, and how often each output was the largest."""
    source, network = _on_host((source, network))
    size = _batch_size(source, network, samples)
    centres = [np.zeros(layer.outputs, source.mean.dtype) for layer in network.layers]
    # A first look gives the centres of powers, which then lose no digits.
    pilot, _ = _pushed(source, network, centres, jax.random.fold_in(key, 0), size, np.int32(size))
    centres = [np.asarray(powers[0] / size) for powers in pilot]
    sums, counts = None, np.zeros(network.outputs, int)
    for index, used in _batches(samples, size):
        part, count = _pushed(source, network, centres, jax.random.fold_in(key, index), size, np.int32(used))
        part = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), part)
        sums = part if sums is None else jax.tree.map(np.add, sums, part)
        counts = counts + np.asarray(count)
    return [_moments(centre, powers, samples) for centre, powers in zip(centres, sums, strict=True)], counts


def largest_counts(model: FeatureModel, samples: int, key: PRNGKeyArray) -> np.ndarray:
    """How often each neuron is the largest, over samples of a model."""
    model = _on_host(model)
    size = _batch_size(model, None, samples)
    keys = ((jax.random.fold_in(key, index), np.int32(used)) for index, used in _batches(samples, size))
    return np.sum([np.asarray(_largest(model, one, size, used)) for one, used in keys], axis=0)


def counts_in_cells(
    source: FeatureModel, network: Network, samples: int, outputs: np.ndarray, edges: np.ndarray, key: PRNGKeyArray
) -> np.ndarray:
    """How many samples of the chosen outputs fall between their edges `[chosen, cells + 1]`: `[chosen, cells]`.

    A cell is open below and closed above, as those of a law are.
    """
    source, network = _on_host((source, network))
    size, found = _batch_size(source, network, samples), np.zeros((len(edges), edges.shape[1] - 1), int)
    edges, outputs = np.asarray(edges, source.mean.dtype), np.asarray(outputs, np.int32)
    for index, used in _batches(samples, size):
        part = _in_cells(source, network, jax.random.fold_in(key, index), size, np.int32(used), outputs, edges)
        found = found + np.asarray(part)
    return found


@exact_products
@compiled
def _in_cells(source, network, key, size: int, used, outputs, edges) -> Array:
    x = source.sample(key, (size,))
    for layer in network.layers:
        x = jax.vmap(layer)(x)
    weight = (jnp.arange(size) < used).astype(int)

    def one(values, edges):
        cell = jnp.searchsorted(edges, values, side="left")  # 0 and the last: outside
        return jnp.bincount(cell, weight, length=edges.size + 1)[1:-1]

    return jax.vmap(one)(x[:, outputs].T, edges)


@exact_products
@compiled
def _pushed(source, network, centres, key, size: int, used):
    """Sums of powers about the centres over the first `used` of `size` samples; how often each output was largest."""
    weight = (jnp.arange(size) < used).astype(source.mean.dtype)
    x, sums = source.sample(key, (size,)), []
    for layer, centre in zip(network.layers, centres, strict=True):
        x = jax.vmap(layer)(x)
        d = (x - centre[None]) * weight[:, None]
        sums.append((d.sum(axis=0), d.T @ d, (d**2).T @ d**2))
    return sums, _counted(x, used)


@compiled
def _largest(model, key, size: int, used) -> Array:
    return _counted(model.sample(key, (size,)), used)


def _counted(x: Array, used: Array) -> Array:
    counts = (jnp.arange(len(x)) < used).astype(int)
    return jnp.bincount(jnp.argmax(x, axis=1), counts, length=x.shape[1])


def _moments(centre: np.ndarray, powers: tuple[np.ndarray, ...], samples: int) -> SampledMoments:
    """Of the centre the samples' mean is a small step away, which the products need not know."""
    step, square, products = (total / samples for total in powers)
    covariance = square - np.outer(step, step)
    np.fill_diagonal(covariance, np.maximum(np.diagonal(covariance), 0))
    return SampledMoments(samples, centre + step, covariance, products)


def _batches(samples: int, size: int) -> Iterator[tuple[int, int]]:
    """The index of each batch and how many of its samples count: all are computed, so that one program does."""
    for index in range(-(-samples // size)):
        yield index, min(size, samples - index * size)


def _batch_size(source: FeatureModel, network: Network | None, samples: int) -> int:
    widths = source.neurons + (0 if network is None else sum(layer.outputs for layer in network.layers))
    each = 2 * source.prior.atoms.size + 4 * widths
    return int(min(samples, np.clip(VALUES // each, 1, BATCH)))


def _in_errors(errors, standard_errors, samples: int) -> np.ndarray:
    """Errors in standard errors; where nothing varies, in hundredths of what a mean of so many samples has."""
    return np.asarray(errors) / np.maximum(standard_errors, 0.01 * samples**-0.5)


def _spread(covariance: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(np.diagonal(covariance), 0))


def _on_host(tree: Any) -> Any:
    """Arrays of NumPy: what a mesh of devices shares is then sampled on one."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if eqx.is_array(leaf) else leaf, tree)

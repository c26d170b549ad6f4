"""What a computation will need: said before it starts, and how many to compute at once."""

import os
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ..spectral.gauss_rule import kept_atoms
from ..spectral.resolution import FINER, Resolution
from .spectrum import CHUNK


def pair_values(source, t: int, linear: bool, resolution: Resolution) -> int | float:
    """Real numbers that the moment of one pair of latent means needs."""
    half = half_space_size(resolution.series_order(t, linear), t) - 1
    ridge = 1 if linear else 2 * resolution.series_ridge_order
    return 16 * source.features * half**2 * (ridge + kept_atoms(source, resolution.atoms))


def law_values(source, states: int, t: int, linear: bool, resolution: Resolution) -> int | float:
    """Real numbers that the law of the `t` statistics of one feature with so many states needs."""
    nodes = (2.5 * resolution.law_order(t)) ** t
    values = nodes * (6 * states + 4 * half_space_size(resolution.series_order(t, linear), t))
    frequencies = min(CHUNK, 2 * resolution.law_order(1) if t == 1 else CHUNK)
    ridge = 1 if linear else 2 * resolution.law_ridge_order(t)
    return values + 8 * source.features * frequencies * (ridge + kept_atoms(source, resolution.law_atoms))


def brief(source, layer, shape: tuple[int, int, int], resolution: Resolution, calls: int = 1) -> bool:
    """Whether so many losses for a `shape` of `(t, m2, K2)` are there sooner if they are not optimised before."""
    t, m2, K2 = shape
    linear = layer.reads_input or not layer.units
    pairs = m2 * max(1, (m2 + (layer.units if layer.reads_input else 0)) // 2)
    numbers = pairs * pair_values(source, t, linear, resolution) + m2 * law_values(source, K2, t, linear, resolution)
    return calls * numbers < BRIEF


def half_space_size(order: int, t: int) -> int | float:
    """About how many frequencies up to an order remain when one of each pair `w, -w` is kept."""
    return order + 1 if t == 1 else 1.6 * order**2


def device_bytes(device) -> int | None:
    """Memory that JAX may use of an accelerator, or None where it does not say."""
    return (device.memory_stats() or {}).get("bytes_limit")


def available_bytes() -> int | None:
    """Memory that the accelerator, or without one the machine, has free now; None where it does not say."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if {"bytes_limit", "bytes_in_use"} <= set(stats) else None
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def require_memory(needed: float, name: str, advice: str) -> None:
    """Raise `MemoryError` that names the argument if `needed` bytes are more than the machine has free."""
    free = available_bytes()
    if free is not None and needed > 0.9 * free:
        raise MemoryError(
            f"{name}: about {needed / 2**30:.1f} GiB are needed at this size, {free / 2**30:.1f} are free; {advice}."
        )


def check_memory(source, layer, shape: tuple[int, int, int], resolution, mesh=None, vectors: bool = False) -> None:
    """Raise `MemoryError` before anything starts if the largest arrays cannot fit, for a `shape` of `(t, m2, K2)`."""
    t, m2, K2 = shape
    codes = K2 - 1 if vectors else 1
    linear = layer.reads_input or not layer.units
    batches = Batches.of(source, shape, linear, resolution, mesh)
    nodes = 16 * resolution.ridge_panels  # of the ridge axis, and complex exponentials at them
    axis = 0 if linear else 16 * nodes * resolution.ridge_order
    order = resolution.series_order(t, linear)
    tables = 4 * source.features * m2 * codes * half_space_size(order, t) * kept_atoms(source, resolution.atoms)
    advice = "lower resolution.frequencies, or the number of features or atoms (or, to fit, pass check=False)"
    values = batches.pairs * batches.pair_values + batches.laws * batches.law_values * codes + axis + tables
    # The devices of a CPU share one memory.
    shared = 1 if mesh is None or mesh.devices.flat[0].platform != "cpu" else len(mesh.local_devices)
    require_memory(shared * values * source.mean.dtype.itemsize, "resolution", advice)


def check_units_memory(source, layer, resolution) -> None:
    """Raise `MemoryError` before anything starts if the tables of all units, or the law of one, cannot fit."""
    m, K = source.prior.atoms.shape
    tables = 16 * layer.units * m * resolution.frequencies * max(1, K - 1)
    law = 1600 * resolution.frequencies**2 * (FINER / 8) ** 2
    advice = "lower resolution.frequencies, or take fewer units at a time"
    require_memory((tables + law) * source.mean.dtype.itemsize, "resolution", advice)


def check_pairs_memory(source, layer) -> None:
    """Raise `MemoryError` before anything starts if the second-order effects of all pairs of states cannot fit."""
    m, K = source.prior.atoms.shape
    values = 4 * max(layer.units, layer.outputs) * (m * K) ** 2 + 8 * m * K * layer.outputs**2
    require_memory(values * source.mean.dtype.itemsize, "split", "pass split=False, or fewer features or atoms")


BRIEF = 3e8  # numbers of all calls, so that optimising them takes longer than it saves

LAWS_ON_CPU = 4  # laws of one statistic computed together: what they need stays in the caches

PAIRS_ON_CPU = 24

# That they may need, or fewer are taken: allocators keep no more at hand between calls. A fixed number, so that every
# run computes the same bits.
BYTES_ON_CPU = 2**25


def together(count: int, values_each: float, on_cpu: int, dtype, mesh: Mesh | None = None) -> int:
    """How many of `count` items of so many real numbers to compute at once.

    On a CPU `on_cpu`, or what fits into 32 MiB; elsewhere as many as fill an eighth of the device's memory: a
    gradient holds several copies. Processes that share the work must compile one program, so for them each device
    counts as one of 8 GiB, and so does a device that does not say.
    """
    device = jax.local_devices()[0] if mesh is None else mesh.local_devices[0]
    bytes_each = values_each * np.dtype(dtype).itemsize
    if device.platform == "cpu":
        return int(np.clip(BYTES_ON_CPU / bytes_each, 1, min(on_cpu, count)))
    limit = device_bytes(device) if mesh is None or not mesh.is_multi_process else None
    limit = limit or 8 * 2**30
    return int(np.clip(limit / 8 / bytes_each, 1, count))


class Batches(NamedTuple):
    """How many laws of one feature, and how many pairs, to compute at once; and the numbers that one of each needs."""

    laws: int
    pairs: int
    law_values: float
    pair_values: float

    @classmethod
    def of(
        cls, source, shape: tuple[int, int, int], linear: bool, resolution: Resolution, mesh: Mesh | None = None
    ) -> "Batches":
        """For a target of `shape` `(t, m2, K)`: statistics that encoders read, features and states."""
        t, features, states = shape
        law, pair = law_values(source, states, t, linear, resolution), pair_values(source, t, linear, resolution)
        count, dtype = features * max(1, features // 2), source.mean.dtype
        # Laws of two statistics are large, and computed in blocks themselves: one by one.
        laws = together(features, law, LAWS_ON_CPU, dtype, mesh) if t == 1 else 1
        return cls(laws, together(count, pair, PAIRS_ON_CPU, dtype, mesh), law, pair)

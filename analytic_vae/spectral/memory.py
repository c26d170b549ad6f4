"""What a computation will need, said before it starts."""

import os

import jax

from .compression import kept_atoms
from .resolution import Resolution
from .spectrum import CHUNK


def pair_values(source, t: int, linear: bool, resolution: Resolution) -> float:
    """Real numbers that the moment of one pair of latent means needs."""
    half = half_space_size(resolution.series_order(t, linear), t) - 1
    ridge = 1 if linear else 2 * resolution.series_ridge_order
    return 16 * source.features * half**2 * (ridge + kept_atoms(source, resolution.atoms))


def law_values(source, states: int, t: int, linear: bool, resolution: Resolution) -> float:
    """Real numbers that the law of the `t` statistics of one feature with so many states needs."""
    nodes = (2.5 * resolution.law_order(t)) ** t
    values = nodes * (6 * states + 4 * half_space_size(resolution.series_order(t, linear), t))
    frequencies = min(CHUNK, 2 * resolution.law_order(1) if t == 1 else CHUNK)
    ridge = 1 if linear else 2 * resolution.law_ridge_order(t)
    return values + 8 * source.features * frequencies * (ridge + kept_atoms(source, resolution.law_atoms))


def half_space_size(order: int, t: int) -> float:
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

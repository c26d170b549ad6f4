"""What a computation will need, said before it starts."""

import os


def available_bytes() -> int | None:
    """Memory that the machine has free now, or None where it does not say."""
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

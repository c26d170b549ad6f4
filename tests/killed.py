"""Runs of `learn` are killed (kill -9) at random moments and begun again: they end in the same bits.

As a program, `python killed.py FOLDER` learns a small network with checkpoints in the folder.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import analytic_vae as av


def parts():
    """A source and a network 3-2-2 of linear and ridge layers."""
    rng = np.random.default_rng(0)
    source = av.FeatureModel(av.Prior.bernoulli([0.3, 0.4]), rng.normal(size=(3, 2)), 0.5)
    weights = [(rng.normal(size=(2, 3)), np.array([0.5, 1.0])), (rng.normal(size=(2, 2)), rng.normal(size=2))]
    return source, av.from_weights(weights, "relu", layers="ridge")


def attack(folder: Path, kills: int, seed: int = 0) -> dict[str, float]:
    """Kills runs at so many moments, each at random within the time that a whole run takes, until they end.

    A run is begun again in its folder after every kill; when one ends, its arrays must be those of a run that nobody
    killed, and another is begun. Returns counts and seconds.
    """
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__]
    run_one = lambda where: subprocess.Popen([*command, str(where)], env=environment)  # noqa: E731
    first, again = folder / "first", folder / "again"
    assert run_one(first).wait() == 0  # compiles
    begun = time.perf_counter()
    assert run_one(again).wait() == 0
    whole, expected = time.perf_counter() - begun, _bits(again)
    assert _bits(first) == expected
    rng, killed, ended = np.random.default_rng(seed), 0, 0
    while killed < kills or (folder / f"run{ended}").exists():
        where = folder / f"run{ended}"
        process = run_one(where)
        try:
            moment = rng.uniform(0, whole) if killed < kills else None
            code = process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            where.mkdir(exist_ok=True)  # killed before it was made: the loop goes on with it
            continue
        assert code == 0, f"a run begun again after {killed} kills failed"
        assert _bits(where) == expected, f"another result after {killed} kills"
        ended += 1
    return {"kills": killed, "runs": ended, "seconds_of_a_run": whole}


def _bits(folder: Path) -> dict:
    """All arrays of all checkpoints."""
    files = sorted(folder.glob("*.npz"))
    held = {file.name: dict(np.load(file)) for file in files}
    return {
        (name, key): array.tobytes() for name, arrays in held.items() for key, array in arrays.items()
        if key != "header.json"  # it holds seconds
    }  # fmt: skip


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    av.learn(*parts(), folder=sys.argv[1], steps=6, resolution=av.Resolution(16), check=False, samples=0)

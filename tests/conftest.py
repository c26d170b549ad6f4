"""Settings of every test: x64, no silent rank promotion, warnings are errors, shapes checked at run time."""

import gc
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin, and fight those of XLA on few cores
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers and the processes that tests start share compiled programs
    COMPILED = tempfile.TemporaryDirectory(prefix="analytic_vae_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
    # XLA's older generator of code for CPUs compiles in half the time; a version without the choice would abort.
    older = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"} | os.environ
    start = [sys.executable, "-c", "import jax; jax.devices()"]
    if subprocess.run(start, env=older, capture_output=True).returncode == 0:
        os.environ["XLA_FLAGS"] = older["XLA_FLAGS"]

from pathlib import Path

import jax
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
settings.register_profile("steady", derandomize=True, deadline=None, max_examples=25)
settings.load_profile("steady")
# Shapes and dtypes in the engine's annotations are checked when it is called; the public face has errors of its own.
# So have `Law`, and `Problem`, which is made of what a user gave and says what is wrong with it.
HOUSE, PUBLIC = Path(__file__).parents[1] / "analytic_vae", ("__init__", "problem", "law", "plan", "resolution")
for room in ("spectral", "moments", "laws", "certify"):
    engine = [path.stem for path in (HOUSE / room).glob("*.py") if path.stem not in PUBLIC]
    install_import_hook([f"analytic_vae.{room}.{name}" for name in engine], "typechecked.checked")


gc.set_threshold(200_000, 50, 100)  # a collection visits all that JAX keeps: a tenth of the time of a long run


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    config.addinivalue_line("markers", "optimised: runs so long that LLVM is to optimise what it compiles")
    config.addinivalue_line("markers", "jobs: kills, broken files, devices, the command, README and docs")
    config.addinivalue_line("markers", "campaign: a few of the random cases of benchmarks/campaigns.py")
    config.addinivalue_line("markers", "coarse: at a low resolution on purpose, so that results may warn of it")


def pytest_collection_modifyitems(items):
    for item in items:
        for folder, marker in (("jobs", "jobs"), ("campaigns", "campaign")):
            if item.path.parent.name == folder:
                item.add_marker(marker)
        if item.get_closest_marker("coarse"):
            item.add_marker(pytest.mark.filterwarnings("ignore::analytic_vae.AccuracyWarning"))


@pytest.fixture(autouse=True)
def optimisation(request, monkeypatch):
    """What a test compiles is not optimised, in its process and those that it starts, unless it is marked `optimised`.

    LLVM takes two thirds of the time of compiling, and most tests compile far longer than they run. At a high
    resolution running takes three times longer so.
    """
    quick = request.node.get_closest_marker("optimised") is None
    jax.config.update("jax_disable_most_optimizations", quick)
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(quick)))


@pytest.fixture(autouse=True)
def few_compiled_programs():
    """Forgets compiled programs before their memory maps reach Linux's limit of 65530, at which XLA aborts."""
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 40_000:
        jax.clear_caches()
    yield

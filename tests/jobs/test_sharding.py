"""The work shared among devices and among processes: values and gradients are those of one device."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analytic_vae._sharding import _pack

SCRIPT = Path(__file__).with_name("sharded.py")
FLAGS = os.environ.get("XLA_FLAGS", "")


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, seconds=600) -> str:
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0 and said.rstrip().endswith("passed"), said[-4000:]
    return said


@pytest.mark.parametrize("axes", [0, 1])
def test_what_is_sent_as_one_array_comes_back_as_it_was(axes):
    """Leaves of every kind and shape, with `axes` leading axes in common; or none that is a real or complex number."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(2, 3, 5, 2))
    tree = {
        "real": jnp.asarray(drawn[0]),
        "complex": jnp.asarray(drawn[0] + 1j * drawn[1]),
        "single": jnp.asarray(drawn[0, :, 0, 0], jnp.float32),
        "empty": jnp.zeros((3, 0)),
        "whole": jnp.arange(3),
        "none": None,
    }
    for given in (tree, {"whole": tree["whole"]}):
        packed, unpack = _pack(given, axes)
        again = unpack(packed)
        assert jax.tree.structure(again) == jax.tree.structure(given)
        chex.assert_trees_all_equal(again, given, strict=True)


def test_eight_devices_compute_what_one_does():
    finish(start("devices", XLA_FLAGS=f"{FLAGS} --xla_force_host_platform_device_count=8"))


def test_coordinates_on_two_devices_do_not_wait_for_each_other():
    finish(start("coordinates", XLA_FLAGS=f"{FLAGS} --xla_force_host_platform_device_count=2"), seconds=120)


def test_two_processes_compute_what_one_does():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [start("process", port, str(rank)) for rank in range(2)]
    try:
        said = [re.findall("^fit .*$", finish(process), flags=re.MULTILINE) for process in processes]
        assert len(said[0]) == 1 and said[0] == said[1]
    finally:
        for process in processes:
            process.kill()

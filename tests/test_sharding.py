"""The work shared among devices and among processes: values and gradients are those of one device."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("sharded.py")
QUICK = "--xla_backend_optimization_level=0"  # to compile: running takes no time here


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process) -> str:
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and said.rstrip().endswith("passed"), said[-4000:]
    return said


def test_eight_devices_compute_what_one_does():
    finish(start("devices", XLA_FLAGS=f"{QUICK} --xla_force_host_platform_device_count=8"))


def test_two_processes_compute_what_one_does():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [start("process", port, str(rank), XLA_FLAGS=QUICK) for rank in range(2)]
    try:
        said = [re.findall("^loss .* slope .*$", finish(process), flags=re.MULTILINE) for process in processes]
        assert len(said[0]) == 1 and said[0] == said[1]
    finally:
        for process in processes:
            process.kill()

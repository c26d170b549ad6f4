"""The work shared among devices and among processes: values and gradients are those of one device."""

import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("sharded.py")


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process) -> None:
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0 and said.rstrip().endswith("passed"), said[-4000:]


def test_eight_devices_compute_what_one_does():
    finish(start("devices", XLA_FLAGS="--xla_force_host_platform_device_count=8"))


def test_two_processes_compute_what_one_does():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [start("process", port, str(rank), XLA_FLAGS="") for rank in range(2)]
    try:
        for process in processes:
            finish(process)
    finally:
        for process in processes:
            process.kill()

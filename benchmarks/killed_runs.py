"""Kills runs of `learn` (kill -9) at 60 random moments, begins them again, and compares every bit: `--kills 60`."""

import argparse
import tempfile
from pathlib import Path

import harness
import killed

parser = argparse.ArgumentParser()
parser.add_argument("--kills", type=int, default=60)
parser.add_argument("--seed", type=int, default=0)

if __name__ == "__main__":
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = killed.attack(Path(folder), options.kills, options.seed)
    print(harness.table([row]))
    harness.save("killed_runs", [row])

"""Reads mutated files of every kind: each loads whole or is refused within a second and a gibibyte: `--count 50000`."""

import argparse
import tempfile
from pathlib import Path

import harness
import mutations

parser = argparse.ArgumentParser()
parser.add_argument("--count", type=int, default=50_000)
parser.add_argument("--seed", type=int, default=1)

if __name__ == "__main__":
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = mutations.attack(Path(folder), options.count, options.seed)
    rows = []
    for name in dict.fromkeys(name for name, *_ in found):
        for kind in mutations.KINDS:
            counts = {outcome: found[name, kind, outcome] for outcome in ("loaded", "refused")}
            rows.append({"file": name, "mutation": kind} | counts)
    print(harness.table(rows))
    harness.save("mutated_files", rows)

"""Is anything wrong without a word? Thousands of random cases of five kinds, each beside an exact value.

- `masses`: tails of laws with point masses (ReLU, leaky, hard and saturated units, no noise, lattices; one and two
  projections). Bar: 1e-6.
- `outliers`: losses, moments, autoencoders and laws of sources with a value of probability 1e-1 to 1e-12 and of size up
  to 1e4. Bar: 1e-4, of the spread, or of losses in nats (relative where they are above 1).
- `round`: losses, moments of units and firing rates where much is zero, equal or constant: dead units, one input, rows
  that are alike. Bar: 1e-4.
- `sparse`: reconstruction, means and firing rates of sparse autoencoders without any noise, masses at their kinks. Bar:
  1e-3.
- `gradients`: of every array of eight public functions at 0, 1e-15 .. 1e-3 of its size. Bar: 1e-4, relative to the
  derivative where that is above 1.

Counted: cases off by more than the bar that do not warn, cases that warn, and of those off by more than 1e-3 how many
warn; numbers that are not finite, and probabilities outside of [0, 1]. `--cases 2000` of each (gradients: comparisons);
`--only masses`; `--single` in single precision, where the bar is 1e-3 and a threshold may be on either side of an atom.
The code is that of `tests/random_cases.py`.
"""

import argparse
import time

import jax
import numpy as np
from harness import av, save, table
from random_cases import (
    FUNCTIONS,
    SCALES,
    STRUCTURES,
    gradients,
    outliers,
    point_masses,
    quietly,
    round_numbers,
    sparse,
)

BARS = {"masses": 1e-6, "outliers": 1e-4, "round": 1e-4, "sparse": 1e-3, "gradients": 1e-4}
CASES = {"masses": point_masses, "outliers": outliers, "round": round_numbers, "sparse": sparse}
PROBABILITIES = {"linear", "unit", "two units", "mixed units", "ridge", "sparse l0", "linear law", "law of a unit"}
FORGET = 20  # kinds of programs, after which they are forgotten

parser = argparse.ArgumentParser()
parser.add_argument("--cases", type=int, default=2000, help="of each campaign, unless given by themselves")
parser.add_argument("--outliers", type=int, help="cases of that campaign: each is five comparisons, and takes seconds")
parser.add_argument("--gradients", type=int, help="comparisons of that campaign")
parser.add_argument("--first", type=int, default=0, help="seed of the first case")
parser.add_argument("--only", choices=BARS)
parser.add_argument("--single", action="store_true", help="single precision; nothing is saved")


def rows_of(kind: str, first: int, cases: int):
    if kind != "gradients":
        # Cases that need the same programs follow each other.
        same = {}
        for seed in range(first, first + cases):
            same.setdefault(str(STRUCTURES[kind](seed)), []).append(seed)
        for i, name in enumerate(sorted(same)):
            if i % FORGET == FORGET - 1:
                jax.clear_caches()
            for seed in same[name]:
                yield from quietly(CASES[kind], seed)
        return
    arrays = 60  # of all functions, about
    seeds = max(1, round(cases / (arrays * len(SCALES))))
    for name in FUNCTIONS:
        yield from quietly(gradients, name, range(first, first + seeds))


def summary(kind: str, rows: list) -> list[dict]:
    found = []
    names = sorted({row.asked.split(",")[0] if kind == "gradients" else row.asked for row in rows})
    for name in names:
        own = [row for row in rows if row.asked.startswith(name)]
        warned = np.array([not row.accuracy <= av.ACCURACY for row in own])
        apart = np.array([row.apart for row in own])
        much = ~(apart <= 1e-3)
        found.append(
            {
                "campaign": kind,
                "of": name,
                "cases": len(own),
                "median_apart": float(np.median(apart)),
                "largest_apart_unwarned": float(np.max(apart[~warned], initial=0)),
                "unwarned_beyond_bar": int(np.sum(~warned & ~(apart <= BARS[kind]))),
                "warned": int(warned.sum()),
                "off_by_more_than_1e-3": int(much.sum()),
                "of_these_warned": int(np.sum(much & warned)),
                "not_finite": int(np.sum(~np.isfinite([row.got for row in own]))),
                "outside": sum(row.asked in PROBABILITIES and not 0 <= row.got <= 1 for row in own),
            }
        )
    return found


if __name__ == "__main__":
    options, results = parser.parse_args(), []
    jax.config.update("jax_numpy_rank_promotion", "raise")
    if options.single:
        jax.config.update("jax_enable_x64", False)
        BARS = dict.fromkeys(BARS, 1e-3)
    for kind in [options.only] if options.only else BARS:
        rows, said = [], time.perf_counter()
        for row in rows_of(kind, options.first, getattr(options, kind, None) or options.cases):
            rows.append(row)
            if not row.apart <= BARS[kind] and row.accuracy <= av.ACCURACY:
                print("silently off:", row, flush=True)
            if time.perf_counter() - said > 60:
                said = time.perf_counter()
                print(f"{kind}: {len(rows)} comparisons, seed {row.seed}", flush=True)
        results += summary(kind, rows)
        print(table(results), flush=True)
    if options.only is None and not options.single:
        save("campaigns", results)

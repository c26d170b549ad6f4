"""What `elbo_bounds.py` and `dense_bounds.py` share: sources, and a tally of errors against bounds."""

import sys
from dataclasses import dataclass, field

from harness import av, earlier, save, table  # isort: skip (it sets the path)

import numpy as np

NOISES = (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0)


def one_input_source(rng, kind):
    """Of one input: eight features of two atoms, Bernoulli 0.001 to 0.5 ("rare"), or two of 32 atoms ("wide")."""
    m, K = (8, 2) if kind == "rare" else (2, 32)
    rate = rng.uniform(0.001, 0.5, m)
    places = np.tile([0.0, 1.0], (m, 1)) if K == 2 else np.sort(rng.normal(size=(m, K)), axis=1)
    masses = np.stack([1 - rate, rate], axis=1) if K == 2 else rng.dirichlet(np.ones(K), m)
    return av.FeatureModel(av.Prior(places, np.log(masses)), rng.normal(size=(1, m)), 0.1, rng.normal(size=1))


@dataclass
class Tally:
    """Decades of bound over error of all terms and of the loss alone, infinite bounds, violations (printed at once)."""

    terms: list = field(default_factory=list)
    losses: list = field(default_factory=list)
    infinite: int = 0
    violations: int = 0

    def add(self, name, error, bound, size, *label):
        """One term: the error and the bound of it, its exact size, and what to call the model."""
        if name == "loss":
            self.infinite += not np.isfinite(bound)
        if not error <= bound + 1e-13 * (1 + abs(size)):
            self.violations += 1
            print("VIOLATED", *label, name, error, bound, flush=True)
        if error > 1e-12 and np.isfinite(bound):
            self.terms.append(np.log10(bound / error))
            if name == "loss":
                self.losses.append(self.terms[-1])

    def row(self):
        """The summary."""
        return {
            "violations": self.violations,
            "median_of_terms": float(np.median(self.terms)),
            "median_of_losses": float(np.median(self.losses)),
            "errors_above_1e-12": len(self.terms),
            "at_most_3": float(np.mean(np.asarray(self.terms) <= 3)),
            "infinite": self.infinite,
        }


def progress(model, count):
    """Says on standard error how far a run is."""
    print(f"model {model + 1} of {count}", end="\r" if model + 1 < count else "\n", file=sys.stderr, flush=True)


def save_row(name, row, keys):
    """Prints a row and puts it among those of `results/<name>.json`, in place of an earlier one of the same keys."""
    print(table([row]), flush=True)
    save(name, [*earlier(name, [row], keys), row])

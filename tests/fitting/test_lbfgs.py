"""When L-BFGS takes a step back, and when it stops: on losses that are written down, of a position, not an encoder."""

from types import SimpleNamespace

import numpy as np
import pytest

from analytic_vae.fitting import lbfgs
from analytic_vae.fitting.result import Stop


class Silent:
    """Nobody listens."""

    counts = False

    def __call__(self, step, loss):
        pass


class Landscape:
    """`loss(x, box)`, its gradient and accuracy; every new set of boxes has another number."""

    def __init__(self, monkeypatch, loss, accuracy=lambda x: 1e-3):
        self.loss, self.accuracy, self.boxes, self.seen = loss, accuracy, 0, []
        monkeypatch.setattr(lbfgs, "coordinates", lambda problem, begin: np.zeros((1, begin.shape[1], 1)))
        monkeypatch.setattr(lbfgs._Descent, "_boxes", lambda descent, begin: self.next_box())
        monkeypatch.setattr(lbfgs, "profiled_value_and_grad", self.evaluate)

    def next_box(self):
        self.boxes += 1
        return self.boxes

    def evaluate(self, step, columns, begin, problem, box):
        x = np.asarray(begin + step)
        self.seen.append(x)
        value, gradient = self.loss(x[0], box)
        elbo = SimpleNamespace(moment_error=1e-9, accuracy=self.accuracy(x[0]), loss=value, R1=0.0, R2=0.0, R3=0.0)
        return (value, (x, elbo, None)), gradient[None]

    def descend(self, start, steps=500):
        options = SimpleNamespace(steps=steps, tolerance=1e-7)
        problem = SimpleNamespace(resolution=SimpleNamespace(frequencies=24))
        return lbfgs.profiled_lbfgs(problem, np.array([start]), options, Silent())


def bowl(x, centre):
    return float(np.sum((x - centre) ** 2)), 2 * (x - centre)


def test_steps_of_poor_accuracy_are_taken_back(monkeypatch):
    """A pit that only a wrong loss has is not walked into, however deep it is."""

    def loss(x, box):
        value, slope = bowl(x, np.array([3.0, 0.0]))
        return (value - 1000.0, slope) if x[0] > 2 else (value, slope)

    land = Landscape(monkeypatch, loss, accuracy=lambda x: 5.0 if x[0] > 2 else 1e-3)
    found = land.descend([-4.0, 1.0])
    assert found.encoder[0, 0] <= 2 and found.rejected > 0 and np.all(found.history >= 1)
    assert any(x[0, 0] > 2 for x in land.seen)


def test_it_ends_where_two_rounds_found_nothing_that_lasts(monkeypatch):
    """The lowest place of each set of boxes is its own: what a round gains, slowly, is lost on the next."""
    rng, weights = np.random.default_rng(0), np.geomspace(1e-3, 1e3, 40)
    centres = 0.1 * rng.normal(size=(1000, 40))

    def loss(x, box):
        return float(weights @ (x - centres[box]) ** 2), 2 * weights * (x - centres[box])

    land = Landscape(monkeypatch, loss)
    found = land.descend(rng.normal(size=40))
    assert found.stop is Stop.CONVERGED and found.history.size < 300
    assert found.loss < 100 < loss(land.seen[0][0], 1)[0]


def test_it_goes_on_while_a_round_gains(monkeypatch):
    """A long valley takes more than one round of 30 steps."""

    def valley(x, box):
        a, b = x
        return float(100 * (b - a**2) ** 2 + (1 - a) ** 2), np.array(
            [-400 * a * (b - a**2) - 2 * (1 - a), 200 * (b - a**2)]
        )

    land = Landscape(monkeypatch, valley)
    found = land.descend([-1.9, 2.0])
    np.testing.assert_allclose(found.encoder, [[1.0, 1.0]], atol=1e-3)
    assert found.stop is Stop.CONVERGED and land.boxes > 2 and found.history.size > lbfgs.ROUND


@pytest.mark.parametrize("steps", [1, 7])
def test_no_more_steps_than_were_asked_for(monkeypatch, steps):
    land = Landscape(monkeypatch, lambda x, box: bowl(x * np.array([1.0, 30.0]), np.zeros(2)))
    found = land.descend([3.0, -2.0], steps)
    assert found.history.size <= steps and (found.stop is Stop.STEPS) == (found.history.size == steps)

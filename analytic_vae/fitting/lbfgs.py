"""L-BFGS on the profiled loss."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from .._jit import always, compiled
from ..closed_form import profiled
from ..elbo import Elbo
from ..model.carried_encoder import learnt_part, with_learnt
from ..model.encoder import AbstractEncoder
from ..moments.plan import Plan, compiled_plan
from ..types import Array, Float
from .fisher import directions, fisher, step_in_metric
from .options import FitOptions
from .problem import BELIEVED, FitProblem, TooCoarse, believed
from .progress import Progress
from .result import StartResult, Stop

ROUND = 30  # steps of L-BFGS in one set of coordinates

OUTGROWN = 1e-2  # moment error on the boxes of a round from which on steps are rejected

DOUBTFUL = 0.1  # accuracy, in nats, from which on steps are rejected, or twice what it was where a round began

CALLS = 300  # evaluations that a fit is taken for, where it is decided whether to optimise them


class _Enough(Exception):
    """Raised inside the optimiser when the stopping rule is met."""


def profiled_lbfgs(problem: FitProblem, encoder: AbstractEncoder, options: FitOptions, say: Progress) -> StartResult:
    """L-BFGS (SciPy's, in float64) on the profiled loss, whose exact gradient comes from one compiled function.

    The coordinates are those of the Fisher metric (`fisher.py`) at the best encoder, taken anew every ROUND steps.
    Where loss or gradient is not finite, or the loss not to be believed (`believed`), the line search is told of a loss
    above the best, level: it steps back.
    """
    descent = _Descent(problem, encoder, options, say)
    stop = None
    while stop is None:
        try:
            # SciPy's status: 0 converged, 1 out of steps or evaluations, 2 the line search failed.
            status, gained = descent.round()
        except _Enough:
            break
        if status == 0:
            stop = Stop.CONVERGED
        elif len(descent.history) >= options.steps:
            stop = Stop.STEPS
        elif not gained > options.tolerance:  # it failed, or used up the evaluations
            stop = Stop.STUCK
    if len(descent.history) > descent.begun:  # else what was found has been judged
        descent.renew()
    loss, best = descent.judged
    if descent.history:  # on boxes of its own
        descent.history[-1], descent.terms[-1] = loss, _summands(best[1])
    terms = np.reshape(descent.terms, (-1, 3))
    return StartResult(*best, np.array(descent.history), stop or Stop.CONVERGED, descent.rejected, terms)


class _Descent:
    """Where L-BFGS is: the best encoder with its loss and target, and the losses and terms of all steps.

    A round of steps has one set of coordinates, and boxes (`plan.py`): with new boxes at every step the loss would not
    be the function whose slope is known. What a round found is judged on new ones.
    """

    def __init__(self, problem: FitProblem, encoder: AbstractEncoder, options: FitOptions, say: Progress):
        self.problem, self.options, self.say = problem, options, say
        self.history: list[float] = []
        self.terms: list[np.ndarray] = []
        self.least, self.best = np.inf, (encoder, None, None)
        self.judged = self.least, self.best  # the best one of those on new boxes
        self.gradient = np.zeros(0)  # at the best
        self.rejected, self.believable = 0, np.inf
        self.idle = 0  # rounds in a row that found nothing that lasts
        # Of a round: steps before it, and the moment error and accuracy that it may have.
        self.begun, self.limit, self.accuracy_limit = 0, np.inf, np.inf

    def renew(self) -> tuple[Callable, np.ndarray, float]:
        """New coordinates and boxes at the best encoder, judged on these: the loss of a step, no step, and its loss."""
        begin, before, judged = self.best[0], (self.least, self.best), self.judged[0]
        columns, boxes = coordinates(self.problem, begin), self._boxes(begin)
        zero = np.zeros(columns.shape[0] * columns.shape[1])
        evaluate = lambda x: self._evaluated(x, columns, boxes, begin)  # noqa: E731
        self.least, self.begun, self.limit, self.accuracy_limit = np.inf, len(self.history), self.believable, np.inf
        first = evaluate(zero)
        if not np.isfinite(first[0]):
            self.least, self.best = before
        elif self.least < self.judged[0]:
            self.judged = self.least, self.best
        self.idle = 0 if judged - self.judged[0] > self.options.tolerance else self.idle + 1
        return lambda x: evaluate(x) if x.any() else first, zero, first[0]

    def round(self) -> tuple[int, float]:
        """Some steps from the best encoder: SciPy's status, and by how much the loss fell."""
        evaluate, zero, loss = self.renew()
        if not np.isfinite(self.judged[0]):
            raise TooCoarse(
                f"resolution: expected one at which the loss and its gradient are finite, but at "
                f"{self.problem.resolution.frequencies} frequencies they are not; raise resolution.frequencies."
            )
        if not np.isfinite(loss):
            return 2, 0.0
        if self.idle > 1:
            raise _Enough
        limit = min(ROUND, self.options.steps - len(self.history))
        options = {"maxiter": limit, "maxfun": 20 * limit, "maxcor": 20, "ftol": 0.0, "gtol": 1e-12}
        given = {"jac": True, "method": "L-BFGS-B", "callback": self._after_step, "options": options}
        status = minimize(evaluate, zero, **given).status
        return status, loss - self.least if len(self.history) > self.begun else 0.0

    def _evaluated(
        self, x: np.ndarray, columns: Array, boxes: Plan, begin: AbstractEncoder
    ) -> tuple[float, np.ndarray]:
        step = jnp.asarray(x.reshape(columns.shape[:2]), columns.dtype)
        (loss, found), gradient = profiled_value_and_grad(step, columns, begin, self.problem, boxes)
        loss, gradient = float(loss), np.asarray(gradient, float).ravel()
        moment_error, accuracy = float(found[1].moment_error), float(found[1].accuracy)
        trusted = believed(moment_error, self.limit) and believed(accuracy, self.accuracy_limit)
        if not (trusted and np.isfinite(loss) and np.all(np.isfinite(gradient))):
            self.rejected += int(np.isfinite(self.least))
            return self.least + abs(self.least) + 1, np.zeros_like(gradient)
        self.believable = min(self.believable, max(BELIEVED, 2 * moment_error))
        if not np.isfinite(self.least):  # the first of a round, on new boxes
            self.limit = min(self.believable, max(OUTGROWN, 2 * moment_error))
            self.accuracy_limit = max(DOUBTFUL, 2 * accuracy)
        if loss < self.least:
            self.least, self.best, self.gradient = loss, found, gradient
        return loss, gradient

    def _boxes(self, encoder: AbstractEncoder) -> Plan:
        problem = self.problem
        return compiled_plan(problem.source, problem.layer, learnt_part(encoder), problem.resolution)

    def _after_step(self, _) -> None:
        self.history.append(self.least)
        self.terms.append(_summands(self.best[1]))
        self.say(len(self.history), self.least)
        if self.say.counts:
            elbo = self.best[1]
            terms = {"loss": self.least, "rate": elbo.rate, "R2": elbo.R2, "distortion": elbo.distortion}
            self.say.numbers(**terms, gradient_norm=np.linalg.norm(self.gradient))
        recent = self.history[self.begun :]
        if len(recent) > 10 and recent[-11] - recent[-1] < self.options.tolerance:
            raise _Enough


def _summands(elbo: Elbo) -> np.ndarray:
    """Rate, R2 and distortion."""
    return np.array([elbo.R1, elbo.R2, elbo.R3], float)


@partial(compiled, quick=always)
def coordinates(problem: FitProblem, encoder: AbstractEncoder) -> Float[Array, "m L L"]:
    """Of the Fisher metric at an encoder."""
    learnt = learnt_part(encoder)
    atoms = problem.atoms[-learnt.features :]
    return directions(fisher(problem.source, problem.layer, atoms, learnt))


@partial(compiled, quick=lambda *given: given[3].brief(given[2], CALLS))
def profiled_value_and_grad(
    step: Float[Array, "m L"], columns: Float[Array, "m L L"], encoder, problem: FitProblem, plan: Plan
):
    """`((loss, (encoder, elbo, target)), gradient)` after a step in the coordinates of the Fisher metric."""

    def loss(step):
        after = with_learnt(encoder, step_in_metric(learnt_part(encoder), columns, step))
        elbo, target = profiled(problem.expected(after, plan=plan), problem.atoms, problem.noise, problem.floor)
        return elbo.loss, (after, elbo, target)

    return jax.value_and_grad(loss, has_aux=True)(step)

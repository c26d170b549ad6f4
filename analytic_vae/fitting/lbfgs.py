"""L-BFGS on the profiled loss."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from .._jit import compiled
from ..closed_form import profiled
from ..model.carried_encoder import learnt_part, with_learnt
from .fisher import directions, fisher, step_in_metric
from .problem import Found, Stop, TooCoarse, believed, expected, moment_error_limit

ROUND = 30  # steps of L-BFGS in one set of coordinates


class _Enough(Exception):
    """Raised inside the optimiser when the stopping rule is met."""


def profiled_lbfgs(
    source, layer, atoms, encoder, noise, floor, steps, tolerance, resolution, say, mesh=None, known=None
) -> Found:
    """L-BFGS (SciPy's, in float64) on the profiled loss, whose exact gradient comes from one compiled function.

    The coordinates are those of the Fisher metric (`natural.py`) at the best encoder, taken anew every ROUND steps.
    Where loss or gradient is not finite, or the loss not to be believed (`believed`), the line search is told of a loss
    above the best, level: it steps back.
    """
    history: list[float] = []
    best = np.inf, (encoder, None, None)
    rejected, believable = 0, np.inf

    def after_step(_):
        history.append(best[0])
        say(len(history), best[0])
        if len(history) > 10 and history[-11] - history[-1] < tolerance:
            raise _Enough

    def one_round(begin):
        columns = coordinates(source, layer, atoms, begin)
        shape, dtype = columns.shape[:2], columns.dtype

        def value_and_grad(x):
            nonlocal best, rejected, believable
            step = jnp.asarray(x.reshape(shape), dtype)
            (loss, found), gradient = profiled_value_and_grad(
                step, columns, begin, source, layer, atoms, noise, floor, resolution, mesh, known
            )
            loss, gradient = float(loss), np.asarray(gradient, float).ravel()
            moment_error = float(found[1].moment_error)
            if not (np.isfinite(loss) and np.all(np.isfinite(gradient)) and believed(moment_error, believable)):
                rejected += int(np.isfinite(best[0]))
                return best[0] + abs(best[0]) + 1, np.zeros_like(gradient)
            believable = min(believable, float(moment_error_limit(moment_error)))
            if loss < best[0]:
                best = loss, found
            return loss, gradient

        zero = np.zeros(shape[0] * shape[1])
        if not history and not np.isfinite(value_and_grad(zero)[0]):
            raise TooCoarse(
                f"resolution: expected one at which the loss and its gradient are finite, but at "
                f"{resolution.frequencies} frequencies they are not; raise resolution.frequencies."
            )
        limit = min(ROUND, steps - len(history))
        options = {"maxiter": limit, "maxfun": 20 * limit, "maxcor": 20, "ftol": 0.0, "gtol": 1e-12}
        return minimize(value_and_grad, zero, jac=True, method="L-BFGS-B", callback=after_step, options=options).status

    stop = None
    try:
        while stop is None:
            before = best[0]
            # SciPy's status: 0 converged, 1 out of steps or evaluations, 2 the line search failed.
            status = one_round(best[1][0])
            if status == 0:
                stop = Stop.CONVERGED
            elif len(history) >= steps:
                stop = Stop.STEPS
            elif not best[0] < before - tolerance:  # the line search failed, or used up the evaluations
                stop = Stop.STUCK
    except _Enough:
        stop = Stop.CONVERGED
    return Found(*best[1], np.array(history), stop, rejected)


@compiled
def coordinates(source, layer, atoms, encoder):
    encoder = learnt_part(encoder)
    return directions(fisher(source, layer, atoms[-encoder.features :], encoder))


@compiled
def profiled_value_and_grad(
    step, columns, encoder, source, layer, atoms, noise, floor, resolution, mesh=None, known=None
):
    """`((loss, (encoder, elbo, target)), gradient)` after a step in the coordinates of the Fisher metric."""

    def loss(step):
        after = with_learnt(encoder, step_in_metric(learnt_part(encoder), columns, step))
        elbo, target = profiled(expected(source, layer, atoms, after, resolution, mesh, known), atoms, noise, floor)
        return elbo.loss, (after, elbo, target)

    return jax.value_and_grad(loss, has_aux=True)(step)

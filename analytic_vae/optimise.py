"""The two ways down the exact loss: L-BFGS on the profiled loss, and any optax optimiser on the whole one."""

import enum
import time
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import minimize

from .closed_form import best_target, profiled
from .compiled import compiled
from .conditioning import Clusters
from .elbo import Elbo, elbo_of
from .encoder import AbstractEncoder, learnt_part, with_learnt
from .expectations import checked_expectations
from .model import FeatureModel
from .natural import directions, fisher, moved
from .plan import plan
from .prior import Prior
from .spectral.units import DenseMoments
from .types import Array, PyTree

Log = Callable[[str], None]
CHUNK = 10  # steps of an optax optimiser in one compiled call
BELIEVED = 0.1  # misfit, in units of the spread, up to which a loss is believed whatever the first one was
ROUND = 30  # steps of L-BFGS in one set of coordinates


class Stop(enum.Enum):
    """Why a fit stopped; the value is the sentence a person reads."""

    CONVERGED = "converged: the loss no longer falls by more than the tolerance"
    STEPS = "stopped at the largest number of steps; more steps may lower the loss"
    STUCK = "stopped where rounding hides any lower loss along the gradient"
    NOT_FINITE = "stopped: the loss was not finite; the best parameters before that are returned"
    CLOSED = "in closed form: with carried features nothing is left to optimise"
    EXACT = "nothing to learn: a linear layer's output is exactly a feature model"


class Known(eqx.Module):
    """What stays while an encoder is learnt: whether there is a vector per atom, and the moments of a dense layer.

    And the clusters of the source (`conditioning.py`), which nobody can see inside of compiled functions.
    """

    vectors: bool = eqx.field(static=True, default=False)
    moments: DenseMoments | None = None
    clusters: Clusters | None = eqx.field(static=True, default=None)


class Progress:
    """Says where a fit is, at most once a second."""

    def __init__(self, log: Log | None, prefix: str):
        self.log, self.prefix, self.last = log, prefix, time.perf_counter()

    def __call__(self, step: int, loss: float) -> None:
        if self.log is not None and time.perf_counter() - self.last > 1.0:
            self.last = time.perf_counter()
            self.log(f"{self.prefix}step {step}, loss {loss:.6f}")


class Found(NamedTuple):
    """What one start found: the loss with its terms, for this encoder and this target, the losses of all steps."""

    encoder: AbstractEncoder
    elbo: Elbo
    target: FeatureModel
    history: np.ndarray
    stop: Stop
    rejected: int

    @property
    def loss(self) -> float:
        """In nats, at the resolution of the fit."""
        return float(self.elbo.loss)


def misfit_limit(misfit):
    """From a misfit where a fit begins: up to which the loss is believed."""
    return jnp.maximum(BELIEVED, 2 * misfit)


def believed(misfit, limit):
    """Whether the laws on their boxes have the exact mass, mean and variance, near enough for the loss to be one.

    An optimiser finds what a coarse loss has wrong: a law that leaves its box takes its rate and distortion with it.
    """
    return misfit <= limit


class TooCoarse(ValueError):
    """The loss is not finite where the fit begins."""


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
            misfit = float(found[1].misfit)
            if not (np.isfinite(loss) and np.all(np.isfinite(gradient)) and believed(misfit, believable)):
                rejected += int(np.isfinite(best[0]))
                return best[0] + abs(best[0]) + 1, np.zeros_like(gradient)
            believable = min(believable, float(misfit_limit(misfit)))
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
        after = with_learnt(encoder, moved(learnt_part(encoder), columns, step))
        elbo, target = profiled(expected(source, layer, atoms, after, resolution, mesh, known), atoms, noise, floor)
        return elbo.loss, (after, elbo, target)

    return jax.value_and_grad(loss, has_aux=True)(step)


def expected(source, layer, atoms, encoder, resolution, mesh=None, known: Known | None = None, boxes=None):
    """The `Expectations`, with what is known of the layer."""
    known = known or Known()
    given = boxes, mesh, "atoms", known.vectors, known.moments, known.clusters
    return checked_expectations(source, layer, atoms, encoder, resolution, *given)


@compiled
def compiled_target(source, layer, atoms, encoder, noise, floor, resolution, mesh=None, known=None):
    return best_target(expected(source, layer, atoms, encoder, resolution, mesh, known), atoms, noise, floor)


@compiled
def compiled_elbo(source, layer, target, encoder, resolution, mesh=None, known=None):
    return elbo_of(expected(source, layer, target.prior.atoms, encoder, resolution, mesh, known), target)


class FreeTarget(eqx.Module):
    """A target's parameters without constraints: log standard deviations, and a factor with a log diagonal."""

    logits: Array
    decoder: Array
    mean: Array
    log_scale: Array
    lower: Array | None

    @classmethod
    def of(cls, target: FeatureModel) -> "FreeTarget":
        noise = target.noise
        scale = jnp.diagonal(noise) if noise.ndim == 2 else noise
        lower = jnp.tril(noise, -1) if noise.ndim == 2 else None
        return cls(target.prior.logits, target.decoder, target.mean, jnp.log(scale), lower)

    def model(self, atoms: Array) -> FeatureModel:
        """The feature model with these parameters."""
        scale = jnp.exp(self.log_scale)
        noise = scale if self.lower is None else jnp.tril(self.lower, -1) + jnp.diag(scale)
        return FeatureModel(Prior(atoms, self.logits), self.decoder, noise, self.mean)


def whole_loss(
    source, layer, atoms, encoder, target, noise, floor, optimizer, steps, tolerance, resolution, say, mesh=None,
    known=None,
) -> Found:  # fmt: skip
    """An optax optimiser on the whole loss; CHUNK steps are one compiled scan on one plan.

    The plan may have grown old in a chunk: the best parameters of each are judged by the loss without it.
    """
    if target is None:
        target = compiled_target(source, layer, atoms, encoder, noise, floor, resolution, mesh, known)
    parameters, static = eqx.partition((encoder, FreeTarget.of(target)), eqx.is_inexact_array)
    one, none = jnp.ones((), atoms.dtype), jnp.zeros((), int)
    walk = Walk(parameters, optimizer.init(parameters), parameters, one * jnp.nan, one, none, one * jnp.inf)
    best, elbo = (np.inf, encoder, target), None
    history: list[float] = []
    stop = Stop.STEPS
    while len(history) < steps:
        before, length, rejected = best[0], min(CHUNK, steps - len(history)), int(walk.rejected)
        walk, least, values = _advance(walk, static, source, layer, atoms, optimizer, resolution, length, mesh, known)
        history.extend(np.asarray(values, float))
        say(len(history), history[-1])
        if int(walk.rejected) - rejected == length:
            stop = Stop.NOT_FINITE
            break
        encoder, free = eqx.combine(least, static)
        target = free.model(atoms)
        value = compiled_elbo(source, layer, target, encoder, resolution, mesh, known)
        if np.isfinite(value.loss) and value.loss < best[0]:
            best, elbo = (float(value.loss), encoder, target), value
        if before - best[0] < tolerance:
            stop = Stop.CONVERGED
            break
    if elbo is None:  # no step had a finite loss
        elbo = compiled_elbo(source, layer, best[2], best[1], resolution, mesh, known)
    return Found(best[1], elbo, best[2], np.array(history), stop, int(walk.rejected))


class Walk(NamedTuple):
    """Where an optax optimiser is: the parameters that it tries, and the last ones with a finite loss, `value`.

    A trial whose loss or gradient is not finite, or whose loss is not to be believed (a misfit above `limit`), is
    rejected: the optimiser goes on from the last ones, with steps half as long, `scale` times what it says.
    """

    trial: PyTree
    state: PyTree
    safe: PyTree
    value: Array
    scale: Array
    rejected: Array
    limit: Array

    def after(self, value, gradient, misfit, optimizer, loss) -> "Walk":
        """The walk after a look at loss, gradient and misfit of the trial."""
        finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((value, gradient))])
        good = jnp.all(finite) & believed(misfit, self.limit)
        updates, state = optimizer.update(gradient, self.state, self.trial, value=value, grad=gradient, value_fn=loss)
        ahead = optax.apply_updates(
            self.trial, jax.tree.map(lambda leaf: self.scale.astype(leaf.dtype) * leaf, updates)
        )

        def choose(one, other):
            return jax.tree.map(lambda a, b: jnp.where(good, a, b), one, other)

        scale = jnp.where(good, jnp.minimum(1.1 * self.scale, 1), self.scale / 2)
        return Walk(
            choose(ahead, self.safe), choose(state, self.state), choose(self.trial, self.safe),
            jnp.where(good, value, self.value), scale, self.rejected + ~good,
            jnp.where(good, jnp.minimum(self.limit, misfit_limit(misfit)), self.limit),
        )  # fmt: skip


@compiled
def _advance(walk: Walk, static, source, layer, atoms, optimizer, resolution, length: int, mesh, known):
    """Some steps of an optax optimiser: where it is then, the parameters of the least loss, and all losses."""
    optimizer = optax.with_extra_args_support(optimizer)
    boxes = plan(source, layer, learnt_part(eqx.combine(walk.safe, static)[0]), resolution)

    def judged(p):
        encoder, target = eqx.combine(p, static)
        found = elbo_of(expected(source, layer, atoms, encoder, resolution, mesh, known, boxes), target.model(atoms))
        return found.loss, found.misfit

    loss = lambda p: judged(p)[0]  # noqa: E731

    def step(carry, _):
        walk, least_loss, least = carry
        (value, misfit), gradient = jax.value_and_grad(judged, has_aux=True)(walk.trial)
        better = (value < least_loss) & jnp.isfinite(value) & believed(misfit, walk.limit)
        least = jax.tree.map(lambda new, old: jnp.where(better, new, old), walk.trial, least)
        walk = walk.after(value, gradient, misfit, optimizer, loss)
        return (walk, jnp.where(better, value, least_loss), least), walk.value

    (walk, _, least), values = jax.lax.scan(step, (walk, jnp.asarray(np.inf, atoms.dtype), walk.safe), length=length)
    return walk, least, values

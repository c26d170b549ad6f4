"""Any optax optimiser on the whole loss."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._jit import compiled
from ..elbo import elbo_of
from ..model.carried_encoder import learnt_part
from ..model.encoder import AbstractEncoder
from ..model.feature_model import FeatureModel
from ..model.prior import Prior
from ..moments.plan import compiled_plan
from ..types import Array, PyTree
from .options import FitOptions
from .problem import FitProblem, believed, compiled_elbo, compiled_target, moment_error_limit
from .progress import Progress
from .result import StartResult, Stop

CHUNK = 10  # steps of an optax optimiser in one compiled call


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


def whole_loss(problem: FitProblem, encoder: AbstractEncoder, options: FitOptions, say: Progress) -> StartResult:
    """An optax optimiser on the whole loss; CHUNK steps are one compiled scan on one plan.

    The plan may have grown old in a chunk: the best parameters of each are judged by the loss without it.
    """
    target = compiled_target(problem, encoder) if options.target is None else options.target
    optimizer, atoms = options.optimizer, problem.atoms
    parameters, static = eqx.partition((encoder, FreeTarget.of(target)), eqx.is_inexact_array)
    one, none = jnp.ones((), atoms.dtype), jnp.zeros((), int)
    unknown = Terms(*[one * jnp.nan] * len(Terms._fields))
    walk = Walk(parameters, optimizer.init(parameters), parameters, unknown, one, none, one * jnp.inf)
    best, elbo = (np.inf, encoder, target), None
    history: list[float] = []
    terms = [np.zeros((0, 3))]
    stop = Stop.STEPS
    while len(history) < options.steps:
        before, length, rejected = best[0], min(CHUNK, options.steps - len(history)), int(walk.rejected)
        walk, least, steps = _advance(walk, static, problem, optimizer, length)
        history.extend(np.asarray(steps.loss, float))
        terms.append(np.stack([steps.rate, steps.R2, steps.distortion], axis=1).astype(float))
        say(len(history), history[-1])
        if say.counts:
            for one in zip(*map(np.asarray, steps), strict=True):
                say.numbers(**Terms(*one)._asdict())
        if int(walk.rejected) - rejected == length:
            stop = Stop.NOT_FINITE
            break
        encoder, free = eqx.combine(least, static)
        target = free.model(atoms)
        value = compiled_elbo(problem, target, encoder)
        if np.isfinite(value.loss) and value.loss < best[0]:
            best, elbo = (float(value.loss), encoder, target), value
        if before - best[0] < options.tolerance:
            stop = Stop.CONVERGED
            break
    if elbo is None:  # no step had a finite loss
        elbo = compiled_elbo(problem, best[2], best[1])
    return StartResult(best[1], elbo, best[2], np.array(history), stop, int(walk.rejected), np.concatenate(terms))


class Terms(NamedTuple):
    """What is known of the loss where an optax optimiser is, in nats."""

    loss: Array
    rate: Array
    R2: Array
    distortion: Array
    gradient_norm: Array


class Walk(NamedTuple):
    """Where an optax optimiser is: the parameters that it tries, the last ones with a finite loss, and its `terms`.

    A trial whose loss or gradient is not finite, or whose loss is not to be believed (a moment error above `limit`), is
    rejected: the optimiser goes on from the last ones, with steps half as long, `scale` times what it says.
    """

    trial: PyTree
    state: PyTree
    safe: PyTree
    terms: Terms
    scale: Array
    rejected: Array
    limit: Array

    def after(self, terms, gradient, moment_error, optimizer, loss) -> "Walk":
        """The walk after a look at the terms of the loss, its gradient and the moment error of the trial."""
        value = terms.loss
        finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((value, gradient))])
        good = jnp.all(finite) & believed(moment_error, self.limit)
        updates, state = optimizer.update(gradient, self.state, self.trial, value=value, grad=gradient, value_fn=loss)
        ahead = optax.apply_updates(
            self.trial, jax.tree.map(lambda leaf: self.scale.astype(leaf.dtype) * leaf, updates)
        )

        def choose(one, other):
            return jax.tree.map(lambda a, b: jnp.where(good, a, b), one, other)

        scale = jnp.where(good, jnp.minimum(1.1 * self.scale, 1), self.scale / 2)
        return Walk(
            choose(ahead, self.safe), choose(state, self.state), choose(self.trial, self.safe),
            choose(terms, self.terms), scale, self.rejected + ~good,
            jnp.where(good, jnp.minimum(self.limit, moment_error_limit(moment_error)), self.limit),
        )  # fmt: skip


@compiled
def _advance(walk: Walk, static, problem: FitProblem, optimizer, length: int):
    """Some steps of an optax optimiser: where it is then, the parameters of the least loss, all steps' terms."""
    optimizer = optax.with_extra_args_support(optimizer)
    learnt = learnt_part(eqx.combine(walk.safe, static)[0])
    boxes = compiled_plan(problem.source, problem.layer, learnt, problem.resolution)

    def judged(p):
        encoder, target = eqx.combine(p, static)
        found = elbo_of(problem.expected(encoder, plan=boxes), target.model(problem.atoms))
        return found.loss, found

    loss = lambda p: judged(p)[0]  # noqa: E731

    def step(carry, _):
        walk, least_loss, least = carry
        (value, found), gradient = jax.value_and_grad(judged, has_aux=True)(walk.trial)
        moment_error = found.moment_error
        better = (value < least_loss) & jnp.isfinite(value) & believed(moment_error, walk.limit)
        least = jax.tree.map(lambda new, old: jnp.where(better, new, old), walk.trial, least)
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
        terms = Terms(value, found.rate, found.R2, found.distortion, norm)
        walk = walk.after(terms, gradient, moment_error, optimizer, loss)
        return (walk, jnp.where(better, value, least_loss), least), walk.terms

    begin = walk, jnp.asarray(np.inf, problem.atoms.dtype), walk.safe
    (walk, _, least), steps = jax.lax.scan(step, begin, length=length)
    return walk, least, steps

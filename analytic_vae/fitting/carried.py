"""The fit that carries features and learns none: a closed form."""

import time
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from .._jit import always, compiled
from ..closed_form import carried_target
from ..elbo import elbo_of
from ..model.carried_encoder import CarriedEncoder
from ..model.conditioning import clusters_of
from ..model.feature_model import FeatureModel
from ..types import Array, Float
from .options import FitOptions
from .problem import FitProblem, compiled_elbo, require_variation
from .progress import Teller
from .result import Fit, Stop
from .splitting import merged, merged_moments, states_of, with_substates


def carried_fit(problem: FitProblem, options: FitOptions, say: Teller) -> Fit:
    """Carried features alone: all in closed form.

    The estimate of the error is how far the loss of the target moves at 1.5 times the frequencies.
    """
    begun = time.perf_counter()
    whole = problem.with_atoms(problem.source.prior.atoms).with_moments(say)
    merging = partial(_merged, states=states_of(problem.source.prior)) if options.split else lambda one: one
    problem = merging(whole)
    encoder = CarriedEncoder(problem.source.features)
    say("the best target, in closed form, and its loss")
    target, least, elbo, output = _closed_form(problem, encoder)
    require_variation(*output)
    _require_noise(target, output[1], options.floor)
    if say.counts:
        terms = {"loss": elbo.loss, "rate": elbo.rate, "R2": elbo.R2, "distortion": elbo.distortion}
        say.numbers(**terms, gradient_norm=0.0, start=0, frequencies=problem.resolution.frequencies)
    error = None
    if options.check:
        finer = merging(whole.finer().with_moments(say))
        say(f"its loss at {finer.resolution.frequencies} frequencies, to see how far it moves")
        error = abs(float(compiled_elbo(finer, target, encoder).loss - elbo.loss))
    if options.split:
        say("what pairs of features do together, to split their states")
        states = states_of(whole.source.prior)
        target = with_substates(whole.source, whole.layer, whole.moments, target, states, problem.mesh)
    none, seconds = np.zeros(0), time.perf_counter() - begun
    found = target, encoder, elbo, error, none, none, Stop.CLOSED, seconds, problem.resolution
    return Fit(*found, least_remainder=float(least))


@partial(compiled, quick=always)
def _closed_form(problem: FitProblem, encoder: CarriedEncoder):
    """The best target, the least eigenvalue of what it leaves, its loss, and mean and covariance of the output."""
    given = problem.expected(encoder)
    target, least = carried_target(given, problem.source.prior, problem.noise, problem.floor)
    return target, least, elbo_of(given, target), given.layer.output()


def _merged(problem: FitProblem, states: tuple[int, ...]) -> FitProblem:
    """The problem with states in place of the atoms that are cases of one."""
    source = merged(problem.source, states)
    moments, atoms = merged_moments(problem.moments, states), source.prior.atoms
    return replace(problem, source=source, moments=moments, atoms=atoms, clusters=clusters_of(source))


def _require_noise(target: FeatureModel, covariance: Float[Array, "n2 n2"], floor: float) -> None:
    """Raise `ValueError` where rounding is all the noise that is left in some direction."""
    spread = float(np.sqrt(np.trace(np.asarray(covariance))))
    noise = np.diagonal(target.noise) if target.noise.ndim == 2 else np.asarray(target.noise)
    rounding = 8 * float(jnp.finfo(target.mean.dtype).eps) ** 0.5  # of variances: none is left where they cancel
    if not floor > 0 and not np.all(noise > rounding * spread):
        raise ValueError(
            "floor: expected a positive number, as the features explain some direction of the output entirely, so that "
            f"no noise is left there, got {float(floor):g}."
        )

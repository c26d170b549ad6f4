"""The starts of a fit, and the best of what they lead to."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._check import as_floating, require_finite, require_shape
from ..model.carried_encoder import CarriedEncoder
from ..model.compatibility import check_encoder, check_vectors
from ..model.encoder import AbstractEncoder
from ..types import Array
from .awake import awakened, perturbed
from .encoder_kinds import initial_encoder
from .extra import extra_features
from .guess import gaussian_atoms, pushed_features
from .lbfgs import profiled_lbfgs
from .optax_loop import whole_loss
from .options import EXTRA, FitOptions
from .problem import FitProblem, TooCoarse, compiled_elbo, require_variation
from .progress import Progress, Teller
from .result import StartResult

SCALES = (1.0, 0.1, 0.5, 0.25)  # of the perturbations, in turn, from the second on


class Best(NamedTuple):
    """What the best start found, its loss at a finer resolution if that was looked at, and the losses of all."""

    found: StartResult
    judged: float
    losses: np.ndarray


def best_of_starts(problem: FitProblem, first: AbstractEncoder, options: FitOptions, say: Teller) -> Best:
    """The best of as many starts as the options ask for.

    A start may have found an error of a coarse loss instead of a model: with `check` the loss at 1.5 times the
    frequencies decides.
    """
    best, least, losses = None, np.inf, []
    finer = problem.finer().with_moments(say) if options.check else None
    say("the loss and its gradient at the start (compiled once for each set of shapes)")
    descend = profiled_lbfgs if isinstance(options.optimizer, str) else whole_loss
    for start in range(options.starts):
        key = jax.random.fold_in(options.random_key, start)
        begin = first if start == 0 else perturbed(first, SCALES[start % len(SCALES)], key=key)
        prefix = f"start {start + 1} of {options.starts}, " if options.starts > 1 else ""
        try:
            found = descend(problem, begin, options, Progress(say, prefix, start, problem.resolution.frequencies))
        except TooCoarse:
            if start == 0:
                raise
            losses.append(np.inf)
            continue
        losses.append(found.loss)
        judged = found.loss
        if finer is not None:
            say(f"the loss at {finer.resolution.frequencies} frequencies, to see how far it moves")
            judged = float(compiled_elbo(finer, found.target, found.encoder).loss)
        if best is None or judged < least or not np.isfinite(least):
            best, least = found, judged
    return Best(best, least, np.array(losses))


def first_encoder(problem: FitProblem, options: FitOptions, say: Teller) -> tuple[AbstractEncoder, FitProblem]:
    """Where the first start begins, and the problem with the atoms that it speaks of.

    Checked before: that the finest grids fit into the memory.
    """
    if options.encoder == "both":
        encoder, atoms = _both(problem, options, say)
    elif isinstance(options.encoder, CarriedEncoder):
        encoder, atoms = _with_given_extra(problem, options, options.encoder)
    else:
        encoder, atoms = _learnt(problem, options, say)
    named = "target" if options.target is not None and options.atoms is None else "atoms"
    check_encoder(problem.layer, encoder, atoms, named, problem.source)
    if options.target is not None and options.target.prior.atoms.shape != atoms.shape:
        raise ValueError(f"target: expected atoms of shape {atoms.shape}, got {options.target.prior.atoms.shape}.")
    return encoder, problem.with_atoms(atoms)


def finest(problem: FitProblem, options: FitOptions) -> FitProblem:
    """The problem at the finest resolution that the fit will use."""
    return problem.finer() if options.check else problem


def _both(problem: FitProblem, options: FitOptions, say: Teller) -> tuple[AbstractEncoder, Array]:
    m, K = problem.source.prior.atoms.shape
    count = EXTRA if options.features is None else options.features
    finest(problem, options).require_memory((1, m + count, K))
    encoder, atoms = extra_features(problem.with_moments(say), count)
    return encoder, atoms if options.target is None else options.target.prior.atoms


def _with_given_extra(
    problem: FitProblem, options: FitOptions, encoder: CarriedEncoder
) -> tuple[AbstractEncoder, Array]:
    own, extra = problem.source.prior.atoms, encoder.extra
    more = jnp.broadcast_to(gaussian_atoms(own.shape[1], own.dtype)[0], (extra.features, own.shape[1]))
    atoms = jnp.concatenate([own, more]) if options.target is None else options.target.prior.atoms
    finest(problem, options).require_memory((extra.statistics_read, *atoms.shape))
    return encoder, atoms


def _learnt(problem: FitProblem, options: FitOptions, say: Teller) -> tuple[AbstractEncoder, Array]:
    """Learnt features alone: an encoder of a kind, or a user's own."""
    atoms, count = _wanted_atoms(problem, options)
    K = problem.source.prior.atoms.shape[1] if atoms is None else atoms.shape[1]
    check_vectors(problem.vectors, K, "atoms")
    finest(problem, options).require_memory((options.statistics_read, count, K))
    guess = pushed_features(problem.source, problem.layer, count, atoms, problem.resolution)
    require_variation(guess.mean, guess.covariance)
    encoder, key = options.encoder, options.random_key
    if not isinstance(encoder, AbstractEncoder):
        kind = "softmax" if encoder == "learnt" else encoder
        return initial_encoder(kind, options.statistics_read, guess, key=key), guess.atoms
    if encoder.features != count:
        raise ValueError(f"encoder: expected {count} features, got {encoder.features}.")
    if options.target is None:  # whose decoder need not be zero
        encoder, asleep = awakened(encoder, guess, key=key)
        if asleep:
            say(f"features {', '.join(map(str, asleep))} read nothing, a saddle of the loss: begun at random")
    return encoder, guess.atoms


def _wanted_atoms(problem: FitProblem, options: FitOptions) -> tuple[Array | None, int]:
    """The atoms, None for those of the guess; and how many features there are to be."""
    atoms, encoder, dtype = options.atoms, options.encoder, problem.source.mean.dtype
    given = None if options.target is None else options.target.prior.atoms
    counted = isinstance(atoms, int | np.integer)
    if atoms is not None and not counted:
        (given,) = as_floating(atoms=atoms)
        require_shape("atoms", given, (None, None), "features, atoms")
        require_finite("atoms", given)
    count = options.features
    if count is None and given is not None:
        count = given.shape[0]
    if count is None:
        count = encoder.features if isinstance(encoder, AbstractEncoder) else problem.source.features
    if counted:
        if isinstance(atoms, bool) or atoms < 2:
            raise ValueError(f"atoms: expected at least 2 atoms, got {atoms}.")
        given = jnp.broadcast_to(gaussian_atoms(int(atoms), dtype)[0], (count, int(atoms)))
    if given is not None and given.shape[0] != count:
        raise ValueError(f"atoms: expected one row for each of {count} features, got {given.shape[0]}.")
    return None if given is None else given.astype(dtype), count

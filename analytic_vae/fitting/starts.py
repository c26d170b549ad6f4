"""The starts of a fit, and the best of what they lead to."""

import jax
import jax.numpy as jnp
import numpy as np

from .._check import as_floating, require_finite, require_shape
from ..expectations import dense_moments
from ..model.carried_encoder import CarriedEncoder
from ..model.compatibility import check_vectors
from ..model.conditioning import clusters_of
from ..model.encoder import AbstractEncoder
from ..model.layer import DenseLayer, LinearLayer
from ..moments.budget import check_memory
from ..spectral.resolution import Resolution
from ..types import Array, Float, Log
from .initial import awakened, gaussian_atoms, initial_encoder, perturbed, pushed_features
from .lbfgs import profiled_lbfgs
from .optax_loop import whole_loss
from .problem import Known, Progress, TooCoarse, compiled_elbo


def _best_of_starts(
    source, layer, atoms, first, target, noise, floor, optimizer, steps, tolerance, starts, resolution, finer, log, key,
    mesh, known,
):  # fmt: skip
    """What the best start found, its loss at `finer`, and the losses of all starts.

    A start may have found an error of a coarse loss instead of a model: the loss at `finer`, if given, decides.
    """
    best, least, losses = None, np.inf, []
    finer_known = _known(source, layer, known.vectors, finer, mesh, log) if finer is not None else None
    _say(log, "the loss and its gradient at the start (compiled once for each set of shapes)")
    for start in range(starts):
        begin = first if start == 0 else perturbed(first, 0.25 * 2 ** (start % 4), key=jax.random.fold_in(key, start))
        say = Progress(log, f"start {start + 1} of {starts}, " if starts > 1 else "")
        if isinstance(optimizer, str):
            try:
                found = profiled_lbfgs(
                    source, layer, atoms, begin, noise, floor, steps, tolerance, resolution, say, mesh, known
                )
            except TooCoarse:
                if start == 0:
                    raise
                losses.append(np.inf)
                continue
        else:
            found = whole_loss(
                source, layer, atoms, begin, target, noise, floor, optimizer, steps, tolerance, resolution, say, mesh,
                known,
            )  # fmt: skip
        losses.append(found.loss)
        judged = found.loss
        if finer is not None:
            _say(log, f"the loss at {finer.frequencies} frequencies, to see how far it moves")
            judged = float(compiled_elbo(source, layer, found.target, found.encoder, finer, mesh, finer_known).loss)
        if best is None or judged < least or not np.isfinite(least):
            best, least = found, judged
    return best, least, np.array(losses)


def _say(log: Log | None, line: str) -> None:
    if log is not None:
        log(line)


def _known(source, layer, vectors: bool, resolution: Resolution, mesh, log: Log | None) -> Known:
    if not isinstance(layer, DenseLayer):
        return Known(vectors, None, clusters_of(source))
    _say(log, f"moments of {layer.units} units and their pairs at {resolution.frequencies} frequencies")
    return Known(vectors, dense_moments.__wrapped__(source, layer, resolution, mesh), clusters_of(source))


def _scales(noise: Array) -> Array:
    return jnp.diagonal(noise) if noise.ndim == 2 else noise


def _require_variation(mean: Float[Array, " n2"], covariance: Float[Array, "n2 n2"]) -> None:
    """Raise `ValueError` if a layer's output varies by no more than the rounding of its mean."""
    rounding = float(jnp.finfo(mean.dtype).eps) ** 2 * float(jnp.sum(mean**2))
    if not float(jnp.trace(covariance)) > rounding:
        raise ValueError("layer: expected an output that varies, got one that is constant: there is nothing to learn.")


def _start(
    source, layer, features, atoms, encoder, vectors, resolution, finer, target, key, log
) -> tuple[AbstractEncoder, Array]:
    """The first encoder and the atoms `[m2, K]`; checked before, that `finer` fits into the memory."""
    dtype = source.mean.dtype
    if isinstance(encoder, CarriedEncoder):
        own, extra = source.prior.atoms, encoder.extra
        more = jnp.broadcast_to(gaussian_atoms(own.shape[1], dtype)[0], (extra.features, own.shape[1]))
        given = jnp.concatenate([own, more]) if target is None else target.prior.atoms
        check_memory(source, layer, extra.statistics_read, *given.shape, finer, vectors=vectors)
        return encoder, given
    encoder = "softmax" if encoder == "learnt" else encoder
    read = LinearLayer(layer.read_form().linear) if isinstance(layer, DenseLayer) else layer  # what an encoder reads
    given = None
    if target is not None:
        given = target.prior.atoms
    if atoms is not None and not isinstance(atoms, int | np.integer):
        (given,) = as_floating(atoms=atoms)
        require_shape("atoms", given, (None, None), "features, atoms")
        require_finite("atoms", given)
    chosen = isinstance(encoder, AbstractEncoder)
    count = features
    if count is None and given is not None:
        count = given.shape[0]
    if count is None:
        count = encoder.features if chosen else source.features
    if isinstance(atoms, int | np.integer):
        if isinstance(atoms, bool) or atoms < 2:
            raise ValueError(f"atoms: expected at least 2 atoms, got {atoms}.")
        given = jnp.broadcast_to(gaussian_atoms(atoms, dtype)[0], (count, atoms))
    if given is not None and given.shape[0] != count:
        raise ValueError(f"atoms: expected one row for each of {count} features, got {given.shape[0]}.")
    K = source.prior.atoms.shape[1] if given is None else given.shape[1]
    check_vectors(vectors, K, "atoms")
    t = encoder.statistics_read if chosen else 1 + encoder.endswith("2")
    check_memory(source, layer, t, count, K, finer, vectors=vectors)
    guess = pushed_features(source, read, count, None if given is None else given.astype(dtype), resolution)
    _require_variation(guess.mean, guess.covariance)
    if chosen:
        if encoder.features != count:
            raise ValueError(f"encoder: expected {count} features, got {encoder.features}.")
        if target is not None:  # whose decoder need not be zero
            return encoder, guess.atoms
        encoder, asleep = awakened(encoder, guess, key=key)
        if asleep:
            _say(log, f"features {', '.join(map(str, asleep))} read nothing, a saddle of the loss: begun at random")
        return encoder, guess.atoms
    return initial_encoder(encoder, guess, key=key), guess.atoms

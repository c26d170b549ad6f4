"""The fit that carries features and learns none: a closed form."""

import time

import jax.numpy as jnp
import numpy as np

from ..closed_form import carried_target
from ..model.carried_encoder import CarriedEncoder
from ..model.conditioning import clusters_of
from ..moments.units import DenseMoments
from ..spectral.resolution import Resolution
from ..types import Log
from .problem import Known, Stop, compiled_elbo, expected
from .result import Fit
from .splitting import merged, merged_moments, states_of, with_substates
from .starts import _known, _require_variation, _say, _scales


def _carried_fit(
    source, layer, vectors, noise, floor, resolution, finer: Resolution | None, split: bool, mesh, log: Log | None
) -> Fit:
    """Carried features alone: all in closed form. The estimate is how far the loss of the target moves at `finer`."""
    begun = time.perf_counter()
    states = states_of(source.prior) if split else None
    whole, moments = source, _known(source, layer, vectors, resolution, mesh, log).moments
    if split:
        source = merged(whole, states)

    def known(found: DenseMoments | None) -> Known:
        return Known(vectors, merged_moments(found, states) if split else found, clusters_of(source))

    encoder, atoms = CarriedEncoder(source.features), source.prior.atoms
    _say(log, "the best target, in closed form")
    given = expected(source, layer, atoms, encoder, resolution, mesh, known(moments))
    _require_variation(*given.layer.output())
    target, least = carried_target(given, source.prior, noise, floor)
    spread = float(np.sqrt(np.trace(np.asarray(given.layer.output()[1]))))
    rounding = 8 * float(jnp.finfo(atoms.dtype).eps) ** 0.5  # of variances: none is left where they cancel
    if not floor > 0 and not np.all(np.asarray(_scales(target.noise)) > rounding * spread):
        raise ValueError(
            "floor: expected a positive number, as the features explain some direction of the output entirely, so that "
            f"no noise is left there, got {float(floor):g}."
        )
    _say(log, "its loss")
    elbo, error = compiled_elbo(source, layer, target, encoder, resolution, mesh, known(moments)), None
    if finer is not None:
        there = known(_known(whole, layer, vectors, finer, mesh, log).moments)
        _say(log, f"its loss at {finer.frequencies} frequencies, to see how far it moves")
        error = abs(float(compiled_elbo(source, layer, target, encoder, finer, mesh, there).loss - elbo.loss))
    if split:
        _say(log, "what pairs of features do together, to split their states")
        target = with_substates(whole, layer, moments, target, states, mesh)
    none, seconds = np.zeros(0), time.perf_counter() - begun
    return Fit(target, encoder, elbo, error, none, none, Stop.CLOSED, seconds, resolution, least_remainder=float(least))

"""What both ways of fitting speak of: why it ended, what is known beforehand, what was found."""

import enum
import time
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._jit import compiled
from ..closed_form import best_target
from ..elbo import Elbo, elbo_of
from ..expectations import checked_expectations
from ..model.conditioning import Clusters
from ..model.encoder import AbstractEncoder
from ..model.feature_model import FeatureModel
from ..moments.units import DenseMoments
from ..types import Log

BELIEVED = 0.1  # moment error, in units of the spread, up to which a loss is believed whatever the first one was


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


def moment_error_limit(moment_error):
    """From a moment error where a fit begins: up to which the loss is believed."""
    return jnp.maximum(BELIEVED, 2 * moment_error)


def believed(moment_error, limit):
    """Whether the laws on their boxes have the exact mass, mean and variance, near enough for the loss to be one.

    An optimiser finds what a coarse loss has wrong: a law that leaves its box takes its rate and distortion with it.
    """
    return moment_error <= limit


class TooCoarse(ValueError):
    """The loss is not finite where the fit begins."""


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

"""What is fitted: a source and a layer, and what stays while an encoder is learnt for them."""

from dataclasses import replace
from functools import partial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._jit import compiled
from ..closed_form import Noise, target_of
from ..elbo import Elbo, elbo_of
from ..expectations import expected, moments_of
from ..model.carried_encoder import learnt_part
from ..model.conditioning import Clusters, clusters_of
from ..model.encoder import AbstractEncoder
from ..model.feature_model import FeatureModel
from ..model.layer import AbstractLayer
from ..moments.budget import brief, check_memory, check_units_memory
from ..moments.expected import Expectations
from ..moments.plan import Plan
from ..moments.problem import Problem
from ..moments.units import DenseMoments
from ..spectral.resolution import MOST_FREQUENCIES, Resolution
from ..types import Array, Float, Log

BELIEVED = 0.1  # moment error, in units of the spread, up to which a loss is believed whatever the first one was


class FitProblem(eqx.Module):
    """A source, a layer, and what stays while an encoder is learnt: all that a loss needs but the encoder.

    `atoms` are those of the target, `vectors` says whether each has one of its own; `noise` and `floor` are as in
    `fit`. `moments` are those of a dense layer at this resolution, `clusters` those of the source
    (`model/conditioning.py`), which nobody can see inside of compiled functions.
    """

    source: FeatureModel
    layer: AbstractLayer
    resolution: Resolution
    floor: Float[Array, ""]
    noise: Noise = eqx.field(static=True)
    vectors: bool = eqx.field(static=True)
    mesh: Mesh | None = eqx.field(static=True)
    clusters: Clusters | None = eqx.field(static=True)
    atoms: Float[Array, "m2 K"] | None = None
    moments: DenseMoments | None = None

    @classmethod
    def of(cls, source: FeatureModel, layer: AbstractLayer, options, mesh: Mesh | None) -> "FitProblem":
        """With the `FitOptions` for this layer; without atoms and moments."""
        floor = jnp.asarray(options.floor, source.mean.dtype)
        return cls(source, layer, options.resolution, floor, options.noise, options.vectors, mesh, clusters_of(source))

    def at(self, resolution: Resolution) -> "FitProblem":
        """The same at another resolution, where nothing is known of the layer."""
        return replace(self, resolution=resolution, moments=None)

    def finer(self) -> "FitProblem":
        """At 1.5 times the frequencies, as far as there are more."""
        frequencies = min(2 * int(0.75 * self.resolution.frequencies), MOST_FREQUENCIES)
        return self.at(Resolution(frequencies, self.resolution.nodes))

    def with_atoms(self, atoms: Float[Array, "m2 K"]) -> "FitProblem":
        """For a target of these atoms."""
        return replace(self, atoms=atoms)

    def with_moments(self, say: Log) -> "FitProblem":
        """With the moments of a dense layer, which take a while."""
        if self.moments is not None or not self.layer.reads_input:
            return self
        say(f"moments of {self.layer.units} units and their pairs at {self.resolution.frequencies} frequencies")
        check_units_memory(self.source, self.layer, self.resolution)
        moments = moments_of(self.source, self.layer, self.resolution, self.mesh, self.clusters)
        return replace(self, moments=moments)

    def require_memory(self, shape: tuple[int, int, int]) -> None:
        """Raise `MemoryError` if a loss of that `(t, m2, K)` does not fit."""
        check_memory(self.source, self.layer, shape, self.resolution, self.mesh, self.vectors)

    def brief(self, encoder: AbstractEncoder, calls: int) -> bool:
        """Whether so many evaluations take less time than optimising them would."""
        learnt = learnt_part(encoder)
        if learnt is None:
            return True
        atoms = self.source.prior.atoms if self.atoms is None else self.atoms
        shape = learnt.statistics_read, learnt.features, atoms.shape[1]
        return brief(self.source, self.layer, shape, self.resolution, calls)

    def expected(self, encoder: AbstractEncoder, atoms: Array | None = None, plan: Plan | None = None) -> Expectations:
        """The `Expectations` of an encoder, for these atoms or those of another target."""
        atoms = self.atoms if atoms is None else atoms
        given = encoder, self.resolution, plan, self.moments, self.mesh, self.vectors, self.clusters
        return expected(Problem(self.source, self.layer, atoms, *given))


def require_variation(mean: Float[Array, " n2"], covariance: Float[Array, "n2 n2"]) -> None:
    """Raise `ValueError` if a layer's output varies by no more than the rounding of its mean."""
    rounding = float(jnp.finfo(mean.dtype).eps) ** 2 * float(np.sum(np.asarray(mean) ** 2))
    if not float(np.trace(np.asarray(covariance))) > rounding:
        raise ValueError("layer: expected an output that varies, got one that is constant: there is nothing to learn.")


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


@partial(compiled, quick=lambda problem, encoder: problem.brief(encoder, 1))
def compiled_target(problem: FitProblem, encoder: AbstractEncoder) -> FeatureModel:
    """The best target for an encoder."""
    return target_of(problem.expected(encoder), problem.atoms, problem.noise, problem.floor)


@partial(compiled, quick=lambda problem, _, encoder: problem.brief(encoder, 1))
def compiled_elbo(problem: FitProblem, target: FeatureModel, encoder: AbstractEncoder) -> Elbo:
    """The loss of a target and an encoder."""
    return elbo_of(problem.expected(encoder, target.prior.atoms), target)

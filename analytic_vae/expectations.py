"""What the loss needs to know of the source, the layer and the encoder: expectations that the engine gives.

`expectations` needs the source, the layer, the encoder and the atoms, but nothing else of the target: `elbo_of` makes
the loss of them and a target, the closed forms the best target.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ._check import as_floating, require_finite, require_instance, require_shape
from ._jit import compiled, exact_products
from ._sharding import check_mesh
from .accuracy import warns
from .model.compatibility import check_layer
from .model.conditioning import clusters_of, covariance_of, mean_of, over_components
from .model.dense_layer import DenseLayer
from .model.encoder import AbstractEncoder
from .model.feature_model import FeatureModel
from .model.layer import AbstractLayer
from .moments.budget import brief, check_units_memory
from .moments.carried import carried, with_extra
from .moments.expected import Expectations
from .moments.layer_moments import LayerMoments
from .moments.learnt import layer_errors, learnt
from .moments.plan import Plan
from .moments.problem import Problem
from .moments.reading import Reading
from .moments.units import DenseMoments
from .spectral.gauss_rule import kept_atoms
from .spectral.resolution import Resolution
from .types import Array, Float

ONE = 10  # calls that an evaluation is taken for: more of them belong into a program of the user's own


@warns
@exact_products
def expectations(
    source: FeatureModel,
    layer: AbstractLayer,
    atoms: Float[Array, "m2 K"],
    encoder: AbstractEncoder,
    resolution: Resolution | None = None,
    plan: Plan | None = None,
    mesh: Mesh | None = None,
    vectors: bool = False,
    moments: DenseMoments | None = None,
) -> Expectations:
    """The `Expectations` of a layer and an encoder, without samples.

    Arguments:
        source: law of `x1`.
        layer: `f`.
        atoms: `[m2, K]`, the values of the target's features.
        encoder: reads `y_j = C_j f(x1)`; of a `DenseLayer` `y_j = C_j x1`. Or a `CarriedEncoder`.
        resolution: how fine; `Resolution()` if not given.
        plan: boxes to reuse (`av.plan`, of the extra features of a `CarriedEncoder`); new ones if not given.
        mesh: devices to share the work among, on its first axis: features and pairs of features are spread over
            them, everything else is computed by each.
        vectors: whether the target has a vector per atom.
        moments: of a `DenseLayer`: what depends on source, layer and resolution alone (`av.dense_moments`), to reuse
            while an encoder is learnt, or the layer's `output` and `skip` change. They are taken as they are:
            derivatives with respect to the source, and the layer's `weight` and `bias`, miss what goes through them,
            unless they are computed inside of what is differentiated.

    Raises `ValueError` or `TypeError` that names the argument if the parts do not fit together.
    """
    check_layer(source, layer)
    (atoms,) = as_floating(atoms=atoms)
    require_shape("atoms", atoms, (None, None), "features, atoms")
    require_finite("atoms", atoms)
    parts = source, layer, atoms, encoder, Resolution.of(resolution), plan, moments, mesh, vectors
    return expected(Problem(*parts).checked("atoms"))


def expected(problem: Problem) -> Expectations:
    """The expectations of a checked problem."""
    return _expected(with_moments(problem))


def with_moments(problem: Problem) -> Problem:
    """With the moments of a dense layer, which are compiled by themselves: they are the same for all encoders."""
    moments = problem.moments
    if moments is not None:
        moments = moments.mapped_by(problem.layer)
    elif problem.layer.reads_input:
        given = problem.source, problem.layer, problem.resolution, problem.mesh, problem.clusters
        moments = moments_of(*given)
    return replace(problem, moments=moments)


def small(problem: Problem) -> bool:
    """Whether one evaluation is not worth optimising."""
    return problem.learnt is None or brief(problem.source, problem.layer, problem.learnt_shape, problem.resolution, ONE)


@partial(compiled, quick=small)
def _expected(problem: Problem) -> Expectations:
    return uncompiled(problem)


def uncompiled(problem: Problem) -> Expectations:
    """The expectations of a checked problem with its moments, as part of a larger program."""
    closed = problem.layer.reads_input and problem.learnt is None  # all in the moments of the units
    return _of_one(problem) if problem.clusters is None or closed else _mixture(problem)


def _mixture(problem: Problem) -> Expectations:
    """The same as a mixture over components of the source, each on boxes of its own (a plan has those of the whole)."""
    weights, sources = problem.clusters.components(problem.source)
    moments = problem.moments

    def one(component):
        source, moments = component
        return _of_one(replace(problem, source=source, moments=moments, plan=None))

    found = over_components(one, (sources, None if moments is None else moments.parts))
    mixture = lambda name: mean_of(weights, getattr(found, name))  # noqa: E731
    covariance = lambda name, *means: covariance_of(weights, getattr(found, name), *means)  # noqa: E731
    codes_mean, psi = found.latent_mean, found.layer.psi
    return Expectations(
        layer=found.layer.mixed(weights, sources) if moments is None else moments,
        latent_mean=mixture("latent_mean"),
        latent_covariance=covariance("latent_covariance", codes_mean, codes_mean),
        latent_noise=mixture("latent_noise"),
        input_latent=covariance("input_latent", found.layer.input_mean, codes_mean),
        psi_latent=covariance("psi_latent", psi, codes_mean),
        aggregate=mixture("aggregate"),
        entropy=mixture("entropy"),
        remainder=jnp.sqrt(mean_of(weights, found.remainder**2)),
        moment_error=mixture("moment_error"),
        band_error=mixture("band_error"),
        series_error=mixture("series_error"),
        series_error_psi=mixture("series_error_psi"),
        vectors=problem.vectors,
    )


def _of_one(problem: Problem) -> Expectations:
    # Carried features are those of the source, atom by atom: there its atoms are not replaced by fewer.
    atoms = None if problem.carried else problem.resolution.law_atoms
    box = None if problem.plan is None else jax.lax.stop_gradient(problem.plan.ridge)
    reading = Reading.of(problem.source, problem.layer, problem.resolution, atoms, box)
    read = LayerMoments.of_ridge(reading.source, reading.form, reading.axis)
    if not problem.carried:
        return learnt(problem, reading, read)[0]
    handed_on = carried(problem, problem.moments or read, layer_errors(reading.axis, problem.moments))
    return handed_on if problem.learnt is None else with_extra(problem, handed_on, *learnt(problem, reading, read))


@warns
@exact_products
def dense_moments(
    source: FeatureModel, layer: DenseLayer, resolution: Resolution | None = None, mesh: Mesh | None = None
) -> DenseMoments:
    """Means and covariances of all units of a `DenseLayer` and, from them, of `f(x1)`: `.output()`; without samples.

    Arguments as in `expectations`, which computes them unless they are given: while an encoder is learnt they stay.
    Raises `ValueError` or `TypeError` that names the argument if the parts do not fit together, `MemoryError` if the
    grids cannot fit.
    """
    require_instance("layer", layer, DenseLayer, "a DenseLayer")
    check_layer(source, layer)
    resolution = Resolution.of(resolution)
    check_mesh(mesh)
    check_units_memory(source, layer, resolution)
    return moments_of(source, layer, resolution, mesh, clusters_of(source))


def moments_of(source, layer, resolution, mesh, clusters=None) -> DenseMoments:
    """The moments of all units, of a source that may be a mixture.

    Sources of any noise, with directions or vectors, share one program: a network is learnt from one to the other.
    """
    same = kept_atoms(source, resolution.atoms) == source.prior.atoms.shape[1]  # no fewer atoms, for which it matters
    found = _compiled_moments(source.written_out() if same else source, layer, resolution, mesh, clusters)
    return replace(found, source=source)


@compiled
def _compiled_moments(source, layer, resolution, mesh, clusters) -> DenseMoments:
    if clusters is None:
        return DenseMoments.of(source, layer, resolution, mesh)
    weights, sources = clusters.components(source)
    parts = over_components(lambda one: DenseMoments.of(one, layer, resolution, mesh), sources)
    return DenseMoments.of_parts(weights, parts, source)

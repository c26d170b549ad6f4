"""What the loss needs to know of the source, the layer and the encoder: expectations that the engine gives.

`expectations` needs the source, the layer, the encoder and the atoms, but nothing else of the target: `elbo_of` makes
the loss of them and a target, the closed forms the best target.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ._check import as_floating, is_concrete, require_finite, require_instance, require_shape
from ._jit import compiled, exact_products
from ._sharding import check_mesh
from .accuracy import warns
from .model.carried_encoder import CarriedEncoder, learnt_part
from .model.compatibility import check_encoder, check_layer, check_vectors
from .model.conditioning import clusters_of, covariance_of, mean_of, over_components
from .model.encoder import AbstractEncoder
from .model.feature_model import FeatureModel
from .model.layer import AbstractLayer, DenseLayer
from .moments.budget import Batches, check_memory, check_units_memory
from .moments.codes import Codes, block_diagonal, codes
from .moments.conditional import state_covariance
from .moments.layer_moments import LayerMoments
from .moments.plan import Plan, check_plan
from .moments.ridge_axis import RidgeAxis, straightened
from .moments.statistic_function import Covariances, compressed_axis, latent_covariances
from .moments.units import DenseMoments, check_moments
from .spectral.gauss_rule import compress
from .spectral.resolution import Resolution
from .types import Array, Float, Scalar

# Of pairs, moment errors and lost frequencies, in nats: set against 600 losses of the benchmarks and 230 of sharp
# encoders.
FACTORS = (2.0, 3.0, 6.0)

LEAK = 0.02


class Expectations(eqx.Module):
    """Everything that the loss needs to know of `x1`, the layer and the encoder.

    What a decoder multiplies are *codes* `s`: of each feature its value (`C = m2` codes), or, with a vector per atom,
    the indicators of all its atoms but the first (`C = m2 (K - 1)`). With `f = f(x1)` and `s` their means under
    `Q(. | y)`:

    | field | value | shape |
    |---|---|---|
    | `layer` | moments of `x1`, the non-linear parts `psi` and `f` alone | |
    | `latent_mean` | `E s` | `[C]` |
    | `latent_covariance` | `Cov(s)` | `[C, C]` |
    | `latent_noise` | `E Cov(codes | y)`, in blocks of a feature; `latent_variance` is its diagonal | `[C, C]` |
    | `input_latent`, `psi_latent` | `Cov(x1, s)`, `Cov(psi, s)` | `[n1, C]`, `[C]` or `[h, C]` |
    | `aggregate` | `E[Q_j(a_jk | y_j)]`, the aggregate posterior | `[m2, K]` |
    | `entropy` | `E[-sum_k Q_jk log Q_jk]` in nats | `[m2]` |
    | `remainder` | L2 norm of what series leave out of `s` | `[C]` |
    | `moment_error` | how far mass, mean and variance of each law on its box are from the exact ones | `[m2]` |
    | `band_error` | what the last frequencies of each law still add to expectations of its tables, at most | `[m2]` |
    | `series_error` | an estimate of what series leave out of covariances of codes | `[C, C]` |
    | `series_error_psi` | the same of covariances of `psi` and codes | as `psi_latent` |
    | `vectors` | whether there is a vector per atom | |
    """

    layer: LayerMoments | DenseMoments
    latent_mean: Float[Array, " C"]
    latent_covariance: Float[Array, "C C"]
    latent_noise: Float[Array, "C C"]
    input_latent: Float[Array, "n1 C"]
    psi_latent: Array
    aggregate: Float[Array, "m2 K"]
    entropy: Float[Array, " m2"]
    remainder: Float[Array, " C"]
    moment_error: Float[Array, " m2"]
    band_error: Float[Array, " m2"]
    series_error: Float[Array, "C C"]
    series_error_psi: Array
    vectors: bool = eqx.field(static=True, default=False)

    def __str__(self) -> str:
        if self.latent_mean.ndim != 1 or not is_concrete(self.latent_mean):
            return repr(self)
        told = ", ".join(f"{one:.3g}" for one in self.information[:8]) + (", ..." if self.information.size > 8 else "")
        return f"{self.aggregate.shape[0]} features that tell {told} nats; accuracy about {float(self.accuracy):.0e}"

    def loss_error(self, gram: Float[Array, "C C"], cross: Float[Array, "C h"]) -> Scalar:
        """An estimate of how far a loss may be off, in nats. Without derivatives.

        What series leave out of covariances (`series_error`), what laws on their boxes have wrong (`moment_error`),
        and what their frequencies lack (`band_error`). `gram = B' S^-1 B / 2` and `cross = B' S^-1 W`, with the
        layer's output `W psi`.
        """
        series_error, psi, moment_error, band_error = jax.lax.stop_gradient(
            (self.series_error, self.series_error_psi, self.moment_error, self.band_error)
        )
        pairs = jnp.sqrt(jnp.sum((gram * series_error) ** 2) + jnp.sum((cross.T * psi.reshape(-1, psi.shape[-1])) ** 2))
        sizes = jnp.stack([pairs, jnp.max(moment_error, initial=0), jnp.sum(band_error)])
        return sizes @ jnp.asarray(FACTORS, sizes.dtype)

    @property
    def accuracy(self) -> Scalar:
        """An estimate of how far expectations and covariances may be off, relative to their spreads."""
        series_error, moment_error, band_error = jax.lax.stop_gradient(
            (self.series_error, self.moment_error, self.band_error)
        )
        variance = jax.lax.stop_gradient(jnp.diagonal(self.latent_covariance))
        spread = jnp.sqrt(jnp.where(variance > 0, variance, jnp.inf))
        series_error = jnp.max(series_error / spread[:, None] / spread[None], initial=0)
        return jnp.stack([series_error, jnp.max(moment_error, initial=0), jnp.max(band_error, initial=0)]).max()

    @property
    def information(self) -> Float[Array, " m2"]:
        """`I(x2; z_j) = E KL(Q_j || aggregate_j)` in nats."""
        return jnp.sum(jax.scipy.special.entr(jnp.maximum(self.aggregate, 0)), axis=1) - self.entropy

    @property
    def output_latent(self) -> Float[Array, "n2 C"]:
        """`Cov(f, s)`."""
        return self.layer.form.mapped(self.input_latent, self.psi_latent)

    @property
    def latent_second(self) -> Float[Array, "C C"]:
        """`E[s s']`."""
        return self.latent_covariance + jnp.outer(self.latent_mean, self.latent_mean)

    @property
    def latent_variance(self) -> Float[Array, " C"]:
        """`E[v]`, the mean variance of each code given what its encoder reads."""
        return jnp.diagonal(self.latent_noise)


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
        plan: boxes to reuse (`av.plan`, of what a `CarriedEncoder` has beside); new ones if not given.
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
    return checked_expectations(source, layer, atoms, encoder, resolution, plan, mesh, "atoms", vectors, moments)


def checked_expectations(
    source, layer, atoms, encoder, resolution, plan, mesh, named: str, vectors=False, moments=None, clusters=None
) -> Expectations:
    """The expectations, after a look at all that is not source, layer and atoms (those of the argument `named`).

    `clusters` are those of the source, if it is not concrete but somebody knows them.
    """
    check_encoder(layer, encoder, atoms, named, source)
    resolution = Resolution.of(resolution)
    check_vectors(vectors, atoms.shape[1], named)
    check_moments(moments, source, layer, resolution)
    check_mesh(mesh)
    learnt = learnt_part(encoder)
    if learnt is not None:
        check_plan(plan, layer, learnt, resolution)
        check_memory(source, layer, learnt.statistics_read, *atoms.shape, resolution, mesh, vectors)
    elif plan is not None:
        raise ValueError("plan: expected none, as carried features have no boxes, got one.")
    clusters = clusters or clusters_of(source)
    closed = isinstance(layer, DenseLayer) and learnt is None  # all in the moments of the units
    if moments is None and isinstance(layer, DenseLayer):  # compiled by itself: the same for all encoders
        check_units_memory(source, layer, resolution)
        moments = _dense_moments(source, layer, resolution, mesh, clusters)
    elif moments is not None:
        moments = moments.mapped_by(layer)
    parts = source, layer, atoms, encoder, resolution, plan, mesh, bool(vectors), moments
    return _expectations(*parts) if clusters is None or closed else _conditional_expectations(*parts, clusters)


@compiled
def _conditional_expectations(
    source, layer, atoms, encoder, resolution, plan, mesh, vectors, moments, clusters
) -> Expectations:
    """The same as a mixture over components of the source, each on boxes of its own (a plan has those of the whole)."""
    weights, sources = clusters.components(source)
    parts = None if moments is None else moments.parts

    def one(given):
        source, moments = given
        return _expectations(source, layer, atoms, encoder, resolution, None, mesh, vectors, moments)

    found = over_components(one, (sources, parts))
    mixture = lambda name: mean_of(weights, getattr(found, name))  # noqa: E731
    covariance = lambda name, *means: covariance_of(weights, getattr(found, name), *means)  # noqa: E731
    layer_moments = found.layer.mixed(weights, sources) if moments is None else moments
    codes_mean, psi = found.latent_mean, found.layer.psi
    single = psi.ndim == 1  # of a ridge layer: one unit, whose moments have no axis of their own
    psi_latent = covariance_of(
        weights,
        found.psi_latent[:, None] if single else found.psi_latent,
        psi[:, None] if single else psi,
        codes_mean,
    )
    return Expectations(
        layer=layer_moments,
        latent_mean=mixture("latent_mean"),
        latent_covariance=covariance("latent_covariance", codes_mean, codes_mean),
        latent_noise=mixture("latent_noise"),
        input_latent=covariance("input_latent", found.layer.input_mean, codes_mean),
        psi_latent=psi_latent[0] if single else psi_latent,
        aggregate=mixture("aggregate"),
        entropy=mixture("entropy"),
        remainder=jnp.sqrt(mean_of(weights, found.remainder**2)),
        moment_error=mixture("moment_error"),
        band_error=mixture("band_error"),
        series_error=mixture("series_error"),
        series_error_psi=mixture("series_error_psi"),
        vectors=vectors,
    )


@compiled
def _expectations(source, layer, atoms, encoder, resolution, plan, mesh, vectors, moments) -> Expectations:
    plan = jax.lax.stop_gradient(plan)
    carried = encoder.carried if isinstance(encoder, CarriedEncoder) else 0
    # Carried features are those of the source, atom by atom: there its atoms are not replaced by fewer.
    given = source if carried else compress(source, resolution.law_atoms)
    read = layer.read_form()
    axis = RidgeAxis.of(given, read, resolution, None if plan is None else plan.ridge)
    layer_moments = LayerMoments.of(given, read, axis)
    parts = []
    if carried:
        known = layer_moments if moments is None else moments
        wrong = _layer_errors(axis, moments)
        parts.append((_carried(source, known, atoms[:carried], vectors, *wrong), None))
        encoder = encoder.extra
    if encoder is not None:
        known = given, axis, layer_moments, atoms[carried:], encoder, resolution, plan, mesh, vectors, moments
        parts.append(_learnt(*known, source))
    return parts[0][0] if len(parts) == 1 else _with_extra(*parts, source, vectors, atoms)


def _learnt(source, axis, read_moments, atoms, encoder, resolution, plan, mesh, vectors, moments, whole):
    """The expectations of an encoder that reads statistics, and `E[1{z_l = a_lk} (s - E s)]: [C, m1, K1]`."""
    read, t = read_moments.form, encoder.statistics_read
    boxes = None if plan is None else (plan.low, plan.length)
    covariance = read_moments.output()[1]
    batches = Batches.of(source, *atoms.shape, t, axis.linear, resolution, mesh)
    of_layer_axis, direction = axis, read.direction
    read, axis, straight, slope = straightened(source, read, axis, resolution)
    pairs = compressed_axis(source, read, axis, resolution)
    features = Codes.of(
        source, read, axis, pairs, covariance, encoder, atoms, vectors, resolution, boxes, batches.laws, mesh, whole
    )
    latents, R = features.latents, features.same.shape[1]
    if not axis.linear:  # of a layer that was taken for a linear one, psi is the linear part of it
        psi_rest = jnp.where(straight, slope * latents.input_rest @ direction, latents.psi_rest)
        latents = eqx.tree_at(lambda one: one.psi_rest, latents, psi_rest)
    readout = jnp.repeat(encoder.readout, R, axis=0)
    grid = pairs[1].pair_grid(resolution)
    found = latent_covariances(source, read_moments, readout, latents, grid, batches.pairs, mesh)
    gain = jnp.einsum("jt,jtn->jn", latents.slope, readout) @ read.linear
    psi_latent, series_error_psi = found.psi_latent, jnp.zeros_like(found.psi_latent)
    if moments is not None:
        psi_latent = moments.with_latents(source, latents, gain, grid, batches.pairs, mesh)
        alike = _squared_correlation(moments.form.weight[:, None], encoder.readout, covariance)
        series_error_psi = _series_error_psi(moments, found, latents.remainder) * jnp.repeat(alike, R, axis=1)
    alike = _squared_correlation(encoder.readout, encoder.readout, covariance)
    of_units, of_layer = _layer_errors(of_layer_axis, moments)
    expected = Expectations(
        layer=moments or read_moments,
        latent_mean=latents.mean,
        latent_covariance=features.with_exact_diagonal_blocks(found.latent),
        latent_noise=block_diagonal(features.within),
        input_latent=found.input_latent,
        psi_latent=psi_latent,
        aggregate=features.aggregate,
        entropy=features.entropy,
        remainder=latents.remainder,
        moment_error=jnp.maximum(features.moment_error, jax.lax.stop_gradient(of_units)),
        band_error=jnp.maximum(features.band_error.max(axis=1), jax.lax.stop_gradient(of_layer)),
        series_error=_series_error(found, latents.remainder, alike, R),
        series_error_psi=series_error_psi,
        vectors=vectors,
    )
    return expected, latents.states + jnp.einsum("cn,nmk->cmk", gain, state_covariance(source))


def _layer_errors(axis: RidgeAxis, moments: DenseMoments | None) -> tuple[Scalar, Scalar]:
    """What the layer's own law has wrong, and what it lacks."""
    return (axis.moment_error, axis.band_error) if moments is None else (moments.moment_error.max(), moments.overall)


def _series_error(
    found: Covariances, remainder: Float[Array, " C"], alike: Float[Array, "m m"], R: int
) -> Float[Array, "C C"]:
    """What series leave out of covariances of codes: what shorter ones change, and more where remainders are large.

    A sharp encoder leaves much to both series: `left_j left_k` times the squared correlation of the statistics, with
    `left = r min(1, 4 r / spread)` of remainders r. Codes of one feature are no pair.
    """
    left = _large(found, remainder)
    own = jnp.arange(len(left)) // R
    alike = jnp.repeat(jnp.repeat(alike, R, axis=0), R, axis=1)
    return jnp.where(own[:, None] == own[None], 0, found.change + jnp.outer(left, left) * alike)


def _series_error_psi(moments: DenseMoments, found: Covariances, remainder: Float[Array, " C"]) -> Float[Array, "h C"]:
    """The same of a unit and a code, but for the correlation: both remainders, and of a sharp code `LEAK` of the unit.

    `LEAK` because an exponential of what the unit reads is not one of what the encoder reads.
    """
    variance, own, remainder = jax.lax.stop_gradient(
        (jnp.diagonal(moments.psi_covariance), moments.remainder, remainder)
    )
    spread = jnp.sqrt(jnp.maximum(variance, 0))
    return jnp.outer(own, remainder) + LEAK * jnp.outer(spread, _large(found, remainder))


def _large(found: Covariances, remainder: Float[Array, " C"]) -> Float[Array, " C"]:
    """`r min(1, 4 r / spread)` of the remainders r of codes. Without derivatives."""
    variance, remainder = jax.lax.stop_gradient((jnp.diagonal(found.latent), remainder))
    share = 4 * remainder / jnp.sqrt(jnp.where(variance > 0, variance, jnp.inf))
    return remainder * jnp.minimum(share, 1)


def _squared_correlation(
    left: Float[Array, "h t n"], right: Float[Array, "m s n"], covariance: Float[Array, "n n"]
) -> Float[Array, "h m"]:
    """Squared correlations of two projections, one of each row, the largest of each pair. Without derivatives."""
    left, right, covariance = jax.lax.stop_gradient((left, right, covariance))
    spreads = lambda rows: jnp.sqrt(jnp.einsum("jtn,nl,jtl->jt", rows, covariance, rows))  # noqa: E731
    safe = lambda spread: jnp.where(spread > 0, spread, 1)  # noqa: E731
    together = jnp.einsum("jtn,nl,ksl->jkts", left, covariance, right)
    together = together / safe(spreads(left))[:, None, :, None] / safe(spreads(right))[None, :, None, :]
    return jnp.max(together**2, axis=(2, 3))


def _carried(source, moments, atoms, vectors: bool, moment_error, band_error) -> Expectations:
    """The expectations of features that are handed on, `z2 = z1`: in closed form but for `Cov(psi, s)`."""
    masses, code = source.prior.masses, codes(atoms, vectors)
    mean = jnp.einsum("mrk,mk->mr", code, masses)
    centred = code - mean[:, :, None]
    own = jnp.einsum("mrk,mk,msk->mrs", centred, masses, centred)
    none = jnp.zeros_like(masses[:, 0])
    with_states = lambda states: jnp.einsum("...mk,mrk->...mr", states, code)  # noqa: E731
    flat = lambda found: found.reshape(*found.shape[:-2], -1)  # noqa: E731
    covariance = block_diagonal(own)
    return Expectations(
        layer=moments,
        latent_mean=mean.ravel(),
        latent_covariance=covariance,
        latent_noise=jnp.zeros_like(covariance),
        input_latent=flat(with_states(state_covariance(source))),
        psi_latent=flat(with_states(moments.psi_states)),
        aggregate=masses,
        entropy=none,
        remainder=jnp.zeros_like(mean.ravel()),
        moment_error=none + jax.lax.stop_gradient(moment_error),
        band_error=none + jax.lax.stop_gradient(band_error),
        series_error=jnp.zeros_like(covariance),
        series_error_psi=jnp.zeros_like(flat(with_states(moments.psi_states))),
        vectors=vectors,
    )


def _with_extra(carried, learnt, source, vectors: bool, atoms) -> Expectations:
    """The expectations of carried features and, beside them, those of others."""
    (one, _), (other, states) = carried, learnt
    code = codes(atoms[: source.features], vectors)
    cross = jnp.einsum("cmk,mrk->mrc", states, code).reshape(one.latent_mean.size, -1)
    none = jnp.zeros_like(cross)
    together = lambda name, axis=-1: jnp.concatenate([getattr(one, name), getattr(other, name)], axis=axis)  # noqa: E731
    return Expectations(
        layer=one.layer,
        latent_mean=together("latent_mean"),
        latent_covariance=jnp.block([[one.latent_covariance, cross], [cross.T, other.latent_covariance]]),
        latent_noise=jnp.block([[one.latent_noise, none], [none.T, other.latent_noise]]),
        input_latent=together("input_latent"),
        psi_latent=together("psi_latent"),
        aggregate=together("aggregate", 0),
        entropy=together("entropy"),
        remainder=together("remainder"),
        moment_error=together("moment_error"),
        band_error=together("band_error"),
        series_error=jnp.block([[one.series_error, none], [none.T, other.series_error]]),
        series_error_psi=together("series_error_psi"),
        vectors=vectors,
    )


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
    return _dense_moments(source, layer, resolution, mesh, clusters_of(source))


@compiled
def _dense_moments(source, layer, resolution, mesh, clusters=None) -> DenseMoments:
    if clusters is None:
        return DenseMoments.of(source, layer, resolution, mesh)
    weights, sources = clusters.components(source)
    parts = over_components(lambda one: DenseMoments.of(one, layer, resolution, mesh), sources)
    return DenseMoments.mixed(weights, parts, source)

"""The loss of Theorem 3.1: first the expectations that the engine gives, then algebra on them.

`expectations` needs the source, the layer, the encoder and the atoms, but nothing else of the target; `elbo_of` turns
them and a target into the loss and its named terms. The closed forms (`closed_form.py`) read the same expectations.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ._check import as_floating, is_concrete, require_finite, require_instance, require_shape
from .arguments import check_encoder, check_layer, check_memory, check_mesh
from .certificate import TERMS, certificate, check_certificate
from .encoder import AbstractEncoder
from .layer import AbstractLayer
from .model import FeatureModel, whitening
from .parallel import Batches, spread
from .plan import Plan, check_plan
from .precision import exact_products
from .spectral.compression import compress
from .spectral.expectation import LayerMoments, statistic_nodes
from .spectral.latents import Latent, latent_covariances
from .spectral.resolution import Resolution
from .spectral.ridge import RidgeAxis
from .spectral.spectrum import Spectrum
from .spectral.statistic import Statistic
from .types import Array, Float, Scalar


class Expectations(eqx.Module):
    """Everything that the loss needs to know of `x1`, the layer and the encoder.

    With `f = f(x1)`, `s_j` and `v_j` the mean and variance of `Q_j(. | y_j)`:

    | field | value | shape |
    |---|---|---|
    | `layer` | moments of `x1`, `psi` and `f` alone | |
    | `latent_mean`, `latent_variance` | `E[s_j]`, `E[v_j]` | `[m2]` |
    | `latent_covariance` | `Cov(s_j, s_k)` | `[m2, m2]` |
    | `input_latent`, `psi_latent` | `Cov(x1, s_j)`, `Cov(psi, s_j)` | `[n1, m2]`, `[m2]` |
    | `aggregate` | `E[Q_j(a_jk | y_j)]`, the aggregate posterior | `[m2, K]` |
    | `entropy` | `E[-sum_k Q_jk log Q_jk]` in nats | `[m2]` |
    | `remainder` | L2 norm of what series leave out of `s_j`; a covariance is off by about the product | `[m2]` |
    | `misfit` | how far mass, mean and variance of each law on its box are from the exact ones | `[m2]` |
    """

    layer: LayerMoments
    latent_mean: Float[Array, " m2"]
    latent_variance: Float[Array, " m2"]
    latent_covariance: Float[Array, "m2 m2"]
    input_latent: Float[Array, "n1 m2"]
    psi_latent: Float[Array, " m2"]
    aggregate: Float[Array, "m2 K"]
    entropy: Float[Array, " m2"]
    remainder: Float[Array, " m2"]
    misfit: Float[Array, " m2"]

    @property
    def information(self) -> Float[Array, " m2"]:
        """`I(x2; z_j) = E KL(Q_j || aggregate_j)` in nats."""
        return jnp.sum(jax.scipy.special.entr(jnp.maximum(self.aggregate, 0)), axis=1) - self.entropy

    @property
    def output_latent(self) -> Float[Array, "n2 m2"]:
        """`Cov(f, s_j)`."""
        return self.layer.form.mapped(self.input_latent, self.psi_latent)

    @property
    def latent_second(self) -> Float[Array, "m2 m2"]:
        """`E[s_j s_k]`."""
        return self.latent_covariance + jnp.outer(self.latent_mean, self.latent_mean)


@exact_products
def expectations(
    source: FeatureModel,
    layer: AbstractLayer,
    atoms: Float[Array, "m2 K"],
    encoder: AbstractEncoder,
    resolution: Resolution | None = None,
    plan: Plan | None = None,
    mesh: Mesh | None = None,
) -> Expectations:
    """The `Expectations` of a layer and an encoder, without samples.

    Arguments:
        source: law of `x1`.
        layer: `f`.
        atoms: `[m2, K]`, the values of the target's features.
        encoder: reads `y_j = C_j f(x1)`.
        resolution: how fine; `Resolution()` if not given.
        plan: boxes to reuse (`av.plan`); new ones if not given.
        mesh: devices to share the work among, on its first axis: features and pairs of features are spread over
            them, everything else is computed by each.

    Raises `ValueError` or `TypeError` that names the argument if the parts do not fit together.
    """
    check_layer(source, layer)
    (atoms,) = as_floating(atoms=atoms)
    require_shape("atoms", atoms, (None, None), "features, atoms")
    require_finite("atoms", atoms)
    return _checked(source, layer, atoms, encoder, resolution, plan, mesh, "atoms")


def _checked(source, layer, atoms, encoder, resolution, plan, mesh, named: str) -> Expectations:
    """The expectations, after a look at all that is not source, layer and atoms (those of the argument `named`)."""
    check_encoder(layer, encoder, atoms, resolution, named)
    resolution = resolution or Resolution()
    check_plan(plan, layer, encoder, resolution)
    check_mesh(mesh)
    check_memory(source, layer, encoder.statistics_read, *atoms.shape, resolution, mesh)
    return _expectations(source, layer, atoms, encoder, resolution, plan, mesh)


@eqx.filter_jit
def _expectations(source, layer, atoms, encoder, resolution, plan, mesh) -> Expectations:
    t = encoder.statistics_read
    plan = jax.lax.stop_gradient(plan)
    source = compress(source, resolution.atoms)
    form = layer.form()
    axis = RidgeAxis.of(source, form, resolution, None if plan is None else plan.ridge)
    grid = axis.law_grid(resolution, t)
    pair_grid = axis.pair_grid(resolution)

    @jax.checkpoint
    def one_feature(everywhere, arrays, one_atoms: Float[Array, " K"], box):
        source, form, axis, grid, covariance = everywhere
        one = eqx.combine(arrays, static)
        statistic = Statistic.of(source, form, one.readout, axis, resolution, box=box)
        spectrum = Spectrum.of(statistic, grid, resolution)
        nodes = statistic_nodes(spectrum, resolution)
        log_q = jax.vmap(lambda y: one.log_masses(y, one_atoms))(nodes.points)
        q = jnp.exp(log_q)
        s = q @ one_atoms
        v = jnp.sum(q * (one_atoms[None] - s[:, None]) ** 2, axis=1)
        latent = Latent.of(source, form, spectrum, nodes, resolution, s)
        entropy = -nodes.weights @ jnp.sum(jnp.where(q > 0, q * log_q, 0), axis=1)
        misfit = nodes.misfit(statistic, one.readout @ covariance @ one.readout.T)
        return latent, (nodes.weights @ v, nodes.weights @ q, entropy, misfit)

    arrays, static = eqx.partition(encoder, eqx.is_array)
    boxes = None if plan is None else (plan.low, plan.length)
    batches = Batches.of(source, *atoms.shape, t, axis.linear, resolution, mesh)
    given = (arrays, atoms, boxes)
    moments = LayerMoments.of(source, form, axis)
    everywhere = source, form, axis, grid, moments.output()[1]
    latents, (v, aggregate, entropy, misfit) = spread(one_feature, everywhere, given, mesh, batches.laws)
    covariances = latent_covariances(source, moments, encoder.readout, latents, pair_grid, batches.pairs, mesh)
    return Expectations(
        layer=moments,
        latent_mean=latents.mean,
        latent_variance=v,
        latent_covariance=covariances.latent,
        input_latent=covariances.input_latent,
        psi_latent=covariances.psi_latent,
        aggregate=aggregate,
        entropy=entropy,
        remainder=latents.remainder,
        misfit=jnp.maximum(misfit, jax.lax.stop_gradient(axis.misfit)),
    )


class ErrorBounds(eqx.Module):
    """How far each term of an `Elbo` may be from the exact one: proved, but for roundings taken to be independent."""

    R1: Scalar
    R2: Scalar
    R3: Scalar
    S1: Scalar
    S2: Scalar
    T1: Scalar
    T2: Scalar
    T3: Scalar
    U1: Scalar
    U2: Scalar
    U3: Scalar
    loss: Scalar


class Elbo(eqx.Module):
    """The loss `R1 + R2 + R3 >= -E log P2(f(x1))` in nats, and its named terms (Figure 2 of the paper).

    | term | formula |
    |---|---|
    | `R1` = `rate` | `sum_j E KL(Q_j || P2_j)` |
    | `R2` | `1/2 log det(2 pi S)`; for scalar noise `n2/2 log(2 pi sigma^2)` |
    | `R3` = `distortion` | `(S1 + S2) / (2 sigma^2)` |
    | `S1` | `sum_j H_jj E[v_j]`, `H = B2' B2` |
    | `S2` = `T1 + T2 + T3` | `E |f - B2 s|^2` |
    | `T1` = `U1 + U2 + U3` | `E |f|^2` |
    | `T2` | `-2 sum_j E[<f, B2_j> s_j]` |
    | `T3` | `sum_jk H_jk E[s_j s_k]` |
    | `U1`, `U2`, `U3` | `E |A x1|^2`, `2 E[<A x1, w> psi]`, `|w|^2 E[psi^2]` |

    `f` and `A x1` are taken less the target's mean. For diagonal or full noise `S = L L'`, all of `f`, `A x1`, `w`
    and `B2` are multiplied by `L^-1` first, and `sigma` is 1. `rates: [m2]` are the summands of `R1`. `misfit` is the
    largest of `Expectations.misfit`: above 1e-4, say, the plan is too old or the resolution too coarse for the laws.
    How well sharp encoders are resolved it does not tell; `bounds`, which `elbo(..., certify=True)` computes, do:
    the exact value of every term is within `bounds.<term>` of it, the exact loss within `error_bound`.
    """

    R1: Scalar
    R2: Scalar
    R3: Scalar
    S1: Scalar
    S2: Scalar
    T1: Scalar
    T2: Scalar
    T3: Scalar
    U1: Scalar
    U2: Scalar
    U3: Scalar
    rates: Float[Array, " m2"]
    misfit: Scalar
    bounds: ErrorBounds | None = None

    @property
    def error_bound(self) -> Scalar | None:
        """How far `loss` may be from the exact one, in nats; None unless it was asked for."""
        return None if self.bounds is None else self.bounds.loss

    @property
    def loss(self) -> Scalar:
        """`R1 + R2 + R3`."""
        return self.R1 + self.R2 + self.R3

    @property
    def rate(self) -> Scalar:
        """`R1`."""
        return self.R1

    @property
    def distortion(self) -> Scalar:
        """`R3`."""
        return self.R3

    def __str__(self) -> str:
        if jnp.ndim(self.loss) or not is_concrete(self.loss):
            return repr(self)
        terms = ", ".join(f"{name} {float(getattr(self, name)):.6g}" for name in ("S1", "T1", "T2", "T3"))
        error = "" if self.bounds is None else f" +- {float(self.error_bound):.1e}"
        return (
            f"loss {float(self.loss):.6f}{error} nats = rate {float(self.rate):.6f} + R2 {float(self.R2):.6f} "
            f"+ distortion {float(self.distortion):.6f} (of {terms}); misfit {float(self.misfit):.1e}"
        )


@exact_products
def elbo_of(given: Expectations, target: FeatureModel) -> Elbo:
    """The loss and its terms from the expectations and a target: algebra only."""
    whiten, variance, log_det = whitening(target)
    layer, form, decoder = given.layer, given.layer.form, whiten(target.decoder)
    linear, output, centre = whiten(form.linear), whiten(form.output), whiten(form.offset - target.mean)
    gram = decoder.T @ decoder
    rates = _cross_entropy(given.aggregate, target.prior.log_masses) - given.entropy

    mapped = linear @ layer.input_mean + centre
    U1 = jnp.sum((linear @ layer.input_covariance) * linear) + mapped @ mapped
    U2 = 2 * output @ (linear @ layer.psi_input + centre * layer.psi)
    U3 = output @ output * layer.psi_squared
    output_mean = mapped + output * layer.psi
    T1 = U1 + U2 + U3
    T2 = -2 * jnp.sum(decoder * (whiten(given.output_latent) + jnp.outer(output_mean, given.latent_mean)))
    T3 = jnp.sum(gram * given.latent_second)
    S1 = jnp.diagonal(gram) @ given.latent_variance
    S2 = T1 + T2 + T3
    R2 = target.neurons / 2 * jnp.log(2 * jnp.pi) + log_det
    return Elbo(
        jnp.sum(rates), R2, (S1 + S2) / (2 * variance), S1, S2, T1, T2, T3, U1, U2, U3, rates, given.misfit.max()
    )


@exact_products
def elbo(
    source: FeatureModel,
    layer: AbstractLayer,
    target: FeatureModel,
    encoder: AbstractEncoder,
    resolution: Resolution | None = None,
    plan: Plan | None = None,
    mesh: Mesh | None = None,
    certify: bool = False,
) -> Elbo:
    """The evidence bound of a target model on a layer's output, exact: `loss >= -E log P2(f(x1))`.

    Arguments:
        source: law of the layer's input `x1: [n1]`.
        layer: `f`, from `n1` to `n2` neurons.
        target: the model of `x2 = f(x1)`, `n2` neurons, `m2` features; its decoder is `[n2, m2]`.
        encoder: `Q(z2 | x2)`, of the same `m2` features.
        resolution: how fine; `Resolution()` if not given.
        plan, mesh: as in `expectations`.
        certify: whether to bound the error of every term, too (`Elbo.bounds`). The bounds come from a second
            computation on grids of their own, which takes all pairs of features one by one: leave it out of training
            steps. They have no gradient, and say next to nothing for an encoder that does not know its `strip`.

    Returns an `Elbo`: `loss`, `rate`, `distortion` and every named term. Differentiable in all arrays of all
    arguments, and jit-able. Raises `ValueError` that names the argument if the parts do not fit together, `MemoryError`
    if the grids cannot fit.

    Source: Theorem 3.1 and Figure 2 of "Analytically Learning Variational Auto-Encoders".

    >>> elbo(source, layer, target, encoder).loss
    """
    check_layer(source, layer, target)
    if not isinstance(certify, bool | np.bool_):
        raise TypeError(f"certify: expected True or False, got {certify!r}.")
    require_instance("target", target, FeatureModel, "a FeatureModel")
    if certify:
        check_encoder(layer, encoder, target.prior.atoms, resolution, "target")
        check_certificate(source, layer, target, encoder, resolution or Resolution())
    found = elbo_of(_checked(source, layer, target.prior.atoms, encoder, resolution, plan, mesh, "target"), target)
    return certified(found, source, layer, target, encoder, resolution) if certify else found


def certified(
    found: Elbo,
    source: FeatureModel,
    layer: AbstractLayer,
    target: FeatureModel,
    encoder: AbstractEncoder,
    resolution: Resolution | None = None,
) -> Elbo:
    """An `Elbo` of these arguments, however it was computed, with the bounds of its errors."""
    given = jax.lax.stop_gradient((source, layer, target, encoder))
    exact = certificate(*given, resolution or Resolution())

    def bound(name):
        term = getattr(exact, name)
        error = jax.lax.stop_gradient(jnp.abs(getattr(found, name) - term.value) + term.error_bound)
        return jnp.where(jnp.isnan(error), jnp.inf, error)

    bounds = ErrorBounds(**{name: bound(name) for name in TERMS})
    return eqx.tree_at(lambda one: one.bounds, found, bounds, is_leaf=lambda leaf: leaf is None)


def _cross_entropy(aggregate: Float[Array, "m K"], log_masses: Float[Array, "m K"]) -> Float[Array, " m"]:
    return -jnp.sum(jnp.where(aggregate != 0, aggregate * log_masses, 0), axis=1)

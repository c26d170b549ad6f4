"""The loss of Theorem 3.1: algebra on expectations that the engine gives (`expectations.py`), and their bounds."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ._check import is_concrete, require_drawable, require_flag, require_instance
from ._jit import compiled, exact_products
from ._repr import short_repr
from .accuracy import warns
from .certify.loss import certificate, check_certificate
from .certify.terms import TERMS
from .expectations import small, uncompiled, with_moments
from .model.compatibility import check_layer
from .model.encoder import AbstractEncoder
from .model.feature_model import FeatureModel, decoder_matrix, whitening
from .model.layer import AbstractLayer
from .moments.expected import Expectations
from .moments.plan import Plan
from .moments.problem import Problem
from .moments.units import DenseMoments
from .plots.axes import panels
from .plots.losses import draw_loss, draw_parts, draw_rates
from .spectral.resolution import Resolution
from .types import Array, Float, Scalar

LEAST_RATE = 1e-4  # nats below which a feature is one in name only


class ErrorBounds(eqx.Module):
    """How far each term of an `Elbo` may be from the exact one: proved, but for roundings taken to be independent."""

    __repr__ = short_repr

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

    `f` and `A x1` are taken less the target's mean. For noise `S = L L'` of any kind `sigma^2 = det(S)^(1/n2)`, and all
    of `f`, `A x1`, `w` and `B2` are multiplied by `sigma L^-1` first (by 1 where the noise is scalar). Of a
    `DenseLayer` `A` is `skip` and `w psi` is `output psi`. With a vector per atom `B2 s` is `sum_jk q_jk B2_jk`; of
    that the vectors of first atoms join the mean, and `S1`, `T2` and `T3` are sums over the `m2 (K - 1)` codes that are
    left (`Expectations`).

    `accuracy` estimates how far the loss may be off, in nats: from what boxes, bands and short series leave out
    (`Expectations.loss_error`). `rates: [m2]` are the summands of `R1`. `moment_error` is the largest of
    `Expectations.moment_error`: above 1e-4, say, the plan is too old or the resolution too coarse for the laws.
    `bounds`, which `elbo(..., certify=True)` computes, are no estimates: the exact value of every term is within
    `bounds.<term>` of it, the exact loss within `error_bound`.
    """

    __repr__ = short_repr

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
    moment_error: Scalar
    accuracy: Scalar
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

    def plot(self, ax: Any = None) -> Any:
        """Draw the terms with matplotlib: the loss and what it is a sum of, parts of the distortion, rates of features.

        All in nats: `S1` to `U3` over `2 sigma^2`. Error bars are `bounds`, where there are any.

        Arguments:
            ax: three axes; a new figure if not given.

        Returns the axes `[3]`. Raises `TypeError` or `ValueError` if `ax` is something else, `ImportError` without
        matplotlib.

        >>> axes = elbo(source, layer, target, encoder).plot()
        """
        require_drawable("elbo", self.loss, 0)
        axes = panels(ax, 3)
        bounds = self.bounds
        errors = None if bounds is None else [float(one) for one in (bounds.loss, bounds.R1, bounds.R2, bounds.R3)]
        names = ("loss", "rate", "R2", "distortion")
        terms = {name: float(getattr(self, name)) for name in names}
        draw_loss(axes[0], terms, None if errors is None else dict(zip(names, errors, strict=True)))
        whole = float(self.S1 + self.S2)
        parts = ("S1", "S2", "T1", "T2", "T3", "U1", "U2", "U3")
        scale = terms["distortion"] / whole if whole else 0.0  # 1 / (2 sigma^2)
        draw_parts(axes[1], {name: scale * float(getattr(self, name)) for name in parts})
        draw_rates(axes[2], np.asarray(self.rates, np.float64), LEAST_RATE)
        return axes

    def __str__(self) -> str:
        if jnp.ndim(self.loss) or not is_concrete(self.loss):
            return repr(self)
        terms = ", ".join(f"{name} {float(getattr(self, name)):.6g}" for name in ("S1", "T1", "T2", "T3"))
        error = "" if self.bounds is None else f" +- {float(self.error_bound):.1e}"
        return (
            f"loss {float(self.loss):.6f}{error} nats = rate {float(self.rate):.6f} + R2 {float(self.R2):.6f} "
            f"+ distortion {float(self.distortion):.6f} (of {terms}); accuracy about {float(self.accuracy):.0e}"
        )


@exact_products
def elbo_of(given: Expectations, target: FeatureModel) -> Elbo:
    """The loss and its terms from the expectations and a target: algebra only."""
    if given.vectors != (target.decoder.ndim == 3):
        raise ValueError(
            f"target: expected a decoder of shape {'[n, m, K]' if given.vectors else '[n, m]'}, as in given, got "
            f"{target.decoder.shape}."
        )
    whiten, variance, log_det = whitening(target)
    layer, form = given.layer, given.layer.form
    # With a vector per atom the codes are indicators of all atoms but the first, whose vector joins the mean.
    matrix, rest = decoder_matrix(target)
    decoder = whiten(matrix)
    outputs, psi, input_psi, psi_second = layer.unit_moments()
    linear, output, centre = whiten(form.linear), whiten(outputs), whiten(form.offset - target.mean - rest)
    gram = decoder.T @ decoder
    rates = _cross_entropy(given.aggregate, target.prior.log_masses) - given.entropy

    mapped = linear @ layer.input_mean + centre
    U1 = jnp.sum((linear @ layer.input_covariance) * linear) + mapped @ mapped
    U2 = 2 * jnp.sum(output * (linear @ input_psi + jnp.outer(centre, psi)))
    U3 = jnp.sum((output @ psi_second) * output)
    output_mean = mapped + output @ psi
    T1 = U1 + U2 + U3
    T2 = -2 * jnp.sum(decoder * (whiten(given.output_latent) + jnp.outer(output_mean, given.latent_mean)))
    T3 = jnp.sum(gram * given.latent_second)
    S1 = jnp.sum(gram * given.latent_noise)
    # T1 + T2 + T3 from covariances: the means, which may be large, cancel first.
    covariance = whiten(layer.output()[1])
    apart = whiten(layer.output()[0] - target.mean - rest) - decoder @ given.latent_mean
    varies = jnp.trace(whiten(covariance.T)) - 2 * jnp.sum(decoder * whiten(given.output_latent))
    S2 = varies + jnp.sum(gram * given.latent_covariance) + apart @ apart
    R2 = target.neurons / 2 * jnp.log(2 * jnp.pi) + log_det
    accuracy = given.loss_error(*jax.lax.stop_gradient((gram / (2 * variance), decoder.T @ output / variance)))
    R3, moment_error = (S1 + S2) / (2 * variance), given.moment_error.max()
    return Elbo(jnp.sum(rates), R2, R3, S1, S2, T1, T2, T3, U1, U2, U3, rates, moment_error, accuracy)


@warns
@exact_products
def elbo(
    source: FeatureModel,
    layer: AbstractLayer,
    target: FeatureModel,
    encoder: AbstractEncoder,
    resolution: Resolution | None = None,
    *,
    plan: Plan | None = None,
    mesh: Mesh | None = None,
    certify: bool = False,
    moments: DenseMoments | None = None,
) -> Elbo:
    """The evidence bound of a target model on a layer's output, exact: `loss >= -E log P2(f(x1))`.

    Arguments:
        source: law of the layer's input `x1: [n1]`.
        layer: `f`, from `n1` to `n2` neurons.
        target: the model of `x2 = f(x1)`, `n2` neurons, `m2` features; its decoder is `[n2, m2]`, or `[n2, m2, K]`
            with a vector per atom.
        encoder: `Q(z2 | x2)`, of the same `m2` features; of a `DenseLayer` `Q(z2 | x1)`, or a `CarriedEncoder`.
        resolution: how fine; `Resolution()` if not given.
        plan, mesh, moments: as in `expectations`.
        certify: whether to bound the error of every term, too (`Elbo.bounds`). The bounds come from a second
            computation on grids of their own, which takes all pairs of learnt features, and of units, one by one: leave
            it out of training steps. They have no gradient, and say next to nothing for an encoder that does not know
            its `regularity`. There are none for two statistics of a `DenseLayer`'s input or beside carried features,
            and for what is learnt beside carried features of a `RidgeLayer`.

    Returns an `Elbo`: `loss`, `rate`, `distortion` and every named term. Differentiable in all arrays of all
    arguments, and jit-able. Raises `ValueError` that names the argument if the parts do not fit together, `MemoryError`
    if the grids cannot fit.

    Source: Theorem 3.1 and Figure 2 of "Analytically Learning Variational Auto-Encoders".

    >>> elbo(source, layer, target, encoder).loss
    """
    resolution = Resolution.of(resolution)
    require_instance("target", target, FeatureModel, "a FeatureModel")
    check_layer(source, layer, target)
    require_flag("certify", certify)
    parts = source, layer, target.prior.atoms, encoder, resolution, plan, moments, mesh, target.decoder.ndim == 3
    problem = Problem(*parts).checked("target")
    if certify:
        check_certificate(source, layer, target, encoder, resolution)
    found = _elbo(with_moments(problem), target)
    return certified(found, source, layer, target, encoder, resolution) if certify else found


@partial(compiled, quick=lambda problem, _: small(problem))
def _elbo(problem: Problem, target: FeatureModel) -> Elbo:
    return elbo_of(uncompiled(problem), target)


def certified(
    found: Elbo,
    source: FeatureModel,
    layer: AbstractLayer,
    target: FeatureModel,
    encoder: AbstractEncoder,
    resolution: Resolution,
) -> Elbo:
    """An `Elbo` of these arguments, however it was computed, with the bounds of its errors."""
    given = jax.lax.stop_gradient((source, layer, target, encoder))
    exact = certificate(*given, resolution)

    def bound(name):
        term = getattr(exact, name)
        error = jax.lax.stop_gradient(jnp.abs(getattr(found, name) - term.value) + term.error_bound)
        return jnp.where(jnp.isnan(error), jnp.inf, error)

    bounds = ErrorBounds(**{name: bound(name) for name in TERMS})
    return eqx.tree_at(lambda one: one.bounds, found, bounds, is_leaf=lambda leaf: leaf is None)


def _cross_entropy(aggregate: Float[Array, "m K"], log_masses: Float[Array, "m K"]) -> Float[Array, " m"]:
    occurs = aggregate != 0  # where it is not, log masses may be -inf, which has no place in a gradient either
    return -jnp.sum(jnp.where(occurs, aggregate * jnp.where(occurs, log_masses, 0), 0), axis=1)

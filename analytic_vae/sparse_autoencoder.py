"""Sparse autoencoders as encoders that are points: their expected loss, exactly and without samples."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from ._check import (
    as_floating,
    as_input,
    is_concrete,
    require_finite,
    require_instance,
    require_not_negative,
    require_precision,
    require_shape,
)
from ._jit import compiled, exact_products
from ._repr import short_repr
from ._sharding import sharded_map
from .accuracy import warns
from .laws.image import Image
from .model.activation import get_activation
from .model.compatibility import check_layer, check_ridge
from .model.conditioning import clusters_of, mean_of, over_components
from .model.feature_model import FeatureModel
from .model.layer import AbstractLayer
from .moments.budget import Batches, check_memory
from .moments.layer_moments import LayerMoments
from .moments.quadrature_rule import StatisticLaw, Varying, wandering
from .moments.reading import Reading
from .moments.statistic import Statistic
from .moments.statistic_function import StatisticFunction, latent_covariances
from .spectral.projected_law import Projection
from .spectral.resolution import Resolution
from .types import Array, ArrayLike, Float, Scalar

Kind = Literal["relu", "jumprelu"]

LOST = 3.0  # times what the last quarter of a law's frequencies still moves: those beyond it, for a mass at a kink


class SparseAutoencoder(eqx.Module):
    """`x^ = bias + sum_j e_j(y_j) d_j`, `y_j = C_j x + offset_j`, with point encoders `e_j >= 0`.

    | kind | `e_j` |
    |---|---|
    | `relu` | `max(y, 0)` |
    | `jumprelu` | `y 1{y > threshold_j}`, `threshold_j >= 0` |

    Arguments:
        readout: `C: [m, 1, n]`.
        offset: `[m, 1]`.
        decoder: `[n, m]`, columns `d_j`.
        bias: `[n]`; zero if not given.
        kind: of the encoder.
        threshold: `[m]`, of `jumprelu` alone.

    Raises `ValueError` that names the argument if a shape does not fit, a number is not finite, or a threshold is
    negative.
    """

    __repr__ = short_repr

    readout: Float[Array, "m t n"]
    offset: Float[Array, "m t"]
    decoder: Float[Array, "n m"]
    bias: Float[Array, " n"]
    threshold: Float[Array, " m"]
    kind: Kind = eqx.field(static=True)

    def __init__(
        self,
        readout: ArrayLike,
        offset: ArrayLike,
        decoder: ArrayLike,
        bias: ArrayLike | None = None,
        kind: Kind = "relu",
        threshold: ArrayLike | None = None,
    ):
        if kind not in ("relu", "jumprelu"):
            raise ValueError(f"kind: expected relu or jumprelu, got {kind!r}.")
        readout, offset, decoder = as_floating(readout=readout, offset=offset, decoder=decoder)
        require_shape("readout", readout, (None, 1, None), "features, one statistic, neurons")
        m, t, n = readout.shape
        bias = jnp.zeros(n, decoder.dtype) if bias is None else bias
        if (threshold is None) == (kind == "jumprelu"):
            raise ValueError("threshold: expected one per feature for jumprelu and none otherwise.")
        threshold = jnp.zeros(m, decoder.dtype) if threshold is None else threshold
        self.readout, self.offset, self.decoder, self.bias, self.threshold = as_floating(
            readout=readout, offset=offset, decoder=decoder, bias=bias, threshold=threshold
        )
        self.kind = kind
        require_shape("offset", self.offset, (m, t), "features, statistics of the readout")
        require_shape("decoder", self.decoder, (n, m), "neurons and features of the readout")
        require_shape("bias", self.bias, (n,), "neurons of the readout")
        require_shape("threshold", self.threshold, (m,), "features of the readout")
        for name in ("readout", "offset", "decoder", "bias", "threshold"):
            require_finite(name, getattr(self, name))
        require_not_negative("threshold", self.threshold)

    def activations(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        """`e_j(C_j x + offset_j)` for one vector; for a batch use `jax.vmap`."""
        x = as_input(x, self.decoder.shape[0], "neurons of the autoencoder")
        return jax.vmap(self._point)(self.readout @ x + self.offset, self.threshold)

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The reconstruction of `x`, one vector; for a batch use `jax.vmap`."""
        return self.bias + self.decoder @ self.activations(x)

    def _point(self, y: Float[Array, " t"], threshold: Scalar) -> Scalar:
        return jnp.where(y[0] > threshold, jax.nn.relu(y[0]), 0)


class SparseLoss(eqx.Module):
    """What a sparse autoencoder does on the output of a layer, in expectation over the source.

    Fields:
        reconstruction: `E |f - f^|^2`.
        l1: `[m]`, `E[e_j]`.
        l0: `[m]`, `P(e_j > 0)`; a feature is dead if that is 0.
        unexplained: `E |f - f^|^2 / tr Cov(f)`, the fraction of variance unexplained.
        accuracy: an estimate of how far they may be off: the reconstruction relative to itself, `l1` relative to
            `|C_j|` times the spread of f, `l0` as it is.
    """

    __repr__ = short_repr

    reconstruction: Scalar
    l1: Float[Array, " m"]
    l0: Float[Array, " m"]
    unexplained: Scalar
    accuracy: Scalar

    def __str__(self) -> str:
        if jnp.ndim(self.reconstruction) or not is_concrete(self.reconstruction):
            return repr(self)
        return (
            f"reconstruction {float(self.reconstruction):.6g}, {float(self.unexplained):.2%} of the variance; "
            f"{float(self.l0.sum()):.4g} of {self.l0.size} latents fire, sum of means {float(self.l1.sum()):.6g}; "
            f"accuracy about {float(self.accuracy):.0e}"
        )

    def loss(self, sparsity: ArrayLike) -> Scalar:
        """`reconstruction + sparsity sum_j E[e_j]`.

        Up to an affine map it is the ELBO with an exponential prior of rate mu and decoder variance rho,
        `sparsity = 2 mu rho` (Lemma 2.4 of the paper, mended): `n/2 log(2 pi rho) - m log mu + loss / (2 rho)`.
        """
        return self.reconstruction + sparsity * self.l1.sum()


@warns
@exact_products
def sparse_loss(
    source: FeatureModel, layer: AbstractLayer, autoencoder: SparseAutoencoder, resolution: Resolution | None = None
) -> SparseLoss:
    """The expected loss of a sparse autoencoder on a layer's output, without samples.

    Arguments as in `elbo`. `jumprelu`, which jumps, converges more slowly in the resolution than `relu`.
    Raises `ValueError` that names the argument if the parts do not fit together.

    Source: section 2.3 and Lemma 2.4 of "Analytically Learning Variational Auto-Encoders".
    """
    resolution = Resolution.of(resolution)
    check_layer(source, layer)
    check_ridge(layer, "whose output an autoencoder reads")
    require_instance("autoencoder", autoencoder, SparseAutoencoder, "a SparseAutoencoder")
    require_precision(autoencoder=autoencoder)
    _, t, n = autoencoder.readout.shape
    if n != layer.outputs:
        raise ValueError(f"autoencoder: expected {layer.outputs} neurons, the outputs of layer, got {n}.")
    check_memory(source, layer, (t, autoencoder.readout.shape[0], 1), resolution)
    return _sparse_loss(source, layer, autoencoder, resolution, clusters_of(source))


@compiled
def _sparse_loss(source, layer, autoencoder, resolution, clusters) -> SparseLoss:
    """An expectation given each component of the source, if it has clusters, and their mean."""
    if clusters is None:
        reconstruction, l1, mean, variance, accuracy, l1_off = _sparse_parts(source, layer, autoencoder, resolution)
    else:
        weights, sources = clusters.components(source)
        found = over_components(lambda one: _sparse_parts(one, layer, autoencoder, resolution), sources)
        reconstruction, l1, mean, variance, accuracy, l1_off = (mean_of(weights, part) for part in found)
        variance = variance + weights @ jnp.sum((found[2] - mean[None]) ** 2, axis=1)
    l0, l0_accuracy = _firing(source, layer, autoencoder, resolution)
    size = jnp.maximum(reconstruction, jnp.finfo(variance.dtype).eps ** 0.5 * variance)
    off = jnp.where(size > 0, accuracy / jnp.where(size > 0, size, 1), 0)
    some = variance > 0  # of a constant output nothing, or everything, is unexplained
    unexplained = jnp.where(
        some, reconstruction / jnp.where(some, variance, 1), jnp.where(reconstruction > 0, jnp.inf, 0)
    )
    spread = jnp.linalg.norm(autoencoder.readout[:, 0], axis=1) * jnp.sqrt(jnp.maximum(variance, 0))
    l1_off = jnp.max(jnp.where(spread > 0, l1_off / jnp.where(spread > 0, spread, 1), 0))
    accuracy = jnp.stack([off, l0_accuracy, l1_off]).max()
    return SparseLoss(reconstruction, l1, l0, unexplained, jax.lax.stop_gradient(accuracy))


def _firing(source, layer, autoencoder, resolution):
    """P(e_j > 0) of every latent, from the law of its statistic as an image: jumps and atoms cost nothing there."""
    form = layer.read_form()

    def one_latent(given):
        readout, offset, threshold = given
        rows = readout @ form.linear
        bias = readout @ form.offset + offset
        if form.activation is None:
            law, factors, functions = Projection.of(source, rows, bias), jnp.ones((1, 1), rows.dtype), ("identity",)
        else:
            law = Projection.of(
                source, jnp.concatenate([form.direction[None], rows]), jnp.append(form.bias[None], bias)
            )
            factors = jnp.stack([readout @ form.output, jnp.ones(1, rows.dtype)], axis=1)
            functions = form.activation, "identity"
        image = Image.of(law, factors, tuple(map(get_activation, functions)), resolution.frequencies, still=False)
        return image.tail(threshold[None], False), image.accuracy

    threshold = autoencoder.threshold if autoencoder.kind == "jumprelu" else jnp.zeros_like(autoencoder.threshold)
    l0, accuracy = jax.lax.map(jax.checkpoint(one_latent), (autoencoder.readout, autoencoder.offset, threshold))
    return l0, accuracy.max()


def _sparse_parts(source, layer, autoencoder, resolution):
    """Reconstruction, `E e: [m]`, mean and total variance of f; how far reconstruction and means may be off."""
    t = autoencoder.readout.shape[1]
    reading = Reading.of(source, layer, resolution, resolution.law_atoms)
    source, axis = reading.source, reading.axis
    grid = axis.law_grid(resolution, t)
    pair_grid = axis.pair_grid(resolution)

    def one_feature(everywhere, readout, offset, threshold):
        reading, grid, covariance = everywhere
        statistic = Statistic.of(reading, readout, aligned=True)
        kinks = (threshold if autoencoder.kind == "jumprelu" else 0) - offset
        law = StatisticLaw.of(statistic, grid, resolution, kinks[:, None])
        nodes = law.nodes
        varying = Varying.of(statistic, nodes, lambda y: autoencoder._point(y + offset, threshold)[None])
        tangent = varying.base[0], varying.derivative[0]
        latent = StatisticFunction.of(reading, law, varying.values[:, 0], tangent)
        e = varying.values - (nodes.weights @ varying.values)[None]
        lost = wandering(law, jnp.concatenate([e, e**2], axis=1))
        return latent, nodes.moment_error(statistic, readout @ covariance @ readout.T), lost

    arguments = (autoencoder.readout, autoencoder.offset, autoencoder.threshold)
    batches = Batches.of(source, (t, len(autoencoder.readout), 1), axis.linear, resolution)
    moments = LayerMoments.of_ridge(source, reading.form, axis)
    mean, covariance = moments.output()
    given = reading, grid, covariance
    latents, moment_error, lost = sharded_map(one_feature, given, arguments, batch=batches.laws)
    found = latent_covariances(source, moments, autoencoder.readout, latents, pair_grid, batches.pairs)
    offset = mean - autoencoder.bias - autoencoder.decoder @ latents.mean
    explained = moments.form.mapped(found.input_latent, found.psi_latent)
    gram = autoencoder.decoder.T @ autoencoder.decoder
    missed = jnp.trace(covariance) - 2 * jnp.sum(autoencoder.decoder * explained) + jnp.sum(gram * found.latent)
    reconstruction = missed + jnp.sum(offset**2)
    # Each column d_j multiplies e_j beside f - f^: what a mean, and a mean square, lacks counts that often.
    decoded = jnp.einsum("nj,nl,lj->j", autoencoder.decoder, covariance, autoencoder.decoder)
    extra = jnp.abs(offset @ autoencoder.decoder) + jnp.sqrt(jnp.maximum(decoded, 0))
    lacking = LOST * jnp.sum(2 * extra * lost[:, 0] + jnp.diagonal(gram) * lost[:, 1])
    pairs = jnp.sum(jnp.abs(gram) * jnp.outer(latents.remainder, latents.remainder))
    accuracy = pairs + lacking + jnp.maximum(moment_error.max(), axis.moment_error) * jnp.abs(reconstruction)
    return reconstruction, latents.mean, mean, jnp.trace(covariance), accuracy, LOST * lost[:, 0]

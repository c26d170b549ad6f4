"""The loss on real rows: what a model and an encoder make of data, not of the law that they were learnt from."""

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._check import (
    is_concrete,
    real_array,
    require_count,
    require_finite,
    require_instance,
    require_precision,
    require_shape,
)
from ._jit import compiled, exact_products
from ._repr import short_repr
from .model.carried_encoder import CarriedEncoder
from .model.compatibility import check_atoms, check_noise
from .model.encoder import AbstractEncoder, encode
from .model.feature_model import FeatureModel, whitening
from .types import Array, ArrayLike, Float, Scalar

BATCH = 4096  # rows that are computed together


class Score(eqx.Module):
    """The loss of rows of data in nats, and how far its mean is known. Like `Elbo.loss` it is the *negative* bound.

    Fields:
        losses: `[rows]`, `-ELBO` of each row: `rates + R2 + distortions`, at least `-log P(row)` of the model. Rows
            with the largest are those that the model explains worst.
        rates: `[rows]`, `sum_j KL(Q_j || P_j)`.
        distortions: `[rows]`, `E |row - mean - B z|^2 / (2 sigma^2)`, whitened as in `Elbo`.
        R2: `1/2 log det(2 pi S)`, the same for all rows.
    """

    __repr__ = short_repr

    losses: Float[Array, " rows"]
    rates: Float[Array, " rows"]
    distortions: Float[Array, " rows"]
    R2: Scalar

    @property
    def loss(self) -> Scalar:
        """The mean of `losses`: over draws of a layer's output its expectation is `Elbo.loss`."""
        return self.losses.mean()

    @property
    def rate(self) -> Scalar:
        """The mean of `rates`."""
        return self.rates.mean()

    @property
    def distortion(self) -> Scalar:
        """The mean of `distortions`."""
        return self.distortions.mean()

    @property
    def standard_error(self) -> Scalar:
        """Of `loss`, if rows are independent: `std(losses) / sqrt(rows)`; NaN for a single row."""
        rows = self.losses.size
        apart = self.losses - self.loss
        return jnp.sqrt(jnp.sum(apart**2) / (rows - 1) / rows) if rows > 1 else jnp.full_like(self.loss, jnp.nan)

    def __str__(self) -> str:
        if self.losses.ndim != 1 or not is_concrete(self.losses):
            return repr(self)
        return (
            f"loss {float(self.loss):.6f} +- {float(self.standard_error):.1e} nats (standard error of "
            f"{self.losses.size} rows) = rate {float(self.rate):.6f} + R2 {float(self.R2):.6f} + distortion "
            f"{float(self.distortion):.6f}"
        )


def score(
    model: FeatureModel,
    encoder: AbstractEncoder,
    data: ArrayLike,
    inputs: ArrayLike | None = None,
    *,
    batch: int = BATCH,
) -> Score:
    """The loss of a model and an encoder on rows of data, row by row, exact given the row: latents are not sampled.

    `elbo` has its expectation over the pushforward of the source. Where the mean of a layer's true activations is
    higher by more than its standard error, the law that was learnt from is not that of the data.

    Arguments:
        model: of the rows, `n2` neurons; with noise in every direction.
        encoder: `Q(z | row)`, of the model's features. Not a `CarriedEncoder`: it hands on the states of the source's
            features, which no row shows.
        data: `[rows, n2]`, rows of the layer's output; an array of NumPy may be larger than the device.
        inputs: `[rows, n1]`, rows of the layer's input, for an encoder that reads it: that of a `DenseLayer`. Without
            them it is an error, but where a layer has as many inputs as outputs: nothing tells such an encoder from
            one that reads the output, and the score would be that of a wrong encoder.
        batch: how many rows are computed together.

    Returns a `Score`: `loss` (`-ELBO`, in nats, as in `Elbo`), its `standard_error`, the terms, and all of that for
    each row. Inside of jit, grad and vmap, too. Raises `ValueError` or `TypeError` that names the argument.

    Source: the integrand of Theorem 3.1 of "Analytically Learning Variational Auto-Encoders".

    >>> print(score(target, encoder, jnp.zeros((5, 2))))
    """
    require_instance("model", model, FeatureModel, "a FeatureModel")
    require_precision(model=model, encoder=encoder)
    check_noise("model", model)
    require_count("batch", batch)
    rows = (_rows("data", data, model.neurons, "neurons of model"),)
    _check_encoder(model, encoder, inputs is not None)
    if inputs is not None:
        rows += (_rows("inputs", inputs, encoder.readout.shape[2], "neurons that encoder reads"),)
        if len(rows[1]) != len(rows[0]):
            raise ValueError(f"inputs: expected {len(rows[0])} rows, as many as data, got {len(rows[1])}.")
    if all(map(is_concrete, jax.tree.leaves((model, encoder, rows)))):
        parts = [np.concatenate(part) for part in zip(*_in_batches(model, encoder, rows, batch), strict=True)]
        rates, distortions = map(jnp.asarray, parts)
    else:
        rows = tuple(jnp.asarray(array, model.mean.dtype) for array in rows)
        one = lambda row: _terms(model, encoder, row[0], row[-1])  # noqa: E731
        rates, distortions = jax.lax.map(one, rows, batch_size=min(batch, rows[0].shape[0]))
    R2 = model.neurons / 2 * jnp.log(2 * jnp.pi) + whitening(model)[2]
    return Score(rates + R2 + distortions, rates, distortions, R2)


def _rows(name: str, rows: ArrayLike, neurons: int, meaning: str) -> Array | np.ndarray:
    """As they are, if they are rows of so many finite numbers."""
    rows = rows if isinstance(rows, jax.Array) else real_array(name, np.asarray(rows))
    require_shape(name, rows, (None, neurons), f"rows, {meaning}")
    require_finite(name, rows)
    return rows


def _check_encoder(model: FeatureModel, encoder: AbstractEncoder, reads_input: bool) -> None:
    require_instance("encoder", encoder, AbstractEncoder, "an encoder (SoftmaxEncoder, ...)")
    if isinstance(encoder, CarriedEncoder):
        raise TypeError(
            "encoder: expected one that reads rows, got a CarriedEncoder, which hands on the states of the source's "
            "features: no row shows them, so that its loss is that of the source alone (av.elbo)."
        )
    if not reads_input and encoder.readout.shape[2] != model.neurons:
        raise ValueError(
            f"inputs: expected rows of the {encoder.readout.shape[2]} neurons that encoder reads (of a DenseLayer its "
            f"input), as they are not the {model.neurons} of model, got None."
        )
    check_atoms(encoder, model.prior.atoms, "model")


def _in_batches(model, encoder, rows, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rates and distortions of so many rows at a time; the last rows are filled up, so that one program does."""
    count = rows[0].shape[0]
    size = min(batch, count)
    for begin in range(0, count, size):
        part = tuple(jnp.asarray(_filled(array[begin : begin + size], size), model.mean.dtype) for array in rows)
        rates, distortions = (np.asarray(found)[: count - begin] for found in _of_batch(model, encoder, part))
        yield rates, distortions


def _filled(array, size: int):
    missing = size - array.shape[0]
    return array if not missing else np.concatenate([array, np.repeat(np.asarray(array[-1:]), missing, axis=0)])


@compiled
def _of_batch(model, encoder, rows: tuple[Array, ...]) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    return jax.vmap(lambda row: _terms(model, encoder, row[0], row[-1]))(rows)


@exact_products
def _terms(model: FeatureModel, encoder: AbstractEncoder, row: Float[Array, " n2"], read) -> tuple[Scalar, Scalar]:
    """Rate and distortion of a row, of which, or of whose input, the encoder reads."""
    prior, (whiten, variance, _) = model.prior, whitening(model)
    y = jnp.einsum("mtn,n->mt", encoder.readout, read)
    log_q = encode(encoder, y[:, None], prior.atoms)[:, 0]
    q = jnp.exp(log_q)
    rate = jnp.sum(jnp.where(q > 0, q * (log_q - jnp.where(q > 0, prior.log_masses, 0)), 0))
    if model.decoder.ndim == 2:
        decoder, mean = whiten(model.decoder), jnp.sum(q * prior.atoms, axis=1)
        spread = jnp.sum(q * (prior.atoms - mean[:, None]) ** 2, axis=1) @ jnp.sum(decoder**2, axis=0)
        apart = whiten(row - model.mean) - decoder @ mean
    else:
        middle = jnp.mean(model.decoder, axis=2)
        vectors = whiten((model.decoder - middle[:, :, None]).reshape(model.neurons, -1))
        vectors = vectors.reshape(model.decoder.shape)
        means = jnp.einsum("nmk,mk->nm", vectors, q)
        spread = jnp.sum(q * jnp.sum(vectors**2, axis=0)) - jnp.sum(means**2)
        apart = whiten(row - model.mean - middle.sum(axis=1)) - means.sum(axis=1)
    return rate, (apart @ apart + spread) / (2 * variance)

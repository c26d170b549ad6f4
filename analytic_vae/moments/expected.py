"""What the loss needs to know of the source, the layer and the encoder, as numbers."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .._check import is_concrete
from .._repr import short_repr
from ..model.matrices import diagonal
from ..types import Array, Float, Scalar
from .layer_moments import LayerMoments

# Of pairs, moment errors and lost frequencies, in nats: set against 600 losses of the benchmarks and 230 of sharp
# encoders.
FACTORS = (2.0, 3.0, 6.0)


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
    | `input_latent`, `psi_latent` | `Cov(x1, s)`, `Cov(psi, s)` | `[n1, C]`, `[h, C]` |
    | `aggregate` | `E[Q_j(a_jk | y_j)]`, the aggregate posterior | `[m2, K]` |
    | `entropy` | `E[-sum_k Q_jk log Q_jk]` in nats | `[m2]` |
    | `remainder` | L2 norm of what series leave out of `s` | `[C]` |
    | `moment_error` | how far mass, mean and variance of each law on its box are from the exact ones | `[m2]` |
    | `band_error` | what the last frequencies of each law still add to expectations of its tables, at most | `[m2]` |
    | `series_error` | an estimate of what series leave out of covariances of codes | `[C, C]` |
    | `series_error_psi` | the same of covariances of `psi` and codes | as `psi_latent` |
    | `vectors` | whether there is a vector per atom | |
    """

    __repr__ = short_repr

    layer: LayerMoments
    latent_mean: Float[Array, " C"]
    latent_covariance: Float[Array, "C C"]
    latent_noise: Float[Array, "C C"]
    input_latent: Float[Array, "n1 C"]
    psi_latent: Float[Array, "h C"]
    aggregate: Float[Array, "m2 K"]
    entropy: Float[Array, " m2"]
    remainder: Float[Array, " C"]
    moment_error: Float[Array, " m2"]
    band_error: Float[Array, " m2"]
    series_error: Float[Array, "C C"]
    series_error_psi: Float[Array, "h C"]
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
        pairs = jnp.sqrt(jnp.sum((gram * series_error) ** 2) + jnp.sum((cross.T * psi) ** 2))
        sizes = jnp.stack([pairs, jnp.max(moment_error, initial=0), jnp.sum(band_error)])
        return sizes @ jnp.asarray(FACTORS, sizes.dtype)

    @property
    def accuracy(self) -> Scalar:
        """An estimate of how far expectations and covariances may be off, relative to their spreads."""
        series_error, moment_error, band_error = jax.lax.stop_gradient(
            (self.series_error, self.moment_error, self.band_error)
        )
        variance = jax.lax.stop_gradient(diagonal(self.latent_covariance))
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
        return diagonal(self.latent_noise)

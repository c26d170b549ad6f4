"""The feature model: a sum of independent discrete features plus Gaussian noise."""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._check import (
    as_floating,
    is_concrete,
    require_drawable,
    require_finite,
    require_instance,
    require_key,
    require_not_negative,
    require_precision,
    require_shape,
)
from .._repr import short_repr
from ..plots.axes import panels
from ..plots.features import MainDirections, draw_atoms, draw_directions
from ..types import Array, ArrayLike, Float, PRNGKeyArray
from .matrices import diagonal, lower_triangular, with_diagonal
from .prior import Prior


class FeatureModel(eqx.Module):
    """The law of `x = mean + B z + noise`, with `z` from a `Prior` and Gaussian noise of covariance `S`.

    Arguments:
        prior: the law of the `m` features.
        decoder: `B: [n, m]`, a direction per feature that its atoms scale; or `[n, m, K]`, a vector per atom.
        noise: a standard deviation (scalar: `S = noise^2 I`), `[n]` standard deviations (`S` diagonal), or an
            `[n, n]` lower-triangular factor `L` (`S = L L'`). Not negative (the factor: on its diagonal); a target of
            a fit or a loss needs positive noise.
        mean: `[n]`; zero if not given.

    Raises `ValueError` that names the argument if a shape does not fit, a number is not finite, or a noise is
    negative. With little or no noise many frequencies are needed: ask for the bounds (`elbo(certify=True)`).

    Source: P1(x1 | z1) of "Analytically Learning Variational Auto-Encoders", section 2.4 (there `S = sigma^2 I`).

    >>> model = FeatureModel(Prior.bernoulli([0.3, 0.3]), jnp.eye(2), 0.2)
    >>> mean, covariance = model.moments()
    """

    __repr__ = short_repr

    prior: Prior
    decoder: Array
    noise: Array
    mean: Float[Array, " n"]

    def __init__(self, prior: Prior, decoder: ArrayLike, noise: ArrayLike, mean: ArrayLike | None = None):
        require_instance("prior", prior, Prior, "a Prior")
        features, atoms = prior.atoms.shape
        decoder, noise = as_floating(decoder=decoder, noise=noise)
        if decoder.ndim == 3:
            require_shape("decoder", decoder, (None, features, atoms), "neurons, features, atoms")
        else:
            require_shape("decoder", decoder, (None, features), "neurons, features of the prior")
        neurons = decoder.shape[0]
        mean = jnp.zeros(neurons, decoder.dtype) if mean is None else mean
        dtype = jnp.result_type(prior.atoms, decoder, noise)
        self.prior = jax.tree.map(lambda leaf: leaf.astype(dtype), prior)
        self.decoder, self.noise, self.mean = (
            jnp.asarray(a, dtype) for a in as_floating(decoder=decoder, noise=noise, mean=mean)
        )
        require_shape("mean", self.mean, (neurons,), "neurons of the decoder")
        for name in ("decoder", "noise", "mean"):
            require_finite(name, getattr(self, name))
        _check_noise(self.noise, neurons)

    @property
    def neurons(self) -> int:
        """`n`."""
        return self.decoder.shape[0]

    @property
    def features(self) -> int:
        """`m`."""
        return self.prior.atoms.shape[0]

    @property
    def atom_vectors(self) -> Float[Array, "n m K"]:
        """What each feature adds to `x` in each of its states: `B_j a_jk`."""
        if self.decoder.ndim == 3:
            return self.decoder
        return jnp.einsum("nm,mk->nmk", self.decoder, self.prior.atoms)

    @property
    def covariance(self) -> Float[Array, "n n"]:
        """The covariance `S` of the noise alone."""
        if self.noise.ndim == 2:
            return self.noise @ self.noise.T
        return with_diagonal(self.noise**2, self.neurons)

    def moments(self) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
        """Mean `[n]` and covariance `[n, n]` of `x`, exact."""
        require_precision(model=self)
        masses, vectors = self.prior.masses, self.atom_vectors
        feature_means = jnp.einsum("nmk,mk->nm", vectors, masses)
        centred = vectors - feature_means[:, :, None]
        covariance = jnp.einsum("nmk,mk,lmk->nl", centred, masses, centred) + self.covariance
        return self.mean + feature_means.sum(axis=1), covariance

    def written_out(self) -> "FeatureModel":
        """The same law with a vector per atom, `[n, m, K]`, and a factor of the noise, `[n, n]`."""
        if self.decoder.ndim == 3 and self.noise.ndim == 2:
            return self
        return _written_out(self)

    def project(self, matrix: ArrayLike) -> "FeatureModel":
        """The law of `G x`, `G: [D, n]`: again a feature model, with decoder `G B` and noise covariance `G S G'`.

        The noise of the result is a `[D, D]` lower-triangular factor, singular if `G` has dependent rows.
        """
        require_precision(model=self)
        (matrix,) = as_floating(matrix=matrix)
        require_shape("matrix", matrix, (None, self.neurons), "projections, neurons of the model")
        require_finite("matrix", matrix)
        factor = self.noise if self.noise.ndim == 2 else with_diagonal(self.noise, self.neurons)
        parts = (
            jnp.tensordot(matrix, self.decoder, axes=1),
            lower_triangular(matrix @ factor),
            matrix @ self.mean,
        )
        return eqx.tree_at(lambda model: (model.decoder, model.noise, model.mean), self, parts)

    def shift(self, offset: Float[Array, " n"]) -> "FeatureModel":
        """The law of `x + offset`."""
        (checked,) = as_floating(offset=offset)
        require_shape("offset", checked, (self.neurons,), "neurons of the model")
        return eqx.tree_at(lambda model: model.mean, self, self.mean + jnp.asarray(offset))

    def given(self, states: Mapping[int, ArrayLike]) -> "FeatureModel":
        """The law of `x` given the states of some features: what it is if feature 0 is on, say.

        Features are independent, so the others, the noise and all shapes stay as they are; the mass of a given state
        becomes 1. What was compiled for this model is used for that one, too, and features keep their numbers.

        Arguments:
            states: feature (`0` to `m - 1`) to state (`0` to `K - 1`, the index of its atom); a state may be traced.

        Raises `ValueError` or `TypeError` that names `states` if there is no such feature or state, or a state has a
        mass of zero.

        >>> source.given({0: 1}).moments()[0]  # E[x | z_0 = its second atom]
        """
        if not isinstance(states, Mapping):
            raise TypeError(f"states: expected a dictionary of features and their states, got {type(states).__name__}.")
        (m, K), kept = self.prior.logits.shape, jnp.ones(self.prior.logits.shape, bool)
        for feature, state in states.items():
            _check_index("a feature", feature, m)
            if is_concrete(state):
                _check_index(f"a state of feature {feature}", state, K)
                if is_concrete(self.prior.logits) and np.isneginf(
                    np.asarray(self.prior.logits)[int(feature), int(state)]
                ):
                    raise ValueError(f"states: expected states that occur, got {feature}: {state}, of mass zero.")
            kept = kept.at[int(feature)].set(jnp.arange(K) == state)
        return eqx.tree_at(lambda model: model.prior, self, self.prior.among(kept))

    def sample(self, key: PRNGKeyArray, shape: int | Sequence[int] = ()) -> Float[Array, "*shape n"]:
        """Independent draws of `x`, of the given leading shape; a number `k` is the shape `(k,)`.

        Raises `TypeError` if `key` is not one key, such as `jax.random.key(0)`, or `shape` no integers, `ValueError` if
        one of these is negative.
        """
        require_key("key", key)
        shape = _as_shape(shape)
        count = math.prod(shape)
        keys = jax.random.split(key, count)
        return jax.vmap(self._draw)(keys).reshape(*shape, self.neurons)

    def plot(self, ax: Any = None) -> Any:
        """Draw the features with matplotlib: their atoms and masses, and their directions as a heat map.

        At most twelve, those with the largest shares of the variance (noise included). All is in spreads (standard
        deviations) of each feature along its line: the direction that its atoms scale, or with a vector per atom the
        first principal component of these vectors.

        Arguments:
            ax: two axes; a new figure if not given.

        Returns the axes `[2]`. Raises `TypeError` or `ValueError` if `ax` is something else, `ImportError` without
        matplotlib.

        >>> axes = source.plot()
        """
        shown, axes = self.main_directions().largest(), panels(ax, 2)
        draw_atoms(axes[0], shown, np.asarray(self.prior.masses)[shown.numbers])
        draw_directions(axes[1], shown)
        axes[1].set_ylabel("")
        return axes

    def main_directions(self) -> MainDirections:
        """The line along which each feature moves the neurons most, its share of the variance, its atoms on that line.

        Returns `directions [n, m]`, `shares [m]`, `places [m, K]`, in NumPy. See `plot`.

        >>> source.main_directions().shares
        """
        require_drawable("model", self.mean, 1)
        return MainDirections.of(self.prior.atoms, self.prior.masses, self.decoder, self.noise)

    def _draw(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        feature_key, noise_key = jax.random.split(key)
        states = jax.random.categorical(feature_key, self.prior.log_masses)
        noise = jax.random.normal(noise_key, (self.neurons,), self.mean.dtype)
        noise = self.noise @ noise if self.noise.ndim == 2 else self.noise * noise
        features = jnp.arange(self.features)
        if self.decoder.ndim == 3:
            return self.mean + self.decoder[:, features, states].sum(axis=1) + noise
        return self.mean + self.decoder @ self.prior.atoms[features, states] + noise


def decoder_matrix(target: FeatureModel) -> tuple[Float[Array, "n C"], Float[Array, " n"]]:
    """What multiplies the codes of a target's features, and what joins the mean.

    A direction per feature multiplies its value. Of a vector per atom the first joins the mean, and the others less it
    multiply the indicators of their atoms.
    """
    decoder = target.decoder
    if decoder.ndim == 2:
        return decoder, jnp.zeros_like(target.mean)
    first = decoder[:, :, :1]
    return (decoder[:, :, 1:] - first).reshape(target.neurons, -1), first[:, :, 0].sum(axis=1)


def whitening(target: FeatureModel):
    """`a -> sigma L^-1 a` for noise `S = L L'`, with `sigma^2 = det(S)^(1/n)`; `sigma^2`; and `log det L`.

    What is whitened so has the noise `sigma^2 I` in the units of the neurons; scalar noise is left as it is.
    """
    noise = target.noise
    if noise.ndim == 0:
        return (lambda a: a), noise**2, target.neurons * jnp.log(noise)
    if noise.ndim == 1:
        log_det = jnp.log(noise).sum()
        sigma = jnp.exp(log_det / target.neurons)
        return (lambda a: a * (sigma / noise if a.ndim == 1 else (sigma / noise)[:, None])), sigma**2, log_det
    log_det = jnp.log(jnp.abs(diagonal(noise))).sum()
    sigma = jnp.exp(log_det / target.neurons)
    solve = lambda a: sigma * jax.scipy.linalg.solve_triangular(noise, a, lower=True)  # noqa: E731
    return solve, sigma**2, log_det


@eqx.filter_jit
def _written_out(model: FeatureModel) -> FeatureModel:
    noise = model.noise
    factor = noise if noise.ndim == 2 else with_diagonal(noise, model.neurons)
    return eqx.tree_at(lambda one: (one.decoder, one.noise), model, (model.atom_vectors, factor))


def _check_index(what: str, index: ArrayLike, count: int) -> None:
    """Raise an error that names `states` unless there is such a feature or state."""
    array = np.asarray(index)
    if array.ndim or array.dtype.kind not in "iu":
        raise TypeError(f"states: expected {what} as an integer, got {index!r}.")
    if not 0 <= array < count:
        raise ValueError(f"states: expected {what} from 0 to {count - 1}, got {index}.")


def _as_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    try:
        lengths = tuple(operator.index(length) for length in (shape if isinstance(shape, Sequence) else (shape,)))
    except TypeError as error:
        raise TypeError(f"shape: expected an integer or a tuple of integers, got {shape!r}.") from error
    if min(lengths, default=0) < 0:
        raise ValueError(f"shape: expected integers of at least 0, got {shape!r}.")
    return lengths


def _check_noise(noise: Array, neurons: int) -> None:
    if noise.ndim == 2:
        require_shape("noise", noise, (neurons, neurons), "a lower-triangular factor; neurons of the decoder twice")
        require_not_negative("noise (the diagonal of its factor)", diagonal(noise))
        if is_concrete(noise) and np.any(np.triu(np.asarray(noise), 1) != 0):
            raise ValueError(
                "noise: expected a lower-triangular factor L of the covariance L L', got entries above the diagonal. "
                "For a covariance matrix pass jnp.linalg.cholesky(covariance)."
            )
        return
    if noise.ndim > 0:
        require_shape("noise", noise, (neurons,), "a scalar, a standard deviation per neuron, or a factor [n, n]")
    require_not_negative("noise", noise)

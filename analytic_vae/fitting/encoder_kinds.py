"""The encoders that a fit can begin with: a row of `ENCODERS` each.

All read each feature of a guess as if all the rest of `f` were Gaussian. The evidence for `z_j = a` is then
`a y - kappa a^2 / 2`, with the matched filter `y = B_j' Sigma_-j^-1 (f - mean_-j)` and `kappa = B_j' Sigma_-j^-1 B_j`;
`Sigma_-j` and `mean_-j` are of `f` without feature j. A second statistic is a direction drawn at random.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._jit import always, compiled, exact_products
from ..model.encoder import AbstractEncoder, ExponentialEncoder, GaussianEncoder, NeuralEncoder, SoftmaxEncoder
from ..types import Array, Float, PRNGKeyArray
from .guess import Guess

SECOND = 0.1  # size of the second statistic's readout, relative to the first: enough to break the symmetry

OVERLAP = 0.98  # share of its own variance that is taken out of the rest of f: with some left that stays regular

FLOOR = 1e-2  # of the mean eigenvalue of the rest, below which none is believed


class Filters(NamedTuple):
    """The evidence of each feature, `a y - kappa a^2 / 2` with `y = readout f + offset`; and a second readout."""

    guess: Guess
    readout: Float[Array, "m2 n2"]
    offset: Float[Array, " m2"]
    kappa: Float[Array, " m2"]
    second: Float[Array, "m2 n2"]
    key: PRNGKeyArray

    @property
    def base(self) -> Float[Array, "m2 K"]:
        """Log masses at `y = 0`."""
        atoms = self.guess.atoms
        evidence = self.offset[:, None] * atoms - self.kappa[:, None] * atoms**2 / 2
        return jnp.log(jnp.maximum(self.guess.masses, 1e-12)) + evidence


class Kind(NamedTuple):
    """How many statistics an encoder may read, and how it begins with so many."""

    statistics: tuple[int, ...]
    make: Callable[[Filters, int], AbstractEncoder]


def _softmax(filters: Filters, statistics: int) -> AbstractEncoder:
    atoms, readout = filters.guess.atoms, filters.readout
    if statistics == 1:
        return SoftmaxEncoder(readout[:, None], atoms[:, None], filters.base)
    centred = atoms - atoms.mean(axis=1, keepdims=True)
    scaled = centred / jnp.max(jnp.abs(centred), axis=1, keepdims=True)
    readout = jnp.stack([readout, filters.second], 1)
    return SoftmaxEncoder(readout, jnp.stack([atoms, scaled**2], 1), filters.base)


def _gaussian(filters: Filters, statistics: int) -> AbstractEncoder:
    atoms, masses = filters.guess.atoms, filters.guess.masses
    mean = jnp.sum(masses * atoms, axis=1)
    variance = jnp.maximum(jnp.sum(masses * (atoms - mean[:, None]) ** 2, axis=1), 1e-12)
    posterior = 1 / (filters.kappa + 1 / variance)
    linear, constant = posterior[:, None] * filters.readout, posterior * (filters.offset + mean / variance)
    log_scale = jnp.log(posterior) / 2
    if statistics == 1:
        return GaussianEncoder(linear[:, None], constant, log_scale)
    second = filters.second * jnp.sqrt(posterior)[:, None]
    return GaussianEncoder(jnp.stack([linear, second], 1), constant, log_scale)


def _exponential(filters: Filters, _: int) -> AbstractEncoder:
    return ExponentialEncoder(-filters.readout[:, None], -filters.offset)


def _neural(filters: Filters, _: int) -> AbstractEncoder:
    guess, readout = filters.guess, filters.readout
    spread = jnp.sqrt(jnp.maximum(jnp.einsum("jn,nl,jl->j", readout, guess.covariance, readout), 1e-12))
    return NeuralEncoder.init((readout / spread[:, None])[:, None], guess.atoms.shape[1], key=filters.key)


ENCODERS = {
    "softmax": Kind((1, 2), _softmax),
    "gaussian": Kind((1, 2), _gaussian),
    "exponential": Kind((1,), _exponential),
    "neural": Kind((1,), _neural),
}


@exact_products
def initial_encoder(kind: str, statistics: int, guess: Guess, *, key: PRNGKeyArray) -> AbstractEncoder:
    """The encoder of that kind, which reads so many statistics, for a guess."""
    return _initial(kind, statistics, guess, key)


@partial(compiled, quick=always)
def _initial(kind: str, statistics: int, guess: Guess, key: PRNGKeyArray) -> AbstractEncoder:
    readout, offset, kappa = _matched_filters(guess)
    noise = jax.random.normal(key, readout.shape, readout.dtype)
    second = SECOND * noise * jnp.linalg.norm(readout, axis=1, keepdims=True) / readout.shape[1] ** 0.5
    return ENCODERS[kind].make(Filters(guess, readout, offset, kappa, second, key), statistics)


def _matched_filters(guess: Guess) -> tuple[Float[Array, "m2 n2"], Float[Array, " m2"], Float[Array, " m2"]]:
    prior_mean = jnp.sum(guess.masses * guess.atoms, axis=1)
    variance = jnp.sum(guess.masses * (guess.atoms - prior_mean[:, None]) ** 2, axis=1)
    n = guess.mean.size
    floor = 1e-4 * jnp.trace(guess.covariance) / n * jnp.eye(n, dtype=guess.mean.dtype)

    def one(column, spread, centre):
        others = guess.covariance + floor - OVERLAP * spread * jnp.outer(column, column)
        # Features and rest overlap only roughly: keep the matrix positive whatever the guess.
        values, vectors = jnp.linalg.eigh(others)
        readout = vectors @ ((vectors.T @ column) / jnp.maximum(values, FLOOR * values.mean()))
        return readout, -readout @ (guess.mean - column * centre), readout @ column

    return jax.vmap(one)(guess.decoder.T, variance, prior_mean)

"""Fourier series on a box: every frequency convention of the package stands here."""

import itertools
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf

from ..types import Array, Complex, Float
from .characteristic import waves

MARGIN = 0.12  # of the box, per side, in which the window falls from 1 to 0


class Series(eqx.Module):
    """A function of the standardised statistics as `g(y'') ~ Re sum_p coefficients_p exp(i <frequency_p, y''>)`.

    `shorter`, where it is wanted, are the coefficients of the series without the highest frequencies.
    """

    frequency: Float[Array, "F t"]
    coefficients: Complex[Array, " F"]
    shorter: Complex[Array, " F"] | None = None


@cache
def half_space(order: int, dimension: int) -> np.ndarray:
    """Integer vectors `[F, dimension]` of length at most `order`, one of each pair `+p, -p`, the zero vector first."""
    vectors = itertools.product(range(-order, order + 1), repeat=dimension)
    inside = [v for v in vectors if v > (0,) * dimension and sum(p * p for p in v) <= order * order]
    return np.array([(0,) * dimension, *sorted(inside, key=lambda v: sum(p * p for p in v))], dtype=float)


@cache
def half_grid(order: int, dimension: int) -> np.ndarray:
    """Integer vectors `[.., dimension]` of the tensor grid with the last index not negative."""
    axes = [np.arange(-order, order + 1)] * (dimension - 1) + [np.arange(order + 1)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dimension).astype(float)


def real_basis(phase: Float[Array, "Q F"]) -> Float[Array, "Q E"]:
    """`1, cos, sin` of the phases of a half-space whose first frequency is zero."""
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase[:, 1:])], axis=1)


def half_coefficients(real: Float[Array, "E *rest"]) -> Complex[Array, "F *rest"]:
    """Coefficients of `1, cos, sin` as the `gamma_p` of `Re sum gamma_p exp(i w_p y)`."""
    order = (real.shape[0] - 1) // 2
    cosine, sine = real[: order + 1], real[order + 1 :]
    return jax.lax.complex(cosine, jnp.pad(-sine, ((1, 0),) + ((0, 0),) * (sine.ndim - 1)))


def full_coefficients(half: Complex[Array, "F *rest"]) -> Complex[Array, "E *rest"]:
    """The same series over all frequencies, in the order of `full_frequencies`: `sum_q gamma_q exp(i w_q y)`."""
    return jnp.concatenate([half[:1], half[1:] / 2, jnp.conj(half[1:]) / 2])


def full_frequencies(half: Float[Array, "F *rest"]) -> Float[Array, "E *rest"]:
    """A half-space and the negatives of all but its first, zero, frequency."""
    return jnp.concatenate([half, -half[1:]])


def full_operator(real: Float[Array, "E Q"]) -> Complex[Array, "E Q"]:
    """From values (also complex ones) at nodes to the coefficients of `exp(i w_q y)`, all frequencies."""
    return full_coefficients(half_coefficients(real))


def window(v: Float[Array, " Q"], order: int) -> Float[Array, " Q"]:
    """1 on the inner part of the box `[0, 1]`, falling smoothly to 0 over `MARGIN` at each end.

    It makes the periodic continuation smooth, so a series converges even where no noise makes `phi` decay. The fall
    is an error function whose steepness balances the jump left at the end of the box, `exp(-s^2)`, against what lies
    beyond the highest frequency, `exp(-(pi MARGIN order / s)^2 / 4)`.
    """
    steepness = _steepness(order)
    nearer = jnp.minimum(v, 1 - v)  # of the other end the error function is 1 to rounding
    return (1 + jax.scipy.special.erf(steepness * (2 / MARGIN * nearer - 1))) / 2


def _steepness(order: int) -> float:
    return float(np.clip(np.pi * MARGIN * order / 2, 3, 32)) ** 0.5


@cache
def _periodic_window(order: int) -> np.ndarray:
    """`window` at the nodes of `periodic_rule`."""
    v = periodic_rule(order)[0]
    return (1 + erf(_steepness(order) * (2 / MARGIN * np.minimum(v, 1 - v) - 1))) / 2


def periodic_weights(phi: Complex[Array, " W"], order: int, dimension: int) -> Float[Array, "*Q"]:
    """Weights of a law of some statistics at the nodes of `periodic_rule`, from `phi` on the half grid of its box.

    As `density_weights`, by fast Fourier transforms: the full axes first, the half axis last.
    """
    count = periodic_rule(order)[0].size
    fall = jnp.asarray(_periodic_window(order), phi.real.dtype)
    phi = phi.reshape(*[2 * order + 1] * (dimension - 1), order + 1)
    for axis in range(dimension - 1):
        negative, positive = jnp.split(phi, [order], axis)
        gap = jnp.zeros((*phi.shape[:axis], count - 2 * order - 1, *phi.shape[axis + 1 :]), phi.dtype)
        phi = jnp.fft.fft(jnp.concatenate([positive, gap, negative], axis), axis=axis) / count
    weights = jnp.fft.irfft(jnp.conj(phi), count)
    for axis in range(dimension):
        weights = weights * fall.reshape([-1 if e == axis else 1 for e in range(dimension)])
    return weights


def widen(low: Array, high: Array) -> tuple[Array, Array]:
    """The box whose inner part, where the window is 1, is `[low, high]`; returns its low end and its length."""
    length = (high - low) / (1 - 2 * MARGIN)
    return low - MARGIN * length, length


def density_weights(
    characteristic: Complex[Array, " F"], v: Float[Array, " Q"], weight: Float[Array, " Q"]
) -> Float[Array, " Q"]:
    """Quadrature weights of a law at nodes `v` of its box, from `phi(w_k) exp(-i w_k low)`, `k = 0 .. F - 1`.

    `omega_n = weight_n window(v_n) Re sum_k' phi_k exp(-2 pi i k v_n)`: then `E[g] = sum_n omega_n g(y_n)`.
    """
    return (characteristic @ density_table(characteristic.shape[0] - 1, v, weight)).real


def density_table(order: int, v: Float[Array, " Q"], weight: Float[Array, " Q"]) -> Complex[Array, "F Q"]:
    """What `density_weights` multiplies `phi` by; times values at the nodes it gives coefficients of `phi`."""
    factor = np.where(np.arange(order + 1) == 0, 1, 2).astype(v.dtype)
    table = waves(-2 * np.pi * jnp.arange(order + 1, dtype=v.dtype)[:, None], v[None])
    return table * jnp.tensordot(factor, weight * window(v, order), 0)


@cache
def periodic_rule(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Equal nodes and weights on `[0, 1]` for a windowed function times a law with frequencies up to `order`.

    The trapezoidal rule of a periodic smooth function: exact for all frequencies that the law can meet.
    """
    count = int(np.ceil(2.5 * order))
    return np.arange(count) / count, np.full(count, 1 / count)

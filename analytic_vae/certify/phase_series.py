"""Waves of the ridge axis: `exp(i <w, kappa(b)>)` as a series in `exp(i omega_r b)`."""

import math

import jax
import jax.numpy as jnp

from ..spectral.characteristic import cis
from ..types import Array, Complex, Float, Scalar
from .domain import EDGE, Domain, log_geometric, periodic
from .functions import PiecewiseLinear
from .ridge_function import RidgeFunction

WAVE_NODES = 4  # of so many times K nodes the coefficients of analytic waves are computed (B47: a choice)

SMALL = 1e-30  # no divisor is 0


def coefficients(
    axis: Domain, bend: RidgeFunction, frequency: Float[Array, "W D"]
) -> tuple[Complex[Array, "W O"], Array, Array]:
    """`C_r(w)` of `exp(i omega_r (b - low))`, `r = -K .. K`; bounds of errors, `[W, 1]`, and rounding, `[W, O]`.

    B46 if psi is piecewise linear, B47 if it is analytic.
    """
    return _piecewise(axis, bend, frequency) if bend.piecewise else _analytic(axis, bend, frequency)


def frequencies(axis: Domain) -> Float[Array, " O"]:
    """`omega_-K .. omega_K`."""
    return jnp.concatenate([-axis.frequency[:0:-1], axis.frequency])


def weighted_aliasing(
    axis: Domain, bend: RidgeFunction, frequency: Float[Array, "W D"], weight: RidgeFunction, largest: Scalar
) -> Float[Array, " W"]:
    """The bound of errors for coefficients of `kappa_F(b) exp(i <w, kappa(b)>)`; the weight is that large (B54)."""
    if bend.piecewise:
        return jnp.zeros_like(frequency[:, 0])
    exponent = _alias_exponent(axis) + jnp.log(weight_in_strips(axis, weight, largest))
    return jax.lax.stop_gradient(_least(axis, exponent, _growth(axis, bend, frequency)))


def weight_in_strips(axis: Domain, weight: RidgeFunction, largest: Scalar) -> Float[Array, " rho"]:
    """Bounds of `|kappa_F|` in the strips, from that on the real axis (B44)."""
    return largest + axis.strips * weight.slopes(axis)[0]


def _analytic(axis: Domain, bend: RidgeFunction, frequency):
    """B47."""
    nodes = WAVE_NODES * axis.order
    v = axis.nodes(nodes)
    phase = frequency @ bend(axis.low + axis.length * v)
    wave = periodic(cis(phase) * axis.window(v)[None], nodes, axis=1)
    spectrum = jnp.fft.fft(wave, axis=1) / nodes
    kept = jnp.concatenate([spectrum[:, nodes - axis.order :], spectrum[:, : axis.order + 1]], axis=1)
    alias = _least(axis, _alias_exponent(axis), _growth(axis, bend, frequency))
    largest = jnp.max(jnp.abs(phase), axis=1)
    rounding = jnp.finfo(v.dtype).eps / math.sqrt(nodes) * (8 + 2 * math.log2(nodes) + largest)  # B4
    alias, rounding = jax.lax.stop_gradient((alias[:, None], rounding[:, None]))
    return kept, alias, jnp.broadcast_to(rounding, kept.shape)


def _alias_exponent(axis: Domain) -> Float[Array, " rho"]:
    """Of B21, for `WAVE_NODES` K nodes and coefficients up to K."""
    nodes = WAVE_NODES * axis.order
    apart = axis.step * (nodes - axis.order) * axis.strips
    return -apart - log_geometric(axis.step * nodes * axis.strips)


def _growth(axis: Domain, bend: RidgeFunction, frequency) -> Float[Array, "W rho"]:
    """`log |exp(i <w, kappa(b + iv)>)| <= sum_d |w_d| |Im kappa_d|` (B44)."""
    steep = bend.slopes(axis)[None]
    size = jnp.abs(frequency)[:, :, None]
    return jnp.sum(jnp.where(size > 0, size * steep, 0), axis=1) * axis.strips[None]


def _least(axis: Domain, exponent: Float[Array, " rho"], log_sup: Float[Array, "W rho"]) -> Float[Array, " W"]:
    """As `Domain._least`, of B19, for many waves."""
    log = (exponent + axis.log_share)[None] + log_sup
    return 2 * jnp.exp(jnp.min(jnp.where(jnp.isnan(log), jnp.inf, log), axis=-1))


def _pieces(axis: Domain, bend: RidgeFunction, frequency):
    """Ends and slopes of the pieces of `<w, kappa(b)>`: places `[P]`, phases there `[W, P]`, slopes `[W, P + 1]`.

    Kinks outside of the inner box stand at its ends: the wave is another one where there is no mass, but of size one
    (B45).
    """
    line = PiecewiseLinear.of(bend.activation, axis.low.dtype)
    places = jnp.clip(line.places, *axis.inner)
    psi_slopes = line.slope + jnp.concatenate([jnp.zeros(1, places.dtype), jnp.cumsum(line.jumps)])
    slopes = (frequency @ bend.shear)[:, None] + (frequency @ bend.coefficient)[:, None] * psi_slopes[None]
    return places, frequency @ bend(places), slopes


def _piecewise(axis: Domain, bend: RidgeFunction, frequency):
    """B46."""
    places, phases, slopes = _pieces(axis, bend, frequency)
    omega = frequencies(axis)
    sigma, half_edge = axis.edge_width, EDGE * axis.length / 2
    start = phases[:, :, None] - (omega[None] * (places - axis.low)[:, None])[None]
    nu = slopes[:, :, None] - omega[None, None]
    before, after = places[0] - (axis.low + half_edge), axis.low + axis.length - half_edge - places[-1]
    total = cis(start[:, 0]) * _gaussian_end(-nu[:, 0], before, sigma)
    total = total + cis(start[:, -1]) * _gaussian_end(nu[:, -1], after, sigma)
    for i in range(places.size - 1):
        length = places[i + 1] - places[i]
        total = total + cis(start[:, i]) * _segment(nu[:, i + 1], length)
    largest = jnp.max(jnp.abs(phases), axis=1) + jnp.max(jnp.abs(slopes), axis=1) * axis.length
    # B4, relative to 1, not to the coefficient: of a segment at most 2 / |nu| remains.
    near = jnp.min(jnp.abs(nu), axis=1)
    size = jnp.minimum(1, (2 + places.size) / jnp.where(near > 0, near * axis.length, SMALL))
    relative = 8 + largest[:, None] + (jnp.abs(omega) * axis.length)[None]
    rounding = jnp.finfo(axis.low.dtype).eps * size * relative
    return total / axis.length, jnp.zeros_like(rounding[:, :1]), jax.lax.stop_gradient(rounding)


def _segment(nu, length):
    """`int_0^length exp(i nu x) dx`."""
    half = nu * length / 2
    return length * jnp.sinc(half / jnp.pi) * cis(half)


def _gaussian_end(nu, length, sigma):
    """The same to an end that is Gaussian, of that mean and standard deviation (B46)."""
    u = (nu * sigma) ** 2 / 2
    small = u < 1e-3  # what the series leaves out is at most u^4 / 120: nothing beside the rounding charged
    safe = jnp.where(small, 1, u)
    share = jnp.where(small, 1 - u / 2 + u**2 / 6 - u**3 / 24, -jnp.expm1(-safe) / safe)
    return _segment(nu, length) + cis(nu * length) * jax.lax.complex(jnp.zeros_like(nu), nu * sigma**2 / 2 * share)

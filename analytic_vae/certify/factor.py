"""Expectations of one function of one projection, with a bound of the error."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..spectral.characteristic import cis
from ..spectral.projected_law import Projection
from ..types import Array, Complex, Float, Scalar
from .ball import HALF
from .domain import EDGE, KNOWN, NODES, SMOOTHING, WIDTHS, Domain, periodic, smoothed_mass
from .functions import Analytic, OneOf, PiecewiseLinear


class Factor(NamedTuple):
    """A function g of one axis as coefficients of the half-space of frequencies, with what they miss (B27 to B32).

    `coefficients: [W + 1]` are those of `exp(i w_k (y - low))`, already smoothed; `aliasing` bounds the error of each,
    and `roundoff: [W + 1]` its rounding; `tail` bounds the sum of their sizes beyond K, each times what the noise
    leaves of `phi`, and `half_tail` with half of the noise's variance; `bias` is what smoothing changes, in L1 and
    (`bias_norm`) L2; `outside` bounds `E |g - P|`, P the windowed periodic g, and `norm` `(E |g|^8)^(1/8)`, for a g of
    degree 1 also `(E |g|^16)^(1/16)`; `sup` bounds P, also smoothed, and `slope` the slope of g on the box.
    """

    coefficients: Complex[Array, " W"]
    aliasing: Scalar
    roundoff: Float[Array, " W"]
    tail: Scalar
    half_tail: Scalar
    bias: Scalar
    bias_norm: Scalar
    outside: Scalar
    norm: Scalar
    sup: Scalar
    slope: Scalar


def factor(axis: Domain, law: Projection, function: PiecewiseLinear | Analytic | OneOf) -> Factor:
    """The factor of a function of that axis' projection."""
    if isinstance(function, OneOf):
        return jax.lax.switch(function.chosen, [partial(factor, axis, law, one) for one in function.functions])
    if isinstance(function, PiecewiseLinear):
        return _piecewise_linear(axis, law, function)
    return _analytic(axis, function)


def _analytic(axis: Domain, function: Analytic) -> Factor:
    """B27."""
    nodes, known = NODES * axis.order, KNOWN * axis.order
    v = axis.nodes(nodes)
    values = periodic(function.function(axis.low + axis.length * v) * axis.window(v), nodes, axis=0)
    coefficients = jnp.fft.rfft(values)[: known + 1] / nodes
    sup = jax.vmap(lambda rho: function.sup(*axis.extended, rho))(axis.strips)
    bounded = function.lipschitz == 0
    steep = function.degree * function.lipschitz * jnp.max(jnp.abs(values)) ** (1 - 1 / function.degree)
    slope = jnp.where(bounded, jnp.min(sup / axis.strips), steep)  # B28: Cauchy's estimate, or as given
    size = jnp.sqrt(jnp.mean(values**2))
    aliasing = axis.alias(sup, nodes, known)  # B21
    rounding = (4 + 2 * math.log2(nodes)) * size + 2 * jnp.max(jnp.abs(values)) + slope * axis.farthest
    rounding = rounding + function.rounding(*axis.extended)
    roundoff = jnp.finfo(v.dtype).eps / math.sqrt(nodes) * rounding  # B4
    beyond = jnp.abs(coefficients[axis.order + 1 :]) + aliasing

    def missing(noise):
        """B20."""
        index = jnp.arange(axis.order + 1, known + 1, dtype=v.dtype)
        return 2 * beyond @ axis.damping(index, noise) + axis.analytic_tail(sup, noise, known)

    far = jnp.asarray(jnp.finfo(v.dtype).max ** 0.5, v.dtype)
    low, high = (jnp.where(bounded, side * far, end) for side, end in zip((-1, 1), axis.extended, strict=True))
    largest = function.sup(low, high, jnp.zeros_like(low))
    root = jnp.abs(function.function(axis.centre)) ** (1 / function.degree)  # B13 and B32
    norm = jnp.where(bounded, largest, (root + function.lipschitz * axis.reach) ** function.degree)
    power = 7 / 8 if function.degree <= 2 else 3 / 4  # B14: that norm is of the order 16 / degree
    # B18, E |g - P|: of the windowed copies that stand beyond the window, and of g itself there.
    outside = axis.missed * largest + jnp.where(bounded, axis.missed * largest, axis.missed**power * norm)
    kept = coefficients[: axis.order + 1]
    return Factor(
        coefficients=kept,
        aliasing=aliasing,
        roundoff=jnp.full(kept.shape, roundoff),
        tail=missing(axis.noise),
        half_tail=missing(axis.noise * HALF),
        bias=jnp.zeros_like(aliasing),
        bias_norm=jnp.zeros_like(aliasing),
        outside=outside,
        norm=norm,
        sup=largest,
        slope=slope,
    )


class Inside(NamedTuple):
    """A piecewise linear function as one with no kinks outside of the inner box (B30).

    `line` is in powers of `y - centre`; `dropped` bounds the L16 norm, outside of the inner box, of what that changes.
    """

    places: Float[Array, " k"]
    jumps: Float[Array, " k"]
    line: Float[Array, " 2"]
    dropped: Scalar

    @classmethod
    def of(cls, axis: Domain, function: PiecewiseLinear) -> "Inside":
        """Below the inner box a kink is a change of the line on all of it; above, it is nothing there."""
        centre, (inner_low, inner_high) = axis.centre, axis.inner
        places, jumps, intercept, slope = function
        below, above = places <= inner_low, places >= inner_high
        intercept = intercept - jnp.sum(jnp.where(below, jumps * places, 0))
        slope = slope + jnp.sum(jnp.where(below, jumps, 0))
        dropped = jnp.sum(jnp.where(below | above, jnp.abs(jumps) * (jnp.abs(places - centre) + axis.reach), 0))
        jumps, places = jnp.where(below | above, 0, jumps), jnp.clip(places, inner_low, inner_high)
        return cls(places, jumps, jnp.stack([intercept + slope * centre, slope]), dropped)

    def size(self, centre: Scalar, radius: Scalar) -> Scalar:
        """A bound of the function at `|y - centre| <= radius`, part by part (B32)."""
        return (
            jnp.abs(self.line[0])
            + jnp.abs(self.line[1]) * radius
            + jnp.abs(self.jumps) @ (radius + jnp.abs(self.places - centre))
        )


def _piecewise_linear(axis: Domain, law: Projection, function: PiecewiseLinear) -> Factor:
    """B29 to B32."""
    edge, centre = EDGE * axis.length, axis.centre
    steepest = jnp.abs(function.slope) + jnp.sum(jnp.abs(function.jumps))
    inside = Inside.of(axis, function)
    places, jumps, line = inside.places, inside.jumps, inside.line
    transform = Transform.of(axis, axis.frequency, places, jumps, line)

    w = axis.frequency
    eta = jnp.asarray(WIDTHS, w.dtype) / axis.top
    mass = smoothed_mass(axis, law, places, eta)
    bias, bias_norm = (SMOOTHING * eta * (near @ jnp.abs(jumps)) for near in (mass, jnp.sqrt(mass)))  # B23
    tail, half = (jnp.sum(jnp.abs(jumps)) * axis.kink_tail(eta, axis.noise * share) for share in (1, HALF))  # B24
    best = jnp.argmin(bias + tail)  # a choice: each of them is a bound
    x = (eta[best] * w) ** 2 / 2
    # Only the kinks are smoothed: smoothed ends of the window could reach into the law.
    coefficients = transform.ends + (1 + x) * jnp.exp(-x) * transform.kinks
    # B31: what the window's ends leave beyond K falls by `exp(-sigma^2 w_1 w_k)` or more from each w_k to the next.
    ratio = jnp.exp(-(axis.edge_width**2) * axis.step * axis.top)
    rest = 2 * Transform.of(axis, axis.top[None] + axis.step, places, jumps, line).end_sizes[0] / (1 - ratio)
    # B4: of phases up to w times the box, and of a few sums and products.
    rounding = (transform.kink_sizes + transform.end_sizes) * (8 + w * jnp.maximum(axis.length, axis.farthest))
    norm = inside.size(centre, axis.reach) + inside.dropped  # B13 and B32
    sup = 2 * inside.size(centre, axis.length / 2 + edge / 2)  # B32: the 2 is for copies and for smoothing
    return Factor(
        coefficients=coefficients,
        aliasing=jnp.zeros_like(axis.low),
        roundoff=jnp.finfo(w.dtype).eps * rounding,
        tail=tail[best] + rest * axis.damping(axis.order),
        half_tail=half[best] + rest,
        bias=bias[best],
        bias_norm=bias_norm[best],
        outside=2 * axis.missed ** (7 / 8) * norm + axis.missed * sup,  # B14 and B18
        norm=norm,
        sup=sup,
        slope=steepest,
    )


class Transform(NamedTuple):
    """Coefficients of the windowed function at some frequencies: of its kinks, and of the window's ends (B29).

    `int_t^E (y - t)^p e^(-iwy) dy = e^(-iwt) / (iw)^(p + 1) - e^(-iwE) sum_q (E - t)^q (iw)^(q - p - 1)`, p = 0 or 1,
    averaged over an end E that is Gaussian: then the step that ends the box is an error function. At `w = 0` all is
    counted to the ends. `.._sizes` are the sums of the sizes of all terms.
    """

    kinks: Complex[Array, " W"]
    ends: Complex[Array, " W"]
    kink_sizes: Float[Array, " W"]
    end_sizes: Float[Array, " W"]

    @classmethod
    def of(cls, axis: Domain, w: Float[Array, " W"], places: Array, jumps: Array, line: Float[Array, " 2"]):
        """The transform of `line_0 + line_1 (y - centre) + sum_i jumps_i relu(y - places_i)`."""
        sigma, half_edge = axis.edge_width, EDGE * axis.length / 2
        first, last = axis.low + half_edge, axis.low + axis.length - half_edge
        zero = w == 0
        safe = jnp.where(zero, 1, w)
        start = cis(-safe[:, None] * (places - axis.low)[None]) / (1j * safe[:, None]) ** 2
        kinks = jnp.where(zero, 0, start @ (jumps + 0j))
        kink_sizes = jnp.where(zero, 0, jnp.sum(jnp.abs(jumps)) / safe**2)

        def end(edge, origin, power):
            """One end's part; at `w = 0` its limit, `E X` or `E X^2 / 2`."""
            mean = edge - origin
            value, size = _end(axis, safe, edge, mean, sigma, power)
            moment = mean if power == 0 else (mean**2 + sigma**2) / 2
            return jnp.where(zero, moment + 0j, value), jnp.where(zero, jnp.abs(moment), size)

        ends, end_sizes = jnp.zeros_like(w) + 0j, jnp.zeros_like(w)
        terms = [(scale, edge, axis.centre, power) for power, scale in enumerate(line) for edge in (first, last)]
        signs = [-1, 1] * 2
        terms += [(jump, last, place, 1) for jump, place in zip(jumps, places, strict=True)]
        signs += [1] * jumps.size
        for sign, (scale, edge, origin, power) in zip(signs, terms, strict=True):
            value, size = end(edge, origin, power)
            ends, end_sizes = ends + sign * scale * value, end_sizes + jnp.abs(scale) * size
        length = axis.length
        return cls(kinks / length, ends / length, kink_sizes / length, end_sizes / length)


def _end(axis: Domain, w: Array, edge: Array, mean: Array, sigma: Array, power: int) -> tuple[Array, Array]:
    """`-E[e^(-iw(E - low)) sum_{q <= power} X^q (iw)^(q - power - 1)]`, `X = E - origin` of that mean; its size."""
    iw = 1j * w
    terms = [1 / iw] if power == 0 else [1 / iw**2, (mean - iw * sigma**2) / iw]
    damp = jnp.exp(-((sigma * w) ** 2) / 2)
    return -cis(-w * (edge - axis.low)) * damp * sum(terms), damp * sum(jnp.abs(term) for term in terms)

"""Expectations with a bound of their error: `E[g(Y)]` and `E[g(Y1) h(Y2)]`, each function analytic or piecewise linear.

Values come from a series of their own, on wider boxes than the engine's, and with them the sum of what `axis.py`
lists. Whatever the engine computes is then wrong by at most its distance from such a value and that value's bound.
Coefficients of piecewise linear functions have a closed form; those of analytic ones come from a rule of equal nodes.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..activation import Activation
from ..types import Array, Complex, Float, Scalar
from .axis import EDGE, WIDTHS, Axis, periodic, smoothed_mass
from .characteristic import cis, gaussian_factor, product_over_features, ridge_table, times
from .projection import Projection

HALF = math.sqrt(0.5)  # of a standard deviation: half of the variance
SAFETY = 1.01  # for the rounding of the bounds themselves
SIGMAS = 4  # independent roundings add up in squares; so many times the root of the sum is charged


class Bounded(eqx.Module):
    """A number and how wrong it may be: the exact one lies in `value +- error_bound`.

    All is meant to be a proof but for roundings, which are taken to be independent. The bound has no gradient.
    """

    value: Array
    error_bound: Array

    def __str__(self) -> str:
        if jnp.ndim(self.value) or isinstance(self.value, jax.core.Tracer):
            return repr(self)
        return f"{float(self.value):.12g} +- {float(self.error_bound):.1e}"

    @property
    def low(self) -> Array:
        """The least that the exact number can be."""
        return self.value - self.error_bound

    @property
    def high(self) -> Array:
        """The most that the exact number can be."""
        return self.value + self.error_bound


class PiecewiseLinear(NamedTuple):
    """The continuous function `intercept + slope y + sum_i jumps_i relu(y - places_i)`; `places`, `jumps: [P]`."""

    places: Float[Array, " P"]
    jumps: Float[Array, " P"]
    intercept: Scalar
    slope: Scalar

    @classmethod
    def of(cls, activation: Activation, dtype) -> "PiecewiseLinear":
        """A piecewise linear activation with the jumps of its `strip`, or a linear one."""
        places = jnp.asarray(activation.kinks or (0.0,), dtype)
        left = places[0] - 1
        slope = activation(left) - activation(left - 1)
        return cls(places, jnp.asarray(activation.strip.jumps or (0.0,), dtype), activation(left) - slope * left, slope)


class Analytic(NamedTuple):
    """A function that is analytic near the real axis.

    `sup(low, high, width)` bounds its size at `y + i v`, `low <= y <= high`, `|v| <= width`, by infinity where it is
    not analytic; `lipschitz` bounds the slope of its root of that `degree` on the real axis, and is 0 if `sup` bounds
    the function on all of that. `rounding(low, high)` is the rounding of its values there, in units in the last place,
    beyond that of `y` and twice the value's.
    """

    function: Callable[[Array], Array]
    sup: Callable[[Array, Array, Array], Array]
    lipschitz: Scalar
    degree: int = 1
    rounding: Callable[[Array, Array], Array] = lambda low, high: jnp.zeros_like(low)

    @classmethod
    def of(cls, activation: Activation, dtype) -> "Analytic":
        """An activation, bounded on the real axis if the bound of its strip does not grow; else of bounded slope."""
        strip = activation.strip
        far = jnp.asarray(jnp.finfo(dtype).max ** 0.5, dtype)
        zero = jnp.zeros_like(far)
        bounded = strip.sup(-far, far, zero) <= strip.sup(-(far**0.5), far**0.5, zero)
        return cls(activation, strip.sup, jnp.where(bounded, zero, strip.slope(zero)))

    def squared(self) -> "Analytic":
        """The square of a function of degree 1."""
        return Analytic(
            lambda y: self.function(y) ** 2,
            lambda low, high, width: self.sup(low, high, width) ** 2,
            self.lipschitz,
            degree=2,
        )


class OneOf(NamedTuple):
    """The function of that index, which may be traced."""

    functions: "tuple[PiecewiseLinear | Analytic, ...]"
    index: Array


def as_function(activation: Activation, dtype) -> PiecewiseLinear | Analytic:
    """An activation as what it is."""
    return (PiecewiseLinear if activation.piecewise_linear else Analytic).of(activation, dtype)


# ------------------------------------------------------------------------------------------------ one factor an axis


class Factor(NamedTuple):
    """A function of one axis as coefficients of the half-space of frequencies, with what they miss.

    `coefficients: [K + 1]` are those of `exp(i w_k (y - low))`, already smoothed; `slack` bounds the error of each, and
    `jitter: [K + 1]` its rounding; `tail` bounds the sum of their sizes beyond K, each times what the noise leaves of
    `phi`, and `half_tail` with half of the noise's variance; `bias` is what smoothing changes, in L1 and (`bias_norm`)
    L2; `outside` bounds `E |g - P|` and `norm` `(E |g|^8)^(1/8)`; `sup` bounds the smoothed function on the box, and
    `slope` the slope there.
    """

    coefficients: Complex[Array, " K"]
    slack: Scalar
    jitter: Float[Array, " K"]
    tail: Scalar
    half_tail: Scalar
    bias: Scalar
    bias_norm: Scalar
    outside: Scalar
    norm: Scalar
    sup: Scalar
    slope: Scalar


def factor(axis: Axis, law: Projection, function: PiecewiseLinear | Analytic | OneOf) -> Factor:
    """The factor of a function of that axis' projection."""
    if isinstance(function, OneOf):
        return jax.lax.switch(function.index, [partial(factor, axis, law, one) for one in function.functions])
    if isinstance(function, PiecewiseLinear):
        return _piecewise_linear(axis, law, function)
    return _analytic(axis, function)


def _analytic(axis: Axis, function: Analytic) -> Factor:
    nodes, known = 8 * axis.order, 3 * axis.order  # the coefficients beyond K are computed for their sizes only
    v = axis.nodes(nodes)
    values = periodic(function.function(axis.low + axis.length * v) * axis.window(v), nodes, axis=0)
    coefficients = jnp.fft.rfft(values)[: known + 1] / nodes
    sup = jax.vmap(lambda rho: function.sup(*axis.extended, rho))(axis.strips)
    bounded = function.lipschitz == 0
    steep = function.degree * function.lipschitz * jnp.max(jnp.abs(values)) ** (1 - 1 / function.degree)
    slope = jnp.where(bounded, jnp.min(sup / axis.strips), steep)  # Cauchy's estimate, or as given
    size = jnp.sqrt(jnp.mean(values**2))
    slack = axis.alias(sup, nodes, known)
    rounding = (4 + 2 * math.log2(nodes)) * size + 2 * jnp.max(jnp.abs(values)) + slope * axis.farthest
    rounding = rounding + function.rounding(*axis.extended)
    jitter = jnp.finfo(v.dtype).eps / math.sqrt(nodes) * rounding
    beyond = jnp.abs(coefficients[axis.order + 1 :]) + slack

    def missing(noise):
        index = jnp.arange(axis.order + 1, known + 1, dtype=v.dtype)
        return 2 * beyond @ axis.damping(index, noise) + axis.analytic_tail(sup, noise, known)

    far = jnp.asarray(jnp.finfo(v.dtype).max ** 0.5, v.dtype)
    low, high = (jnp.where(bounded, side * far, end) for side, end in zip((-1, 1), axis.extended, strict=True))
    largest = function.sup(low, high, jnp.zeros_like(low))
    root = jnp.abs(function.function(axis.centre)) ** (1 / function.degree)
    norm = jnp.where(bounded, largest, (root + function.lipschitz * axis.reach) ** function.degree)
    # E |g - P|: of g itself beyond the window, and of the windowed copies that stand there.
    outside = axis.missed * largest + jnp.where(bounded, axis.missed * largest, axis.missed ** (7 / 8) * norm)
    kept = coefficients[: axis.order + 1]
    return Factor(
        coefficients=kept,
        slack=slack,
        jitter=jnp.full(kept.shape, jitter),
        tail=missing(axis.noise),
        half_tail=missing(axis.noise * HALF),
        bias=jnp.zeros_like(slack),
        bias_norm=jnp.zeros_like(slack),
        outside=outside,
        norm=norm,
        sup=largest,
        slope=slope,
    )


def _piecewise_linear(axis: Axis, law: Projection, function: PiecewiseLinear) -> Factor:
    edge, centre = EDGE * axis.length, axis.centre
    inner_low, inner_high = axis.inner
    places, jumps, intercept, slope = function
    steepest = jnp.abs(slope) + jnp.sum(jnp.abs(jumps))
    # Below the inner box a kink is a change of the line on all of it; above, it is nothing there; but not outside.
    below, above = places <= inner_low, places >= inner_high
    intercept = intercept - jnp.sum(jnp.where(below, jumps * places, 0))
    slope = slope + jnp.sum(jnp.where(below, jumps, 0))
    dropped = jnp.sum(jnp.where(below | above, jnp.abs(jumps) * (jnp.abs(places - centre) + axis.reach), 0))
    jumps, places = jnp.where(below | above, 0, jumps), jnp.clip(places, inner_low, inner_high)
    line = jnp.stack([intercept + slope * centre, slope])  # in powers of y - centre
    transform = Transform.of(axis, axis.frequency, places, jumps, line)

    w = axis.frequency
    eta = jnp.asarray(WIDTHS, w.dtype) / axis.top
    mass = smoothed_mass(axis, law, places, eta)
    bias, bias_norm = (0.2 * eta * (near @ jnp.abs(jumps)) for near in (mass, jnp.sqrt(mass)))
    tail, half = (jnp.sum(jnp.abs(jumps)) * axis.kink_tail(eta, axis.noise * share) for share in (1, HALF))
    best = jnp.argmin(bias + tail)
    x = (eta[best] * w) ** 2 / 2
    # Only the kinks are smoothed: smoothed ends of the window could reach into the law.
    coefficients = transform.ends + (1 + x) * jnp.exp(-x) * transform.kinks
    # What the window's ends leave beyond K falls by `exp(-sigma^2 w_1 w_k)` and more from one frequency to the next.
    ratio = jnp.exp(-(axis.edge_width**2) * axis.step * axis.top)
    rest = 2 * Transform.of(axis, axis.top[None] + axis.step, places, jumps, line).end_sizes[0] / (1 - ratio)
    rounding = (transform.kink_sizes + transform.end_sizes) * (8 + w * jnp.maximum(axis.length, axis.farthest))

    def size(radius):
        return jnp.abs(line[0]) + jnp.abs(line[1]) * radius + jnp.abs(jumps) @ (radius + jnp.abs(places - centre))

    norm = size(axis.reach) + dropped
    sup = 2 * size(axis.length / 2 + edge / 2)  # the kernel's L1 norm is below 2
    return Factor(
        coefficients=coefficients,
        slack=jnp.zeros_like(axis.low),
        jitter=jnp.finfo(w.dtype).eps * rounding,
        tail=tail[best] + rest * axis.damping(axis.order),
        half_tail=half[best] + rest,
        bias=bias[best],
        bias_norm=bias_norm[best],
        outside=2 * axis.missed ** (7 / 8) * norm + axis.missed * sup,
        norm=norm,
        sup=sup,
        slope=steepest,
    )


class Transform(NamedTuple):
    """Coefficients of the windowed function at some frequencies: the part of its kinks, that of the window's ends.

    `int_t^E (y - t)^p e^(-iwy) dy = e^(-iwt) / (iw)^(p + 1) - e^(-iwE) sum_q (E - t)^q (iw)^(q - p - 1)`, p = 0 or 1,
    averaged over an end E that is Gaussian: then the step that ends the box is an error function. At `w = 0` all is
    counted to the ends. `.._sizes` are the sums of the sizes of all terms.
    """

    kinks: Complex[Array, " W"]
    ends: Complex[Array, " W"]
    kink_sizes: Float[Array, " W"]
    end_sizes: Float[Array, " W"]

    @classmethod
    def of(cls, axis: Axis, w: Float[Array, " W"], places: Array, jumps: Array, line: Float[Array, " 2"]):
        """The transform of `line_0 + line_1 (y - centre) + sum_i jumps_i relu(y - places_i)`."""
        sigma, half_edge = axis.edge_width, EDGE * axis.length / 2
        first, last = axis.low + half_edge, axis.low + axis.length - half_edge
        zero = w == 0
        safe = jnp.where(zero, 1, w)
        start = cis(-safe[:, None] * (places - axis.low)[None]) / (1j * safe[:, None]) ** 2
        kinks = jnp.where(zero, 0, start @ (jumps + 0j))
        kink_sizes = jnp.where(zero, 0, jnp.sum(jnp.abs(jumps)) / safe**2)

        def end(edge, origin, power):
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


def _end(axis: Axis, w: Array, edge: Array, mean: Array, sigma: Array, power: int) -> tuple[Array, Array]:
    """`-E[e^(-iw(E - low)) sum_{q <= power} X^q (iw)^(q - power - 1)]`, `X = E - origin` of that mean, and its size."""
    iw = 1j * w
    terms = [1 / iw] if power == 0 else [1 / iw**2, (mean - iw * sigma**2) / iw]
    damp = jnp.exp(-((sigma * w) ** 2) / 2)
    return -cis(-w * (edge - axis.low)) * damp * sum(terms), damp * sum(jnp.abs(term) for term in terms)


# ------------------------------------------------------------------------------------------------------ expectations


class Plane(NamedTuple):
    """`phi(w, omega) exp(-i <., low>)` of a law of D projections at some `w: [W, D - 1]` and all of `omega: [R]`.

    `rounding: [W, R]` bounds its own rounding errors, not those of the law; `size` is that of the Gaussian part alone.
    """

    phi: Complex[Array, "W R"]
    rounding: Float[Array, "W R"]
    size: Float[Array, "W R"]

    @classmethod
    def of(
        cls,
        law: Projection,
        low: Float[Array, " D"],
        frequency: Float[Array, "W C"],
        omega: Float[Array, " R"],
    ) -> "Plane":
        """The characteristic function."""
        mean, atoms, covariance = law.mean - low, law.atoms, law.covariance
        # Not the recurrence of `waves`: its rounding is larger than what is charged here.
        left = jnp.moveaxis(cis(jnp.tensordot(frequency, atoms[:-1, :, 1:], axes=1)), 1, 0)
        features = product_over_features(law.masses[:, 0], left, ridge_table(omega, atoms[-1], law.masses))
        first = covariance[:-1, :-1], covariance[:-1, -1]
        gauss = gaussian_factor(frequency, omega, mean[:-1], mean[-1], *first, covariance[-1, -1])
        m, K = law.masses.shape
        spans = jnp.abs(atoms).max(axis=2).sum(axis=1) + jnp.abs(mean)
        deviation = jnp.sqrt(jnp.diagonal(covariance))
        over = jnp.abs(frequency)
        reach = (over @ spans[:-1])[:, None] + (jnp.abs(omega) * spans[-1])[None]
        quadratic = ((over @ deviation[:-1])[:, None] + (jnp.abs(omega) * deviation[-1])[None]) ** 2  # may cancel
        relative = reach + math.sqrt(m) * (2 * math.sqrt(K) + 6) + 2 * quadratic + 8
        size = jnp.abs(gauss)
        return cls(times(features, gauss), jnp.finfo(omega.dtype).eps * size * relative, size)


def product_expectation(law: Projection, scale: Float[Array, " D"], functions: list, order: int) -> Bounded:
    """`E[prod_d g_d(Y_d)]`, D = 1 or 2, of a `PiecewiseLinear`, `Analytic` or `OneOf` each; `scale`: sizes of what
    the projections were summed from, by which their rounding goes."""
    alone = [law.alone(d) for d in range(len(functions))]
    axes = [Axis.of(one, _conditional(law.covariance, d), order) for d, one in enumerate(alone)]
    factors = [factor(axis, jax.lax.stop_gradient(one), g) for axis, one, g in zip(axes, alone, functions, strict=True)]
    low, omega = jnp.stack([axis.low for axis in axes]), axes[-1].frequency
    first = jnp.zeros((1, 0), omega.dtype)
    if len(axes) == 2:  # all frequencies of the first axis, half of the second's
        first = jnp.concatenate([-axes[0].frequency[:0:-1], axes[0].frequency])[:, None]
    grid = Plane.of(law, low, first, omega)
    b = factors[-1]
    twice = jnp.full(omega.shape, 2.0, omega.dtype).at[0].set(1.0)  # both signs of the half axis
    value, jitter, slack = (b.coefficients * twice)[None], (b.jitter * twice)[None], (b.slack * twice)[None]
    moved = b.slope * (scale[-1] + axes[-1].length)
    if len(functions) == 1:
        missed = b.outside + b.bias + b.tail
    else:
        a = factors[0]
        whole, whole_jitter = (
            jnp.concatenate([f(one[:0:-1]), one])[:, None]
            for f, one in ((jnp.conj, a.coefficients), (jnp.abs, a.jitter))
        )
        slack = a.slack * (jnp.abs(value) + slack) + jnp.abs(whole) * slack
        jitter = jnp.hypot(whole_jitter * jnp.abs(value), jnp.abs(whole) * jitter)
        value = whole * value
        size_a, size_b = (2 * jnp.sum(jnp.abs(f.coefficients) + f.slack) for f in factors)
        missed = a.tail * size_b + b.tail * size_a + a.half_tail * b.half_tail + a.bias * b.sup + b.bias * a.sup
        missed = missed + 2 * (axes[0].missed ** (3 / 4) + axes[1].missed ** (3 / 4)) * a.norm * b.norm
        moved = moved * a.norm + a.slope * (scale[0] + axes[0].length) * b.norm
    size, phi, eps = jnp.abs(value), jnp.abs(grid.phi), jnp.finfo(omega.dtype).eps
    missed = missed + jnp.sum(slack * phi) + 4 * eps * moved
    rounding = jnp.hypot(
        jnp.hypot(size * grid.rounding, jitter * grid.size), eps * math.log2(size.size + 1) * size * phi
    )
    error = missed + SIGMAS * jnp.sqrt(jnp.sum(rounding**2))
    # A bound is not to be differentiated: its gradient is zero, never NaN.
    return bounded(jnp.sum((value * grid.phi).real), error)


def bounded(value: Array, error: Array) -> Bounded:
    """With a little more for the rounding of the bound itself; one that is not a number is infinite."""
    error = jax.lax.stop_gradient(SAFETY * error)
    return Bounded(value, jnp.where(jnp.isnan(error), jnp.inf, error))


def _conditional(covariance: Float[Array, "D D"], d: int) -> Scalar:
    """Standard deviation of one Gaussian of two given the other, from below: 0 if rounding leaves a doubt."""
    own = covariance[d, d]
    if covariance.shape[0] == 1:
        return jnp.sqrt(own)
    other, shared = covariance[1 - d, 1 - d], covariance[0, 1]
    rest = own - jnp.where(other > 0, shared**2 / jnp.where(other > 0, other, 1), 0)
    return jnp.sqrt(jnp.maximum(rest - 64 * jnp.finfo(own.dtype).eps * own, 0))

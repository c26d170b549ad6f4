"""Expectations with a bound of their error: `E[g(Y)]` and `E[g(Y1) h(Y2)]` of splines and of analytic functions.

Values come from a series of their own, on wider boxes than the engine's, and with them the sum of what `axis.py`
lists. Whatever the engine computes is then wrong by at most its distance from such a value and that value's bound.
Coefficients of splines are known in closed form, those of analytic functions come from a rule of equal nodes.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..activation import Strip
from ..types import Array, Complex, Float, Scalar
from .axis import WIDTHS, Axis, edge_steepness, smoothed_mass
from .characteristic import cis, gaussian_factor, product_over_features, ridge_table, times
from .projection import Projection
from .series import MARGIN

HALF = math.sqrt(0.5)
SAFETY = 1.01  # for the rounding of the bounds themselves


class Bounded(eqx.Module):
    """A number and how wrong it may be: the exact one lies in `value +- error_bound`.

    Roundings are taken to be independent; all else is meant to be a proof. The bound has no gradient.
    """

    value: Array
    error_bound: Array

    @property
    def low(self) -> Array:
        """The least that the exact number can be."""
        return self.value - self.error_bound

    @property
    def high(self) -> Array:
        """The most that the exact number can be."""
        return self.value + self.error_bound


class Spline(NamedTuple):
    """A piecewise polynomial of degree 2: `sum_p polynomial_p y^p + sum_ip jumps_ip (y - places_i)_+^p / p!`.

    `places: [P]`, `jumps: [P, 3]` in value, slope and second derivative, `polynomial: [3]`.
    """

    places: Array
    jumps: Array
    polynomial: Array


class Analytic(NamedTuple):
    """A function of t statistics, to `[out]` numbers, that is analytic near the real axes.

    `sup(low [t], high [t], width [t]) -> [out]` bounds its sizes at `y + i v`, `low <= y <= high`, `|v| <= width`, by
    infinity where it is not analytic; `lipschitz: [out]` bounds its slopes on the real axes, 0 if it is bounded there
    by `sup` at width 0 for any `low` and `high`.
    """

    function: Callable[[Array], Array]
    sup: Callable[[Array, Array, Array], Array]
    lipschitz: Array | float = 0.0


def activation_spline(function: Callable, kinks: tuple[float, ...], strip: Strip, dtype) -> Spline:
    """A piecewise linear activation (also one without kinks that is linear) as a spline."""
    places = jnp.asarray(kinks or (0.0,), dtype)
    jumps = jnp.asarray(strip.jumps or (0.0,), dtype)
    left = places[0] - 1
    slope = function(left) - function(left - 1)
    value = function(left) - slope * left
    zero = jnp.zeros_like(jumps)
    return Spline(places, jnp.stack([zero, jumps, zero], axis=1), jnp.stack([value, slope, 0 * slope]))


# ------------------------------------------------------------------------------------------------ one factor an axis


class Factor(NamedTuple):
    """A function of one axis as coefficients of the half-space of frequencies, with what they miss.

    `coefficients: [K + 1]` are those of `exp(i w_k (y - low))`, already smoothed; `slack: [K + 1]` bounds their errors;
    `tail` bounds the sum of their sizes beyond K, each times what the noise leaves of `phi`, and `half_tail` with half
    of the noise's variance; `bias` is what smoothing changes; `outside` bounds `E |g| |1 - W|` and `norm`
    `(E |g|^8)^(1/8)`; `sup` is that of the smoothed function on the box.
    """

    coefficients: Complex[Array, " K"]
    slack: Float[Array, " K"]
    tail: Scalar
    half_tail: Scalar
    bias: Scalar
    outside: Scalar
    norm: Scalar
    sup: Scalar


def factor(axis: Axis, law: Projection, function: Spline | Analytic) -> Factor:
    """The factor of a function (with one output) of that axis' projection."""
    if isinstance(function, Spline):
        return _spline_factor(axis, law, function)
    nodes = 8 * axis.order
    v = jnp.arange(nodes, dtype=axis.low.dtype) / nodes
    copies = jnp.concatenate([v - 1, v, v + 1])  # of the periodic continuation: the window ends a little beyond the box
    values = jax.vmap(lambda y: function.function(y[None])[0])(axis.low + axis.length * copies) * axis.window(copies)
    values = values.reshape(3, nodes).sum(axis=0)
    known = 3 * axis.order  # coefficients that are computed, for their sizes only beyond K
    coefficients = jnp.fft.rfft(values)[: known + 1] / nodes
    sup = _strip_sups(axis, function)[:, 0]
    eps = jnp.finfo(values.dtype).eps
    sized = jnp.sqrt(jnp.mean(values**2))
    slack = axis.alias(sup, nodes, known) + eps * (
        (16 + 2 * math.log2(nodes)) * sized
        + 2 * jnp.max(jnp.abs(values))
        + _lipschitz(function, axis) * _farthest(axis)
    )
    beyond = jnp.arange(axis.order + 1, known + 1, dtype=v.dtype)
    sizes = jnp.abs(coefficients[axis.order + 1 :]) + slack
    coefficients = coefficients[: axis.order + 1]

    def missing(noise):
        near = 2 * sizes @ jnp.exp(-((noise * 2 * jnp.pi / axis.length * beyond) ** 2) / 2)
        return near + axis.analytic_tail(sup, noise, known)

    tail, half = missing(axis.noise), missing(axis.noise * HALF)
    bounded = jnp.asarray(function.lipschitz == 0)
    far = jnp.full_like(v[:1], jnp.finfo(v.dtype).max ** 0.5)
    ends = [jnp.where(bounded, side * far, end) for side, end in zip((-1, 1), axis.extended, strict=True)]
    largest = function.sup(*ends, jnp.zeros_like(v[:1]))[0]
    norm = jnp.where(
        bounded, largest, jnp.abs(function.function(axis.centre[None])[0]) + function.lipschitz * axis.spread
    )
    outside = 2 * jnp.where(bounded, axis.missed * largest, axis.missed ** (7 / 8) * norm)
    full = jnp.broadcast_to(slack, coefficients.shape)
    return Factor(coefficients, full, tail, half, jnp.zeros_like(tail), outside, norm, largest)


def _strip_sups(axis: Axis, function: Analytic) -> Float[Array, "rho out"]:
    low, high = axis.extended
    return jax.vmap(lambda rho: function.sup(low[None], high[None], rho[None]))(axis.strips)


def _lipschitz(function: Analytic, axis: Axis) -> Scalar:
    # of a bounded function by Cauchy: sup / rho on the best strip
    cauchy = jnp.min(_strip_sups(axis, function)[:, 0] / axis.strips)
    return jnp.where(function.lipschitz == 0, cauchy, function.lipschitz)


def _farthest(axis: Axis) -> Scalar:
    return jnp.maximum(jnp.abs(axis.low), jnp.abs(axis.low + axis.length))


def _spline_factor(axis: Axis, law: Projection, spline: Spline) -> Factor:
    edge = MARGIN * axis.length
    inner = axis.low + edge, axis.low + axis.length - edge
    t, polynomial, jumps = spline.places, spline.polynomial, spline.jumps
    # A place below the box is a polynomial on all of it, one above is nothing there.
    below, above = t <= inner[0], t >= inner[1]
    one = jnp.ones_like(t)
    zero = jnp.zeros_like(t)
    powers = jnp.stack([jnp.stack([one, zero, zero]), jnp.stack([-t, one, zero]), jnp.stack([t * t, -2 * t, one]) / 2])
    polynomial = polynomial + jnp.einsum("p,pj,jcp->c", below.astype(t.dtype), jumps, powers)
    inside = (~(below | above)).astype(t.dtype)
    beyond = jnp.abs(t - axis.centre) + axis.spread
    dropped = jnp.stack([one, beyond, beyond**2 / 2], axis=1)
    dropped = jnp.sum(jnp.abs(jumps) * dropped * above.astype(t.dtype)[:, None])
    jumps, t = jumps * inside[:, None], jnp.clip(t, *inner)
    # about the centre: y = centre + u
    a, b, c = polynomial
    m = axis.centre
    polynomial = jnp.stack([a + b * m + c * m * m, b + 2 * c * m, c])

    sigma = edge / (2 * math.sqrt(2) * edge_steepness(axis.order))
    ends = axis.low + edge / 2, axis.low + axis.length - edge / 2
    w = axis.frequency
    pieces, kinks, sizes = _spline_transform(axis, w, t, jumps, polynomial, ends, sigma)
    eta = jnp.asarray(WIDTHS, w.dtype) / axis.top
    near = smoothed_mass(axis, law, t, eta)  # [E, P]
    weight = jnp.stack([0.68 * jnp.sign(eta), 0.2 * eta, 0.18 * eta**2], axis=1)
    bias = jnp.einsum("ep,pj,ej->e", near, jnp.abs(jumps), weight)
    unit = [jnp.stack([axis.kink_tail(p, eta, axis.noise * share) for p in (1, 2, 3)], axis=1) for share in (1, HALF)]
    tail, half = (jnp.abs(jumps).sum(axis=0) @ jnp.minimum(one, jnp.finfo(w.dtype).max ** 0.5).T for one in unit)
    best = jnp.argmin(bias + tail)
    x = (eta[best] * w) ** 2 / 2
    # Only the kinks are smoothed: the ends of the window would reach into the law.
    filtered = pieces + ((1 + x) * jnp.exp(-x) - 1) * kinks
    # What the window's ends leave beyond K falls by `exp(-sigma^2 w_1 w_k)` and more from one frequency to the next.
    step = 2 * jnp.pi / axis.length
    rest = _end_sizes(axis, axis.top[None] + step, t, jumps, polynomial, ends, sigma)[0]
    rest = 2 * rest / -jnp.expm1(-(sigma**2) * step * axis.top)
    eps = jnp.finfo(w.dtype).eps
    slack = eps * sizes * (16 + 4 * w * jnp.maximum(axis.length, _farthest(axis)))
    reach = jnp.maximum(jnp.abs(ends[0] - m), jnp.abs(ends[1] - m)) + edge

    def largest(radius):
        distance = radius + jnp.abs(t - m)
        grown = jnp.stack([jnp.ones_like(distance), distance, distance**2 / 2], axis=1)
        grown_polynomial = jnp.abs(polynomial) @ jnp.stack([jnp.ones_like(radius), radius, radius**2])
        return jnp.sum(jnp.abs(jumps) * grown) + grown_polynomial

    norm = largest(axis.spread) + dropped
    outside = 2 * axis.missed ** (7 / 8) * norm
    return Factor(
        filtered,
        slack,
        tail[best] + rest * axis.damping(axis.order),
        half[best] + rest,
        bias[best],
        outside,
        norm,
        2 * largest(reach),
    )


def _spline_transform(axis, w, t, jumps, polynomial, ends, sigma) -> tuple[Array, Array, Array]:
    """Coefficients of the windowed spline at `w [K + 1]`, their part from kinks, and the sizes that were summed.

    `int_t^E (y - t)^p / p! e^(-iwy) dy = e^(-iwt) / (iw)^(p + 1) - e^(-iwE) sum_q (E - t)^q / q! (iw)^(q - p - 1)`,
    averaged over an end E that is Gaussian: then the step that ends the box is an error function.
    """
    safe = jnp.where(w == 0, 1, w)
    iw = 1j * safe
    total = jnp.zeros_like(w) + 0j
    kinks = jnp.zeros_like(w) + 0j
    sizes = jnp.zeros_like(w)
    kink = jnp.exp(-1j * safe[:, None] * (t - axis.low)[None])
    for p in range(3):
        start = kink / iw[:, None] ** (p + 1)
        end, end_size = _end(axis, safe, t, ends[1], sigma, p)
        zero = _moment(ends[1] - t, sigma, p + 1)
        term = jnp.where(w[:, None] == 0, zero[None] + 0j, start - end)
        total = total + term @ (jumps[:, p] + 0j)
        kinks = kinks + jnp.where(w[:, None] == 0, 0, start) @ (jumps[:, p] + 0j)
        size = jnp.where(w[:, None] == 0, jnp.abs(zero)[None], jnp.abs(start) + end_size)
        sizes = sizes + size @ jnp.abs(jumps[:, p])
        middle = axis.centre[None]
        first, first_size = _end(axis, safe, middle, ends[0], sigma, p)
        last, last_size = _end(axis, safe, middle, ends[1], sigma, p)
        zero = _moment(ends[1] - middle, sigma, p + 1) - _moment(ends[0] - middle, sigma, p + 1)
        term = jnp.where(w == 0, zero[0] + 0j, (first - last)[:, 0])
        scale = polynomial[p] * math.factorial(p)
        total = total + term * scale
        sizes = sizes + jnp.where(w == 0, jnp.abs(zero[0]), (first_size + last_size)[:, 0]) * jnp.abs(scale)
    return total / axis.length, kinks / axis.length, sizes / axis.length


def _end(axis, w, t, end, sigma, p) -> tuple[Array, Array]:
    """`E[e^(-iw(E - low)) sum_q (E - t)^q / q! (iw)^(q - p - 1)]`, `E ~ N(end, sigma^2)`, and its size: `[W, P]`."""
    mu = (end - t)[None] - 1j * w[:, None] * sigma**2
    tilted = [jnp.ones_like(mu), mu, mu**2 + sigma**2]
    iw = 1j * w[:, None]
    terms = [tilted[q] / math.factorial(q) * iw ** (q - p - 1) for q in range(p + 1)]
    damp = jnp.exp(-((sigma * w) ** 2) / 2)[:, None]
    value = jnp.exp(-1j * w * (end - axis.low))[:, None] * damp * sum(terms)
    return value, damp * sum(jnp.abs(term) for term in terms)


def _end_sizes(axis, w, t, jumps, polynomial, ends, sigma) -> Array:
    total = jnp.zeros_like(w)
    for p in range(3):
        total = total + _end(axis, w, t, ends[1], sigma, p)[1] @ jnp.abs(jumps[:, p])
        both = (
            _end(axis, w, axis.centre[None], ends[0], sigma, p)[1]
            + _end(axis, w, axis.centre[None], ends[1], sigma, p)[1]
        )
        total = total + both[:, 0] * jnp.abs(polynomial[p]) * math.factorial(p)
    return total / axis.length


def _moment(mu, sigma, power) -> Array:
    """`E[E^power] / power!` of a Gaussian."""
    return {1: mu, 2: (mu**2 + sigma**2) / 2, 3: (mu**3 + 3 * mu * sigma**2) / 6}[power]


# ------------------------------------------------------------------------------------------------------ expectations


class Plane(NamedTuple):
    """`phi(w) exp(-i <w, low>)` of a law on the frequencies of its axes, and bounds of its rounding errors.

    All frequencies on all axes but the last, which has its half: `[2 K + 1, .., K + 1]`.
    """

    phi: Complex[Array, "*W"]
    rounding: Float[Array, "*W"]


def axes_of(law: Projection, orders: tuple[int, ...]) -> list[Axis]:
    """An `Axis` for each projection."""
    covariance = law.covariance
    axes = []
    for d, order in enumerate(orders):
        alone = Projection(law.mean[d : d + 1], law.atoms[d : d + 1], law.masses, covariance[d : d + 1, d : d + 1])
        axes.append(Axis.of(alone, _conditional(covariance, d), order))
    return axes


def _conditional(covariance: Array, d: int) -> Scalar:
    """Standard deviation of one Gaussian given the others, from below: 0 if rounding leaves a doubt."""
    rest = [e for e in range(covariance.shape[0]) if e != d]
    variance = covariance[d, d]
    for count, e in enumerate(rest):  # one at a time: at most two others
        if count == 0:
            first = covariance[e, e]
            variance = variance - _ratio(covariance[d, e] ** 2, first)
        else:
            f = rest[0]
            other = covariance[e, e] - _ratio(covariance[e, f] ** 2, covariance[f, f])
            shared = covariance[d, e] - _ratio(covariance[d, f] * covariance[e, f], covariance[f, f])
            variance = variance - jnp.where(other > 0, _ratio(shared**2, other), variance)
    eps = jnp.finfo(covariance.dtype).eps
    return jnp.sqrt(jnp.maximum(variance - 64 * eps * covariance[d, d], 0))


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def plane(law: Projection, axes: list[Axis], scale: Float[Array, " D"]) -> Plane:
    """The characteristic function on the grid; `scale`: sizes of what the projections were summed from."""
    *full, last = axes
    low = jnp.stack([axis.low for axis in axes])
    mean = law.mean - low
    columns = [jnp.concatenate([-axis.frequency[:0:-1], axis.frequency]) for axis in full]
    mesh = jnp.stack(jnp.meshgrid(*columns, indexing="ij"), axis=-1).reshape(-1, len(full)) if full else None
    omega = last.frequency
    if mesh is None:
        mesh = jnp.zeros((1, 1), omega.dtype)
        first = Projection(0 * mean, 0 * law.atoms, law.masses, 0 * law.covariance)
        cross = jnp.zeros(1, omega.dtype)
        full_mean = jnp.zeros(1, omega.dtype)
    else:
        first = Projection(mean[:-1], law.atoms[:-1], law.masses, law.covariance[:-1, :-1])
        cross, full_mean = law.covariance[:-1, -1], mean[:-1]
    table = ridge_table(omega, law.atoms[-1], law.masses)
    waves = jnp.moveaxis(cis(jnp.tensordot(mesh, first.atoms[:, :, 1:], axes=1)), 1, 0)
    features = product_over_features(law.masses[:, 0], waves, table)
    gauss = gaussian_factor(mesh, omega, full_mean, mean[-1], first.covariance, cross, law.covariance[-1, -1])
    phi = times(features, gauss)
    m, K = law.masses.shape
    eps = jnp.finfo(omega.dtype).eps
    spans = jnp.abs(law.atoms).max(axis=2).sum(axis=1) + jnp.abs(mean) + scale
    reach = jnp.abs(mesh) @ (spans[:-1] if full else jnp.zeros_like(spans)) if full else jnp.zeros(1, omega.dtype)
    reach = reach[:, None] + (omega * spans[-1])[None]
    size = jnp.abs(gauss)
    deviation = jnp.sqrt(jnp.diagonal(law.covariance))
    terms = jnp.abs(mesh) @ (deviation[:-1] if full else jnp.zeros_like(deviation))
    damped = 2 * (terms[:, None] + (omega * deviation[-1])[None]) ** 2  # of the terms of w' S w, which may cancel
    size = jax.lax.stop_gradient(size)
    rounding = eps * size * (4 * reach + m * (2 * math.sqrt(K) + 12) + damped + 8)
    shape = [column.size for column in columns] + [omega.size]
    return Plane(phi.reshape(shape), rounding.reshape(shape))


def product_expectation(law: Projection, scale: Array, functions: list, orders: tuple[int, ...]) -> Bounded:
    """`E[prod_d g_d(Y_d)]`, D = 1 or 2, of one `Spline` or `Analytic` an axis."""
    axes = axes_of(law, orders)
    grid = plane(law, axes, scale)
    factors = []
    for d, (axis, function) in enumerate(zip(axes, functions, strict=True)):
        alone = Projection(law.mean[d : d + 1], law.atoms[d : d + 1], law.masses, law.covariance[d : d + 1, d : d + 1])
        factors.append(factor(axis, jax.lax.stop_gradient(alone), function))
    return product_of(factors, grid, axes)


def product_of(factors: list[Factor], grid: Plane, axes: list[Axis]) -> Bounded:
    """The expectation from coefficients and characteristic function."""
    *full, last = factors
    eps = jnp.finfo(grid.rounding.dtype).eps
    half = jnp.full(last.slack.shape, 2.0, last.slack.dtype).at[0].set(1.0)
    value, slack = last.coefficients * half, last.slack * half
    if full:
        one = full[0]
        whole = jnp.concatenate([jnp.conj(one.coefficients[:0:-1]), one.coefficients])
        whole_slack = jnp.concatenate([one.slack[:0:-1], one.slack])
        slack = whole_slack[:, None] * (jnp.abs(value) + slack)[None] + jnp.abs(whole)[:, None] * slack[None]
        value = whole[:, None] * value[None]
    size = jnp.abs(value)
    result = jnp.sum((value * grid.phi).real)
    rounding = jnp.sum(size * grid.rounding + slack * (jnp.abs(grid.phi) + grid.rounding))
    rounding = rounding + 4 * eps * math.sqrt(value.size) * jnp.sum(size * jnp.abs(grid.phi))
    if not full:
        error = last.outside + last.bias + last.tail + rounding
    else:
        a, b = full[0], last
        sizes = [2 * jnp.sum(jnp.abs(f.coefficients) + f.slack) for f in (a, b)]
        error = a.tail * sizes[1] + b.tail * sizes[0] + a.half_tail * b.half_tail + rounding
        error = error + a.bias * b.sup + b.bias * a.sup
        error = error + 2 * (axes[0].missed ** (3 / 4) + axes[1].missed ** (3 / 4)) * a.norm * b.norm
    # A bound is not to be differentiated: its gradient is zero, never NaN.
    error = jax.lax.stop_gradient(SAFETY * jnp.where(jnp.isnan(error), jnp.inf, error))
    return Bounded(result, error)

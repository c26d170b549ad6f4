"""The law of what is left beside listed states: Gaussian, or small features and noise as a Fourier series on a box.

Both know, of one coordinate or of two, the same things: rules for expectations, split where one asks for it, and tails.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr

from ..spectral.box import interval
from ..spectral.characteristic import cis, product_over_features, ridge_table, waves
from ..spectral.projected_law import Projection
from ..spectral.quadrature import split_panels
from ..types import Array, Complex, Float, Scalar
from .states import States

REACH = 9.0  # standard deviations; 1e-19 of a Gaussian lies outside

PANELS = 6  # of 16 nodes on that range

MASS = 34.0  # boxes leave out e^-34 a side


def rest_of(states: States, frequencies: int) -> "GaussianRest | SeriesRest":
    """The law of the rest; if features are left, by a series of so many frequencies an axis and side."""
    return GaussianRest.of(states.rest.covariance) if states.listed else SeriesRest.of(states.rest, frequencies)


class GaussianRest(eqx.Module):
    """`N(0, S)` of one or two coordinates: standard deviation of the first, and of the second given the first.

    A standard deviation may be zero.
    """

    first: Scalar
    slope: Scalar
    second: Scalar

    @classmethod
    def of(cls, covariance: Float[Array, "D D"]) -> "GaussianRest":
        """For E = 1 or 2."""
        variance = covariance[0, 0]
        first = _root(variance)
        if covariance.shape[0] == 1:
            return cls(first, jnp.zeros_like(first), jnp.zeros_like(first))
        slope = jnp.where(variance > 0, covariance[0, 1] / jnp.where(variance > 0, variance, 1), 0)
        left = covariance[1, 1] - slope * covariance[0, 1]
        rounding = 8 * jnp.finfo(variance.dtype).eps * covariance[1, 1]
        return cls(first, slope, _root(jnp.where(left > rounding, left, 0)))

    @property
    def accuracy(self) -> Scalar:
        """What its tails may be off by."""
        return 8 * jnp.finfo(self.first.dtype).eps * jnp.ones_like(self.first)

    def window(self, axis: int) -> tuple[Scalar, Scalar]:
        """Where the coordinate lives."""
        spread = self.first if axis == 0 else jnp.sqrt((self.slope * self.first) ** 2 + self.second**2)
        return -REACH * spread, REACH * spread

    def rule(self, splits: Float[Array, " k"]) -> tuple[Float[Array, " Q"], Float[Array, " Q"]]:
        """Nodes of the first coordinate, in panels that end at the splits, and weights of its law."""
        return _gaussian_rule(self.first, splits)

    def inner_rule(self, x: Scalar, weight: Scalar, splits: Float[Array, " k"]) -> tuple[Array, Array]:
        """Nodes of the second coordinate beside a node of the first, and weights of both."""
        y, inner = _gaussian_rule(self.second, splits - self.slope * x)
        return self.slope * x + y, weight * inner

    def tail(self, y: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """P(first > y)."""
        return _gaussian_tail(y, self.first)

    def inner_tail(self, x: Float[Array, " Q"], weight: Float[Array, " Q"], y: Float[Array, "Q O"]) -> Array:
        """Weights of the nodes x times P(second > y | first = x)."""
        return weight[:, None] * _gaussian_tail(y - self.slope * x[:, None], self.second)


class SeriesRest(eqx.Module):
    """Features and noise of one or two coordinates, as the Fourier series of their density on a box.

    `phi: [W, O]` is `E exp(i <w_k, Z - low>)`: for D = 1 of `k = 0 .. N` (O = 1), for D = 2 of `-N .. N` and `0 .. N`.
    """

    low: Float[Array, " D"]
    length: Float[Array, " D"]
    phi: Complex[Array, "W O"]
    slope: Scalar
    spread: Float[Array, " D"]

    @classmethod
    def of(cls, law: Projection, count: int) -> "SeriesRest":
        """For a law of one or two coordinates."""
        E, dtype = law.mean.size, law.mean.dtype
        ends = jnp.stack([jnp.stack(interval(law.alone(e), MASS)) for e in range(E)])
        low, high = jax.lax.stop_gradient((ends[:, 0], ends[:, 1]))
        length = 1.02 * (high - low)
        moved = Projection(law.mean - low, law.atoms, law.masses, law.covariance)
        step = 2 * jnp.pi / length
        whole = jnp.arange(count + 1, dtype=dtype)
        first = step[0] * (whole if E == 1 else jnp.arange(-count, count + 1, dtype=dtype))
        second = jnp.zeros(1, dtype) if E == 1 else step[1] * whole
        left = jnp.swapaxes(waves(first[:, None], moved.atoms[:1, :, 1:]), 0, 1)
        atoms = jnp.zeros_like(moved.atoms[0]) if E == 1 else moved.atoms[1]
        phi = product_over_features(law.masses[:, 0], left, ridge_table(second, atoms, law.masses))
        S = law.covariance if E == 2 else jnp.pad(law.covariance, ((0, 1), (0, 1)))
        mean = moved.mean if E == 2 else jnp.pad(moved.mean, (0, 1))
        quadratic = S[0, 0] * first[:, None] ** 2 + S[1, 1] * second[None] ** 2 + 2 * S[0, 1] * jnp.outer(first, second)
        phase = first[:, None] * mean[0] + second[None] * mean[1]
        phi = phi * cis(phase) * jnp.exp(-quadratic / 2)
        total = law.total_covariance
        slope = jnp.where(total[0, 0] > 0, total[0, -1] / jnp.where(total[0, 0] > 0, total[0, 0], 1), 0)
        return cls(low, length, phi, slope, jnp.sqrt(jnp.diagonal(total)))

    @property
    def count(self) -> int:
        """`N`."""
        return self.phi.shape[0] - 1 if self.phi.shape[1] == 1 else self.phi.shape[1] - 1

    @property
    def accuracy(self) -> Scalar:
        """What tails may be off by: what the last quarter of the frequencies still adds to them."""
        N = self.count
        near = jnp.arange(3 * N // 4, N + 1)
        if self.phi.shape[1] == 1:
            return jnp.sum(jnp.abs(self.phi[near, 0]) / (jnp.pi * near))
        return jnp.sum((jnp.abs(self.phi[N + near, 0]) + jnp.abs(self.phi[N, near])) / (jnp.pi * near))

    @property
    def second(self) -> Scalar:
        """A standard deviation of the second coordinate given the first, roughly."""
        return jnp.sqrt(jnp.maximum(self.spread[1] ** 2 - (self.slope * self.spread[0]) ** 2, 0))

    def window(self, axis: int) -> tuple[Scalar, Scalar]:
        """Where the coordinate lives."""
        return self.low[axis], self.low[axis] + self.length[axis]

    def _nodes(self, axis: int, splits: Float[Array, " k"]) -> tuple[Array, Array]:
        return split_panels(*self.window(axis), splits, max(4, self.count // 3))

    def _waves(self, axis: int, offset: Array, index: Array) -> Complex[Array, "W *s"]:
        step = 2 * jnp.pi / self.length[axis]
        return jnp.conj(waves(step * index.astype(offset.dtype)[:, None], offset[None]))

    def rule(self, splits: Float[Array, " k"]) -> tuple[Float[Array, " Q"], Float[Array, " Q"]]:
        """Nodes of the first coordinate, and weights of its law."""
        x, dx = self._nodes(0, splits)
        N = self.count
        phi = self.phi[:, 0] if self.phi.shape[1] == 1 else self.phi[N:, 0]
        wave = self._waves(0, x - self.low[0], jnp.arange(1, N + 1))
        return x, dx / self.length[0] * (phi[0].real + 2 * _real_product(phi[1:, None], wave).sum(axis=0))

    def inner_rule(self, x: Scalar, weight: Scalar, splits: Float[Array, " k"]) -> tuple[Array, Array]:
        """Nodes of the second coordinate beside a node of the first, and weights of both."""
        y, dy = self._nodes(1, splits)
        slab = self._slab(x[None])[0]
        wave = self._waves(1, y - self.low[1], jnp.arange(1, self.count + 1))
        extra = slab[0].real + 2 * _real_product(slab[1:, None], wave).sum(axis=0)
        own = self.density(x[None])[0]
        return y, dy / self.length[1] * extra * jnp.where(own != 0, weight / jnp.where(own != 0, own, 1), 0)

    def density(self, x: Float[Array, " Q"]) -> Float[Array, " Q"]:
        """Of the first coordinate, where there are two."""
        return self._slab(x)[:, 0].real

    def _slab(self, x: Float[Array, " Q"]) -> Complex[Array, "Q O"]:
        """The series over the second coordinate, of the density at x of the first."""
        N = self.count
        wave = self._waves(0, x - self.low[0], jnp.arange(-N, N + 1))
        return jnp.einsum("wq,wr->qr", wave, self.phi) / self.length[0]

    def tail(self, y: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """P(first > y)."""
        return self._tail(0, self.phi[:, 0], y)

    def inner_tail(self, x: Float[Array, " Q"], weight: Float[Array, " Q"], y: Float[Array, "Q O"]) -> Array:
        """Weights of the nodes x times P(second > y | first = x)."""
        slab = self._slab(x)
        own = slab[:, 0].real
        dx = jnp.where(own != 0, weight / jnp.where(own != 0, own, 1), 0)
        return jax.vmap(lambda phi, edges, d: d * self._tail(1, phi, edges))(slab, y, dx)

    def _tail(self, axis: int, phi: Complex[Array, " O"], y: Float[Array, "*s"]) -> Float[Array, "*s"]:
        low, high = self.window(axis)
        index = jnp.arange(1, self.count + 1)
        wave = self._waves(axis, jnp.clip(y, low, high) - low, index)
        turned = (phi[1:] * 1j / (jnp.pi * index)).reshape(-1, *[1] * y.ndim)
        ringing = _real_product(turned, 1 - wave).sum(axis=0)
        return phi[0].real * (high - jnp.clip(y, low, high)) / self.length[axis] + ringing


def _root(variance: Scalar) -> Scalar:
    """The square root, with a derivative of zero at zero."""
    return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)


def _gaussian_tail(y: Float[Array, "*s"], deviation: Scalar) -> Float[Array, "*s"]:
    some = deviation > 0
    return jnp.where(some, ndtr(-y / jnp.where(some, deviation, 1)), (y < 0).astype(y.dtype))


def _gaussian_rule(deviation: Scalar, splits: Float[Array, " k"]) -> tuple[Array, Array]:
    some = deviation > 0
    ends = jnp.asarray(-REACH, splits.dtype), jnp.asarray(REACH, splits.dtype)
    inside = jnp.where(some, splits / jnp.where(some, deviation, 1), REACH)
    u, du = split_panels(*ends, jnp.clip(inside, *ends), PANELS)
    return deviation * u, du * jnp.exp(-(u**2) / 2) / (2 * jnp.pi) ** 0.5


def _real_product(a: Complex[Array, "*s"], b: Complex[Array, "*z"]) -> Float[Array, "*y"]:
    return a.real * b.real - a.imag * b.imag

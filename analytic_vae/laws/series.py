"""The law of a few projections of a layer's output by the Fourier series of its density: it must have one."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model.feature_model import FeatureModel
from ..model.layer import AbstractLayer
from ..moments.layer_moments import LayerMoments
from ..moments.reading import Reading
from ..moments.spectrum import Spectrum
from ..moments.statistic import Statistic, grid_weights
from ..moments.units import DenseMoments
from ..spectral.fourier import half_grid, periodic_rule, window
from ..spectral.quadrature import panel_count, split_panels
from ..spectral.resolution import Resolution
from ..types import Array, Complex, Float, Scalar
from .unit_law import unit_law


class LawSeries(eqx.Module):
    """Box and characteristic function of `Y = V f(x1)`: `E exp(i <w, Y - low>)` on the half grid of the box."""

    low: Float[Array, " D"]
    length: Float[Array, " D"]
    characteristic: Complex[Array, " W"]
    resolution: Resolution

    @classmethod
    def of(cls, source: FeatureModel, layer: AbstractLayer, readout: Float[Array, "D n2"], resolution: Resolution):
        """For a readout of at most three rows; of a `DenseLayer` of at most two units."""
        if layer.reads_input:
            activations = tuple(layer.activations[i] for i in layer.activation_index)
            return cls(*unit_law(source, layer.form().projected(readout), activations, resolution), resolution)
        reading = Reading.of(source, layer, resolution)
        statistic = Statistic.of(reading, readout, aligned=True)
        phi = Spectrum.of(statistic, reading.axis.law_grid(resolution, readout.shape[0]), resolution).characteristic()
        scale = jnp.diagonal(statistic.basis)
        return cls(statistic.centre + scale * statistic.low, scale * statistic.length, phi, resolution)

    @staticmethod
    def moments(source, layer, readout, resolution) -> tuple[Float[Array, " D"], Float[Array, "D D"], Scalar]:
        """Mean and covariance of Y from those of the layer's output, and how far they may be off, in spreads."""
        if layer.reads_input:
            moments = DenseMoments.of(source, layer, resolution)
            mean, covariance = moments.output()
            accuracy = moments.overall
        else:
            reading = Reading.of(source, layer, resolution)
            mean, covariance = LayerMoments.of_ridge(source, reading.form, reading.axis).output()
            accuracy = reading.axis.moment_error
        return readout @ mean, readout @ covariance @ readout.T, accuracy

    @property
    def dimension(self) -> int:
        """`D`."""
        return self.low.shape[0]

    @property
    def accuracy(self) -> Scalar:
        """What tails may be off by: what the last frequencies of every axis still add to them."""
        order, D = self.resolution.law_order(self.dimension), self.dimension
        index = jnp.asarray(half_grid(order, D), self.low.dtype)
        size, total = jnp.abs(self.characteristic), jnp.zeros((), self.low.dtype)
        for d in range(D):
            own = jnp.abs(index[:, d])
            others = jnp.abs(index).sum(axis=1) - own
            last = (own > 3 * order / 4) & (others == 0)
            total = total + jnp.sum(jnp.where(last, size / (jnp.pi * jnp.maximum(own, 1)), 0))
        return total

    def density(self, points: int) -> tuple[Float[Array, "D points"], Array]:
        """The density on an equally spaced grid of the box."""
        v = (jnp.arange(points, dtype=self.low.dtype) + 0.5) / points
        ones = jnp.ones_like(v)
        values = self._weights([v] * self.dimension, [ones] * self.dimension) / jnp.prod(self.length)
        return self.low[:, None] + self.length[:, None] * v[None], values

    def masses(self, points: int) -> Array:
        """The mass of every cell of an equally spaced grid of the box: one fast Fourier transform.

        With `N` points an axis a cell has `sum_k phi_k prod_d sinc(k_d / N) exp(-2 pi i k_d (n_d + 1/2) / N) / N`;
        frequencies from N on fold onto those below. Where the window falls the cells do.
        """
        order, D = self.resolution.law_order(self.dimension), self.dimension
        index = half_grid(order, D).astype(int)
        twice = np.where(index[:, -1] == 0, 1, 2)  # the last index stands for its negative, too
        share = np.prod(np.sinc(index / points), axis=1) * twice
        shift = np.exp(-1j * np.pi * index.sum(axis=1) / points)
        folded = jnp.zeros([points] * D, self.characteristic.dtype)
        folded = folded.at[tuple(index.T % points)].add(self.characteristic * (share * shift).astype(folded.dtype))
        masses = jnp.fft.fftn(folded).real / points**D
        v = (jnp.arange(points, dtype=self.low.dtype) + 0.5) / points
        for d in range(D):
            masses = masses * window(v, order).reshape([-1 if e == d else 1 for e in range(D)])
        return masses

    def expectation(self, fn: Callable[[Array], Array], kinks: list[Array]) -> Array:
        """`E[fn(Y)]`."""
        nodes, weights, points = self._rule(kinks)
        return jnp.tensordot(self._weights(nodes, weights).ravel(), jax.vmap(fn)(points), axes=1)

    def tail(self, t: Float[Array, " D"]) -> Scalar:
        """P(Y > t in every axis)."""
        inside = lambda y: jnp.all(y > t).astype(y.dtype)  # noqa: E731
        return jnp.clip(self.expectation(inside, [t[d : d + 1] for d in range(self.dimension)]), 0, 1)

    def _rule(self, kinks: list[Array]) -> tuple[list[Array], list[Array], Float[Array, "Q D"]]:
        nodes, weights = [], []
        for axis, places in enumerate(kinks):
            v, weight = self._axis_rule((places - self.low[axis]) / self.length[axis])
            nodes.append(v)
            weights.append(weight)
        mesh = jnp.stack(jnp.meshgrid(*nodes, indexing="ij"), axis=-1).reshape(-1, self.dimension)
        return nodes, weights, self.low[None] + self.length[None] * mesh

    def _axis_rule(self, kinks: Float[Array, " kinks"]) -> tuple[Array, Array]:
        order = self.resolution.law_order(self.dimension)
        if kinks.size == 0:
            v, weight = periodic_rule(order)
            return jnp.asarray(v, kinks.dtype), jnp.asarray(weight, kinks.dtype)
        return split_panels(jnp.zeros_like(kinks[0]), jnp.ones_like(kinks[0]), kinks, panel_count(order))

    def _weights(self, nodes: list[Array], weights: list[Array]) -> Array:
        return grid_weights(self.characteristic, nodes, weights, self.resolution.law_order(self.dimension))

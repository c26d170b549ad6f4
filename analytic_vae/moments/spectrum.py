"""The characteristic function of a feature's statistics on the grid of its box, and the moments that it gives."""

import equinox as eqx
import jax
import jax.numpy as jnp

from ..spectral.characteristic import Factors, matmul, waves
from ..spectral.fourier import Series
from ..spectral.resolution import Resolution
from ..types import Array, Complex, Float, Scalar
from .conditional import StateExpectations
from .ridge_axis import RidgeGrid
from .statistic import Statistic

CHUNK = 1024  # frequencies computed at once; grids of two and three statistics have more


class Block(eqx.Module):
    """Some frequencies `w`, with `exp(i <w, kappa''(b)>) h(b) ~ sum_r c_r exp(i omega_r b)` for `h = 1` and `h = psi`.

    Fields: `frequency: [W, t]`, `omega: [O]`; `factors` of `joint: [W, O]`, `E exp(i <w, a''> + i omega b)`; `plain`,
    `with_psi: [W, O]`, the two `c`.
    """

    frequency: Float[Array, "W t"]
    omega: Float[Array, " O"]
    factors: Factors
    joint: Complex[Array, "W O"]
    plain: Complex[Array, "W O"]
    with_psi: Complex[Array, "W O"]

    @classmethod
    def of(cls, statistic: Statistic, grid: RidgeGrid, frequency: Float[Array, "W t"]) -> "Block":
        """The block of these frequencies."""
        factors = statistic.factors(frequency, grid)
        operators = jnp.concatenate([grid.operator, grid.operator * grid.psi[None]])
        plain, with_psi = jnp.split(matmul(statistic.oscillation(frequency, grid), operators.T), 2, axis=1)
        return cls(frequency, grid.omega, factors, factors.product(), plain, with_psi)

    def characteristic(self) -> Complex[Array, " W"]:
        """`E exp(i <w, y''>)`: frequencies on the ridge axis, nodes on it, shift, sum (Lemma 3.4 with no binning)."""
        return jnp.sum(self.joint * self.plain, axis=1)

    def moments(self, coefficients: Complex[Array, " W"]) -> tuple[StateExpectations, Scalar]:
        """Of `r = Re sum_w coefficients_w exp(i <w, y''>)`: `E[r]` pinned, and `E[psi r]`."""
        weight = coefficients[:, None] * self.plain
        psi = jnp.sum((coefficients[:, None] * self.with_psi * self.joint).real)
        turned = -(weight * self.joint).imag
        slope = jnp.append(turned.sum(axis=1) @ self.frequency, turned.sum(axis=0) @ self.omega)
        return StateExpectations(self.factors.pinned(weight), slope), psi


class Spectrum(eqx.Module):
    """Everything on the half grid of a box: in one block if it is small enough, which is then computed once."""

    statistic: Statistic
    grid: RidgeGrid
    frequency: Float[Array, "W t"]
    whole: Block | None

    @classmethod
    def of(cls, statistic: Statistic, grid: RidgeGrid, resolution: Resolution) -> "Spectrum":
        """The spectrum of a feature's statistics."""
        frequency = statistic.box_frequencies(resolution)
        small = frequency.shape[0] <= CHUNK
        return cls(statistic, grid, frequency, Block.of(statistic, grid, frequency) if small else None)

    def characteristic(self) -> Complex[Array, " W"]:
        """`phi(w_k) exp(-i w_k low)` on the half grid of the box."""
        at_zero = jnp.conj(waves(self.frequency, self.statistic.low))
        if self.whole is not None:
            return self.whole.characteristic() * at_zero
        frequency, _ = self._blocks(at_zero)
        one = jax.checkpoint(lambda w: Block.of(self.statistic, self.grid, w).characteristic())
        return jax.lax.map(one, frequency).ravel()[: at_zero.size] * at_zero

    def moments(self, series: Series) -> tuple[StateExpectations, Scalar]:
        """Of `r`, a series on these frequencies: `E[r]` pinned, and `E[psi(b) r]`."""
        coefficients = series.coefficients
        if self.whole is not None:
            return self.whole.moments(coefficients)
        one = jax.checkpoint(lambda args: Block.of(self.statistic, self.grid, args[0]).moments(args[1]))
        return jax.tree.map(lambda leaf: leaf.sum(axis=0), jax.lax.map(one, self._blocks(coefficients)))

    def _blocks(self, coefficients):
        count = -(-coefficients.size // CHUNK)
        padding = count * CHUNK - coefficients.size
        frequency = jnp.pad(self.frequency, ((0, padding), (0, 0)))
        return frequency.reshape(count, CHUNK, -1), jnp.pad(coefficients, (0, padding)).reshape(count, CHUNK)

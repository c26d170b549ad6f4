"""The characteristic function of a feature's statistics on the grid of its box, and the moments that it gives."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from ..spectral.characteristic import matmul, times, waves
from ..spectral.fourier import Series
from ..spectral.resolution import Resolution
from ..types import Array, Complex, Float, Scalar
from .conditional import StateExpectations, perturb_masses
from .ridge_axis import RidgeGrid
from .statistic import Statistic

CHUNK = 1024  # frequencies computed at once; grids of two and three statistics have more


class Block(eqx.Module):
    """Some frequencies `w`, with `exp(i <w, kappa''(b)>) h(b) ~ sum_r c_r exp(i omega_r b)` for `h = 1` and `h = psi`.

    Fields: `joint: [W, O]`, `E exp(i <w, a''> + i omega b)`; `plain`, `with_psi: [W, O]`, the two `c`; and `pull`, from
    a cotangent of `joint` to those of tilts of the masses and a shift of `(a'', b)`.
    """

    joint: Complex[Array, "W O"]
    plain: Complex[Array, "W O"]
    with_psi: Complex[Array, "W O"]
    pull: Callable

    @classmethod
    def of(cls, statistic: Statistic, grid: RidgeGrid, frequency: Float[Array, "W t"]) -> "Block":
        """The block of these frequencies."""
        t = statistic.dimension

        def joint(masses_tilt, shift):
            tilted_grid = eqx.tree_at(lambda g: g.law, grid, perturb_masses(grid.law, masses_tilt, shift[t:]))
            tilted = eqx.tree_at(lambda s: s.law, statistic, perturb_masses(statistic.law, masses_tilt, shift[:t]))
            return tilted.joint(frequency, tilted_grid)

        masses = grid.law.masses
        value, pull = jax.vjp(joint, jnp.zeros_like(masses), jnp.zeros(t + 1, masses.dtype))
        operators = jnp.concatenate([grid.operator, grid.operator * grid.psi[None]])
        series = matmul(statistic.oscillation(frequency, grid), operators.T)
        plain, with_psi = jnp.split(series, 2, axis=1)
        return cls(value, plain, with_psi, pull)

    def characteristic(self) -> Complex[Array, " W"]:
        """`E exp(i <w, y''>)`: frequencies on the ridge axis, nodes on it, shift, sum (Lemma 3.4 with no binning)."""
        return jnp.sum(times(self.joint, self.plain), axis=1)

    def moments(self, coefficients: Complex[Array, " W"]) -> tuple[StateExpectations, Scalar]:
        """Of `r = Re sum_w coefficients_w exp(i <w, y''>)`: `E[r]` pinned, and `E[psi r]`."""
        cotangent = times(coefficients[:, None], self.plain)
        psi = jnp.sum(times(times(coefficients[:, None], self.with_psi), self.joint).real)
        return StateExpectations(*self.pull(cotangent)), psi


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
            return times(self.whole.characteristic(), at_zero)
        frequency, _ = self._blocks(at_zero)
        one = jax.checkpoint(lambda w: Block.of(self.statistic, self.grid, w).characteristic())
        return times(jax.lax.map(one, frequency).ravel()[: at_zero.size], at_zero)

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

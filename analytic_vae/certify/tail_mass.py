"""Bounds of the mass of a projection, and of what grows exponentially, beyond a place."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from ..spectral.box import floor, mirror, standard_deviation
from ..spectral.projected_law import Projection
from ..types import Array, Float, Scalar

CELLS = 64  # of the ridge variable, and candidates for the end of a box (B12: a choice)

GROWTH = 16  # functions that grow: E |g| 1{outside} by Hoelder, from (E |Y|^16)^(1/16) (B13, B14; a choice)


def log_mgf(law: Projection, theta: Float[Array, " theta"]) -> Float[Array, " theta"]:
    """`log E exp(theta (Y - mean))` for D = 1, exact; `mean` is that of the `Projection` (B10)."""
    exponent = theta[:, None, None] * law.atoms[0][None]
    features = jax.nn.logsumexp(exponent, axis=2, b=law.masses[None]).sum(axis=1)
    return features + law.covariance[0, 0] * theta**2 / 2


class RangeCells(eqx.Module):
    """A function `h = kappa(b)` of the ridge variable by cells of b: `least <= h <= most: [C]` in each (B12).

    `log_mass: [C]` bounds the probability of each cell, `elsewhere` that of none.
    """

    least: Float[Array, " C"]
    most: Float[Array, " C"]
    log_mass: Float[Array, " C"]
    elsewhere: Scalar

    @property
    def mirrored(self) -> "RangeCells":
        """The cells of `-h`."""
        return RangeCells(-self.most, -self.least, self.log_mass, self.elsewhere)

    def shorter(self, law: Projection, mirrored: Projection, low: Scalar, high: Scalar) -> tuple[Scalar, Scalar]:
        """The part of a box of `Y + h` outside of which hardly more than rounding is left, where that can be shown.

        A choice: what is outside of the box that comes of it is bounded anew (B16, B26).
        """
        share = jnp.arange(CELLS, dtype=low.dtype) / CELLS
        limit = jnp.log(jnp.finfo(low.dtype).eps)
        tops, bottoms = high - share * (high - low), low + share * (high - low)
        above = log_mass_above(law, tops, self) <= limit
        below = log_mass_above(mirrored, -bottoms, self.mirrored) <= limit
        above, below = (jnp.cumprod(one.at[0].set(True)) > 0 for one in (above, below))
        top, bottom = jnp.min(jnp.where(above, tops, high)), jnp.max(jnp.where(below, bottoms, low))
        crossed = top <= bottom + (high - low) / CELLS
        return jnp.where(crossed, low, bottom), jnp.where(crossed, high, top)


def log_mass_above(law: Projection, heights: Float[Array, " P"], bend: RangeCells | None = None) -> Float[Array, " P"]:
    """Bounds of `log P(Y >= h)`, D = 1: Chernoff's (B10), or by the noise beyond the end of the exact support (B11).

    With the cells of a function h of the ridge variable, of `P(Y + h > .)` but for what is in no cell: however the two
    depend on each other, it is at most the sum over cells of the lesser of `P(cell)` and `P(Y > height - most)` (B12).
    """
    if bend is not None:
        apart = heights[:, None] - bend.most[None]
        each = jnp.minimum(bend.log_mass[None], log_mass_above(law, apart.ravel()).reshape(apart.shape))
        return jnp.minimum(0, jax.nn.logsumexp(each, axis=1))
    deviation = standard_deviation(law)[0]
    theta = jnp.geomspace(0.02, 400.0, 72, dtype=deviation.dtype) / deviation  # B10: a choice
    mgf = log_mgf(law, theta)
    highest = law.mean[0] + jnp.max(jnp.where(law.masses > 0, law.atoms[0], -jnp.inf), axis=1).sum()
    noise = jnp.sqrt(law.covariance[0, 0])
    # B4: how far rounding may have moved the end of the support
    roundoff = 8 * jnp.finfo(deviation.dtype).eps * (jnp.abs(highest) + jnp.abs(law.atoms[0]).max(axis=1).sum())
    chernoff = jnp.min(mgf[None] - theta[None] * (heights[:, None] - law.mean[0]), axis=1)  # B10
    gap = heights - highest - roundoff  # B11
    beyond = jnp.where(noise > 0, -((gap / jnp.where(noise > 0, noise, 1)) ** 2) / 2, -jnp.inf)
    return jnp.minimum(0, jnp.minimum(chernoff, jnp.where(gap > 0, beyond, 0)))


def sixteenth(law: Projection, centre: Scalar) -> Scalar:
    """`(E (Y - centre)^16)^(1/16)`, from above (B13)."""
    # y^16 <= 16! (exp(theta y) + exp(-theta y)) / theta^16; the grid of theta is a choice
    deviation = standard_deviation(law)[0]
    theta = jnp.geomspace(0.02, 40.0, 24, dtype=deviation.dtype) / deviation
    middle = law.total_mean[0] - law.mean[0]
    both = jnp.logaddexp(log_mgf(law, theta) - theta * middle, log_mgf(mirror(law), theta) + theta * middle)
    root = jnp.min((math.lgamma(GROWTH + 1) + both) / GROWTH - jnp.log(theta))
    return jnp.exp(root) + jnp.abs(law.total_mean[0] - centre) + floor(law)[0]

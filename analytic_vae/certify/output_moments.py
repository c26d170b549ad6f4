"""Mean and covariance of a few projections of any layer's output, with bounds of their errors."""

import jax
import jax.numpy as jnp
import numpy as np

from .._jit import compiled, exact_products
from ..spectral.resolution import Resolution
from ..types import Array, Float
from .ball import Ball, Bounded, einsum
from .joint_law import root_sizes
from .units import Units, alone_order


@exact_products
@compiled
def output_moments(source, layer, readout: Float[Array, "D n2"], resolution: Resolution) -> tuple[Bounded, Bounded]:
    """Mean `[D]` and covariance `[D, D]` of `readout f(x)`, with bounds of their errors (B41, roundings by B4, B42)."""
    form, units, order = layer.form(), Units.of(source, layer), alone_order(resolution)
    input_mean, covariance = source.moments()
    roots = root_sizes(source)
    rows = Ball.of(readout) @ form.linear
    mean = rows @ Ball.of(input_mean, roots) + Ball.of(readout) @ form.offset
    total = rows @ Ball.of(covariance, jnp.outer(roots, roots)) @ rows.T
    if units.count == 0:
        return mean.bounded(), total.bounded()
    bent = Ball.of(readout) @ form.output
    psi, second = Ball.of(units.means(order)), Ball.of(units.second_moments(resolution))
    own = second - psi[:, None] * psi[None]

    # B41: Cov(row x, psi) of every row and unit.
    D, every = readout.shape[0], np.arange(units.count)
    each = lambda a: jnp.repeat(a, units.count, axis=0)  # noqa: E731
    inputs = 2 * rows.size @ roots
    shared = units.with_rows(np.tile(every, D), each(rows.value), each(-rows.value @ input_mean), each(inputs), order)
    cross = einsum("du,eu->de", jax.tree.map(lambda a: a.reshape(D, -1), Ball.of(shared)), bent)
    return (mean + bent @ psi).bounded(), (total + cross + cross.T + bent @ own @ bent.T).bounded()

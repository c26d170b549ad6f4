"""Mean and covariance of a few projections of any layer's output, with bounds of their errors."""

import jax.numpy as jnp
import numpy as np

from .._jit import compiled, exact_products
from ..spectral.resolution import Resolution
from ..types import Array, Float
from .ball import SAFETY, Bounded
from .joint_law import root_sizes
from .units import Units, alone_order


@exact_products
@compiled
def output_moments(source, layer, readout: Float[Array, "D n2"], resolution: Resolution) -> tuple[Bounded, Bounded]:
    """Mean `[D]` and covariance `[D, D]` of `readout f(x)`, with bounds of their errors (B41, roundings by B4, B42)."""
    form, units, order = layer.form(), Units.of(source, layer), alone_order(resolution)
    eps = jnp.finfo(source.mean.dtype).eps
    mean, covariance = source.moments()
    rows = readout @ form.linear
    inputs = jnp.abs(readout) @ jnp.abs(form.linear) @ root_sizes(source)
    sizes = inputs + jnp.abs(readout) @ jnp.abs(form.offset)
    linear, plain = rows @ mean + readout @ form.offset, rows @ covariance @ rows.T
    if units.count == 0:
        return Bounded(linear, 8 * eps * sizes), Bounded(plain, 8 * eps * jnp.outer(sizes, sizes))
    bent = readout @ form.output
    psi, second = units.means(order), units.second_moments(resolution)
    roots = jnp.sqrt(jnp.maximum(jnp.diagonal(second.high), 0))
    sizes = sizes + jnp.abs(readout) @ jnp.abs(form.output) @ roots

    # B41: Cov(row x, psi) of every row and unit.
    D, every = readout.shape[0], np.arange(units.count)
    each = lambda a: jnp.repeat(a, units.count, axis=0)  # noqa: E731
    shared = units.with_rows(np.tile(every, D), each(rows), each(-rows @ mean), each(2 * inputs), order)
    cross = jnp.einsum("du,eu->de", shared.value.reshape(D, -1), bent)
    cross_error = (shared.error_bound + 4 * eps * jnp.abs(shared.value)).reshape(D, -1) @ jnp.abs(bent).T

    own = second.value - jnp.outer(psi.value, psi.value)
    spread = jnp.outer(jnp.abs(psi.value) + psi.error_bound, psi.error_bound)
    own_error = second.error_bound + spread + spread.T + 4 * eps * (jnp.abs(second.value) + jnp.abs(own))
    error = cross_error + cross_error.T + jnp.abs(bent) @ own_error @ jnp.abs(bent).T
    error = error + 8 * eps * jnp.outer(sizes, sizes)
    mean_error = jnp.abs(bent) @ (psi.error_bound + 4 * eps * jnp.abs(psi.value)) + 8 * eps * sizes
    total = plain + cross + cross.T + bent @ own @ bent.T
    return Bounded(linear + bent @ psi.value, SAFETY * mean_error), Bounded(total, SAFETY * error)

"""The same loss by Monte Carlo in JAX: `x1` is sampled, everything given `x1` (the latents included) is exact."""

import harness  # noqa: F401  (64 bits, path)
import jax
import jax.numpy as jnp


def conditional_loss(x, layer, target, encoder):
    """`E[log Q(z | f(x)) - log P2(z) - log P2(f(x) | z)]` over z ~ Q, for one `x: [n1]`: no variance from z."""
    f = layer(x)
    y = jnp.einsum("jtn,n->jt", encoder.readout, f)
    log_q = jax.vmap(lambda one, y, atoms: one.log_masses(y, atoms))(encoder, y, target.prior.atoms)
    q = jnp.exp(log_q)
    s = jnp.sum(q * target.prior.atoms, axis=1)
    v = jnp.sum(q * (target.prior.atoms - s[:, None]) ** 2, axis=1)
    rate = jnp.sum(q * (log_q - target.prior.log_masses))
    residual = f - target.mean - target.decoder @ s
    if target.noise.ndim == 2:
        whiten = lambda a: jax.scipy.linalg.solve_triangular(target.noise, a, lower=True)  # noqa: E731
        log_det = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(target.noise))))
    else:
        std = jnp.broadcast_to(target.noise, f.shape)
        whiten = lambda a: (a.T / std).T  # noqa: E731
        log_det = jnp.sum(jnp.log(std))
    quadratic = jnp.sum(whiten(residual) ** 2) + v @ jnp.sum(whiten(target.decoder) ** 2, axis=0)
    return rate + f.size / 2 * jnp.log(2 * jnp.pi) + log_det + quadratic / 2


def sampled_loss(key, source, layer, target, encoder, samples, chunk=4096):
    """Mean of `conditional_loss` over `samples` draws, and its standard error; `chunk` draws at a time."""
    chunk = min(chunk, samples)
    if samples % chunk:
        raise ValueError(f"samples: expected a multiple of {chunk}, got {samples}.")

    def one(key):
        x = source.sample(key, (chunk,))
        losses = jax.vmap(lambda x: conditional_loss(x, layer, target, encoder))(x)
        return jnp.mean(losses), jnp.mean(losses**2)

    means, squares = jax.lax.map(one, jax.random.split(key, samples // chunk))
    mean = jnp.mean(means)
    return mean, jnp.sqrt(jnp.maximum(jnp.mean(squares) - mean**2, 0) / samples)

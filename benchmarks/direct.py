"""The loss by direct sums: one 3-D Fourier grid per pair of features, an einsum over atoms, no further idea.

What one would write first after section 1 of the paper and Fourier series, and what the package is compared with.
Every latent mean has `FREQUENCIES` Fourier coefficients on a box around its statistic; the characteristic function of
`(a_j, a_k, b)` comes from an einsum over atoms per source feature; `b` has Gauss-Legendre nodes split at the kink.
For t = 1, a ridge layer and scalar target noise. Boxes carry no gradient. Pairs are looped over with rematerialisation.
"""

from typing import NamedTuple

import harness  # noqa: F401  (64 bits, path)
import jax
import jax.numpy as jnp
import numpy as np

FREQUENCIES = 24
HALF_WIDTH = 6.0  # of a box, in standard deviations; `python direct.py n m K` tries others
COEFFICIENT_NODES = 5  # per frequency, for the Fourier coefficients of one latent mean
RIDGE_NODES = 1.5  # per frequency, on each side of the kink


class Axis(NamedTuple):
    """One real variable `<row, x>`: what each feature adds `[m, K]`, its mean, standard deviation and frequencies."""

    atoms: jax.Array
    mean: jax.Array
    frequency: jax.Array
    low: jax.Array
    length: jax.Array


def loss(source, layer, target, encoder, frequencies=FREQUENCIES, half_width=HALF_WIDTH):
    """The loss of Theorem 3.1 in nats."""
    form, masses = layer.read_form(), source.prior.masses
    covariance = source.covariance
    full = jnp.arange(-(frequencies // 2), (frequencies + 1) // 2).astype(masses.dtype)
    half = jnp.arange(frequencies // 2 + 1).astype(masses.dtype)  # the others are complex conjugates
    fold = jnp.where(half == 0, 1.0, 2.0)

    def projected(row):
        loadings = row @ source.decoder
        return loadings[:, None] * source.prior.atoms, row @ source.mean

    def sd(row):
        features = (row @ source.decoder) ** 2 @ source.prior.variance
        return jnp.sqrt(features + row @ covariance @ row)

    # The ridge axis: nodes, psi, and weights that take a function of b to Fourier coefficients.
    u = form.direction
    b_atoms, b_mean = projected(u)
    b_mean = b_mean + form.bias
    b_centre, b_sd = b_mean + u @ source.decoder @ source.prior.mean, sd(u)
    low, high = jax.lax.stop_gradient((b_centre - half_width * b_sd, b_centre + half_width * b_sd))
    node, weight = np.polynomial.legendre.leggauss(int(RIDGE_NODES * frequencies))
    kink = jnp.clip(0.0, low, high)
    b = jnp.concatenate([low + (kink - low) * (node + 1) / 2, kink + (high - kink) * (node + 1) / 2])
    b_weight = jnp.concatenate([weight * (kink - low) / 2, weight * (high - kink) / 2])
    psi = form.activation(b)
    omega = 2 * jnp.pi * full / (high - low)
    to_series = b_weight[:, None] * jnp.exp(-1j * b[:, None] * omega[None]) / (high - low)  # [Q, R]

    def law_b(row, eps):
        """Phi of b on `omega`, with `eps` of `<row, x>` mixed in: the derivative in eps gives E[<row, x> g]."""
        atoms, mean = projected(row)
        power = omega[:, None, None] * b_atoms[None] + eps * atoms[None]
        features = jnp.prod(jnp.sum(masses * jnp.exp(1j * power), axis=2), axis=1)
        variance = omega**2 * (u @ covariance @ u) + 2 * eps * omega * (u @ covariance @ row)
        return features * jnp.exp(1j * (omega * b_mean + eps * mean) - variance / 2)

    def weighted_b(row):
        return jax.jvp(lambda eps: law_b(row, eps), (0.0,), (1.0,))

    phi_b = law_b(u, 0.0)
    e_psi = (psi @ to_series @ phi_b).real
    e_psi2 = (psi**2 @ to_series @ phi_b).real
    centre = form.offset - target.mean
    _, slope = weighted_b(form.linear.T @ form.output)
    e_linear_psi = (-1j * (psi @ to_series @ slope)).real
    mapped = form.linear @ source.moments()[0] + centre
    U1 = jnp.sum((form.linear @ source.moments()[1]) * form.linear) + mapped @ mapped
    U2 = 2 * (e_linear_psi + form.output @ centre * e_psi)
    U3 = form.output @ form.output * e_psi2

    # The statistics: boxes from the moments of y, exact up to the law of b above.
    rows = encoder.readout[:, 0] @ form.linear  # [m2, n1]
    slopes = encoder.readout[:, 0] @ form.output
    offsets = encoder.readout[:, 0] @ form.offset

    def statistic(row, slope, offset, one, atoms):
        """Axis of `a = <row, x>` (frequencies: half), and the Fourier coefficients of s, s^2, v, r on the box of y."""
        a_atoms, a_mean = projected(row)
        mean = row @ source.moments()[0] + offset + slope * e_psi
        variance = row @ source.moments()[1] @ row + slope**2 * (e_psi2 - e_psi**2)
        cross = (-1j * (psi @ to_series @ weighted_b(row)[1])).real
        variance = variance + 2 * slope * (cross - row @ source.moments()[0] * e_psi)
        deviation = jax.lax.stop_gradient(jnp.sqrt(jnp.maximum(variance, 1e-12)))
        low = jax.lax.stop_gradient(mean) - half_width * deviation
        length = 2 * half_width * deviation
        node, weight = np.polynomial.legendre.leggauss(COEFFICIENT_NODES * frequencies)
        y = low + length * (node + 1) / 2
        log_q = jax.vmap(lambda y: one.log_masses(y[None], atoms[0]))(y)
        q = jnp.exp(log_q)
        s = q @ atoms[0]
        v = jnp.sum(q * (atoms[0][None] - s[:, None]) ** 2, axis=1)
        r = jnp.sum(q * (log_q - atoms[1][None]), axis=1)
        wave = jnp.exp(-1j * (2 * jnp.pi / length) * full[:, None] * y[None]) * (weight / 2)[None]
        coefficients = wave @ jnp.stack([s, s**2, v, r], axis=1).astype(wave.dtype)  # [F, 4]
        return Axis(a_atoms, a_mean + offset, 2 * jnp.pi / length, low, length), coefficients

    log_prior = target.prior.log_masses
    axes, coefficients = jax.vmap(statistic)(
        rows, slopes, offsets, encoder, jnp.stack([target.prior.atoms, log_prior], 1)
    )
    B = target.decoder
    gram = B.T @ B

    def waves(row, slope, axis, index):
        """For frequencies `index`: powers over atoms, the shift by the ridge, mean phase."""
        w = axis.frequency * index
        return (
            w,
            w[:, None, None] * axis.atoms[None],
            jnp.exp(1j * (w[:, None] * slope * psi[None] + (w * axis.mean)[:, None])),
        )

    @jax.checkpoint
    def single(row, slope, axis, coefficient, direction):
        """E of s, s^2, v, r, of psi s and of <direction, x> s for one statistic."""
        w, power, shift = waves(row, slope, axis, half)

        def phi(eps):
            atoms, mean = projected(direction)
            table = jnp.exp(1j * (power[:, None] + (omega[:, None, None] * b_atoms[None])[None] + eps * atoms))
            features = jnp.prod(jnp.sum(masses * table, axis=3), axis=2)  # [P, R]
            var = (w**2 * (row @ covariance @ row))[:, None] + (omega**2 * (u @ covariance @ u))[None]
            var = var + 2 * (row @ covariance @ u) * w[:, None] * omega[None]
            var = var + 2 * eps * (direction @ covariance @ row * w[:, None] + direction @ covariance @ u * omega[None])
            return features * jnp.exp(1j * ((omega * b_mean)[None] + eps * mean) - var / 2)

        value, slope_phi = jax.jvp(phi, (0.0,), (1.0,))
        ones = jnp.sum((shift @ to_series) * value, axis=1)
        with_psi = jnp.sum(((shift * psi) @ to_series) * value, axis=1)
        weighted = jnp.sum((shift @ to_series) * slope_phi, axis=1) * -1j
        folded = fold[:, None] * _halved(coefficient, frequencies)
        return (ones @ folded).real, (with_psi @ folded[:, 0]).real, (weighted @ folded[:, 0]).real

    laws, psi_s, linear_s = jax.lax.map(lambda a: single(*a), (rows, slopes, axes, coefficients, B.T @ form.linear))
    s, s2, v, r = laws.T
    T2 = -2 * jnp.sum(linear_s + (B.T @ form.output) * psi_s + (B.T @ centre) * s)

    b_table = jnp.exp(1j * omega[:, None, None] * b_atoms[None]) * masses[None]  # [R, m, K]

    @jax.checkpoint
    def pair(left, right):
        """E[s_j s_k]: the 3-D grid."""
        row_j, slope_j, axis_j, coefficient_j = left
        row_k, slope_k, axis_k, coefficient_k = right
        w_j, power_j, shift_j = waves(row_j, slope_j, axis_j, half)
        w_k, power_k, shift_k = waves(row_k, slope_k, axis_k, full)
        tables = (jnp.exp(1j * power_j), jnp.exp(1j * power_k), b_table)

        def feature(product, tables):
            return product * jnp.einsum("pk,qk,rk->pqr", *tables), None

        ones = jnp.ones((half.size, full.size, omega.size), tables[0].dtype)
        phi, _ = jax.lax.scan(feature, ones, tuple(jnp.moveaxis(table, 1, 0) for table in tables))
        grid = jnp.stack(jnp.broadcast_arrays(w_j[:, None, None], w_k[None, :, None], omega[None, None, :]), axis=-1)
        G = jnp.stack([row_j, row_k, u])
        variance = jnp.einsum("pqrd,de,pqre->pqr", grid, G @ covariance @ G.T, grid)
        phi = phi * jnp.exp(1j * (omega * b_mean) - variance / 2)
        ridge = (shift_j[:, None] * shift_k[None]) @ to_series
        value = jnp.sum(phi * ridge, axis=2)
        return ((fold * _halved(coefficient_j, frequencies)[:, 0]) @ value @ coefficient_k[:, 0]).real

    j, k = np.triu_indices(rows.shape[0], 1)
    parts = (rows, slopes, axes, coefficients)
    take = lambda index: jax.tree.map(lambda leaf: leaf[index], parts)  # noqa: E731
    cross = jax.lax.map(lambda pairs: pair(*pairs), (take(j), take(k)))
    T3 = 2 * jnp.sum(gram[j, k] * cross) + jnp.diagonal(gram) @ s2
    S1 = jnp.diagonal(gram) @ v
    variance = target.noise**2
    R2 = target.neurons / 2 * jnp.log(2 * jnp.pi * variance)
    return jnp.sum(r) + R2 + (S1 + U1 + U2 + U3 + T2 + T3) / (2 * variance)


def _halved(coefficients, frequencies):
    """The coefficients at indices 0 .. F/2 from those at -F/2 .. F/2 - 1 (the last is the conjugate of the first)."""
    middle = frequencies // 2
    return jnp.concatenate([coefficients[middle:], jnp.conj(coefficients[:1])])


if __name__ == "__main__":
    import sys

    from harness import av, measure, problem

    n, m, K = (int(v) for v in sys.argv[1:4])
    given = problem(n, m, K)
    reference = float(jax.jit(lambda *a: av.elbo(*a, av.Resolution(96)).loss)(*given))
    for half_width in (4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0):
        time, value = measure(lambda *a, h=half_width: loss(*a, half_width=h), *given, repeats=3)
        print(half_width, float(value), abs(float(value) / reference - 1), time, flush=True)

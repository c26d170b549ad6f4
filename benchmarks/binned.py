"""The same loss by the paper's own algorithm: every joint law by binning each feature and convolving, in NumPy.

All laws come from `tests/reference.py: binned_convolution` (Fact 3.3): 3-D for `(a_j, a_k, b)` and for
`(a_j, <u_j, A x>, b)`, 2-D for `(a_j, b)`. `split` shares each atom's mass between neighbouring bins.
"""

import harness  # noqa: F401  (64 bits, path)
import numpy as np
import reference


def loss(source, layer, target, readout, log_q, bins, split=False):
    """The loss of `reference.Model`s and a `reference.Ridge`, scalar target noise, t = 1; `log_q` maps `[.., m, 1]`."""
    u, w, B = layer.linear.T @ layer.direction, layer.output, target.decoder
    rows, slopes = readout[:, 0] @ layer.linear, readout[:, 0] @ w
    gram, centre = B.T @ B, layer.offset - target.mean
    variance = target.covariance_matrix[0, 0]

    def law(*directions):
        axes, masses = reference.binned_convolution(source, np.stack(directions), bins, split)
        return np.meshgrid(*axes, indexing="ij", sparse=True), masses

    def encoded(j, a, b):
        y = a + slopes[j] * layer.activation(b + layer.bias)
        everyone = np.broadcast_to(y[..., None, None], (*y.shape, B.shape[1], 1))
        log_masses = log_q(everyone)[..., j, :]
        q = np.exp(log_masses)
        s = q @ target.atoms[j]
        v = q @ target.atoms[j] ** 2 - s**2
        return s, v, (q * (log_masses - np.log(target.masses[j]))).sum(-1)

    (b, g), p = law(u, layer.linear.T @ w)
    psi = layer.activation(b + layer.bias)
    mean = source.decoder @ (source.atoms * source.masses).sum(1) + source.mean
    second = (source.atoms**2 * source.masses).sum(1) - (source.atoms * source.masses).sum(1) ** 2
    covariance = (source.decoder * second) @ source.decoder.T + source.covariance_matrix
    mapped = layer.linear @ mean + centre
    total = np.trace(layer.linear @ covariance @ layer.linear.T) + mapped @ mapped
    total += np.sum(p * (2 * (g + centre @ w) * psi + w @ w * psi**2))
    rate = 0.0
    for j in range(B.shape[1]):
        (a, g, b), p = law(rows[j], layer.linear.T @ B[:, j], u)
        s, v, r = encoded(j, a[:, 0], b[:, 0])  # on the plane (a, b)
        flat = p.sum(axis=1)
        f_u = g + B[:, j] @ w * layer.activation(b + layer.bias) + centre @ B[:, j]
        total += gram[j, j] * np.sum(flat * (v + s**2)) - 2 * np.sum(p * f_u * s[:, None])
        rate += np.sum(flat * r)
        for k in range(j + 1, B.shape[1]):
            (a, c, b), p = law(rows[j], rows[k], u)
            s_j, s_k = encoded(j, a[:, 0], b[:, 0])[0], encoded(k, c[0], b[0])[0]
            total += 2 * gram[j, k] * np.einsum("pqr,pr,qr->", p, s_j, s_k)
    return rate + B.shape[0] / 2 * np.log(2 * np.pi * variance) + total / (2 * variance)

"""The same loss by the paper's own algorithm: every joint law by binning each feature and convolving, in NumPy.

All laws come from `binned_convolution` (Fact 3.3): 3-D for `(a_j, a_k, b)` and for `(a_j, <u_j, A x>, b)`, 2-D for
`(a_j, b)`. `split` shares each atom's mass between neighbouring bins.
"""

import itertools

import harness  # noqa: F401  (64 bits, path)
import numpy as np
import reference


def _deposit(shape: tuple[int, ...], place: np.ndarray, mass: np.ndarray, split: bool) -> np.ndarray:
    """Masses at real places (in bins, `[K, D]`) put on a periodic lattice: to the nearest bin, or shared linearly."""
    lattice = np.zeros(shape)
    if not split:
        np.add.at(lattice, tuple((np.rint(place).astype(int) % shape).T), mass)
        return lattice
    floor = np.floor(place).astype(int)
    fraction = place - floor
    for corner in itertools.product((0, 1), repeat=place.shape[1]):
        share = np.where(corner, fraction, 1 - fraction).prod(axis=1)
        np.add.at(lattice, tuple(((floor + corner) % shape).T), mass * share)
    return lattice


def _noise_laws(shape: tuple[int, ...], covariance: np.ndarray, split: bool) -> list[np.ndarray]:
    """Gaussian noise on the lattice, covariance in bins^2, as laws still to be convolved.

    Usually one: the density at the bins, normalised. Where the noise is narrower than half a bin in some direction
    (or has no density at all) the lattice cannot follow it; then each principal axis is binned like a feature.
    """
    variances, axes = np.linalg.eigh(covariance)
    if variances.min() >= 0.25:
        offsets = np.stack(np.meshgrid(*(np.fft.fftfreq(n) * n for n in shape), indexing="ij"), axis=-1)
        density = np.exp(-np.einsum("...i,ij,...j->...", offsets, np.linalg.inv(covariance), offsets) / 2)
        return [density / density.sum()]
    node = np.linspace(-reference.REACH, reference.REACH, 4001)
    mass = np.exp(-(node**2) / 2) / np.exp(-(node**2) / 2).sum()
    wide = variances > 1e-12 * max(variances.max(), 1e-300)
    sds = np.sqrt(variances[wide]) * axes[:, wide]
    return [_deposit(shape, np.outer(node, sd), mass, split) for sd in sds.T]


def binned_convolution(
    source: reference.Model, directions: np.ndarray, bins: int | tuple[int, ...], split: bool = False
) -> tuple[list[np.ndarray], np.ndarray]:
    """The law of `G x1` by the paper's Fact 3.3: bin each feature, convolve one after another by FFT, then the noise.

    `directions` G: [D, n1], D = 1, 2 or 3; `bins` per axis, or one number for all. Feature j moves `G x1` by
    `a_jk G B_j`; each such atom goes to its nearest bin or, with `split`, is shared linearly between the neighbouring
    bins of every axis (which keeps its mean). Returns D axes of bin centres and the masses `[bins] * D`, so that
    `E[g(G x1)]` is about `sum masses g(axes)`. The box holds all atoms and `reference.REACH` noise sds either side,
    with a bin or two to spare per feature for rounding, so the FFT's periodicity does not show. Rounding leaves
    masses of about -1e-18 here and there.
    """
    directions = np.atleast_2d(np.asarray(directions, dtype=np.float64))
    dims = directions.shape[0]
    shape = (bins,) * dims if isinstance(bins, int) else tuple(bins)
    moves = np.einsum("dj,jk->jkd", directions @ source.decoder, source.atoms)
    covariance = directions @ source.covariance_matrix @ directions.T

    spare = (2 if split else 1) * (len(moves) + dims) + 3
    if min(shape) <= 2 * spare:
        raise ValueError(f"bins: expected more than {2 * spare} per axis for {len(moves)} features, got {shape}")
    width = (moves.max(axis=1) - moves.min(axis=1)).sum(axis=0) + 2 * reference.REACH * np.sqrt(np.diag(covariance))
    spacing = np.where(width > 0, width, 1.0) / (np.array(shape) - spare)

    places = moves / spacing
    lowest = np.floor(places.min(axis=1)).sum(axis=0)
    origin = (np.ceil(reference.REACH * np.sqrt(np.diag(covariance)) / spacing) + dims - lowest).astype(int)
    law = _deposit(shape, origin[None, :], np.ones(1), split=False)
    laws = (_deposit(shape, place, mass, split) for place, mass in zip(places, source.masses, strict=True))
    for other in itertools.chain(laws, _noise_laws(shape, covariance / np.outer(spacing, spacing), split)):
        law = np.fft.ifftn(np.fft.fftn(law) * np.fft.fftn(other)).real
    centre = directions @ source.mean
    axes = [centre[d] + spacing[d] * (np.arange(shape[d]) - origin[d]) for d in range(dims)]
    return axes, law


def loss(source, layer, target, readout, log_q, bins, split=False):
    """The loss of `reference.Model`s and a `reference.Ridge`, scalar target noise, t = 1; `log_q` maps `[.., m, 1]`."""
    u, w, B = layer.linear.T @ layer.direction, layer.output, target.decoder
    rows, slopes = readout[:, 0] @ layer.linear, readout[:, 0] @ w
    gram, centre = B.T @ B, layer.offset - target.mean
    variance = target.covariance_matrix[0, 0]

    def law(*directions):
        axes, masses = binned_convolution(source, np.stack(directions), bins, split)
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

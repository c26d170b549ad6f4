"""A smoke test of about a minute: every part of the package once, at small sizes, against enumeration or known values.

`python .ci/smoke.py` checks the package that is installed beside the tests of this folder, with the versions that are.
"""

import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import reference  # noqa: E402  enumeration and quadrature, in NumPy

import analytic_vae as av  # noqa: E402
from analytic_vae.cli.report import compare, save_report  # noqa: E402

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "optax", "equinox", "jaxtyping", "scikit-learn", "safetensors")
FINE, COARSE = av.Resolution(96), av.Resolution(16)
ATOMS, MASSES = np.array([[0.0, 1.0], [-0.5, 1.5]]), np.array([[0.7, 0.3], [0.4, 0.6]])
SOURCE = av.FeatureModel(av.Prior.from_masses(ATOMS, MASSES), [[1.2, -0.8]], 0.4, [0.1])
LAYER = av.RidgeLayer([[0.8], [-0.5]], [0.6, 1.0], [0.9, -0.4], -0.2)
TARGET = av.FeatureModel(av.Prior.from_masses(ATOMS, MASSES), [[0.9, 0.2], [-0.3, 0.7]], 0.5)
READOUT, STATISTICS = np.array([[[0.8, 0.6]], [[-0.5, 0.9]]]), np.array([[[-0.6, 0.7]], [[0.5, -0.4]]])
BASE = np.array([[0.2, -0.1], [0.0, 0.3]])
ENCODER = av.SoftmaxEncoder(READOUT, STATISTICS, BASE)
ORACLE = reference.Model(ATOMS, MASSES, [[1.2, -0.8]], 0.16, np.array([0.1]))
BENT = reference.Ridge(LAYER.linear, LAYER.output, LAYER.direction, -0.2, *reference.ACTIVATIONS["relu"])


def same(what: str, found, expected, tolerance: float = 1e-6) -> None:
    """Print how far the two are apart, relative to the larger of 1 and what is expected; fail if that is too far."""
    found, expected = np.asarray(found), np.asarray(expected)
    error = np.max(np.abs(found - expected)) / max(1.0, np.max(np.abs(expected)))
    print(f"  {what}: off by {error:.1e}", flush=True)
    if not error <= tolerance:
        sys.exit(f"smoke: {what}: expected {expected}, got {found}.")


def losses() -> None:
    """The loss and its gradient in the base of the encoder, on a ridge layer."""
    loss = lambda base: av.elbo(SOURCE, LAYER, TARGET, av.SoftmaxEncoder(READOUT, STATISTICS, base), FINE).loss  # noqa: E731
    found, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(BASE))
    same("elbo", found, exact_loss(TARGET, ENCODER))
    step = 1e-4 * np.array([[1.0, 0.0], [0.0, 0.0]])
    ends = (
        exact_loss(TARGET, av.SoftmaxEncoder(READOUT, STATISTICS, BASE + sign * step)) / (2 * 1e-4) for sign in (1, -1)
    )
    same("its gradient", gradient[0, 0], next(ends) - next(ends))


def exact_loss(target: av.FeatureModel, encoder: av.SoftmaxEncoder) -> float:
    oracle = reference.Model(
        target.prior.atoms, target.prior.masses, target.decoder, target.covariance, np.asarray(target.mean)
    )
    log_q = reference.softmax_encoder(np.asarray(encoder.statistics), np.asarray(encoder.base))
    return reference.elbo_direct(ORACLE, BENT, oracle, np.asarray(encoder.readout), log_q)


def laws() -> None:
    """The law of one output, and the moments of a dense layer."""
    law = av.pushforward(SOURCE, LAYER, [[1.0, -1.0]], FINE)
    difference = lambda x: (BENT(x) @ [1.0, -1.0])[:, None]  # noqa: E731
    mean, second = reference.expectation(ORACLE, BENT, lambda x: np.hstack([difference(x), difference(x) ** 2]))
    same("mean of a law", law.mean[0], mean)
    same("its variance", law.covariance[0, 0], second - mean**2)
    same("expectation", law.expectation(lambda y: y[0] ** 2), second)
    dense = av.DenseLayer([[1.0], [-0.7]], [0.2, 0.1], ["tanh", "gelu"])
    found = av.dense_moments(SOURCE, dense, FINE).output()
    psi = lambda x: np.stack([np.tanh(x[:, 0] + 0.2), reference.ACTIVATIONS["gelu"][0](-0.7 * x[:, 0] + 0.1)], axis=1)  # noqa: E731
    x, weight = reference.points(ORACLE)
    mean = weight @ psi(x)
    same("means of a dense layer", found[0], mean)
    same("its covariance", found[1], (weight * (psi(x) - mean).T) @ (psi(x) - mean))


def sparse() -> None:
    """A sparse autoencoder on a linear layer, with the encoder's kink where the oracle splits."""
    found = av.sparse_loss(SOURCE, av.LinearLayer([[1.0]]), av.SparseAutoencoder([[[1.3]]], [[0.2]], [[0.7]]), FINE)
    split = reference.Ridge(np.eye(1), np.zeros(1), np.array([1.3]), 0.2, *reference.ACTIVATIONS["relu"])

    def values(x):
        e = np.maximum(1.3 * x[:, 0] + 0.2, 0)
        return np.stack([e, (x[:, 0] - 0.7 * e) ** 2, e > 0], axis=1)

    exact = reference.expectation(ORACLE, split, values)
    same("sparse autoencoder", [found.l1[0], found.reconstruction, found.l0[0]], exact)


def learning(folder: Path) -> None:
    """A short fit, a network learnt and read again, a report, files."""
    result = av.fit(SOURCE, LAYER, features=2, atoms=ATOMS, noise="scalar", steps=2, resolution=COARSE, check=False)
    loss = av.elbo(SOURCE, LAYER, result.target, result.encoder, FINE).loss
    same("fit: its loss", loss, exact_loss(result.target, result.encoder))
    if not result.loss <= result.history[0]:
        sys.exit(f"smoke: fit: expected a loss below {result.history[0]}, got {result.loss}.")
    av.save_fit(folder / "fit.npz", result)
    same("fit in a file", av.load_fit(folder / "fit.npz").target.decoder, result.target.decoder, 0)

    weights = {"0.weight": np.array([[1.0], [-0.7]]), "0.bias": np.array([0.2, 0.1]), "1.weight": np.eye(2) + 0.5}
    save_safetensors(weights, folder / "net.safetensors")
    network = av.load_network(folder / "net.safetensors", "gelu")
    learnt = [av.learn(SOURCE, network, folder=folder / "run", resolution=av.Resolution(24)) for _ in range(2)]
    same("learn: read again", learnt[1].models[-1].decoder, learnt[0].models[-1].decoder, 0)
    x, weight = reference.points(ORACLE)
    y = np.asarray(jax.vmap(network)(jnp.asarray(x)))
    mean, covariance = learnt[0].models[-1].moments()
    same("learn: means of the outputs", mean, weight @ y)
    same("learn: their covariance", covariance, (weight * (y - weight @ y).T) @ (y - weight @ y), 1e-4)
    files = save_report(folder, compare(learnt[0], samples=1000, key=jax.random.key(0)))
    print(f"  report: {', '.join(file.name for file in files)}")


def save_safetensors(arrays: dict[str, np.ndarray], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, path)


def data() -> None:
    """A feature model of data has their moments."""
    values = np.random.default_rng(0).exponential(size=(500, 3)) @ np.array(
        [[1.0, 0.3, 0.0], [0.0, 1.0, 0.5], [0, 0, 1]]
    )
    mean, covariance = av.source_from_data(values, 2, atoms=5, floor=1e-9).moments()
    same("source from data", mean, values.mean(axis=0))
    same("its covariance", covariance, np.cov(values.T, ddof=0))


def main() -> None:
    begun = time.perf_counter()
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"smoke: Python {sys.version.split()[0]}, {versions}", flush=True)
    losses()
    laws()
    sparse()
    with tempfile.TemporaryDirectory() as folder:
        learning(Path(folder))
    data()
    print(f"smoke: all of it agrees, in {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()

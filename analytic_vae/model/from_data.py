"""Feature models from data: independent components, their histograms, and the noise that is left."""

import logging
import operator
import warnings
from collections.abc import Callable

import numpy as np

from ..types import ArrayLike
from .columns import columns_of, said_of_columns
from .feature_model import FeatureModel
from .prior import Prior

_LOG = logging.getLogger(__name__)

_LOOSEST = 0.1  # beyond this tolerance one iteration of FastICA says nothing about convergence


def source_from_data(
    data: ArrayLike,
    features: int,
    *,
    atoms: int = 16,
    noise: str = "full",
    floor: float = 1e-4,
    seed: int = 0,
    iterations: int = 1000,
    tolerance: float = 1e-4,
) -> FeatureModel:
    """A feature model of data: `x = mean + B z + noise` with `z` their independent components (FastICA).

    - *Decoder.* `B` is the mixing matrix for components of variance 1, `mean` that of the data. The components span
      the leading principal subspace, so `B B'` is the covariance there.
    - *Prior.* Each component's values are put in `atoms` bins: from one bin on, the bin with the largest sum of
      squares about its mean is split there, which puts bins where values are many or far out, and leaves none empty.
      An atom is the mean of its bin and its mass the bin's share, so the mean is exact; the atoms are then scaled
      about it (by a little more than 1) so that the variance is exact, too.
    - *Noise.* From the covariance `R` of what the components leave over: `"scalar"`, the scalar standard deviation
      `sqrt(tr R / n)`; `"diagonal"`, the `[n]` of `sqrt(diag R)`; `"full"`, the `[n, n]` Cholesky factor of `R`. `R`
      has no variance along the components and where the data are constant, so variances (for `"full"` the eigenvalues
      of `R`) below `floor` times the mean variance of a neuron are raised to that.

    The mean of the model is that of the data. Its covariance is that of the data (divided by `samples`), up to the
    floor, for `"full"`; for `"diagonal"` its diagonal is, for `"scalar"` its trace.

    Arguments:
        data: `[samples, n]`, finite; an array, or a frame or series of pandas. The model has its dtype; half precision
            and integers become floats. Columns that never vary, or repeat others, stay: a network wants all of its
            inputs, and what they lack in variance is in the noise.
        features: `m`, from 1 to the rank of the centred data.
        atoms: `K`, from 2 to `samples`.
        noise: `"full"`, `"diagonal"` or `"scalar"`.
        floor: the least noise variance, relative to the mean variance of a neuron; positive.
        seed: of the rotation that FastICA starts from.
        iterations: the most that FastICA makes at one tolerance.
        tolerance: at which FastICA stops. If it does not get there, it is tried again at ten times that, up to 0.1;
            each time is logged. The model's moments do not depend on it.

    Raises `ValueError` that names the argument if one is out of its range, `ImportError` without scikit-learn
    (`pip install 'analytic_vae[data]'`).

    >>> from sklearn.datasets import load_digits
    >>> source = source_from_data(load_digits().data, 16)
    """
    data, names = columns_of(data)
    samples, neurons = data.shape
    features = _require_integer("features", features, 1, min(neurons, samples - 1))
    atoms = _require_integer("atoms", atoms, 2, samples)
    seed = _require_integer("seed", seed, 0, 2**32 - 1)
    iterations = _require_integer("iterations", iterations, 1, 2**31 - 1)
    if noise not in _NOISES:
        raise ValueError(f"noise: expected one of {', '.join(map(repr, _NOISES))}, got {noise!r}.")
    for name, value in (("floor", floor), ("tolerance", tolerance)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name}: expected a positive finite number, got {value}.")

    mean, dtype = data.mean(axis=0, dtype=np.float64), data.dtype
    centred = data.astype(np.float64) - mean
    white, directions = _whitened(centred, features, lambda: said_of_columns(data, names))
    rotation = _independent_rotation(white, seed, iterations, tolerance)
    components, decoder = white @ rotation.T, directions @ rotation.T
    histograms = [_histogram(component, atoms) for component in components.T]
    prior = Prior.from_masses(*(np.stack(part).astype(dtype) for part in zip(*histograms, strict=True)))
    residual = centred - components @ decoder.T
    deviation = _NOISES[noise](residual.T @ residual / samples, floor * np.mean(centred**2))
    return FeatureModel(prior, decoder.astype(dtype), np.asarray(deviation, dtype), mean.astype(dtype))


def _require_integer(name: str, value: int, least: int, most: int) -> int:
    try:
        integer = operator.index(value)
    except TypeError:
        integer = None
    if integer is None or not least <= integer <= most:
        raise ValueError(f"{name}: expected an integer from {least} to {most}, got {value!r}.")
    return integer


def _require_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError("Feature models from data need scikit-learn: pip install 'analytic_vae[data]'.") from error


def _whitened(centred: np.ndarray, features: int, said: Callable[[], list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """The leading principal components `[samples, m]`, of variance 1, and the directions `[n, m]` that they scale.

    Not left to FastICA, which loses a component that the first neuron has no part in (it multiplies by `sign(0)`):
    the corner of the digits is always 0.
    """
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    rank = int(np.sum(singular > singular[0] * max(centred.shape) * np.finfo(np.float64).eps))
    if rank < features:
        raise ValueError(
            f"features: expected at most {rank}, the number of independent directions in which the data vary, "
            f"got {features}.{''.join(f' There are {one}.' for one in said())}"
        )
    scale = np.sqrt(len(centred))
    return left[:, :features] * scale, right[:features].T * (singular[:features] / scale)


def _independent_rotation(white: np.ndarray, seed: int, iterations: int, tolerance: float) -> np.ndarray:
    """An orthogonal matrix `[m, m]` that makes uncorrelated components of variance 1 independent, nearly."""
    _require_sklearn()
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    while True:
        ica = FastICA(whiten=False, random_state=seed, max_iter=iterations, tol=tolerance)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            rotation = ica.fit(white).components_
        if not any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            return rotation
        _LOG.warning("FastICA did not converge to %g in %d iterations.", tolerance, iterations)
        if tolerance >= _LOOSEST:
            return rotation  # orthogonal all the same
        tolerance = min(10 * tolerance, _LOOSEST)


def _histogram(values: np.ndarray, atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Atoms and masses, both `[K]`, with the mean and variance of `values: [samples]`; no mass is zero."""
    bins = [np.sort(values)]
    for _ in range(atoms - 1):
        bins.extend(_halves(bins.pop(_widest(bins))))
    bins.sort(key=lambda part: part[0])
    masses = np.array([part.size for part in bins]) / values.size
    means = np.array([part.mean() for part in bins])
    deviations = means - masses @ means
    return values.mean() + deviations * np.sqrt(values.var() / (masses @ deviations**2)), masses


def _widest(bins: list[np.ndarray]) -> int:
    """The bin with the largest sum of squares about its mean; among bins of single values, the fullest."""
    return max(range(len(bins)), key=lambda index: (bins[index].size * bins[index].var(), bins[index].size))


def _halves(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cut = int(np.searchsorted(ordered, ordered.mean(), side="right"))
    if not 0 < cut < ordered.size:  # one value, many times
        cut = ordered.size // 2
    return ordered[:cut], ordered[cut:]


def _scalar(residual: np.ndarray, least: float) -> float:
    return np.sqrt(max(np.trace(residual) / len(residual), least))


def _diagonal(residual: np.ndarray, least: float) -> np.ndarray:
    return np.sqrt(np.maximum(np.diagonal(residual), least))


def _full(residual: np.ndarray, least: float) -> np.ndarray:
    variances, axes = np.linalg.eigh(residual)
    return np.linalg.cholesky((axes * np.maximum(variances, least)) @ axes.T)


_NOISES = {"full": _full, "diagonal": _diagonal, "scalar": _scalar}

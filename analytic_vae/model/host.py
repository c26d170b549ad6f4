"""The numbers of a feature model in NumPy, in double precision: for decisions before anything is compiled."""

from typing import NamedTuple

import jax
import numpy as np

from .feature_model import FeatureModel


class HostModel(NamedTuple):
    """A concrete `FeatureModel`: `masses: [m, K]`, `vectors: [n, m, K]`, and `mean` and `noise` as they are."""

    masses: np.ndarray
    vectors: np.ndarray
    mean: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, model: FeatureModel) -> "HostModel":
        """Its numbers."""
        leaves = model.prior.atoms, model.prior.logits, model.decoder, model.mean, model.noise
        atoms, logits, decoder, mean, noise = (np.asarray(leaf, np.float64) for leaf in jax.device_get(leaves))
        masses = np.exp(logits - logits.max(axis=1, keepdims=True))
        vectors = decoder if decoder.ndim == 3 else decoder[:, :, None] * atoms[None]
        return cls(masses / masses.sum(axis=1, keepdims=True), vectors, mean, noise)

    @property
    def covariance(self) -> np.ndarray:
        """Of the noise alone."""
        if self.noise.ndim == 2:
            return self.noise @ self.noise.T
        return np.diag(np.broadcast_to(self.noise**2, self.mean.shape))

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of `x`."""
        means = np.einsum("nmk,mk->nm", self.vectors, self.masses)
        centred = self.vectors - means[:, :, None]
        covariance = np.einsum("nmk,mk,lmk->nl", centred, self.masses, centred, optimize=True) + self.covariance
        return self.mean + means.sum(axis=1), covariance

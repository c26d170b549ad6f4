"""Independent discrete features."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._check import as_floating, is_concrete, require_finite, require_shape
from .._repr import short_repr
from ..types import Array, ArrayLike, Bool, Float


class Prior(eqx.Module):
    """The law of m independent discrete features: `P(z_j = a_jk) = softmax(logits_j)_k`.

    Arguments:
        atoms: `[m, K]`, the values that each feature can take.
        logits: `[m, K]`, log masses up to a constant per feature; `-inf` is a mass of zero.

    Raises `ValueError` if the shapes differ, an axis is empty, an atom is not finite, or a feature has no mass.

    Source: P1(z1) of "Analytically Learning Variational Auto-Encoders", section 2.4.

    >>> Prior([[0.0, 1.0]], [[0.0, 0.0]]).mean
    Array([0.5], dtype=...)
    """

    __repr__ = short_repr

    atoms: Float[Array, "m K"]
    logits: Float[Array, "m K"]

    def __init__(self, atoms: ArrayLike, logits: ArrayLike):
        self.atoms, self.logits = as_floating(atoms=atoms, logits=logits)
        require_shape("atoms", self.atoms, (None, None), "features, atoms")
        require_shape("logits", self.logits, self.atoms.shape, "features, atoms, as atoms")
        require_finite("atoms", self.atoms)
        if is_concrete(self.logits):
            known = np.asarray(self.logits)
            if np.any(np.isnan(known)) or not np.all(np.isfinite(known.max(axis=1))):
                raise ValueError("logits: expected numbers below infinity with one finite per feature, got others.")

    @classmethod
    def from_masses(cls, atoms: ArrayLike, masses: ArrayLike) -> "Prior":
        """The prior with the given masses `[m, K]`, non-negative; they are normalised per feature."""
        atoms, masses = as_floating(atoms=atoms, masses=masses)
        require_shape("atoms", atoms, (None, None), "features, atoms")
        require_shape("masses", masses, atoms.shape, "features, atoms, as atoms")
        require_finite("masses", masses)
        if is_concrete(masses) and np.any(np.asarray(masses) < 0):
            least = np.min(np.asarray(masses))
            raise ValueError(f"masses: expected non-negative numbers, got a smallest value of {least:.3g}.")
        if is_concrete(masses) and not np.all(np.asarray(masses).sum(axis=1) > 0):
            raise ValueError("masses: expected a positive sum for every feature, got 0 for some.")
        return cls(atoms, jnp.log(masses))

    @classmethod
    def bernoulli(cls, probability: ArrayLike) -> "Prior":
        """Features on the atoms 0 and 1; `probability: [m]` is that of 1, strictly between 0 and 1."""
        (probability,) = as_floating(probability=probability)
        require_shape("probability", probability, (None,), "one per feature")
        if is_concrete(probability) and not np.all((np.asarray(probability) > 0) & (np.asarray(probability) < 1)):
            raise ValueError("probability: expected numbers strictly between 0 and 1, got others.")
        atoms = jnp.broadcast_to(jnp.array([0.0, 1.0], probability.dtype), (probability.size, 2))
        return cls(atoms, jnp.stack([jnp.log1p(-probability), jnp.log(probability)], axis=1))

    def among(self, states: Bool[Array, "m K"]) -> "Prior":
        """The law given that each feature is in one of its states in a mask; of the others the mass is zero."""
        return eqx.tree_at(lambda one: one.logits, self, jnp.where(states, self.logits, -jnp.inf))

    @property
    def masses(self) -> Float[Array, "m K"]:
        """`P(z_j = a_jk)`."""
        sizes = jnp.exp(self.logits - jax.lax.stop_gradient(self.logits.max(axis=-1, keepdims=True)))
        return sizes / sizes.sum(axis=-1, keepdims=True)

    @property
    def log_masses(self) -> Float[Array, "m K"]:
        """`log P(z_j = a_jk)`."""
        return jax.nn.log_softmax(self.logits, axis=-1)

    @property
    def mean(self) -> Float[Array, " m"]:
        """`E[z_j]`."""
        return jnp.sum(self.masses * self.atoms, axis=1)

    @property
    def variance(self) -> Float[Array, " m"]:
        """`Var[z_j]`, from centred atoms."""
        centred = self.atoms - self.mean[:, None]
        return jnp.sum(self.masses * centred**2, axis=1)

    @property
    def entropy(self) -> Float[Array, " m"]:
        """`-sum_k p_jk log p_jk` in nats."""
        log_masses = jnp.where(self.masses > 0, self.log_masses, 0.0)
        return -jnp.sum(self.masses * log_masses, axis=1)

"""The named terms of the loss as numbers with bounds of their errors, and sums of such numbers."""

import equinox as eqx
import jax.numpy as jnp

from ..model.feature_model import FeatureModel, whitening
from .ball import Ball, Bounded

TERMS = ("R1", "R2", "R3", "S1", "S2", "T1", "T2", "T3", "U1", "U2", "U3", "loss")

LOGARITHMS = 2  # by how much the size of a sum of logarithms is larger (B4)


class Certificate(eqx.Module):
    """Every named term of the loss as a `Bounded`: see `Elbo` for their formulas."""

    R1: Bounded
    R2: Bounded
    R3: Bounded
    S1: Bounded
    S2: Bounded
    T1: Bounded
    T2: Bounded
    T3: Bounded
    U1: Bounded
    U2: Bounded
    U3: Bounded
    loss: Bounded

    @classmethod
    def of(cls, target: FeatureModel, features: "LossContribution", output) -> "Certificate":
        """From the terms that are no sums of others, those of all features and `OutputTerms` (B71)."""
        R1, S1, T2, T3 = features.R1, features.S1, features.T2, features.T3
        U1, U2, U3 = output.U1, output.U2, output.U3
        _, variance, log_det = whitening(target)
        T1 = U1 + U2 + U3
        S2 = T1 + T2 + T3
        R3 = (S1 + S2) * (1 / (2 * variance))
        R2 = target.neurons / 2 * jnp.log(2 * jnp.pi) + log_det
        R2 = Ball.of(R2, LOGARITHMS * (target.neurons + jnp.abs(log_det)))
        terms = R1, R2, R3, S1, S2, T1, T2, T3, U1, U2, U3, R1 + R2 + R3
        return cls(*(term.bounded() for term in terms))


class LossContribution(eqx.Module):
    """What some of the features add to the terms of the loss; to `T3` with each other."""

    R1: Ball
    S1: Ball
    T2: Ball
    T3: Ball

    def __add__(self, other: "LossContribution") -> "LossContribution":
        return LossContribution(self.R1 + other.R1, self.S1 + other.S1, self.T2 + other.T2, self.T3 + other.T3)

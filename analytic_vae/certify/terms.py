"""The named terms of the loss as numbers with bounds of their errors, and sums of such numbers."""

import equinox as eqx
import jax.numpy as jnp

from ..model.feature_model import FeatureModel, whitening
from .ball import Bounded, added

TERMS = ("R1", "R2", "R3", "S1", "S2", "T1", "T2", "T3", "U1", "U2", "U3", "loss")

R2_ROUNDING = 16  # units in the last place, of R2, which is a sum of logarithms (B4)


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
        T1 = added(U1, U2, U3)
        S2 = added(T1, T2, T3)
        both = added(S1, S2)
        R3 = Bounded(both.value / (2 * variance), both.error_bound / (2 * variance))
        R2 = target.neurons / 2 * jnp.log(2 * jnp.pi) + log_det
        R2 = Bounded(R2, R2_ROUNDING * jnp.finfo(R2.dtype).eps * (target.neurons + jnp.abs(log_det)))
        return cls(R1, R2, R3, S1, S2, T1, T2, T3, U1, U2, U3, added(R1, R2, R3))


class LossContribution(eqx.Module):
    """What some of the features add to the terms of the loss; to `T3` with each other."""

    R1: Bounded
    S1: Bounded
    T2: Bounded
    T3: Bounded

"""The named terms of the loss as numbers with bounds of their errors, and sums of such numbers."""

import equinox as eqx
import jax.numpy as jnp

from ..model.feature_model import FeatureModel, whitening
from .ball import Bounded, added

TERMS = ("R1", "R2", "R3", "S1", "S2", "T1", "T2", "T3", "U1", "U2", "U3", "loss")


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
    def of(cls, target: FeatureModel, R1, S1, T2, T3, U1, U2, U3) -> "Certificate":
        """From the terms that are no sums of others; `R2` is that of the target."""
        _, variance, log_det = whitening(target)
        T1 = added(U1, U2, U3)
        S2 = added(T1, T2, T3)
        both = added(S1, S2)
        R3 = Bounded(both.value / (2 * variance), both.error_bound / (2 * variance))
        R2 = target.neurons / 2 * jnp.log(2 * jnp.pi) + log_det
        R2 = Bounded(R2, 16 * jnp.finfo(R2.dtype).eps * (target.neurons + jnp.abs(log_det)))
        return cls(R1, R2, R3, S1, S2, T1, T2, T3, U1, U2, U3, added(R1, R2, R3))


class LossContribution(eqx.Module):
    """What some of the features add to the terms of the loss; to `T3` with each other."""

    R1: Bounded
    S1: Bounded
    T2: Bounded
    T3: Bounded

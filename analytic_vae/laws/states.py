"""The states of the features that matter most, listed; what is left of the law is the same in each of them."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from .._check import is_concrete
from ..spectral.enumeration import support
from ..spectral.projected_law import Projection
from ..types import Array, Float


class States(eqx.Module):
    """The law of `Z: [D]` as a mixture over listed states of features: in state s `Z = points_s + rest`.

    Fields:
        points: `[S, D]`; sizes: `[S, D]`, of the numbers that each was summed from; masses: `[S]`.
        rest: the law of what is left, of mean zero but for its features: the same in every state.
        listed: whether all features are listed, so that the rest is Gaussian or nothing.
    """

    points: Float[Array, "S D"]
    sizes: Float[Array, "S D"]
    masses: Float[Array, " S"]
    rest: Projection
    listed: bool = eqx.field(static=True)

    @classmethod
    def of(cls, law: Projection, most: int, extra: int) -> "States":
        """All states if they are at most `most`, else those of the largest features, at most `extra`."""
        m, K = law.masses.shape
        whole = few_states(law.masses.shape, most)
        count = m if whole else int(math.log(extra) / math.log(K))
        order = jnp.arange(m) if whole else jnp.argsort(-jax.lax.stop_gradient(_share(law)))
        atoms, masses = law.atoms[:, order], law.masses[order]
        points, sizes, mass = law.mean[None], jnp.abs(law.mean)[None], jnp.ones_like(law.mean[:1])
        for j in range(count):
            own = atoms[:, j].T[None]
            points = (points[:, None] + own).reshape(-1, law.mean.size)
            sizes = (sizes[:, None] + jnp.abs(own)).reshape(-1, law.mean.size)
            mass = (mass[:, None] * masses[j][None]).ravel()
        rest = Projection(jnp.zeros_like(law.mean), atoms[:, count:], masses[count:], law.covariance)
        return cls(points, sizes, mass, rest, whole)


def few_states(shape: tuple[int, int], most: int) -> bool:
    """Whether m features of K atoms have at most so many states."""
    m, K = shape
    return m * math.log(K) <= math.log(most) + 1e-9


def _share(law: Projection) -> Float[Array, " m"]:
    """How far each feature reaches, relative to the noise and all features, in the coordinate where it is most."""
    there = law.masses > 0
    reach = jnp.max(jnp.where(there, law.atoms, -jnp.inf), 2) - jnp.min(jnp.where(there, law.atoms, jnp.inf), 2)
    scale = jnp.sqrt(jnp.sum(reach**2, axis=1) + jnp.diagonal(law.covariance))
    return jnp.max(reach / jnp.where(scale > 0, scale, 1)[:, None], axis=0)


def counted(law: Projection, most: int) -> States | None:
    """The different values of a law without noise, if it has more than `most` states but few values.

    Outside of every transformation only: sums of many features on a lattice have few.
    """
    if few_states(law.masses.shape, most) or not all(map(is_concrete, jax.tree.leaves(law))):
        return None
    found = support(law)
    if found is None:
        return None
    points, masses, moved = (jnp.asarray(part, law.mean.dtype) for part in found)
    sizes = jnp.abs(points) + moved[None] / (16 * jnp.finfo(law.mean.dtype).eps)
    rest = Projection(jnp.zeros_like(law.mean), law.atoms[:, :0], law.masses[:0], law.covariance)
    return States(points, sizes, masses, rest, True)

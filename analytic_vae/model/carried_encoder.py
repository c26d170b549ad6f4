"""The encoder that carries the features of the source on."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .encoder import AbstractEncoder


class CarriedEncoder(AbstractEncoder):
    """Every feature of the source handed on, `z2 = z1`, and beside them, if given, those of another encoder.

    The first `carried` features of the target are those of the source, state by state: `Q` is a point, and its rate is
    the entropy of the feature. The bound holds for every law of `z2` given what produced `x2`, `z1` included.

    Arguments:
        carried: `m1`, how many features the source has.
        extra: an encoder of further features, or None.

    Raises `ValueError` or `TypeError` that names the argument.

    Source: Jensen's inequality, as in Theorem 3.1 of "Analytically Learning Variational Auto-Encoders", given `z1` too.
    """

    carried: int = eqx.field(static=True)
    extra: AbstractEncoder | None = None

    def __check_init__(self):
        if isinstance(self.carried, bool) or not isinstance(self.carried, int | np.integer) or self.carried < 1:
            raise ValueError(f"carried: expected the number of features of the source, got {self.carried!r}.")
        if self.extra is not None and (
            not isinstance(self.extra, AbstractEncoder) or isinstance(self.extra, CarriedEncoder)
        ):
            raise TypeError(f"extra: expected an encoder that reads statistics, got {type(self.extra).__name__}.")

    @property
    def readout(self):
        """That of the extra features."""
        return jnp.zeros((0, 1, 0)) if self.extra is None else self.extra.readout

    def posterior(self, x, atoms=None):
        """Refused: what carries features reads their states, which no vector shows; `extra.posterior` is of the others.

        Raises `TypeError` always.
        """
        del x, atoms
        raise TypeError(
            "encoder: expected one that reads a vector, got a CarriedEncoder, which hands on the states of the "
            "source's features; encoder.extra.posterior(x) is of the features that it learnt beside them, if any."
        )

    def shifted(self, shift):
        return CarriedEncoder(self.carried, None if self.extra is None else self.extra.shifted(shift))

    @property
    def features(self) -> int:
        return self.carried + (0 if self.extra is None else self.extra.features)


def learnt_part(encoder: AbstractEncoder) -> AbstractEncoder | None:
    """What is there to learn: of a `CarriedEncoder` the extra features."""
    return encoder.extra if isinstance(encoder, CarriedEncoder) else encoder


def with_learnt(encoder: AbstractEncoder, learnt: AbstractEncoder) -> AbstractEncoder:
    """The encoder with that part in place of its own."""
    return CarriedEncoder(encoder.carried, learnt) if isinstance(encoder, CarriedEncoder) else learnt

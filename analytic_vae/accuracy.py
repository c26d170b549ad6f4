"""How far a result may be off, and the warning where that is much."""

import warnings
from typing import TypeVar

import numpy as np

from ._check import is_concrete

ACCURACY = 1e-3  # from which on a result warns: relative to the spread, or in nats

T = TypeVar("T")


class AccuracyWarning(UserWarning):
    """A result may be off by more than `ACCURACY`."""


def warned(result: T, name: str, remedy: str) -> T:
    """The result, after one `AccuracyWarning` if its `accuracy` is at hand and above `ACCURACY`.

    Inside of jit, grad and vmap nothing is known yet: there `accuracy` stays data.
    """
    accuracy = result.accuracy
    if is_concrete(accuracy) and not np.max(np.asarray(accuracy), initial=0) <= ACCURACY:
        worst = float(np.max(np.asarray(accuracy)))
        message = f"{name}: this {type(result).__name__} may be off by {worst:.1g} (its accuracy); {remedy}."
        warnings.warn(message, AccuracyWarning, stacklevel=3)
    return result

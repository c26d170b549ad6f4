"""How far a result may be off, and the warning where that is much."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import numpy as np

from ._check import is_concrete
from ._warning import warn
from .model.feature_model import FeatureModel
from .model.host import HostModel

ACCURACY = 1e-3  # from which on a result warns: relative to the spread, or in nats

P = ParamSpec("P")

T = TypeVar("T")


def warns(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which warns of what it returns (`warned`). Without a warning it is `function.__wrapped__`."""

    @functools.wraps(function)
    def warning(*args: P.args, **kwargs: P.kwargs) -> T:
        found = function(*args, **kwargs)
        source = args[0] if args else kwargs.get("source")
        return warned(found, source, plan=kwargs.get("plan") is not None)

    return warning


def warned(found: T, source: FeatureModel | None = None, plan: bool = False) -> T:
    """What was found, after one `AccuracyWarning` if its `accuracy` is at hand and above `ACCURACY`.

    Inside of jit, grad and vmap nothing is known yet: there `accuracy` stays data. Of a tuple the first counts.
    """
    result = found[0] if isinstance(found, tuple) else found
    accuracy = getattr(result, "accuracy", None)
    if accuracy is None or not is_concrete(accuracy):
        return found
    worst = float(np.max(np.nan_to_num(np.asarray(accuracy, float), nan=np.inf), initial=0))
    if worst > ACCURACY:
        advice = "raise resolution.frequencies" + (", or make a new plan" if plan else "")
        message = f"resolution: this {type(result).__name__} may be off by {worst:.1g} (its accuracy); {advice}"
        warn(f"{message}{_furthest(source)}.")
    return found


def _furthest(source: FeatureModel | None) -> str:
    """The feature of a source that is the likeliest reason."""
    if not isinstance(source, FeatureModel) or not all(map(is_concrete, jax.tree.leaves(source))):
        return ""
    masses, vectors = HostModel.of(source)[:2]
    centred = vectors - np.einsum("nmk,mk->nm", vectors, masses)[:, :, None]
    reach = np.where(masses > 0, np.linalg.norm(centred, axis=0), 0)
    j, k = np.unravel_index(np.argmax(reach), reach.shape)
    return f". Feature {j} of the source reaches furthest, in its state {k} of mass {masses[j, k]:.2g}"

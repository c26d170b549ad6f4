"""A problem whose means are far from zero, moved to where they are zero: sums of large numbers cost digits.

With `x = m + x'` and `f(x) = o + f'(x')` nothing is learnt but where things stand: the target's mean moves by `o`, an
encoder of `C f` reads `C f' + C o`. In float32, at a mean of 10^4 spreads, logits would be wrong in their third digit.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..model.encoder import AbstractEncoder
from ..model.feature_model import FeatureModel
from ..model.host import HostModel
from ..model.layer import AbstractLayer
from ..types import Array, Float

FAR = 100.0  # spreads


class Centred(NamedTuple):
    """A problem near zero, and how far its outputs, and what encoders read, were moved."""

    source: FeatureModel
    layer: AbstractLayer
    outputs: Float[Array, " n2"]
    read: Float[Array, " n"]

    def shifted(self, target: FeatureModel | None, encoder):
        """A target and an encoder of the problem as it was given, for this one."""
        return _moved(target, encoder, -self.outputs, -self.read)

    def back(self, target: FeatureModel, encoder):
        """A target and an encoder of this problem, for the one that was given."""
        return _moved(target, encoder, self.outputs, self.read)


def centred(source: FeatureModel, layer: AbstractLayer) -> Centred | None:
    """The problem near zero; None if it is not far from there, in units of its spreads."""
    mean, covariance = HostModel.of(source).moments()
    found = layer.about(mean)
    if found is None:
        return None
    inner, outputs = found
    read = mean if layer.reads_input else outputs
    if not np.linalg.norm(read) > FAR * _spread(layer.read_form().linear, covariance) > 0:
        return None
    dtype = source.mean.dtype
    return Centred(_at_zero(source, mean), inner, jnp.asarray(outputs, dtype), jnp.asarray(read, dtype))


def _spread(matrix, covariance: np.ndarray) -> float:
    matrix = np.asarray(matrix, np.float64)
    return float(np.sqrt(max(np.trace(matrix @ covariance @ matrix.T), 0)))


def _at_zero(source: FeatureModel, mean: np.ndarray) -> FeatureModel:
    shifted = np.asarray(source.mean, np.float64) - mean
    return eqx.tree_at(lambda model: model.mean, source, jnp.asarray(shifted, source.mean.dtype))


def _moved(target, encoder, outputs, read):
    if target is not None:
        target = eqx.tree_at(lambda model: model.mean, target, target.mean + outputs)
    if isinstance(encoder, AbstractEncoder):
        encoder = encoder.shifted(read)
    return target, encoder

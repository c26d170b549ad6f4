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
from ..model.layer import AbstractLayer, DenseLayer, LinearLayer, RidgeForm, RidgeLayer
from ..types import Array, Float

FAR = 100.0  # spreads


class ShiftedLayer(AbstractLayer):
    """`f(x) - by`, for a linear or a ridge layer."""

    layer: AbstractLayer
    by: Float[Array, " n2"]

    @property
    def inputs(self) -> int:
        return self.layer.inputs

    @property
    def outputs(self) -> int:
        return self.layer.outputs

    def form(self) -> RidgeForm:
        form = self.layer.form()
        return form._replace(offset=form.offset - self.by)

    def __call__(self, x):
        return self.layer(x) - self.by


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
    exact = lambda a: np.asarray(a, np.float64)  # noqa: E731
    mean, covariance = (exact(part) for part in source.moments())
    spread = float(np.sqrt(np.trace(covariance)))
    dtype = source.mean.dtype
    if isinstance(layer, DenseLayer):
        if not np.linalg.norm(mean) > FAR * spread > 0:
            return None
        bias = exact(layer.bias) + exact(layer.weight) @ mean
        layer = eqx.tree_at(lambda one: one.bias, layer, jnp.asarray(bias, dtype))
        outputs = np.zeros(layer.outputs) if layer.skip is None else exact(layer.skip) @ mean
        return Centred(_at_zero(source, mean), layer, jnp.asarray(outputs, dtype), jnp.asarray(mean, dtype))
    if isinstance(layer, LinearLayer):
        outputs, inner = exact(layer.weight) @ mean + exact(layer.bias), layer
        if not np.linalg.norm(outputs) > FAR * _spread(layer.weight, covariance) > 0:
            return None
        inner = eqx.tree_at(lambda one: one.bias, layer, jnp.zeros_like(layer.bias))
        return Centred(_at_zero(source, mean), inner, *[jnp.asarray(outputs, dtype)] * 2)
    if not isinstance(layer, RidgeLayer):
        return None
    remembered = exact(layer.linear) @ mean
    argument = exact(layer.direction) @ remembered + exact(layer.bias)
    level = exact(layer.output) * float(layer.activation(jnp.asarray(argument, dtype)))
    if not np.linalg.norm(remembered + level) > FAR * _spread(layer.linear, covariance) > 0:
        return None
    inner = eqx.tree_at(lambda one: one.bias, layer, jnp.asarray(argument, dtype))
    outputs = jnp.asarray(remembered + level, dtype)
    return Centred(_at_zero(source, mean), ShiftedLayer(inner, jnp.asarray(level, dtype)), outputs, outputs)


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

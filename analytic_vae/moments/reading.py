"""A layer as encoders read it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..model.feature_model import FeatureModel
from ..model.layer import AbstractLayer
from ..model.layer_forms import RidgeForm
from ..spectral.gauss_rule import compress
from ..spectral.resolution import Resolution
from ..types import Array
from .ridge_axis import RidgeAxis


class Reading(NamedTuple):
    """What encoders read, `r(x1)`, as a form and the axis that it is bent along; `y_j = C_j r(x1)`.

    `source` is the law of `x1` with few atoms a feature, `whole` the one with all of them.
    """

    source: FeatureModel
    whole: FeatureModel
    form: RidgeForm
    axis: RidgeAxis
    resolution: Resolution

    @classmethod
    def of(
        cls,
        source: FeatureModel,
        layer: AbstractLayer,
        resolution: Resolution,
        atoms: int | None = None,
        box: tuple[Array, Array] | None = None,
    ) -> "Reading":
        """With so many atoms a feature, all of them if not said, and a box for the axis, or its own."""
        few, form = source if atoms is None else compress(source, atoms), layer.read_form()
        return cls(few, source, form, RidgeAxis.of(few, form, resolution, box), resolution)

    def for_pairs(self) -> "Reading":
        """With the few atoms a feature that pairs need; itself where there are few already."""
        short = compress(self.source, self.resolution.atoms)
        if short is self.source:
            return self
        axis = RidgeAxis.of(short, self.form, self.resolution, self.axis.box)
        return self._replace(source=short, axis=axis)

    def straightened(self) -> "tuple[Reading, Array, Array]":
        """Where psi is straight all over its axis, the layer as a linear one; whether so; and psi's slope there.

        An axis that hardly varies tells nothing of the derivative with respect to its direction: errors are divided by
        its spread. The linear layer keeps an axis, along the input that varies most, which then carries nothing.
        """
        form, axis = self.form, self.axis
        if axis.linear:
            return self, jnp.array(False), jnp.zeros_like(form.bias)
        slope = jax.grad(form.activation)(axis.centre)
        along = jax.lax.stop_gradient(slope) * (axis.nodes - axis.centre)
        left = jax.lax.stop_gradient(axis.values - form.activation(axis.centre)) - along
        straight = jnp.max(jnp.abs(left)) <= jnp.finfo(left.dtype).eps ** (1 / 3) * jnp.max(jnp.abs(along))
        variance = jnp.diagonal(jax.lax.stop_gradient(self.source.moments()[1]))
        widest = jax.nn.one_hot(jnp.argmax(variance), variance.size, dtype=variance.dtype)
        widest = widest / jnp.sqrt(jnp.where(variance.max() > 0, variance.max(), 1))
        linear = form._replace(
            linear=form.linear + slope * jnp.outer(form.output, form.direction),
            offset=form.offset + form.output * (axis.mean + slope * (form.bias - axis.law.total_mean[0])),
            output=jnp.zeros_like(form.output),
            direction=widest,
            direction_size=jnp.abs(widest),
            bias=jnp.zeros_like(form.bias),
        )
        arrays = lambda one: one._replace(activation=None)  # noqa: E731
        chosen = jax.tree.map(lambda a, b: jnp.where(straight, a, b), arrays(linear), arrays(form))
        chosen = chosen._replace(activation=form.activation)
        return self._replace(form=chosen, axis=RidgeAxis.of(self.source, chosen, self.resolution)), straight, slope

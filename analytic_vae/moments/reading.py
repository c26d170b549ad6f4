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
        if self.axis.straight is not None:
            axis = axis.held(self.axis.straight)
        return self._replace(source=short, axis=axis)

    def straightened(self) -> "tuple[Reading, Array, Array]":
        """Where psi is straight all over its axis, the layer as a linear one; whether so; and psi's slope there.

        An axis that hardly varies tells nothing of the derivative with respect to its direction: errors are divided by
        its spread. There the axis carries nothing, and has no derivatives.
        """
        form, axis = self.form, self.axis
        if axis.linear:
            return self, jnp.array(False), jnp.zeros_like(form.bias)
        slope = jax.grad(form.activation)(axis.centre)
        along = jax.lax.stop_gradient(slope) * (axis.nodes - axis.centre)
        left = jax.lax.stop_gradient(axis.values - form.activation(axis.centre)) - along
        straight = jnp.max(jnp.abs(left)) <= jnp.finfo(left.dtype).eps ** (1 / 3) * jnp.max(jnp.abs(along))
        held = lambda leaf: jnp.where(straight, jax.lax.stop_gradient(leaf), leaf)  # noqa: E731
        moved, bent = jnp.where(straight, form.output, 0), jnp.where(straight, 0, form.output)
        slope = jnp.where(straight, slope, 0)
        linear = form._replace(
            linear=form.linear + jnp.outer(slope * moved, form.direction),
            offset=form.offset + moved * (axis.mean + slope * (form.bias - axis.law.total_mean[0])),
            output=bent,
            direction=held(form.direction),
            bias=held(form.bias),
        )
        return self._replace(form=linear, axis=axis.held(straight)), straight, slope

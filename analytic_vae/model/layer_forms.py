"""Layers as arrays: what the engines read."""

from typing import NamedTuple

from ..types import Array, Float, Scalar
from .activation import Activation


class RidgeForm(NamedTuple):
    """What encoders read, as a function of the input: `linear x + offset + output psi(<direction, x> + bias)`.

    `direction: [n1]` lives in the input space; `direction_size` are the sizes that it was summed from, for they may
    cancel. Where nothing is bent `activation` is None and the ridge parts are zero.
    """

    linear: Float[Array, "n2 n1"]
    offset: Float[Array, " n2"]
    output: Float[Array, " n2"]
    direction: Float[Array, " n1"]
    direction_size: Float[Array, " n1"]
    bias: Scalar
    activation: Activation | None

    def units(self) -> "LayerForm":
        """The same with an axis of one unit."""
        weight = self.direction[None], self.direction_size[None]
        return LayerForm(self.linear, self.offset, self.output[:, None], *weight, self.bias[None])


class LayerForm(NamedTuple):
    """A layer of no, one or many units as arrays: `f(x) = linear x + offset + output psi(weight x + bias)`.

    `weight_size` are the sizes that `weight` was summed from.
    """

    linear: Float[Array, "n2 n1"]
    offset: Float[Array, " n2"]
    output: Float[Array, "n2 h"]
    weight: Float[Array, "h n1"]
    weight_size: Float[Array, "h n1"]
    bias: Float[Array, " h"]

    def projected(self, readout: Float[Array, "D n2"]) -> "LayerForm":
        """`readout f(x)` as the output."""
        linear, offset, output = (readout @ part for part in (self.linear, self.offset, self.output))
        return self._replace(linear=linear, offset=offset, output=output)

    def mapped(self, x: Float[Array, "n1 *s"], psi: Float[Array, "h *s"]) -> Float[Array, "n2 *s"]:
        """`linear x + output psi`: from covariances of `x` and of `psi` with anything to those of `f`."""
        return self.linear @ x + self.output @ psi

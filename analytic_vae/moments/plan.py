"""What the loss needs beside its parameters and may keep from one step to the next: the boxes of all its laws."""

import equinox as eqx
import jax

from .._check import require_instance, shown
from .._jit import compiled, exact_products
from .._repr import short_repr
from ..model.compatibility import check_encoder, check_layer
from ..model.encoder import AbstractEncoder
from ..model.feature_model import FeatureModel
from ..model.layer import AbstractLayer
from ..spectral.resolution import Resolution
from ..types import Array, Float, Scalar
from .budget import Batches
from .reading import Reading
from .statistic import Statistic


class Plan(eqx.Module):
    """The boxes on which the laws behind a loss are expanded, without derivatives. `plan` makes one.

    A statistic is measured from its mean in units of its spread, both always new, and its box is in those
    units: a plan stays good while only they change. One that does not fit costs accuracy, not correctness unnoticed:
    `Expectations.moment_error` says how far mass, mean and variance of each law on its box are from the exact ones.
    Make a new one when it exceeds 1e-4, say, and that of a new plan: the loss may then be off by tens of times that,
    too low if a box has lost mass, either way if it is too wide.

    Least-squares operators and the rules that stand for wide priors are not kept: the loss is differentiated through
    them, and they take little of its time.

    Fields:
        ridge: `(low, length)`, the box of the one variable that the layer is not linear in; None for a linear layer.
        low, length: `[m2, t]`, the boxes of the standardised statistics of each feature.
        log_inverse_mass: `c`: the boxes leave out a mass of at most `e^-c` per side, as the resolution asked for.
    """

    __repr__ = short_repr

    ridge: tuple[Scalar, Scalar] | None
    low: Float[Array, "m2 t"]
    length: Float[Array, "m2 t"]
    log_inverse_mass: float = eqx.field(static=True)


@exact_products
def plan(
    source: FeatureModel, layer: AbstractLayer, encoder: AbstractEncoder, resolution: Resolution | None = None
) -> Plan:
    """The `Plan` that `elbo` and `expectations` make when they are given none.

    Arguments as in `expectations`. Jit-able.

    >>> boxes = plan(source, layer, encoder)
    >>> elbo(source, layer, target, encoder, plan=boxes).moment_error
    """
    resolution = Resolution.of(resolution)
    check_layer(source, layer)
    check_encoder(layer, encoder, None)
    return compiled_plan(source, layer, encoder, resolution)


@compiled
def compiled_plan(source, layer, encoder, resolution) -> Plan:
    """The boxes of all laws."""
    reading = Reading.of(*jax.lax.stop_gradient((source, layer)), resolution, resolution.law_atoms)
    axis = reading.axis

    def boxes(readout):
        statistic = Statistic.of(reading, readout)
        return statistic.low, statistic.length

    shape = encoder.statistics_read, encoder.features, 1
    batch = Batches.of(reading.source, shape, axis.linear, resolution).laws
    low, length = jax.lax.map(boxes, jax.lax.stop_gradient(encoder.readout), batch_size=batch)
    return Plan(axis.box, low, length, resolution.log_inverse_mass)


def check_plan(plan, layer, encoder, resolution) -> None:
    """Raise an error that names the argument unless the plan, if any, is one for such a layer and encoder."""
    if plan is None:
        return
    require_instance("plan", plan, Plan, "a Plan (analytic_vae.plan makes one)")
    linear = layer.reads_input or not layer.units
    if linear != (plan.ridge is None):
        expected, got = ("linear", "ridge") if linear else ("ridge", "linear")
        raise ValueError(f"plan: expected one of a {expected} layer, got one of a {got} layer.")
    if plan.log_inverse_mass < resolution.log_inverse_mass:
        raise ValueError(
            f"plan: expected boxes that leave out a mass of e^-{resolution.log_inverse_mass:g} for "
            f"{resolution.frequencies} frequencies, got e^-{plan.log_inverse_mass:g}; pass it to plan, too."
        )
    expected = (encoder.features, encoder.statistics_read)
    if not plan.low.shape == plan.length.shape == expected:
        raise ValueError(
            f"plan: expected boxes of {expected[0]} features of {expected[1]} statistics, as encoder has, "
            f"got {shown(plan.low.shape)} and {shown(plan.length.shape)}."
        )

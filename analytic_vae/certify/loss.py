"""The loss and its terms once more, on grids of their own, with a bound of every error: where `Elbo.bounds` is from."""

from .._jit import compiled, exact_products
from ..model.carried_encoder import CarriedEncoder, learnt_part
from ..moments.budget import require_memory
from ..moments.codes import codes
from ..spectral.resolution import Resolution
from .carried_terms import carried_terms
from .joint_law import AT_ONCE
from .learnt import Learnt, Orders
from .learnt_terms import _between, _learnt_terms
from .output_terms import WhitenedOutput, output_terms
from .terms import Certificate
from .units import Units, check_slopes, check_units


@exact_products
@compiled
def certificate(source, layer, target, encoder, resolution: Resolution) -> Certificate:
    """The terms of the loss with their bounds (B71)."""
    parts, units = WhitenedOutput.of(layer, target), Units.of(source, layer)
    output = output_terms(source, layer, parts, units, resolution)
    carried, extra = (encoder.carried if isinstance(encoder, CarriedEncoder) else 0), learnt_part(encoder)
    atoms, log_masses = target.prior.atoms, target.prior.log_masses
    code = codes(atoms, target.decoder.ndim == 3)  # [m, R, K]
    first = carried * code.shape[1]
    terms = []
    if carried:
        own = parts.of_codes(slice(0, first))
        terms.append(carried_terms(source, code[:carried], log_masses[:carried], own, units, resolution))
    if extra is not None:
        rest = parts.of_codes(slice(first, None))
        given = atoms[carried:], code[carried:], log_masses[carried:]
        learnt = Learnt.of(source, layer, extra, *given, resolution)
        terms.append(_learnt_terms(learnt, layer, target, rest, units, output))
        if carried:
            terms.append(_between(learnt, code[:carried], parts, first))
    return Certificate.of(target, sum(terms[1:], terms[0]), output)


def check_certificate(source, layer, target, encoder, resolution: Resolution) -> None:
    """Raise an error that names the argument if there can be no bounds, or the memory does not suffice for them."""
    check_slopes(layer)
    check_units(source, layer.units, resolution)
    extra, carries = learnt_part(encoder), isinstance(encoder, CarriedEncoder)
    if extra is None:
        return
    if carries and layer.units and not layer.reads_input:
        raise ValueError("encoder: expected no features beside carried ones of a RidgeLayer: their loss has no bounds.")
    t = extra.statistics_read
    if t > 1 and (carries or layer.reads_input):
        raise ValueError(
            f"encoder: expected one statistic per feature of a DenseLayer's input, and beside carried features, whose "
            f"errors can be bounded, got {t}."
        )
    # Numbers that are held at once, counted roughly: no bound depends on them.
    orders, K, m = Orders.of(resolution, t), target.prior.atoms.shape[1], extra.features
    R = 1 if target.decoder.ndim == 2 else K - 1
    points = (12 * orders.single) ** t * (R * K + 8 * R + 8)
    pair = (4 * orders.pair + 2) * (orders.pair + 1) * 8 if t == 1 else (1.6 * orders.series**2) ** 2 * 40
    tables = m * R * (24 * (R + 1) * orders.pair + (source.features * source.prior.atoms.shape[1] + 8) * 4)
    needed = (16 * AT_ONCE + points + pair + tables) * 2 * source.mean.dtype.itemsize
    require_memory(needed, "certify", "lower resolution.frequencies")

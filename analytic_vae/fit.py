"""Learning one layer: the best target and encoder for `f(x1)`, on the exact loss."""

import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ._sharding import check_mesh, replicate
from .accuracy import warns
from .certify.loss import check_certificate
from .closed_form import Noise
from .elbo import Elbo, certified
from .fitting.carried import _carried_fit
from .fitting.centring import centred
from .fitting.initial import extra_features
from .fitting.options import EXTRA, carries_only, check_combination, check_options, completed
from .fitting.problem import Known, TooCoarse, compiled_elbo
from .fitting.result import DOUBT, Fit
from .fitting.starts import _best_of_starts, _known, _require_variation, _start
from .model.carried_encoder import CarriedEncoder, learnt_part
from .model.compatibility import check_encoder, check_layer
from .model.conditioning import clusters_of
from .model.encoder import AbstractEncoder
from .model.feature_model import FeatureModel
from .model.layer import AbstractLayer
from .moments.budget import check_memory
from .resolve import resolve
from .spectral.resolution import MOST_FREQUENCIES, Resolution
from .types import ArrayLike, Log, PRNGKeyArray

FINEST = 96  # frequencies up to which a fit raises its resolution by itself

BEGIN_ANEW = 0.1  # nats from which a fit is taken to have used the error of its loss


@warns
def fit(
    source: FeatureModel,
    layer: AbstractLayer,
    *,
    features: int | None = None,
    atoms: int | ArrayLike | None = None,
    encoder: str | AbstractEncoder | None = None,
    vectors: bool | None = None,
    noise: Noise = "full",
    optimizer: str | optax.GradientTransformation = "lbfgs",
    target: FeatureModel | None = None,
    steps: int = 500,
    tolerance: float = 1e-7,
    starts: int = 1,
    floor: float = 1e-6,
    resolution: Resolution | None = None,
    check: bool = True,
    certify: bool = False,
    split: bool = False,
    log: Log | None = None,
    key: PRNGKeyArray | None = None,
    mesh: Mesh | None = None,
) -> Fit:
    """Learn the feature model and the encoder of a layer's output, on the exact loss.

    Arguments:
        source: law of the layer's input.
        layer: `f`.
        features: `m2`; as many as the source has, if not given. With `both` those that are learnt beside the carried
            ones; 4 if not given.
        atoms: `[m2, K]`, or a number K of atoms of a Gaussian; the source's own atoms, if not given.
        encoder: where to start: an encoder, or its kind: `softmax` or `learnt`, `softmax2` (t = 2), `gaussian`,
            `gaussian2` (t = 2), `exponential`, `neural`, begun as matched filters of the source's features pushed
            through f (of a `DenseLayer`: of those in x1). Or `carried`: every feature of the source is handed on, with
            a vector per atom, and nothing is to be optimised; with full noise mean and covariance of the model are
            those of f. `both`: softmax features beside the carried ones. If not given, `carried` for a `DenseLayer`,
            else `softmax`.
        vectors: whether each atom of the target has a vector of its own; if not given, with carried features only.
        noise: `scalar`, `diagonal` or `full`; if a `target` is given, its own kind is kept.
        optimizer: `lbfgs` minimises the profiled loss (prior, decoder, mean and noise at their closed-form best) over
            the encoder alone, in the coordinates of its Fisher metric: SciPy's, on the host, with one compiled call
            of loss and gradient a time; an optax optimiser minimises the whole loss over everything, ten steps a time
            in a scan on the device.
        target: where an optax optimiser starts; the closed-form best of the first encoder, if not given.
        steps: the largest number of steps of one start, at one resolution.
        tolerance: a start stops when the loss falls by less than this many nats over ten steps.
        starts: how many times to begin; the first from the guess, the others from it with a perturbation of 0.5, 1, 2
            and 0.25 in turn.
        floor: added to every noise variance, relative to the mean variance of the output; with carried features alone
            the least that a variance (full: an eigenvalue) may be.
        resolution: how fine; `Resolution()` if not given. Where the loss is not finite at it (a residual covariance
            that a coarse grid leaves indefinite), or the check moves the loss by more than 0.01 nats, L-BFGS begins
            anew at twice the frequencies, up to 96, and says so; it goes on from the best start alone if that moved by
            less than 0.1 nats.
        check: evaluate the final loss of every start once more at 1.5 times the frequencies, choose the best start by
            it, and report the difference: an estimate.
        certify: bound the error of the final loss (`elbo(certify=True)`), at twice and four times the frequencies, up
            to 96, if it is not within 0.01 nats before. It takes all pairs of learnt features, and of units, one by one
            on fine grids: for 16 features 7 to 23 seconds, after the compilation. Not with `split`, nor with what
            `elbo` says has no bounds.
        split: with carried features alone and full noise: split every state but the likeliest of a feature in two,
            `v + d` and `v - d`, that take over as much of the noise as comes from pairs of features
            (`fitting/splitting.py`). Mean and covariance of the target stay, its law is nearer to that of f where few
            features are active at a time; the loss is that of the target before, whose atoms alone the encoder knows.
            States then stand in another order, the likeliest first. Of the source, neighbours of equal atoms and masses
            in every feature (the 2nd and 3rd, 4th and 5th, ...) are taken for sub-states of one.
        log: called with lines of progress (`print`, say): what begins, and steps about once a second.
        key: for the perturbations and random encoders; `jax.random.key(0)` if not given.
        mesh: devices to share the work among, as in `elbo`.

    Returns a `Fit`. Raises `ValueError` or `TypeError` that names the argument, or `MemoryError`, before anything
    expensive starts. A keyboard interrupt passes through.

    Source: sections 2 and 3 of "Analytically Learning Variational Auto-Encoders"; the profiled loss and its coordinates
    are our own.

    >>> result = fit(source, layer, noise="scalar")
    >>> print(result)
    """
    begun = time.perf_counter()
    resolution = Resolution.of(resolution)
    key = jax.random.key(0) if key is None else key
    options = {
        "features": features, "atoms": atoms, "encoder": encoder, "vectors": vectors, "noise": noise,
        "optimizer": optimizer, "target": target, "steps": steps, "tolerance": tolerance, "starts": starts,
        "floor": floor, "check": check, "split": split, "key": key,
    }  # fmt: skip
    check_options(resolution=resolution, certify=certify, **options)
    check_mesh(mesh)
    check_layer(source, layer, target)
    options = completed(layer, options)
    check_combination(source, layer, options, certify)
    if mesh is not None:  # what later steps find on all devices is there from the first: one compilation
        source, layer, target, options["encoder"] = replicate((source, layer, target, options["encoder"]), mesh)
    near = centred(source, layer) if _movable(options["encoder"]) else None
    if near is not None:
        target, options["encoder"] = near.shifted(target, options["encoder"])
        source, layer = near.source, near.layer
    options |= {"target": target}
    say = log or (lambda line: None)
    result = warm = None  # what was found so far; what to go on from
    while True:
        may_raise = isinstance(optimizer, str) and 2 * resolution.frequencies <= FINEST
        twice = f"{2 * resolution.frequencies} frequencies"
        try:
            found = _fit_at(source, layer, resolution, warm, log, mesh, **options)
        except (MemoryError, TooCoarse) as reason:
            if isinstance(reason, TooCoarse) and may_raise:
                warm = None
                say(f"the loss is not finite at {resolution.frequencies} frequencies; trying {twice}")
            elif result is None:
                raise
            else:  # what was found stays, and says that it is doubtful
                say(str(reason))
                break
        else:
            result = found if result is None else replace(found, start_losses=result.start_losses)
            if not (found.doubtful and may_raise):
                break
            # An encoder that has used the error of a coarse loss may have no finite loss at all at a finer one.
            warm = found if found.error_estimate < BEGIN_ANEW else None
            how = "beginning anew" if warm is None else "going on"
            say(f"the loss moves by {found.error_estimate:.1e} nats at a finer resolution; {how} at {twice}")
        resolution = Resolution(2 * resolution.frequencies, resolution.nodes)
    if certify:
        result = _certified(result, source, layer, mesh, say)
    if near is not None:
        target, encoder = near.back(result.target, result.encoder)
        result = replace(result, target=target, encoder=encoder)
    return replace(result, seconds=time.perf_counter() - begun)


def _movable(encoder) -> bool:
    """Whether an encoder can be moved to where the problem is near zero; one of a class of a user's perhaps not."""
    if isinstance(encoder, CarriedEncoder):
        return encoder.extra is None or _movable(encoder.extra)
    return not isinstance(encoder, AbstractEncoder) or type(encoder).shifted is not AbstractEncoder.shifted


def _certified(found: Fit, source, layer, mesh, say: Log) -> Fit:
    """The fit with bounds of its loss, at a finer resolution if they would say nothing at its own."""

    def loss(resolution: Resolution) -> Elbo:
        check_certificate(source, layer, found.target, found.encoder, resolution)
        known = Known(found.target.decoder.ndim == 3, clusters=clusters_of(source))
        value = compiled_elbo(source, layer, found.target, found.encoder, resolution, mesh, known)
        return certified(value, source, layer, found.target, found.encoder, resolution)

    log = lambda line: say(f"the bound of the loss: {line}")  # noqa: E731
    first = found.resolution
    try:
        best = resolve(loss, DOUBT, first=first, finest=max(FINEST, first.frequencies), log=log)
    except MemoryError as reason:
        log(str(reason))
        return found
    log(str(best))
    return replace(found, elbo=best.result, resolution=best.resolution)


def _fit_at(
    source, layer, resolution, warm, log, mesh, *, features, atoms, encoder, vectors, noise, optimizer, target, steps,
    tolerance, starts, floor, check, split, key,
) -> Fit:  # fmt: skip
    """The best of all starts at one resolution, or one start from where the fit `warm` ended."""
    begun = time.perf_counter()
    finer = _finer(resolution) if check else resolution
    if carries_only(encoder):
        finer = finer if check else None
        return _carried_fit(source, layer, vectors, noise, floor, resolution, finer, split, mesh, log)
    if warm is None:
        named = "target" if target is not None and atoms is None else "atoms"
        if encoder == "both":
            count = EXTRA if features is None else features
            check_memory(source, layer, 1, source.features + count, source.prior.atoms.shape[1], finer, mesh, vectors)
            known = _known(source, layer, vectors, resolution, mesh, log)
            first, atoms = extra_features(source, layer, count, resolution, known.moments)
            atoms = atoms if target is None else target.prior.atoms
        else:
            first, atoms = _start(source, layer, features, atoms, encoder, vectors, resolution, finer, target, key, log)
        check_encoder(layer, first, atoms, named, source)
        if target is not None and target.prior.atoms.shape != atoms.shape:
            raise ValueError(f"target: expected atoms of shape {atoms.shape}, got {target.prior.atoms.shape}.")
    else:
        first, atoms, starts = warm.encoder, warm.target.prior.atoms, 1
        check_memory(source, layer, learnt_part(first).statistics_read, *atoms.shape, finer, mesh, vectors)
    known = _known(source, layer, vectors, resolution, mesh, log)
    if known.moments is not None:
        _require_variation(*known.moments.output())
    found, judged, losses = _best_of_starts(
        source, layer, atoms, first, target, noise, jnp.asarray(floor, atoms.dtype), optimizer, steps, tolerance,
        starts, resolution, finer if check else None, log, key, mesh, known,
    )  # fmt: skip
    error = abs(judged - found.loss) if check else None
    seconds = time.perf_counter() - begun
    return Fit(
        found.target, found.encoder, found.elbo, error, found.history, losses, found.stop, seconds, resolution,
        found.rejected,
    )  # fmt: skip


def _finer(resolution: Resolution) -> Resolution:
    """1.5 times the frequencies, as far as there are more."""
    return Resolution(min(2 * int(0.75 * resolution.frequencies), MOST_FREQUENCIES), resolution.nodes)

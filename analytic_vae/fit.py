"""Learning one layer: the best target and encoder for `f(x1)`, on the exact loss."""

import time
from dataclasses import replace

import optax
from jax.sharding import Mesh

from ._sharding import check_mesh, replicate
from .accuracy import warns
from .certify.loss import check_certificate
from .closed_form import Noise
from .elbo import Elbo, certified
from .fitting.carried import carried_fit
from .fitting.centring import centred
from .fitting.options import FitOptions
from .fitting.problem import FitProblem, TooCoarse, compiled_elbo, require_variation
from .fitting.progress import Teller, Watch, lets_through
from .fitting.result import DOUBT, Fit
from .fitting.starts import best_of_starts, finest, first_encoder
from .model.carried_encoder import CarriedEncoder, learnt_part
from .model.compatibility import check_layer
from .model.encoder import AbstractEncoder
from .model.feature_model import FeatureModel
from .model.layer import AbstractLayer
from .resolve import resolve
from .spectral.resolution import Resolution
from .types import ArrayLike, Callback, Log, PRNGKeyArray

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
    statistics: int | None = None,
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
    callback: Callback | None = None,
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
        encoder: where to start: an encoder, or its kind: `softmax` or `learnt`, `gaussian`, `exponential`, `neural`,
            begun as matched filters of the source's features pushed through f (of a `DenseLayer`: of those in x1). Or
            `carried`: every feature of the source is handed on, with a vector per atom, and nothing is to be optimised;
            with full noise mean and covariance of the model are those of f. `both`: extra softmax features beside the
            carried ones. If not given, `carried` for a `DenseLayer`, else `softmax`.
        statistics: `t`, how many statistics of f each learnt feature reads: 1, or 2 of a `softmax` or `gaussian`
            encoder; 1 if not given. Given without an encoder it asks for a `softmax` one, of a `DenseLayer` too.
        vectors: whether each atom of the target has a vector of its own; if not given, with carried features only.
        noise: `scalar`, `diagonal` or `full`; if a `target` is given, its own kind is kept.
        optimizer: `lbfgs` minimises the profiled loss (prior, decoder, mean and noise at their closed-form best) over
            the encoder alone, in the coordinates of its Fisher metric: SciPy's, on the host, with one compiled call
            of loss and gradient a time; an optax optimiser minimises the whole loss over everything, ten steps a time
            in a scan on the device.
        target: where an optax optimiser starts; the closed-form best of the first encoder, if not given.
        steps: the largest number of steps of one start, at one resolution.
        tolerance: a start stops when the loss falls by less than this many nats over ten steps, or, judged on
            new boxes, over each of two rounds of 30.
        starts: how many times to begin; the first from the guess, the others from it with a perturbation of 0.1, 0.5,
            0.25 and 1 in turn.
        floor: added to every noise variance, relative to the mean variance of the output; with carried features alone
            the least that a variance (full: an eigenvalue) may be.
        resolution: how fine; `Resolution()` if not given. Where the loss is not finite at it (a residual covariance
            that a coarse grid leaves indefinite), the check moves the loss by more than 0.01 nats, or its accuracy is
            beyond 0.05, L-BFGS begins anew at twice the frequencies, up to 96, and says so; it goes on from the best
            start alone if that moved by less than 0.1 nats.
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
        callback: called after every step as `callback(step, numbers)`, for wandb, TensorBoard, MLflow or your own
            record: `step` is 1, 2, 3, ... over all starts and resolutions of this call, `numbers` a dictionary of
            Python's numbers: `loss`, `rate`, `R2`, `distortion` in nats, `gradient_norm` (of L-BFGS in its coordinates,
            of optax in the parameters), `seconds` since the call, `start` (0, 1, ...) and `frequencies`. L-BFGS tells
            of the best so far on the boxes at hand, optax of ten steps at a time; carried features alone are one step.
            What it raises, be it `KeyboardInterrupt` or `StopIteration`, passes through and ends the fit.
        key: for the perturbations and random encoders; `jax.random.key(0)` if not given.
        mesh: devices to share the work among, as in `elbo`.

    Returns a `Fit`. Raises `ValueError` or `TypeError` that names the argument, or `MemoryError`, before anything
    expensive starts. A keyboard interrupt, and what `log` or `callback` raises, passes through.

    Source: sections 2 and 3 of "Analytically Learning Variational Auto-Encoders"; the profiled loss and its coordinates
    are our own.

    >>> result = fit(source, layer, noise="scalar")
    >>> print(result)
    """
    options = FitOptions(
        features=features,
        atoms=atoms,
        encoder=encoder,
        statistics=statistics,
        vectors=vectors,
        noise=noise,
        optimizer=optimizer,
        target=target,
        steps=steps,
        tolerance=tolerance,
        starts=starts,
        floor=floor,
        resolution=resolution,
        check=check,
        certify=certify,
        split=split,
        key=key,
    )
    return fitted(source, layer, options, Teller(log, Watch(callback)), mesh)


@lets_through
def fitted(
    source: FeatureModel, layer: AbstractLayer, options: FitOptions, say: Teller, mesh: Mesh | None = None
) -> Fit:
    """`fit` with its options as one value: what `learn` calls for every layer."""
    begun = time.perf_counter()
    check_mesh(mesh)
    check_layer(source, layer, options.target)
    options = options.for_layer(source, layer)
    if mesh is not None:  # what later steps find on all devices is there from the first: one compilation
        source, layer, target, encoder = replicate((source, layer, options.target, options.encoder), mesh)
        options = replace(options, target=target, encoder=encoder)
    near = centred(source, layer) if _movable(options.encoder) else None
    if near is not None:
        target, encoder = near.shifted(options.target, options.encoder)
        source, layer, options = near.source, near.layer, replace(options, target=target, encoder=encoder)
    problem = FitProblem.of(source, layer, options, mesh)
    result = _raised(problem, options, say)
    if options.certify:
        result = _certified(result, problem, say)
    if near is not None:
        target, encoder = near.back(result.target, result.encoder)
        result = replace(result, target=target, encoder=encoder)
    return replace(result, seconds=time.perf_counter() - begun)


def _raised(problem: FitProblem, options: FitOptions, say: Teller) -> Fit:
    """The fit at the first resolution at which it is not doubtful, or at the finest."""
    result = warm = None  # what was found so far; what to go on from
    while True:
        resolution = problem.resolution
        may_raise = isinstance(options.optimizer, str) and 2 * resolution.frequencies <= FINEST
        twice = f"{2 * resolution.frequencies} frequencies"
        try:
            found = _at_one_resolution(problem, warm, options, say)
        except (MemoryError, TooCoarse) as reason:
            if isinstance(reason, TooCoarse) and may_raise:
                warm = None
                say(f"the loss is not finite at {resolution.frequencies} frequencies; trying {twice}")
            elif result is None:
                raise
            else:  # what was found stays, and says that it is doubtful
                say(str(reason))
                return result
        else:
            result = found if result is None else replace(found, start_losses=result.start_losses)
            if not (found.doubtful and may_raise):
                return result
            # An encoder that has used the error of a coarse loss may have no finite loss at all at a finer one.
            warm = found if found.error_estimate < BEGIN_ANEW else None
            how = "beginning anew" if warm is None else "going on"
            moves = f"{found.error_estimate:.1e} nats at a finer resolution, accuracy {found.accuracy:.1e}"
            say(f"the loss moves by {moves}; {how} at {twice}")
        problem = problem.at(Resolution(2 * resolution.frequencies, resolution.nodes))


def _at_one_resolution(problem: FitProblem, warm: Fit | None, options: FitOptions, say: Teller) -> Fit:
    """The best of all starts at one resolution, or one start from where the fit `warm` ended."""
    begun = time.perf_counter()
    if options.carries_only:
        return carried_fit(problem, options, say)
    if warm is None:
        first, problem = first_encoder(problem, options, say)
    else:
        first, problem, options = warm.encoder, problem.with_atoms(warm.target.prior.atoms), replace(options, starts=1)
        shape = learnt_part(first).statistics_read, *problem.atoms.shape
        finest(problem, options).require_memory(shape)
    problem = problem.with_moments(say)
    if problem.moments is not None:
        require_variation(*problem.moments.output())
    found, judged, losses = best_of_starts(problem, first, options, say)
    error = abs(judged - found.loss) if options.check else None
    seconds = time.perf_counter() - begun
    return Fit(
        found.target,
        found.encoder,
        found.elbo,
        error,
        found.history,
        losses,
        found.stop,
        seconds,
        problem.resolution,
        found.rejected,
        terms=found.terms,
    )


def _movable(encoder) -> bool:
    """Whether an encoder can be moved to where the problem is near zero; one of a class of a user's perhaps not."""
    if isinstance(encoder, CarriedEncoder):
        return encoder.extra is None or _movable(encoder.extra)
    return not isinstance(encoder, AbstractEncoder) or type(encoder).shifted is not AbstractEncoder.shifted


def _certified(found: Fit, problem: FitProblem, say: Teller) -> Fit:
    """The fit with bounds of its loss, at a finer resolution if they would say nothing at its own."""
    source, layer, target, encoder = problem.source, problem.layer, found.target, found.encoder

    def loss(resolution: Resolution) -> Elbo:
        check_certificate(source, layer, target, encoder, resolution)
        value = compiled_elbo(problem.at(resolution), target, encoder)
        return certified(value, source, layer, target, encoder, resolution)

    log = lambda line: say(f"the bound of the loss: {line}")  # noqa: E731
    first = found.resolution
    try:
        best = resolve(loss, DOUBT, first=first, finest=max(FINEST, first.frequencies), log=log)
    except MemoryError as reason:
        log(str(reason))
        return found
    log(str(best))
    return replace(found, elbo=best.result, resolution=best.resolution)

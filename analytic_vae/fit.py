"""Learning one layer: the best target and encoder for `f(x1)`, on the exact loss."""

import time
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ._check import as_floating, require_finite, require_shape
from .accuracy import warns
from .arguments import check_encoder, check_layer, check_memory, check_mesh, check_vectors
from .centring import centred
from .certificate import check_certificate
from .closed_form import NOISES, Noise, carried_target, profiled, require_floor
from .conditioning import clusters_of
from .elbo import Elbo, certified
from .encoder import AbstractEncoder, CarriedEncoder, learnt_part
from .expectations import dense_moments, expectations
from .initial import awakened, beside_carried, gaussian_atoms, initial_encoder, perturbed, pushed_features
from .layer import AbstractLayer, DenseLayer, LinearLayer
from .model import FeatureModel
from .optimise import Known, Log, Progress, Stop, TooCoarse, compiled_elbo, expected, profiled_lbfgs, whole_loss
from .options import BESIDE, carries_only, check_combination, check_options, completed
from .parallel import replicate
from .plan import Plan
from .resolve import resolve
from .spectral.resolution import MOST_FREQUENCIES, Resolution
from .spectral.units import DenseMoments
from .substates import merged, merged_moments, states_of, with_substates
from .types import Array, ArrayLike, Float, PRNGKeyArray

FINEST = 96  # frequencies up to which a fit raises its resolution by itself
DOUBT = 0.01  # nats by which the loss may move at a finer resolution
LEAST_RATE = 1e-4  # nats below which a feature is one in name only
BEGIN_ANEW = 0.1  # nats from which a fit is taken to have used the error of its loss


@dataclass(frozen=True)
class Fit:
    """What a fit found.

    Fields:
        target: the model of the layer's output.
        encoder: its encoder; None for a linear layer, where nothing is learnt.
        elbo: the loss and its terms at `resolution`, exact for this target and encoder; None for a linear layer. With
            `certify` its `error_bound` is proved. With `split`, of the target before its states were split: no encoder
            tells sub-states apart.
        error_estimate: how far the loss moves when the resolution is raised by half: an estimate, in nats, not a
            bound. None if the check was switched off.
        history: the loss after every step of the best start, at `resolution`, the last one that the fit went to.
        start_losses: the final loss of every start, at the first resolution where the loss was finite.
        stop: why the best start stopped.
        rejected: steps of the best start that were taken back because loss or gradient was not finite there, or because
            the laws had left their boxes, so that the loss was not to be believed (`Elbo.misfit` above 0.1).
        seconds: wall time, compilation included.
        resolution: the last one that the fit, or the certificate of its loss, went to.
        least_remainder: with carried features alone, the smallest eigenvalue of the noise covariance before what
            rounding and the resolution leave below the floor is raised to it, and before a split; else None.
    """

    target: FeatureModel
    encoder: AbstractEncoder | None
    elbo: Elbo | None
    error_estimate: float | None
    history: np.ndarray
    start_losses: np.ndarray
    stop: Stop
    seconds: float
    resolution: Resolution = field(default_factory=Resolution)
    rejected: int = 0
    least_remainder: float | None = None

    @property
    def explained(self) -> float:
        """Share of the output's variance that is in the features, sub-states included, not in the noise."""
        total, noise = jnp.trace(self.target.moments()[1]), jnp.trace(self.target.covariance)
        return float(1 - noise / total)

    @property
    def loss(self) -> float | None:
        """The final loss in nats, None for a linear layer."""
        return None if self.elbo is None else float(self.elbo.loss)

    @property
    def accuracy(self) -> float:
        """How far the loss may be off, in nats: the most of what its laws, its series and a finer resolution say."""
        known = [0.0] if self.elbo is None else [float(self.elbo.accuracy), self.error_estimate or 0.0]
        return float("inf") if np.any(np.isnan(known)) else max(known)

    @property
    def doubtful(self) -> bool:
        """Whether the loss moves by more than 0.01 nats at a finer resolution: then the fit may have used its error."""
        return self.error_estimate is not None and not self.error_estimate <= DOUBT

    @property
    def unused(self) -> int:
        """Features that say next to nothing of the output: their rate is below 1e-4 nats."""
        return 0 if self.elbo is None else int(np.count_nonzero(np.asarray(self.elbo.rates) < LEAST_RATE))

    def __str__(self) -> str:
        if self.elbo is None:
            return self.stop.value
        error = "" if self.error_estimate is None else f" (about +- {self.error_estimate:.1e})"
        if self.elbo.error_bound is not None:
            error = f" +- {float(self.elbo.error_bound):.1e}"
        doubt = "; the resolution is too coarse for this fit, raise resolution.frequencies" if self.doubtful else ""
        unused = f"; {self.unused} of {self.target.features} features unused" if self.unused else ""
        rejected = f" ({self.rejected} taken back)" if self.rejected else ""
        return (
            f"loss {self.loss:.6f}{error} nats = rate {float(self.elbo.rate):.4f} + R2 {float(self.elbo.R2):.4f} "
            f"+ distortion {float(self.elbo.distortion):.4f}; {self.explained:.1%} of the variance in the features; "
            f"{self.history.size} steps{rejected}, {self.seconds:.1f} s; {self.stop.value}{unused}{doubt}"
        )


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
            `v + d` and `v - d`, that take over as much of the noise as comes from pairs of features (`substates.py`).
            Mean and covariance of the target stay, its law is nearer to that of f where few features are active at a
            time; the loss is that of the target before, whose atoms alone the encoder knows. States then stand in
            another order, the likeliest first. Of the source, neighbours of equal atoms and masses in every feature
            (the 2nd and 3rd, 4th and 5th, ...) are taken for sub-states of one.
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
    resolution = resolution or Resolution()
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
        target, options["encoder"] = near.moved(target, options["encoder"])
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
        return encoder.beside is None or _movable(encoder.beside)
    return not isinstance(encoder, AbstractEncoder) or type(encoder).moved is not AbstractEncoder.moved


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
            count = BESIDE if features is None else features
            check_memory(source, layer, 1, source.features + count, source.prior.atoms.shape[1], finer, mesh, vectors)
            known = _known(source, layer, vectors, resolution, mesh, log)
            first, atoms = beside_carried(source, layer, count, resolution, known.moments)
            atoms = atoms if target is None else target.prior.atoms
        else:
            first, atoms = _start(source, layer, features, atoms, encoder, vectors, resolution, finer, target, key, log)
        check_encoder(layer, first, atoms, resolution, named, source)
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


def _best_of_starts(
    source, layer, atoms, first, target, noise, floor, optimizer, steps, tolerance, starts, resolution, finer, log, key,
    mesh, known,
):  # fmt: skip
    """What the best start found, its loss at `finer`, and the losses of all starts.

    A start may have found an error of a coarse loss instead of a model: the loss at `finer`, if given, decides.
    """
    best, least, losses = None, np.inf, []
    finer_known = _known(source, layer, known.vectors, finer, mesh, log) if finer is not None else None
    _say(log, "the loss and its gradient at the start (compiled once for each set of shapes)")
    for start in range(starts):
        begin = first if start == 0 else perturbed(first, 0.25 * 2 ** (start % 4), key=jax.random.fold_in(key, start))
        say = Progress(log, f"start {start + 1} of {starts}, " if starts > 1 else "")
        if isinstance(optimizer, str):
            try:
                found = profiled_lbfgs(
                    source, layer, atoms, begin, noise, floor, steps, tolerance, resolution, say, mesh, known
                )
            except TooCoarse:
                if start == 0:
                    raise
                losses.append(np.inf)
                continue
        else:
            found = whole_loss(
                source, layer, atoms, begin, target, noise, floor, optimizer, steps, tolerance, resolution, say, mesh,
                known,
            )  # fmt: skip
        losses.append(found.loss)
        judged = found.loss
        if finer is not None:
            _say(log, f"the loss at {finer.frequencies} frequencies, to see how far it moves")
            judged = float(compiled_elbo(source, layer, found.target, found.encoder, finer, mesh, finer_known).loss)
        if best is None or judged < least or not np.isfinite(least):
            best, least = found, judged
    return best, least, np.array(losses)


def _say(log: Log | None, line: str) -> None:
    if log is not None:
        log(line)


def _known(source, layer, vectors: bool, resolution: Resolution, mesh, log: Log | None) -> Known:
    if not isinstance(layer, DenseLayer):
        return Known(vectors, None, clusters_of(source))
    _say(log, f"moments of {layer.units} units and their pairs at {resolution.frequencies} frequencies")
    return Known(vectors, dense_moments.__wrapped__(source, layer, resolution, mesh), clusters_of(source))


def _carried_fit(
    source, layer, vectors, noise, floor, resolution, finer: Resolution | None, split: bool, mesh, log: Log | None
) -> Fit:
    """Carried features alone: all in closed form. The estimate is how far the loss of the target moves at `finer`."""
    begun = time.perf_counter()
    states = states_of(source.prior) if split else None
    whole, moments = source, _known(source, layer, vectors, resolution, mesh, log).moments
    if split:
        source = merged(whole, states)

    def known(found: DenseMoments | None) -> Known:
        return Known(vectors, merged_moments(found, states) if split else found, clusters_of(source))

    encoder, atoms = CarriedEncoder(source.features), source.prior.atoms
    _say(log, "the best target, in closed form")
    given = expected(source, layer, atoms, encoder, resolution, mesh, known(moments))
    _require_variation(*given.layer.output())
    target, least = carried_target(given, source.prior, noise, floor)
    spread = float(np.sqrt(np.trace(np.asarray(given.layer.output()[1]))))
    rounding = 8 * float(jnp.finfo(atoms.dtype).eps) ** 0.5  # of variances: none is left where they cancel
    if not floor > 0 and not np.all(np.asarray(_scales(target.noise)) > rounding * spread):
        raise ValueError(
            "floor: expected a positive number, as the features explain some direction of the output entirely, so that "
            f"no noise is left there, got {float(floor):g}."
        )
    _say(log, "its loss")
    elbo, error = compiled_elbo(source, layer, target, encoder, resolution, mesh, known(moments)), None
    if finer is not None:
        there = known(_known(whole, layer, vectors, finer, mesh, log).moments)
        _say(log, f"its loss at {finer.frequencies} frequencies, to see how far it moves")
        error = abs(float(compiled_elbo(source, layer, target, encoder, finer, mesh, there).loss - elbo.loss))
    if split:
        _say(log, "what pairs of features do together, to split their states")
        target = with_substates(whole, layer, moments, target, states, mesh)
    none, seconds = np.zeros(0), time.perf_counter() - begun
    return Fit(target, encoder, elbo, error, none, none, Stop.CLOSED, seconds, resolution, least_remainder=float(least))


def _scales(noise: Array) -> Array:
    return jnp.diagonal(noise) if noise.ndim == 2 else noise


def _require_variation(mean: Float[Array, " n2"], covariance: Float[Array, "n2 n2"]) -> None:
    """Raise `ValueError` if a layer's output varies by no more than the rounding of its mean."""
    rounding = float(jnp.finfo(mean.dtype).eps) ** 2 * float(jnp.sum(mean**2))
    if not float(jnp.trace(covariance)) > rounding:
        raise ValueError("layer: expected an output that varies, got one that is constant: there is nothing to learn.")


def _finer(resolution: Resolution) -> Resolution:
    """1.5 times the frequencies, as far as there are more."""
    return Resolution(min(2 * int(0.75 * resolution.frequencies), MOST_FREQUENCIES), resolution.nodes)


@warns
def profiled_loss(
    source: FeatureModel,
    layer: AbstractLayer,
    atoms: Float[Array, "m2 K"],
    encoder: AbstractEncoder,
    resolution: Resolution | None = None,
    *,
    noise: Noise = "full",
    floor: float = 1e-6,
    plan: Plan | None = None,
    mesh: Mesh | None = None,
    vectors: bool = False,
    moments: DenseMoments | None = None,
) -> tuple[Elbo, FeatureModel]:
    """The loss with prior, decoder, mean and noise at their closed-form best for the encoder, and that target.

    A pure function: jit it, differentiate it in the encoder. Arguments, and what is raised, as in `fit` and `elbo`.

    >>> value, slope = jax.value_and_grad(lambda e: profiled_loss(source, layer, atoms, e)[0].loss)(encoder)
    """
    if noise not in NOISES:
        raise ValueError(f"noise: expected one of {', '.join(NOISES)}, got {noise!r}.")
    require_floor(floor)
    given = expectations.__wrapped__(source, layer, atoms, encoder, resolution, plan, mesh, vectors, moments)
    return profiled(given, atoms, noise, floor)


def _start(
    source, layer, features, atoms, encoder, vectors, resolution, finer, target, key, log
) -> tuple[AbstractEncoder, Array]:
    """The first encoder and the atoms `[m2, K]`; checked before, that `finer` fits into the memory."""
    dtype = source.mean.dtype
    if isinstance(encoder, CarriedEncoder):
        own, beside = source.prior.atoms, encoder.beside
        more = jnp.broadcast_to(gaussian_atoms(own.shape[1], dtype)[0], (beside.features, own.shape[1]))
        given = jnp.concatenate([own, more]) if target is None else target.prior.atoms
        check_memory(source, layer, beside.statistics_read, *given.shape, finer, vectors=vectors)
        return encoder, given
    encoder = "softmax" if encoder == "learnt" else encoder
    read = LinearLayer(layer.read_form().linear) if isinstance(layer, DenseLayer) else layer  # what an encoder reads
    given = None
    if target is not None:
        given = target.prior.atoms
    if atoms is not None and not isinstance(atoms, int | np.integer):
        (given,) = as_floating(atoms=atoms)
        require_shape("atoms", given, (None, None), "features, atoms")
        require_finite("atoms", given)
    chosen = isinstance(encoder, AbstractEncoder)
    count = features
    if count is None and given is not None:
        count = given.shape[0]
    if count is None:
        count = encoder.features if chosen else source.features
    if isinstance(atoms, int | np.integer):
        if isinstance(atoms, bool) or atoms < 2:
            raise ValueError(f"atoms: expected at least 2 atoms, got {atoms}.")
        given = jnp.broadcast_to(gaussian_atoms(atoms, dtype)[0], (count, atoms))
    if given is not None and given.shape[0] != count:
        raise ValueError(f"atoms: expected one row for each of {count} features, got {given.shape[0]}.")
    K = source.prior.atoms.shape[1] if given is None else given.shape[1]
    check_vectors(vectors, K, "atoms")
    t = encoder.statistics_read if chosen else 1 + encoder.endswith("2")
    check_memory(source, layer, t, count, K, finer, vectors=vectors)
    guess = pushed_features(source, read, count, None if given is None else given.astype(dtype), resolution)
    _require_variation(guess.mean, guess.covariance)
    if chosen:
        if encoder.features != count:
            raise ValueError(f"encoder: expected {count} features, got {encoder.features}.")
        if target is not None:  # whose decoder need not be zero
            return encoder, guess.atoms
        encoder, asleep = awakened(encoder, guess, key=key)
        if asleep:
            _say(log, f"features {', '.join(map(str, asleep))} read nothing, a saddle of the loss: begun at random")
        return encoder, guess.atoms
    return initial_encoder(encoder, guess, key=key), guess.atoms

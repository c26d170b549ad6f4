"""What a fit returns, and what each of its starts finds."""

import enum
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .._repr import short_repr
from ..elbo import LEAST_RATE, Elbo
from ..model.encoder import AbstractEncoder
from ..model.feature_model import FeatureModel
from ..model.host import HostModel
from ..plots.axes import panels
from ..plots.losses import draw_history, draw_loss, draw_rates, draw_trade
from ..plots.style import say
from ..spectral.resolution import Resolution

DOUBT, SUSPECT = 0.01, 0.05  # nats: by which the loss may move at a finer resolution; accuracy that is too little


class Stop(enum.Enum):
    """Why a fit stopped; the value is the sentence a person reads."""

    CONVERGED = "converged: the loss no longer falls by more than the tolerance"
    STEPS = "stopped at the largest number of steps; more steps may lower the loss"
    STUCK = "stopped where rounding hides any lower loss along the gradient"
    NOT_FINITE = "stopped: the loss was not finite; the best parameters before that are returned"
    CLOSED = "in closed form: with carried features nothing is left to optimise"
    EXACT = "nothing to learn: a linear layer's output is exactly a feature model"


class StartResult(NamedTuple):
    """What one start found: the loss with its terms, for this encoder and this target, the losses of all steps."""

    encoder: AbstractEncoder
    elbo: Elbo
    target: FeatureModel
    history: np.ndarray
    stop: Stop
    rejected: int
    terms: np.ndarray

    @property
    def loss(self) -> float:
        """In nats, at the resolution of the fit."""
        return float(self.elbo.loss)


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
        history: the least loss up to every step of the best start, at `resolution`, the last one that the fit went to.
            Each round of 30 steps has boxes of its own, so it may rise where one begins; the last is that of `loss`.
        terms: `[steps, 3]`, rate, `R2` and distortion of every loss of `history`. Empty for fits in files of before
            there were any.
        start_losses: the final loss of every start, at the first resolution where the loss was finite.
        stop: why the best start stopped.
        rejected: steps of the best start that were taken back because loss or gradient was not finite there, or because
            the loss was not to be believed: `Elbo.moment_error` above 0.01 or `Elbo.accuracy` above 0.1, or twice what
            they were where a round of 30 steps began; with optax `moment_error` above 0.1.
        seconds: wall time, compilation included.
        resolution: the last one that the fit, or the certificate of its loss, went to.
        least_remainder: with carried features alone, the smallest eigenvalue of the noise covariance before what
            rounding and the resolution leave below the floor is raised to it, and before a split; else None.
    """

    __repr__ = short_repr

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
    terms: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    @property
    def explained(self) -> float:
        """Share of the output's variance that is in the features, sub-states included, not in the noise."""
        here = HostModel.of(self.target)
        return float(1 - np.trace(here.covariance) / np.trace(here.moments()[1]))

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
        """Whether the fit may have used an error of its loss.

        If the loss moves by more than 0.01 nats at a finer resolution, or its own accuracy is beyond 0.05: two
        resolutions may agree by chance.
        """
        if self.error_estimate is None:
            return False
        return not (self.error_estimate <= DOUBT and self.accuracy <= SUSPECT)

    @property
    def unused(self) -> int:
        """Features that say next to nothing of the output: their rate is below 1e-4 nats."""
        return 0 if self.elbo is None else int(np.count_nonzero(np.asarray(self.elbo.rates) < LEAST_RATE))

    def plot(self, ax: Any = None) -> Any:
        """Draw the fit with matplotlib: the loss of every step above its last one, and what was traded for what.

        The second picture is of rate, `R2` and distortion of every step, less their last values. Where nothing was
        optimised (carried features) or no such terms are known: the terms of the loss and the rates of the features.

        Arguments:
            ax: two axes; a new figure if not given.

        Returns the axes `[2]`. Raises `TypeError` or `ValueError` if `ax` is something else, `ImportError` without
        matplotlib.
        """
        axes = panels(ax, 2)
        if self.elbo is None:
            for one in axes:
                say(one, self.stop.value)
            return axes
        if self.history.size:
            draw_history(axes[0], self.history, f"{self.history[-1]:.6g}")
        else:
            draw_loss(axes[0], {name: float(getattr(self.elbo, name)) for name in ("loss", "rate", "R2", "distortion")})
        if len(self.terms):
            draw_trade(axes[1], self.terms)
        else:
            draw_rates(axes[1], np.asarray(self.elbo.rates, np.float64), LEAST_RATE)
        return axes

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

"""The resolution that certifies a tolerance."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ._repr import short_repr
from ._warning import AccuracyWarning
from .spectral.resolution import MOST_FREQUENCIES, Resolution
from .types import Log

ENOUGH = 0.7  # a bound that falls by less than this twice in a row is made of rounding


@dataclass(frozen=True)
class Resolved:
    """What `resolve` found.

    Fields:
        result: what `compute` returned at `resolution`, the one with the least bound.
        resolution: the coarsest that certifies the tolerance; else that of the least bound.
        error_bound: of the result.
        attained: whether that is within the tolerance.
        reason: one sentence on why it ended there.
        seconds: wall time, compilation included.
    """

    __repr__ = short_repr

    result: Any
    resolution: Resolution
    error_bound: float
    attained: bool
    reason: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.resolution.frequencies} frequencies, bound {self.error_bound:.1e}: {self.reason}"


def resolve(
    compute: Callable[[Resolution], Any],
    tolerance: float,
    *,
    first: Resolution | None = None,
    finest: int = MOST_FREQUENCIES,
    seconds: float = math.inf,
    log: Log | None = None,
) -> Resolved:
    """The coarsest resolution at which the error is proved to be within a tolerance: 8, 16, 32, .. frequencies.

    Outside of jit: every resolution is a static value, and compiles once.

    Arguments:
        compute: from a `Resolution` to anything with an `error_bound`: a `bounded_expectation`, an
            `elbo(.., certify=True)`, a `pushforward(.., certify=True)`.
        tolerance: the largest `error_bound` to accept (of arrays, of every entry); positive.
        first: where to begin; 8 frequencies if not given.
        finest: the most frequencies to try.
        seconds: stop before a computation that is expected to take the whole beyond so many seconds: twice the
            frequencies are taken to need eight times as long.
        log: called with a line before every computation: the time that is expected and the bound so far.

    Returns a `Resolved`, also if the tolerance is not attained: then `attained` is False and `reason` says what stopped
    it: rounding in the dtype at hand, the finest resolution, memory, or time. Raises `ValueError` that names the
    argument; a `MemoryError` at the first resolution passes through.

    >>> found = resolve(lambda r: av.elbo(source, layer, target, encoder, r, certify=True), 1e-6)
    >>> print(found), found.resolution
    """
    _check_arguments(compute, tolerance, first, finest, seconds)
    begun, resolution = time.perf_counter(), first or Resolution(8)
    best, last, stalled, took = None, math.inf, 0, 0.0
    while True:
        elapsed = time.perf_counter() - begun
        if best is not None and elapsed + 8 * took > seconds:
            reason = f"{resolution.frequencies} frequencies may take {8 * took:.0f} s, more than is left"
            break
        if log is not None:
            expected = "" if best is None else f" (about {8 * took:.0f} s), the bound is {last:.1e}"
            log(f"{resolution.frequencies} frequencies{expected}")
        begin = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AccuracyWarning)  # what is coarse here is coarse on purpose
                result = jax.block_until_ready(compute(resolution))
        except MemoryError as error:
            if best is None:
                raise
            reason = f"the memory does not suffice for more: {error}"
            break
        took, bound = time.perf_counter() - begin, _largest(result)
        if best is None or bound < best[2]:
            best = result, resolution, bound
        if bound <= tolerance:
            return Resolved(*best, True, f"within {tolerance:.1e}", time.perf_counter() - begun)
        stalled = stalled + 1 if math.isfinite(bound) and bound > ENOUGH * last else 0
        last = bound
        if stalled == 2:
            dtype = jax.tree.leaves(result)[0].dtype
            reason = f"{tolerance:.1e} is not attainable in {dtype}, or only far beyond: the bound no longer falls"
            break
        if 2 * resolution.frequencies > finest:
            reason = f"{tolerance:.1e} is not attained with up to {finest} frequencies"
            break
        resolution = Resolution(2 * resolution.frequencies, resolution.nodes)
    return Resolved(*best, False, reason, time.perf_counter() - begun)


def _largest(result: Any) -> float:
    bound = getattr(result, "error_bound", None)
    if bound is None:
        raise ValueError("compute: expected a result with an error_bound; pass certify=True to what it calls.")
    largest = max(float(np.max(np.asarray(leaf))) for leaf in jax.tree.leaves(bound))
    return math.inf if math.isnan(largest) else largest


def _check_arguments(compute, tolerance, first, finest, seconds) -> None:
    if not callable(compute):
        raise TypeError(f"compute: expected a function of a Resolution, got {type(compute).__name__}.")
    if (
        isinstance(tolerance, bool)
        or not isinstance(tolerance, int | float | np.generic)
        or not 0 < float(tolerance) < math.inf
    ):
        raise ValueError(f"tolerance: expected a positive finite number, got {tolerance!r}.")
    if first is not None and not isinstance(first, Resolution):
        raise TypeError(f"first: expected a Resolution, got {type(first).__name__}.")
    if isinstance(finest, bool) or not isinstance(finest, int) or not 8 <= finest <= MOST_FREQUENCIES:
        raise ValueError(f"finest: expected a number of frequencies from 8 to {MOST_FREQUENCIES}, got {finest!r}.")
    if first is not None and first.frequencies > finest:
        raise ValueError(f"first: expected at most finest = {finest} frequencies, got {first.frequencies}.")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | np.generic) or not float(seconds) >= 0:
        raise ValueError(f"seconds: expected a number of at least 0, got {seconds!r}.")

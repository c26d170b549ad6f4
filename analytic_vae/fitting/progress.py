"""Lines of progress that do not stop while something takes long: a compilation says nothing by itself.

And numbers for a callback: those of every step.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from ..types import Callback, Log

P = ParamSpec("P")

T = TypeVar("T")

SILENCE = 5.0  # seconds without a line after which the last one is said again, with how long ago it was said


@contextmanager
def kept_talking(log: Log | None, silence: float = SILENCE) -> Iterator[Log]:
    """The log, which is also called, from a thread of its own, when it has not been called for so many seconds.

    What the log raises in that thread is raised in the caller's at its next line, or at the end.
    """
    if log is None:
        yield lambda line: None
        return
    talker = _Talker(log, silence)
    talker.thread.start()
    try:
        yield talker.say
    finally:
        talker.stop()
    talker.raise_failure()


class Failed(BaseException):
    """What a user's callback raised, on its way out: nobody is to catch it, as SciPy does a `StopIteration`."""

    def __init__(self, error: BaseException):
        super().__init__(error)
        self.error = error


def lets_through(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which raises what a callback inside of it raised, as it was."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Failed as failed:
            error = failed.error
        raise error  # here, so that `Failed` is not its context

    return call


class Watch:
    """A callback, how many steps it has been told of, and since when. Its steps are counted on from fit to fit."""

    def __init__(self, callback: Callback | None):
        if callback is not None and not callable(callback):
            raise TypeError(
                f"callback: expected a function of a step and a dictionary, or None, got {type(callback).__name__}."
            )
        self.callback, self.step, self.begun = callback, 0, time.perf_counter()


class Teller:
    """Where a fit says what it does: lines to a log, and the numbers of steps to a callback."""

    def __init__(self, log: Log | None, watch: Watch, **known: int):
        self.log, self.watch, self.known = log, watch, known

    def __call__(self, line: str) -> None:
        if self.log is not None:
            self.log(line)

    @property
    def counts(self) -> bool:
        """Whether anybody wants numbers."""
        return self.watch.callback is not None

    def numbers(self, **numbers: Any) -> None:
        """Those of one more step; only if anybody `counts` them."""
        watch = self.watch
        watch.step += 1
        numbers = {name: value if isinstance(value, int) else float(value) for name, value in numbers.items()}
        numbers["seconds"] = time.perf_counter() - watch.begun
        try:
            watch.callback(watch.step, numbers | self.known)
        except BaseException as error:
            raise Failed(error) from None


class Progress:
    """Says where one start of a fit is, at most once a second; and the numbers of every step, if anybody wants them."""

    def __init__(self, say: Teller, prefix: str, start: int, frequencies: int):
        self.say, self.prefix, self.last = say, prefix, time.perf_counter()
        self.known = {"start": start, "frequencies": frequencies}

    def __call__(self, step: int, loss: float) -> None:
        if time.perf_counter() - self.last > 1.0:
            self.last = time.perf_counter()
            self.say(f"{self.prefix}step {step}, loss {loss:.6f}")

    @property
    def counts(self) -> bool:
        """Whether anybody wants numbers."""
        return self.say.counts

    def numbers(self, **numbers: Any) -> None:
        """Those of one step: loss, rate, distortion, gradient norm."""
        self.say.numbers(**numbers, **self.known)


class _Talker:
    """One line at a time, and the time of the last."""

    def __init__(self, log: Log, silence: float):
        self.log, self.silence, self.line, self.failure = log, silence, None, None
        self.begun = self.last = time.perf_counter()
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._keep_talking, name="analytic_vae progress", daemon=True)

    def say(self, line: str) -> None:
        self.raise_failure()
        with self.lock:
            self.log(line)
            self.line, self.begun = line, time.perf_counter()
            self.last = self.begun

    def stop(self) -> None:
        self.stopped.set()
        self.thread.join()

    def raise_failure(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def _keep_talking(self) -> None:
        wait = self.silence
        while not self.stopped.wait(wait):
            with self.lock:
                now = time.perf_counter()
                wait = self.last + self.silence - now
                if wait > 0 or self.line is None:
                    wait = wait if wait > 0 else self.silence
                    continue
                try:
                    self.log(f"{self.line} ... {now - self.begun:.0f} s")
                except BaseException as failure:  # of the user's function: not to be lost in this thread
                    self.failure = failure
                    return
                self.last, wait = now, self.silence

"""Lines of progress that do not stop while something takes long: a compilation says nothing by itself."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..types import Log

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


class Progress:
    """Says where a fit is, at most once a second."""

    def __init__(self, say: Log, prefix: str):
        self.say, self.prefix, self.last = say, prefix, time.perf_counter()

    def __call__(self, step: int, loss: float) -> None:
        if time.perf_counter() - self.last > 1.0:
            self.last = time.perf_counter()
            self.say(f"{self.prefix}step {step}, loss {loss:.6f}")


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

"""A bar of the layers learnt, on a terminal; lines of text everywhere else."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TextIO

from ..types import Callback, Log

LAYER = re.compile(r"layer (\d+) \(\d+/\d+\): ")  # how `learn` begins its lines

AGAIN = re.compile(r" \.\.\. \d+ s$")  # how a line ends that is said again: nothing new, but it takes so long


class Shown(NamedTuple):
    """Where a run says what it does: what `learn` takes."""

    log: Log
    callback: Callback | None


@contextmanager
def progress(layers: int, stream: TextIO | None = None) -> Iterator[Shown]:
    """Lines on a stream (standard error) and below them, on a terminal and if tqdm is there, a bar of layers.

    The bar shows the loss of the last step, too; and the lines that `kept_talking` repeats, which are not printed.
    """
    stream = stream or sys.stderr
    bar = _bar(layers, stream) if stream.isatty() else None
    if bar is None:
        yield Shown(lambda line: print(line, file=stream, flush=True), None)
        return
    with bar:
        yield _shown(bar, stream)
        bar.update(layers - bar.n)


def _bar(layers: int, stream: TextIO):
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=layers, unit="layer", file=stream, dynamic_ncols=True, leave=False)


def _shown(bar, stream: TextIO) -> Shown:
    def log(line: str) -> None:
        found = LAYER.match(line)
        if found:
            bar.update(int(found[1]) - bar.n)
        if AGAIN.search(line):
            bar.set_postfix_str(LAYER.sub("", line))
        else:
            bar.write(line, file=stream)

    def callback(step: int, numbers: dict[str, int | float]) -> None:
        del step
        bar.set_postfix_str(f"loss {numbers['loss']:.4f}", refresh=False)
        bar.update(0)

    return Shown(log, callback)

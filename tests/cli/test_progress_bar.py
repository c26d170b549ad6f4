"""The bar of layers on a terminal, and lines of text elsewhere."""

import builtins
import io

import pytest

from analytic_vae.cli.progress_bar import progress

LINES = ["pushing 10 samples", "layer 0 (1/3): moments", "layer 0 (1/3): moments ... 5 s", "layer 2 (3/3): loss 1"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream):
    with progress(3, stream) as shown:
        for line in LINES:
            shown.log(line)
        if shown.callback is not None:
            shown.callback(1, {"loss": 1.25})
        return shown


def test_elsewhere_there_are_the_lines_alone():
    stream = io.StringIO()
    assert run(stream).callback is None
    assert stream.getvalue().splitlines() == LINES


def test_on_a_terminal_there_is_a_bar_below_the_lines():
    stream = Terminal()
    run(stream)
    said = stream.getvalue()
    for line in (LINES[0], LINES[1], LINES[3]):
        assert f"{line}\n" in said
    assert f"{LINES[2]}\n" not in said and "moments ... 5 s" in said  # in the bar
    assert "0/3" in said and "2/3" in said


def test_a_terminal_without_tqdm_gets_lines(monkeypatch):
    there = builtins.__import__

    def missing(name, *rest):
        if name == "tqdm":
            raise ImportError
        return there(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    stream = Terminal()
    assert run(stream).callback is None and stream.getvalue().splitlines() == LINES


def test_what_is_raised_within_passes_through():
    with pytest.raises(KeyboardInterrupt), progress(3, Terminal()):
        raise KeyboardInterrupt

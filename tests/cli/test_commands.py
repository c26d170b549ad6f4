"""The command itself, whatever it is asked to do."""

import warnings

import analytic_vae as av
from analytic_vae.cli import commands


def test_a_warning_is_one_line_without_a_place_in_the_code(capsys, monkeypatch):
    def run(options):
        del options
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # as outside of the tests
            warnings.warn("coarse", av.AccuracyWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(commands, "_show", run)
    before = warnings.showwarning
    assert commands.main(["show", "."]) == 0
    assert capsys.readouterr().err == "AccuracyWarning: coarse\n" and warnings.showwarning is before

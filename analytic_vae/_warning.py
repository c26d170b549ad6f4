"""The one warning of the package, and whose line it names."""

import os
import sys
import warnings

import equinox

FOLDERS = tuple(os.path.dirname(os.path.abspath(file)) + os.sep for file in (__file__, equinox.__file__))


class AccuracyWarning(UserWarning):
    """A result may be off by more than `ACCURACY`."""


def warn(message: str) -> None:
    """Issue an `AccuracyWarning` that names the line of the user's that called the package."""
    level, frame = 1, sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(FOLDERS):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, AccuracyWarning, stacklevel=level)

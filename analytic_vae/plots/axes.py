"""Where pictures are drawn: axes of a user, or of a new figure."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 4.2, 3.4  # inches of one panel in a new figure


def matplotlib() -> Any:
    """The package. Raises `ImportError` that says what to install."""
    try:
        import matplotlib
        import matplotlib.axes
        import matplotlib.figure
    except ImportError as error:
        raise ImportError(
            "matplotlib: expected it to be installed, as pictures need it; pip install 'analytic_vae[plots]'."
        ) from error
    return matplotlib


def one_panel(ax: Any = None) -> "Axes":
    """The given axes, or those of a new figure. Raises `TypeError` if it is anything else."""
    if ax is None:
        return _new(1)[0]
    if not isinstance(ax, matplotlib().axes.Axes):
        raise TypeError(f"ax: expected matplotlib's axes, or None for a new figure, got {_named(ax)}.")
    return ax


def panels(ax: Any, count: int) -> np.ndarray:
    """`[count]` axes: those given (an array or a list of any shape), or those of a new figure, side by side.

    Raises `TypeError` if they are no axes, `ValueError` if there are not as many.
    """
    if ax is None:
        return _new(count)
    given = np.ravel(np.asarray(ax, object))
    kind = matplotlib().axes.Axes
    if not all(isinstance(one, kind) for one in given):
        raise TypeError(f"ax: expected {count} of matplotlib's axes, or None for a new figure, got {_named(ax)}.")
    if given.size != count:
        raise ValueError(f"ax: expected {count} axes (plt.subplots(1, {count})[1], say), got {given.size}.")
    return given


def _new(count: int) -> np.ndarray:
    """Of pyplot's, so that notebooks and `plt.show` show them; where there is no screen it draws into memory."""
    matplotlib()
    import matplotlib.pyplot as plt

    return plt.subplots(1, count, figsize=(WIDTH * count, HEIGHT), layout="constrained", squeeze=False)[1][0]


def _named(value: Any) -> str:
    return type(value).__name__

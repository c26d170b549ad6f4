"""Axes to draw on."""


def new_axes(ax=None):
    """The axes given, or those of a new figure. Raises `ImportError` that says what to install."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install 'analytic_vae[plots]'.") from error
    return pyplot.subplots(layout="constrained")[1]

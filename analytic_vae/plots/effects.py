"""What features of the source do to outputs."""

import numpy as np

from .axes import one_panel


def draw_effects(contrasts: np.ndarray, values: np.ndarray, ax=None):
    """A map of colours: a row for each output, a column for each state of each feature; returns the axes.

    Arguments:
        contrasts: `[m, K, n]`, by how much the mean of each output moves; NaN where a state does not occur.
        values: `[m, K]`, the atoms: states are drawn in their order, the least first.
        ax: matplotlib's axes, or None for new ones.
    """
    ax = one_panel(ax)
    m, K, n = contrasts.shape
    order = np.argsort(values, axis=1, kind="stable")
    columns = np.take_along_axis(contrasts, order[:, :, None], axis=1).reshape(m * K, n).T
    most = np.max(np.abs(columns), where=np.isfinite(columns), initial=0) or 1.0
    image = ax.imshow(columns, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    for j in range(1, m):
        ax.axvline(j * K - 0.5, color="0.4", lw=0.6)
    step = max(1, m // 16)
    ax.set_xticks([(j + 0.5) * K - 0.5 for j in range(0, m, step)], [str(j) for j in range(0, m, step)])
    ax.set_yticks(range(0, n, max(1, n // 16)))
    ax.set(xlabel="feature of the source, its states in the order of their values", ylabel="output")
    ax.figure.colorbar(image, ax=ax, label="how the mean moves")
    return ax

"""How fine the grids are: a static, hashable value."""

import equinox as eqx
import numpy as np

from .._check import require_instance

MOST_FREQUENCIES = 4096


class Resolution(eqx.Module):
    """How many frequencies and nodes the engine uses.

    Arguments:
        frequencies: `N`, an even number of at least 8. The law of one projection uses `4 N` frequencies, every other
            grid a fixed share of N (the methods below). Raising it makes every part of the error fall.
        nodes: the least number of quadrature nodes on the ridge axis; more are used where the frequencies call for
            them.

    The value is static: two equal resolutions share one compiled program, a new one compiles anew.
    Raises `ValueError` if a number is out of range, `TypeError` if it is not an integer.

    >>> Resolution(frequencies=48).frequencies
    48
    """

    frequencies: int = eqx.field(static=True, default=24)
    nodes: int = eqx.field(static=True, default=32)

    def __check_init__(self):
        for name in ("frequencies", "nodes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise TypeError(f"{name}: expected an integer, got {type(value).__name__}.")
            if not 8 <= value <= MOST_FREQUENCIES:
                raise ValueError(f"{name}: expected a number from 8 to {MOST_FREQUENCIES}, got {value}.")
        if self.frequencies % 2:
            raise ValueError(f"frequencies: expected an even number, got {self.frequencies}.")

    @classmethod
    def of(cls, resolution: "Resolution | None") -> "Resolution":
        """What a caller gave, or the default where nothing was; raises `TypeError` if it is anything else."""
        if resolution is None:
            return cls()
        require_instance("resolution", resolution, cls, "a Resolution")
        return resolution

    def times(self, factor: int) -> "Resolution":
        """So many times the frequencies, as far as there are more."""
        return Resolution(min(factor * self.frequencies, MOST_FREQUENCIES), self.nodes)

    @property
    def log_inverse_mass(self) -> float:
        """`c`: a box leaves out a mass of at most `e^-c` per side."""
        return float(np.clip(8 + self.frequencies / 2, 12, 34))

    def law_order(self, dimension: int) -> int:
        """Highest frequency index, per axis, of the law of that many projections taken together."""
        return {1: 2 * self.frequencies, 2: self.frequencies, 3: self.frequencies // 2}[dimension]

    @property
    def ridge_order(self) -> int:
        """Highest frequency index of the law of the ridge axis: well above the differences of all others on it."""
        return 3 * self.frequencies

    def law_ridge_order(self, dimension: int) -> int:
        """Highest frequency index on the ridge axis of the law of that many projections."""
        return self.frequencies if dimension > 1 else self.frequencies // 2

    @property
    def atoms(self) -> int:
        """Most atoms of a source feature: priors with more than twice as many get Gauss rules of that many."""
        return max(4, self.frequencies // 6 + 1)

    @property
    def law_atoms(self) -> int:
        """The same for laws of statistics, which cost less than pairs of them, and need more."""
        return max(6, self.frequencies // 4 + 2)

    @property
    def law_panels(self) -> int:
        """Panels of 16 nodes for functions of the ridge axis in the law of a statistic."""
        return -(-self.ridge_panels // 3)

    @property
    def pair_panels(self) -> int:
        """Panels of 16 nodes for functions of the ridge axis in moments of latent means."""
        return max(2, self.frequencies // 8)

    def series_order(self, statistics: int, linear: bool) -> int:
        """Highest frequency index of the exponentials that stand for a latent mean.

        Without a ridge axis (a linear layer) pairs have one axis less, and more frequencies cost no more.
        """
        if statistics == 1:
            return self.frequencies if linear else max(2, 3 * self.frequencies // 16)
        return max(3, self.frequencies // (4 if linear else 6))

    @property
    def series_ridge_order(self) -> int:
        """Highest frequency index on the ridge axis in moments of latent means.

        A pair has sums of two indices of `series_order`: twice that, and a little more from N = 32 on. With less, an
        optimiser finds encoders whose loss is far off (by 2 nats, for two features at 30 degrees, with 8 in place of 13
        at N = 32).
        """
        return max(5, 2 * self.series_order(1, linear=False) + self.frequencies // 32)

    @property
    def ridge_panels(self) -> int:
        """Panels of 16 nodes on the ridge axis: four oscillations of its highest frequency a panel."""
        return int(np.ceil(max(self.nodes / 16, self.ridge_order / 4)))


FINER = 8  # laws of one unit are cheap, and all else starts from them

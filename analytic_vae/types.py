"""Axis letters and array aliases used in every signature of the package.

| letter | meaning |
|---|---|
| `n`, `n1`, `n2` | neurons: of one layer, before and after a layer |
| `m`, `m1`, `m2` | features (latents): of one model, before and after a layer |
| `K`, `K1`, `K2` | atoms of one feature: of one model, before and after |
| `h` | units of a layer |
| `t`, `s` | linear statistics that one feature's encoder reads, and another's |
| `D`, `D2` | linear projections taken together, and others that they are made of |
| `C`, `C2` | codes of all features: their values, or indicators of their atoms |
| `R`, `R2` | codes of one feature |
| `W`, `W2`, `w` | frequencies of a law, and others |
| `F` | frequencies of a short series, one of each pair `+w, -w`; `E = 2 F - 1` all of them |
| `O` | frequencies of the ridge axis |
| `Q` | quadrature nodes; `P` other points; `V` functions at them |
| `J` | terms of a characteristic function's sum over atoms |
| `S` | states of a source, listed |
| `A` | atoms of a law |
| `c` | components of a mixture |
| `k` | kinks, and the pieces between them |
| `rho` | strips about the real axis |
| `L` | parameters of one feature's encoder |
| `B` | items of a block that is computed together |
| `N` | frequencies per axis of a `Resolution` |
"""

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Array, ArrayLike, Bool, Complex, Float, PRNGKeyArray, PyTree

__all__ = ["Array", "ArrayLike", "Bool", "Complex", "Float", "Function", "PRNGKeyArray", "PyTree", "Scalar"]

Scalar: TypeAlias = Float[Array, ""]

Function: TypeAlias = Callable[[Array], Array]

Log = Callable[[str], None]

Callback = Callable[[int, dict[str, int | float]], None]

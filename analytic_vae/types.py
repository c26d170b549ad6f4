"""Axis letters and array aliases used in every signature of the package.

| letter | meaning |
|---|---|
| `n`, `n1`, `n2` | neurons: of one layer, before and after a layer |
| `m`, `m1`, `m2` | features (latents): of one model, before and after a layer |
| `K` | atoms of one feature |
| `t` | linear statistics that one feature's encoder reads |
| `D` | linear projections taken together |
| `N` | frequencies per axis |
| `Q` | quadrature nodes |
"""

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Array, ArrayLike, Bool, Complex, Float, PRNGKeyArray, PyTree

__all__ = ["Array", "ArrayLike", "Bool", "Complex", "Float", "Function", "PRNGKeyArray", "PyTree", "Scalar"]

Scalar: TypeAlias = Float[Array, ""]

Function: TypeAlias = Callable[[Array], Array]

Log = Callable[[str], None]

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
from typing import TYPE_CHECKING, TypeAlias

import jax
import jaxtyping
from jaxtyping import Array, Bool, Complex, Float, PyTree

if TYPE_CHECKING:
    from jaxtyping import ArrayLike, PRNGKeyArray
else:  # under their names: in `help` and in error messages their unions would fill pages

    class _ArrayLike(type):
        def __instancecheck__(cls, value) -> bool:
            return isinstance(value, jaxtyping.ArrayLike)

    class ArrayLike(metaclass=_ArrayLike):
        """An array of JAX or NumPy, or a number; nested sequences of these are taken, too."""

    class _Key(type):
        def __instancecheck__(cls, value) -> bool:
            if not isinstance(value, jax.Array):
                return False
            return jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key) or value.dtype == "uint32"

    class PRNGKeyArray(metaclass=_Key):
        """A key of `jax.random`, typed or of the older kind."""


__all__ = ["Array", "ArrayLike", "Bool", "Complex", "Float", "Function", "PRNGKeyArray", "PyTree", "Scalar"]

Scalar: TypeAlias = Float[Array, ""]

Function: TypeAlias = Callable[[Array], Array]

Log = Callable[[str], None]

Callback = Callable[[int, dict[str, int | float]], None]

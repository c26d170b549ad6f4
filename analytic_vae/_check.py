"""Checks of arguments: facts of shape at trace time, facts of value whenever the value is at hand."""

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .types import Array


def as_floating(**arguments: Any) -> list[Array]:
    """The named arguments as floating arrays of one common dtype, float32 or float64.

    Integers and booleans are promoted, and so are half precision and less, in which nothing here can be computed.
    """
    arrays = [_as_numeric(name, value) for name, value in arguments.items()]
    dtype = jnp.result_type(*arrays)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return [_cast(array, dtype) for array in arrays]


def as_dtype(name: str, value: Any, dtype: Any) -> Array:
    """The named argument as an array of that floating dtype."""
    return _cast(_as_numeric(name, value), dtype)


def _cast(array: Array | np.ndarray | float, dtype: Any) -> Array:
    """On the host where it is there: JAX would compile a program for it."""
    return jnp.asarray(array if isinstance(array, jax.Array) else np.asarray(array, dtype), dtype)


def _as_numeric(name: str, value: Any) -> Array | np.ndarray | float:
    """An array of numbers, of NumPy where nothing need be compiled for it; Python's numbers as they are."""
    if type(value) in (bool, int, float):
        return value
    try:
        array = in_single(value if isinstance(value, jax.Array) else _with_numpy(value))
    except (TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name}: expected an array of real numbers, got {type(value).__name__}.") from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}.")
    return array


def _with_numpy(value: Any) -> Array | np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # with traced numbers in it
        return jnp.asarray(value)
    return array if array.dtype.kind in "biufc" else jnp.asarray(value)


def in_single(array: Array) -> Array:
    """The array in float32 if it has half precision or less (float16, bfloat16, float8), else as it is."""
    return array.astype(jnp.float32) if _is_low(array) else array


def require_precision(**arguments: Any) -> None:
    """Raise `ValueError` that names the argument if arrays within it have been cast below single precision."""
    for name, value in arguments.items():
        low = {str(leaf.dtype) for leaf in jax.tree.leaves(value) if eqx.is_array(leaf) and _is_low(leaf)}
        if low:
            raise ValueError(
                f"{name}: expected arrays of float32 or float64, got {', '.join(sorted(low))}, in which no law can be "
                f"computed; cast them: jax.tree.map(lambda a: a.astype(jnp.float32), {name})."
            )


def _is_low(array: Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4


def is_concrete(array: Any) -> bool:
    """Whether the values of an array can be looked at now (they cannot inside jit, grad or vmap)."""
    return not isinstance(array, jax.core.Tracer)


def require_drawable(name: str, array: Any, dimensions: int) -> None:
    """Raise `ValueError` unless the numbers are at hand, and not those of a batch, to be drawn."""
    if not is_concrete(array):
        raise ValueError(f"{name}: expected numbers, got a traced array; draw outside of jit, grad and vmap.")
    if np.ndim(array) != dimensions:
        raise ValueError(f"{name}: expected one, got a batch of shape {shown(np.shape(array)[dimensions:])}; draw one.")


def require_shape(name: str, array: Array, shape: tuple[int | None, ...], meaning: str) -> None:
    """Raise `ValueError` unless `array` has the given shape; `None` stands for any positive length.

    `meaning` says what the axes are, with a comma between two of them.
    """
    fits = array.ndim == len(shape) and all(
        length > 0 and (expected is None or length == expected)
        for length, expected in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: expected {_wanted(array, shape, meaning)}, got {shown(array.shape)}.")


def _wanted(array: Array, shape: tuple[int | None, ...], meaning: str) -> str:
    """The shape as a reader wants it: `shape [outputs, inputs]`, `shape [outputs, 3] (outputs, inputs)`."""
    axes = meaning.split(", ")
    if len(axes) != len(shape):
        axes = ["any"] * len(shape)
    lengths = [axis if length is None else length for axis, length in zip(axes, shape, strict=True)]
    if not shape or lengths != axes:
        return f"shape {shown(lengths)} ({meaning})"
    empty = array.ndim == len(shape)  # else it would fit
    return f"shape {shown(lengths)}{', none of them 0' * empty}"


def shown(shape: Iterable[int | str]) -> str:
    """A shape in messages: `[2, 3]`, as it is written in docstrings."""
    return f"[{', '.join(map(str, shape))}]"


def as_input(x: Any, length: int, what: str) -> Array:
    """`x` as an array, for a function of one vector of so many numbers, `what` says of what.

    Shapes are known when a program is traced, so this costs nothing inside of one. Raises `ValueError`, which for a
    batch tells of `jax.vmap`.
    """
    if not isinstance(x, jax.Array):
        (floating,) = as_floating(x=x)
        x = jnp.asarray(x) if hasattr(x, "dtype") else floating
    if x.shape == (length,):
        return x
    batch = " For a batch use jax.vmap, which maps over its first axis." if x.ndim > 1 else ""
    raise ValueError(f"x: expected shape {shown((length,))} ({what}), got {shown(x.shape)}.{batch}")


def require_finite(name: str, array: Array) -> None:
    """Raise `ValueError` if any known value of `array` is NaN or infinite."""
    if is_concrete(array):
        bad = int(np.size(array) - np.count_nonzero(np.isfinite(np.asarray(array))))
        if bad:
            raise ValueError(f"{name}: expected finite numbers, got {bad} NaN or infinite of {np.size(array)}.")


def require_not_negative(name: str, array: Array) -> None:
    """Raise `ValueError` if any known value of `array` is negative."""
    if is_concrete(array) and not np.all(np.asarray(array) >= 0):
        least = np.min(np.asarray(array))
        raise ValueError(f"{name}: expected positive numbers or zero, got a smallest value of {least:.3g}.")


def require_key(name: str, key: Any) -> None:
    """Raise `TypeError` unless `key` is one key of `jax.random`, typed or of the older kind (an array of `uint32`)."""
    if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        fits, got = key.ndim == 0, f"keys of shape {shown(key.shape)}"
    elif isinstance(key, jax.Array | np.ndarray):
        fits, got = key.ndim == 1 and key.dtype == np.uint32, f"an array of {key.dtype} of shape {shown(key.shape)}"
    else:
        fits, got = False, type(key).__name__
    if not fits:
        raise TypeError(f"{name}: expected one key, such as jax.random.key(0), got {got}.")


def require_instance(name: str, value: Any, kinds: type | tuple[type, ...], expected: str) -> None:
    """Raise `TypeError` unless `value` is an instance of `kinds`."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}.")


def require_flag(name: str, value: Any, optional: bool = False) -> None:
    """Raise `TypeError` unless `value` is True or False, or None if it is optional."""
    if not (isinstance(value, bool | np.bool_) or (optional and value is None)):
        raise TypeError(f"{name}: expected True{', False or None' if optional else ' or False'}, got {value!r}.")


def require_count(name: str, value: Any, least: int = 1, optional: bool = False) -> None:
    """Raise `ValueError` unless `value` is an integer of at least `least`, or None if it is optional."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        what = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"{name}: expected {what}, got {value!r}.")


def require_number(name: str, value: Any) -> None:
    """Raise `ValueError` unless `value` is a number of at least 0."""
    if not isinstance(value, int | float | np.generic | jax.Array) or not np.asarray(value) >= 0:
        raise ValueError(f"{name}: expected a number of at least 0, got {value!r}.")


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise `ValueError` unless `value` is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}.")


def real_array(name: str, array: np.ndarray) -> np.ndarray:
    """An array of real numbers out of a file; half precision and less, a storage format, becomes single.

    Raises `ValueError` if it holds anything but real numbers.
    """
    if array.dtype.kind in "biuf" and array.dtype != np.float16:
        return array
    if not jnp.issubdtype(array.dtype, jnp.floating):  # JAX's own (bfloat16, float8), to NumPy, are none
        raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}.")
    return array.astype(np.float32)


def finite_array(name: str, array: np.ndarray) -> np.ndarray:
    """As `real_array`; NaN and infinite entries are counted and refused too."""
    array = real_array(name, array)
    require_finite(name, array)
    return array

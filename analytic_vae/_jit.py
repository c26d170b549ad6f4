"""Compiling the package's own functions, and matrix products in full precision."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import equinox as eqx
import jax

from ._check import is_concrete

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # a version of JAX in which nothing tells whether a call is part of a larger program
    get_opaque_trace_state = object

P = ParamSpec("P")

T = TypeVar("T")

WORTH_KEEPING, JAX_KEEPS = 0.2, 1.0  # seconds of compiling from which on programs are kept; JAX's own choice

CHOICE, LEVEL = "xla_cpu_use_fusion_emitters", "xla_backend_optimization_level"

with ThreadPoolExecutor(1) as elsewhere:  # this module may be imported inside of a transformation, a new thread is not
    OUTSIDE = elsewhere.submit(get_opaque_trace_state).result()


def keep_compiled(folder: str | os.PathLike[str] | None = None) -> Path:
    """Keep what JAX compiles, this package's programs and all others, in a folder where later processes find it.

    Call it once, first of all. It sets JAX's configuration (`jax_compilation_cache_dir`, and that programs count which
    take a fifth of a second): nothing else in the package does. Where `JAX_COMPILATION_CACHE_DIR` or the configuration
    names a folder already, that one stays.

    Arguments:
        folder: where; `~/.cache/analytic_vae` if not given, or a folder in `XDG_CACHE_HOME`.

    Returns the folder. Raises `OSError` if it cannot be made.

    >>> av.keep_compiled()
    """
    known = jax.config.jax_compilation_cache_dir
    if not known:
        home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
        known = home / "analytic_vae" if folder is None else Path(folder)
        known.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(known))
        if jax.config.jax_persistent_cache_min_compile_time_secs == JAX_KEEPS:  # nobody has changed it
            jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)
    return Path(known)


def never(*_, **__) -> bool:
    """For functions that are always optimised."""
    return False


def always(*_, **__) -> bool:
    """For functions that are called once, and run for less time than it would take to optimise them."""
    return True


def compiled(function: Callable[P, T], quick: Callable[P, bool] = never) -> Callable[P, T]:
    """`equinox.filter_jit`, and on CPUs, where the function is called as it is, with other options of XLA.

    Its older generator of code compiles the loss in half the time, with jaxlib 0.10, and it runs as fast. And where
    `quick(arguments)` says so nothing is optimised: that takes a third of the time, and runs three times as long.
    Inside of a larger program (`jit`, `grad`, `vmap`) that program's options are used: others are refused there.
    """
    inside = eqx.filter_jit(function)

    @functools.cache
    def alone(unoptimised: bool):
        return eqx.filter_jit(function, compiler_options=_options(unoptimised))

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        # The arguments do not tell by themselves: an activation may be a function of what is differentiated.
        free = get_opaque_trace_state() == OUTSIDE and all(map(is_concrete, jax.tree.leaves((args, kwargs))))
        return (alone(bool(quick(*args, **kwargs))) if free else inside)(*args, **kwargs)

    return call


@functools.cache
def _options(unoptimised: bool) -> dict[str, bool | int] | None:
    """None where there is no such choice, or the user has made it."""
    if jax.default_backend() != "cpu":
        return None
    wanted = {CHOICE: False} | ({LEVEL: 0} if unoptimised else {})
    options = {name: value for name, value in wanted.items() if name not in os.environ.get("XLA_FLAGS", "")}
    return {name: value for name, value in options.items() if _known({name: value})} or None


def _known(options: dict[str, bool | int]) -> bool:
    """Whether this version of XLA has such options."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(0.0).compile()
    except RuntimeError:
        return False
    return True


def exact_products(function: Callable[P, T]) -> Callable[P, T]:
    """The function with every matrix product in it, and in its gradient, in the full precision of its dtype.

    By default JAX lets GPUs and TPUs round float32 factors to 10 or 7 bits first, which would cost a loss its digits.
    """

    @functools.wraps(function)
    def with_exact_products(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return with_exact_products

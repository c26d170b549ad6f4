"""Matrix products in the precision of their arguments."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P, T = ParamSpec("P"), TypeVar("T")


def exact_products(function: Callable[P, T]) -> Callable[P, T]:
    """The function with every matrix product in it, and in its gradient, in the full precision of its dtype.

    By default JAX lets GPUs and TPUs round float32 factors to 10 or 7 bits first, which would cost a loss its digits.
    """

    @functools.wraps(function)
    def with_exact_products(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return with_exact_products

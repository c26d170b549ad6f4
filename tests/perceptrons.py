"""Random multi-layer perceptrons, written down once more in NumPy: what networks are compared with."""

import jax
import jax.numpy as jnp
import numpy as np

SIZES = (3, 4, 3, 2)


def random_weights(sizes=SIZES, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    return [(rng.normal(size=shape).astype(dtype), rng.normal(size=shape[0]).astype(dtype)) for shape in shapes]


def evaluate(weights, function, x):
    """The MLP, written down once more; NumPy but for the activation."""
    for index, (weight, bias) in enumerate(weights):
        x = x @ weight.T + (0 if bias is None else bias)
        x = x if index == len(weights) - 1 else np.asarray(function(x))
    return x


def assert_same(network, weights, function):
    """Equal at random inputs up to the rounding of sums of the size at hand."""
    dtype = weights[0][0].dtype
    inputs = np.random.default_rng(1).normal(size=(20, weights[0][0].shape[1])).astype(dtype)
    values = jax.vmap(network)(jnp.asarray(inputs))
    assert values.dtype == dtype
    # To compare with, both the weights and the arithmetic in double precision.
    doubles = [tuple(None if part is None else part.astype(np.float64) for part in pair) for pair in weights]
    sizes = [tuple(None if part is None else abs(part) for part in pair) for pair in doubles]
    scale = evaluate(sizes, lambda s: abs(s) + 1, abs(inputs.astype(np.float64)))
    expected = evaluate(doubles, function, inputs.astype(np.float64))
    assert np.all(abs(np.asarray(values) - expected) <= 16 * np.finfo(dtype).eps * scale)

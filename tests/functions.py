"""The named activations, written down once more in NumPy, and their kinks."""

import numpy as np
from scipy.special import erf, expit

SQRT = np.sqrt(2 / np.pi)


def _elu(b, alpha=1.0):
    return np.where(b > 0, b, alpha * np.expm1(np.minimum(b, 0)))


BOUNDED = {  # those with bounds of their errors
    "relu": (lambda b: np.maximum(b, 0), (0.0,)),
    "leaky_relu": (lambda b: np.where(b > 0, b, 0.01 * b), (0.0,)),
    "gelu": (lambda b: b * (1 + erf(b / np.sqrt(2))) / 2, ()),
    "sigmoid": (expit, ()),
    "tanh": (np.tanh, ()),
    "softplus": (lambda b: np.logaddexp(0, b), ()),
    "identity": (lambda b: b, ()),
    "relu6": (lambda b: np.clip(b, 0, 6), (0.0, 6.0)),
    "hardtanh": (lambda b: np.clip(b, -1, 1), (-1.0, 1.0)),
    "hard_sigmoid": (lambda b: np.clip(b / 6 + 0.5, 0, 1), (-3.0, 3.0)),
    "abs": (np.abs, (0.0,)),
    "silu": (lambda b: b * expit(b), ()),
    "mish": (lambda b: b * np.tanh(np.logaddexp(0, b)), ()),
    "gelu_tanh": (lambda b: b * (1 + np.tanh(SQRT * (b + 0.044715 * b**3))) / 2, ()),
    "quick_gelu": (lambda b: b * expit(1.702 * b), ()),
    "square": (lambda b: b**2, ()),
    "leaky_relu(0.3)": (lambda b: np.where(b > 0, b, 0.3 * b), (0.0,)),
    "softplus(2.0)": (lambda b: np.logaddexp(0, 2 * b) / 2, ()),
}

FUNCTIONS = BOUNDED | {
    "elu": (_elu, (0.0,)),
    "selu": (lambda b: 1.0507009873554805 * _elu(b, 1.6732632423543772), (0.0,)),
    "celu": (_elu, (0.0,)),
    "hard_swish": (lambda b: b * np.clip(b / 6 + 0.5, 0, 1), (-3.0, 3.0)),
    "softsign": (lambda b: b / (1 + np.abs(b)), (0.0,)),
    "step": (lambda b: np.heaviside(b, 0.0), (0.0,)),
    "elu(0.5)": (lambda b: _elu(b, 0.5), (0.0,)),
    "celu(0.5)": (lambda b: np.where(b > 0, b, 0.5 * np.expm1(np.minimum(b, 0) / 0.5)), (0.0,)),
}

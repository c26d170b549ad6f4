"""Named constructors of everything a loss is made of, and the bridge from the package's objects to the oracle's.

One line in a table covers a new encoder, activation or kind of noise: every check in `test_elbo.py` runs over the
tables. All cases have the same shapes, so that only a new class or a new activation is compiled anew.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import reference
from scipy.special import log_expit

import analytic_vae as av

N1, M1, K1 = 2, 3, 2  # neurons, features and atoms of the source
N2, M2, K2 = 3, 3, 3  # of the target

# ------------------------------------------------------------------------------------------------------- the tables

# name -> noise of n neurons whose standard deviations are about `size`
NOISES: dict[str, Callable] = {
    "scalar": lambda rng, n, size: size,
    "diagonal": lambda rng, n, size: size * rng.uniform(0.7, 1.3, n),
    "full": lambda rng, n, size: size * (np.tril(rng.normal(size=(n, n)) / 3, -1) + np.diag(rng.uniform(0.7, 1.3, n))),
}

# name -> (what RidgeLayer takes, the same function in NumPy, its kinks)
ACTIVATIONS: dict[str, tuple] = {
    "relu": ("relu", *reference.ACTIVATIONS["relu"]),
    "leaky_relu": ("leaky_relu", lambda b: np.where(b > 0, b, 0.01 * b), (0.0,)),
    "gelu": ("gelu", *reference.ACTIVATIONS["gelu"]),
    "sigmoid": ("sigmoid", *reference.ACTIVATIONS["sigmoid"]),
    "tanh": ("tanh", *reference.ACTIVATIONS["tanh"]),
    "softplus": ("softplus", lambda b: -log_expit(-b), ()),
    "identity": ("identity", lambda b: b, ()),
    "hard_tanh": (
        av.Activation(lambda b: jnp.clip(b, -1, 1), kinks=(-1.0, 1.0), name="hard tanh"),
        lambda b: np.clip(b, -1, 1),
        (-1.0, 1.0),
    ),
}


def _readout(rng, m, t):
    return rng.normal(size=(m, t, N2)) / np.sqrt(N2)


def _softmax(rng, m, t):
    return av.SoftmaxEncoder(_readout(rng, m, t), rng.normal(size=(m, t, K2)), rng.normal(size=(m, K2)) / 2)


def _gaussian(rng, m, t):
    # The second statistic is a log scale: at full size its law would reach scales of e^-5 and encoders of slope e^10.
    readout = _readout(rng, m, t) * np.array([1.0, 0.2])[:t, None]
    return av.GaussianEncoder(readout, rng.normal(size=m) / 2, rng.uniform(0.0, 0.3, m))


def _exponential(rng, m, t):
    return av.ExponentialEncoder(_readout(rng, m, t), rng.normal(size=m) / 2)


def _neural(rng, m, t):
    return av.NeuralEncoder.init(_readout(rng, m, t), K2, key=jax.random.key(rng.integers(1 << 30)))


# name -> (t, an encoder of m features that reads t statistics)
ENCODERS: dict[str, tuple[int, Callable]] = {
    "softmax": (1, _softmax),
    "gaussian": (1, _gaussian),
    "exponential": (1, _exponential),
    "neural": (1, _neural),
    "softmax2": (2, _softmax),
    "gaussian2": (2, _gaussian),
    "neural2": (2, _neural),
}
READ_ONE = [name for name, (t, _) in ENCODERS.items() if t == 1]
READ_TWO = [name for name, (t, _) in ENCODERS.items() if t == 2]

# ------------------------------------------------------------------------------------------------- random instances


def model(rng, n: int, m: int, k: int, noise: str = "scalar", size: float = 0.4) -> av.FeatureModel:
    """A feature model with standard normal atoms, logits, decoder and mean."""
    prior = av.Prior(rng.normal(size=(m, k)), rng.normal(size=(m, k)))
    return av.FeatureModel(prior, rng.normal(size=(n, m)), NOISES[noise](rng, n, size), rng.normal(size=n) / 2)


def ridge_layer(rng, activation: str = "relu") -> av.RidgeLayer:
    """A ridge layer from N1 to N2 neurons whose argument has a spread of about one."""
    linear = rng.normal(size=(N2, N1)) / np.sqrt(N1)
    output, direction = rng.normal(size=N2), rng.normal(size=N2) / np.sqrt(N2)
    return av.RidgeLayer(linear, output, direction, rng.normal() / 2, ACTIVATIONS[activation][0])


def problem(
    seed: int,
    encoder: str = "softmax",
    activation: str | None = "relu",
    source_noise: str = "scalar",
    target_noise: str = "scalar",
    size: float = 0.4,
    m2: int | None = None,
) -> tuple:
    """`(source, layer, target, encoder)`, the arguments of `av.elbo`; activation None is a linear layer."""
    rng = np.random.default_rng(seed)
    t, make = ENCODERS[encoder]
    m2 = m2 or {1: M2, 2: 2}[t]
    source = model(rng, N1, M1, K1, source_noise, size)
    layer = (
        ridge_layer(rng, activation) if activation else av.LinearLayer(rng.normal(size=(N2, N1)), rng.normal(size=N2))
    )
    return source, layer, model(rng, N2, m2, K2, target_noise, size), make(rng, m2, t)


def cast(tree, dtype):
    """The tree with every floating array in the given dtype."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


# ---------------------------------------------------------------------------------------------------- the bridge


def oracle_model(model: av.FeatureModel) -> reference.Model:
    """The same law for the oracle, which wants variances."""
    noise = np.asarray(model.noise)
    covariance = noise @ noise.T if noise.ndim == 2 else noise**2
    return reference.Model(model.prior.atoms, model.prior.masses, model.decoder, covariance, model.mean)


def oracle_layer(layer, activation: str | None = "relu") -> reference.Ridge:
    """The same layer for the oracle, its activation looked up in the table."""
    if isinstance(layer, av.LinearLayer):
        return reference.linear_layer(layer.weight, layer.bias)
    return reference.Ridge(layer.linear, layer.output, layer.direction, layer.bias, *ACTIVATIONS[activation][1:])


def _log_softmax(scores):
    return scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)


def _numpy_gaussian(encoder, atoms):
    offset, log_scale = np.asarray(encoder.offset), np.asarray(encoder.log_scale)

    def log_q(y):
        scale = np.exp(log_scale + (y[..., 1] if y.shape[-1] == 2 else 0.0))[..., None]
        return _log_softmax(-(((atoms - (y[..., 0] + offset)[..., None]) / scale) ** 2) / 2)

    return log_q


def _numpy_exponential(encoder, atoms):
    return lambda y: _log_softmax(-(y[..., 0] + np.asarray(encoder.offset))[..., None] * atoms)


def _numpy_neural(encoder, atoms):
    del atoms
    first, last = ((np.asarray(layer.weight), np.asarray(layer.bias)) for layer in encoder.networks.layers)

    def log_q(y):
        hidden = np.tanh(np.einsum("jht,pjt->pjh", first[0], y) + first[1])
        return _log_softmax(np.einsum("jkh,pjh->pjk", last[0], hidden) + last[1])

    return log_q


# encoder class -> (encoder, atoms) -> the oracle's log_q, in NumPy from the formula of its docstring
FORMULAS: dict[type, Callable] = {
    av.SoftmaxEncoder: lambda encoder, atoms: reference.softmax_encoder(
        np.asarray(encoder.statistics), np.asarray(encoder.base)
    ),
    av.GaussianEncoder: _numpy_gaussian,
    av.ExponentialEncoder: _numpy_exponential,
    av.NeuralEncoder: _numpy_neural,
}


def oracle_encoder(encoder, atoms) -> Callable:
    """`log_q(y [P, m, t]) -> [P, m, K]`: from `FORMULAS`, or for a class not there from its own `log_masses`."""
    if type(encoder) in FORMULAS:
        return FORMULAS[type(encoder)](encoder, np.asarray(atoms))
    one_point = jax.vmap(lambda one, y, a: one.log_masses(y, a))
    every = jax.jit(jax.vmap(lambda y: one_point(encoder, y, jnp.asarray(atoms))))
    return lambda y: np.asarray(every(y))


def oracle_parts(source, layer, target, encoder, activation: str | None = "relu") -> tuple:
    """The arguments of `reference.elbo_terms` and its kin: source, layer, target, readout, log_q."""
    log_q = oracle_encoder(encoder, target.prior.atoms)
    return (
        oracle_model(source),
        oracle_layer(layer, activation),
        oracle_model(target),
        np.asarray(encoder.readout),
        log_q,
    )

"""Encoders: from a few linear statistics of x2 to a law on the atoms of each feature.

An encoder of `m` features holds arrays whose leading axis is the features. `encoder.log_masses` is written for one
feature: it maps its statistics `y = C_j x2: [t]` and its atoms `[K]` to normalised log masses `[K]`; `encode` is the
one place where it is mapped over features and points.
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .._check import as_floating, as_input, in_single, require_finite, require_shape
from .._repr import short_repr
from ..types import Array, ArrayLike, Float, PRNGKeyArray, Scalar
from .activation import ACTIVATIONS, Activation


class LogitRegularity(NamedTuple):
    """What an error bound must know of an encoder's logits `l_k` off the real axis.

    `imag_spread` bounds `|Im (l_k - l_k')|` over all pairs of atoms for `y + i v`, `low <= y <= high`, `|v| <= width`:
    infinite where the logits are not analytic, or not known to be. `size` bounds what is summed to a logit at real y.
    """

    imag_spread: Scalar
    size: Scalar


class AbstractEncoder(eqx.Module):
    """`Q_j(z_j = a_jk | y_j)`, `y_j = C_j x2`, with `C_j = readout[j]: [t, n]`."""

    __repr__ = short_repr

    readout: eqx.AbstractVar[Float[Array, "m t n"]]
    reads_atoms: ClassVar[bool] = True  # whether `log_masses` depends on the values of the atoms

    @property
    def features(self) -> int:
        """`m`."""
        return self.readout.shape[0]

    @property
    def statistics_read(self) -> int:
        """`t`, the linear statistics that each feature reads."""
        return self.readout.shape[1]

    def log_masses(self, y: Float[Array, " t"], atoms: Float[Array, " K"]) -> Float[Array, " K"]:
        """Log masses on the atoms given the statistics, for one feature (all fields without their leading axis)."""
        raise NotImplementedError

    def posterior(self, x: Float[Array, " n"], atoms: ArrayLike | None = None) -> Float[Array, "m K"]:
        """`Q_j(z_j = a_jk | x)`: the masses of every feature's states given one vector; for a batch use `jax.vmap`.

        Arguments:
            x: `[n]`, what the encoder reads: the layer's output; of a `DenseLayer` its input.
            atoms: `[m, K]`, those of the target (`target.prior.atoms`); of a softmax or a neural encoder, which do not
                look at their values, they may be left out.

        Raises `ValueError` that names the argument if a shape does not fit, or atoms are needed.
        """
        x = as_input(x, self.readout.shape[2], "what the encoder reads")
        if atoms is None:
            if self.reads_atoms:
                raise ValueError(f"atoms: expected those of the target, which a {type(self).__name__} reads, got None.")
            atoms = jnp.zeros((self.features, 1), self.readout.dtype)
        (atoms,) = as_floating(atoms=atoms)
        y = jnp.einsum("mtn,n->mt", self.readout, x.astype(self.readout.dtype), precision="highest")
        return jnp.exp(encode(self, y[:, None], atoms)[:, 0])

    def shifted(self, shift: Float[Array, " n"]) -> "AbstractEncoder":
        """The encoder that says of `x` what this one says of `x - shift`."""
        raise NotImplementedError

    def regularity(
        self, low: Float[Array, " t"], high: Float[Array, " t"], width: Float[Array, " t"], atoms: Float[Array, " K"]
    ) -> LogitRegularity:
        """The `LogitRegularity` of one feature; if it is not known, bounds are infinite."""
        del low, high, width
        return LogitRegularity(jnp.full((), jnp.inf, atoms.dtype), jnp.zeros((), atoms.dtype))


def encode(encoder: AbstractEncoder, y: Float[Array, "m Q t"], atoms: Float[Array, "m K"]) -> Float[Array, "m Q K"]:
    """Log masses of every feature at `Q` points of its own statistics. Raises `ValueError` if a shape does not fit."""
    m, t, _ = encoder.readout.shape
    require_shape("y", y, (m, None, t), "features, points, statistics")
    require_shape("atoms", atoms, (m, None), "features, atoms")
    arrays, static = eqx.partition(encoder, eqx.is_array)

    def one(arrays, points, a):
        feature = eqx.combine(arrays, static)
        return jax.vmap(lambda p: feature.log_masses(p, a))(points)

    return jax.vmap(one)(arrays, y, atoms)


class SoftmaxEncoder(AbstractEncoder):
    """The exponential family on the atoms: `log q_k = base_k + sum_t y_t T_tk - logsumexp`.

    Arguments:
        readout: `C: [m, t, n]`, `y_j = C_j x2`.
        statistics: `T: [m, t, K]`, the sufficient statistics on the atoms.
        base: `[m, K]`, log masses at `y = 0` up to a constant.

    With `T = atoms` and `base = log p - kappa a^2 / 2` it is the prior tilted by the evidence, the exact posterior
    when the columns of the decoder are orthogonal; with two atoms it is the logistic encoder.
    Raises `ValueError` that names the argument if a shape does not fit or a number is not finite.

    >>> encoder.posterior(jnp.zeros(2)).sum(axis=1)
    Array([1., 1.], dtype=...)
    """

    readout: Float[Array, "m t n"]
    statistics: Float[Array, "m t K"]
    base: Float[Array, "m K"]
    reads_atoms: ClassVar[bool] = False

    def __init__(self, readout: ArrayLike, statistics: ArrayLike, base: ArrayLike):
        self.readout, self.statistics, self.base = as_floating(readout=readout, statistics=statistics, base=base)
        require_shape("readout", self.readout, (None, None, None), "features, statistics, neurons")
        m, t, _ = self.readout.shape
        require_shape("statistics", self.statistics, (m, t, None), "features, statistics of the readout, atoms")
        require_shape("base", self.base, (m, self.statistics.shape[2]), "features, atoms of the statistics")
        for name in ("readout", "statistics", "base"):
            require_finite(name, getattr(self, name))

    def log_masses(self, y, atoms):
        return jax.nn.log_softmax(self.base + y @ self.statistics)

    def shifted(self, shift):
        base = self.base - jnp.einsum("mtn,n,mtk->mk", self.readout, shift, self.statistics)
        return SoftmaxEncoder(self.readout, self.statistics, base)

    def regularity(self, low, high, width, atoms):
        imag_spread = width @ jnp.ptp(self.statistics, axis=1)
        return LogitRegularity(
            imag_spread, jnp.abs(self.base).max() + _farthest(low, high) @ jnp.abs(self.statistics).max(axis=1)
        )


class GaussianEncoder(AbstractEncoder):
    """A Gaussian restricted to the atoms: `log q_k = -(a_k - mu)^2 / (2 e^(2 ell)) - logsumexp`.

    `mu = y_1 + offset_1`, and `ell = log_scale` if one statistic is read (t = 1), `ell = log_scale + y_2` if two.

    Arguments:
        readout: `[m, t, n]`, `t` = 1 or 2.
        offset: `[m]`, added to the mean.
        log_scale: `[m]`, log of the standard deviation (at `y_2 = 0`).

    Raises `ValueError` that names the argument if a shape does not fit or a number is not finite.
    """

    readout: Float[Array, "m t n"]
    offset: Float[Array, " m"]
    log_scale: Float[Array, " m"]

    def __init__(self, readout: ArrayLike, offset: ArrayLike, log_scale: ArrayLike):
        self.readout, self.offset, self.log_scale = as_floating(readout=readout, offset=offset, log_scale=log_scale)
        _check_readout(self.readout, (1, 2))
        for name in ("offset", "log_scale"):
            require_shape(name, getattr(self, name), self.readout.shape[:1], "features of the readout")
            require_finite(name, getattr(self, name))

    def log_masses(self, y, atoms):
        log_scale = self.log_scale if y.shape[0] == 1 else self.log_scale + y[1]
        return jax.nn.log_softmax(-(((atoms - y[0] - self.offset) * jnp.exp(-log_scale)) ** 2) / 2)

    def shifted(self, shift):
        apart = self.readout @ shift
        log_scale = self.log_scale if apart.shape[1] == 1 else self.log_scale - apart[:, 1]
        return GaussianEncoder(self.readout, self.offset - apart[:, 0], log_scale)

    def regularity(self, low, high, width, atoms):
        # Up to what all atoms share, l = (a mu - a^2 / 2) / e^(2 ell).
        least = self.log_scale if low.shape[0] == 1 else self.log_scale + low[1]
        ends = jnp.stack([low[0], high[0]]) + self.offset
        tilted = jnp.ptp(atoms[None] * ends[:, None] - atoms[None] ** 2 / 2, axis=1).max()
        turned = 0 if low.shape[0] == 1 else tilted * jnp.sin(jnp.minimum(2 * width[1], jnp.pi / 2))
        precision = jnp.exp(-2 * least)
        farthest = jnp.abs(ends).max() + jnp.abs(atoms).max()
        return LogitRegularity((width[0] * jnp.ptp(atoms) + turned) * precision, farthest**2 * precision)


class ExponentialEncoder(AbstractEncoder):
    """An exponential law restricted to the atoms: `log q_k = -rate a_k - logsumexp`, `rate = y + offset` (t = 1).

    The example of the paper (section 2.4). On finitely many atoms a rate of either sign is a law.

    Arguments:
        readout: `[m, 1, n]`.
        offset: `[m]`, the rate at `y = 0`.

    Raises `ValueError` that names the argument if a shape does not fit or a number is not finite.
    """

    readout: Float[Array, "m 1 n"]
    offset: Float[Array, " m"]

    def __init__(self, readout: ArrayLike, offset: ArrayLike):
        self.readout, self.offset = as_floating(readout=readout, offset=offset)
        _check_readout(self.readout, (1,))
        require_shape("offset", self.offset, self.readout.shape[:1], "features of the readout")
        require_finite("offset", self.offset)

    def log_masses(self, y, atoms):
        return jax.nn.log_softmax(-(y[0] + self.offset) * atoms)

    def shifted(self, shift):
        return ExponentialEncoder(self.readout, self.offset - (self.readout @ shift)[:, 0])

    def regularity(self, low, high, width, atoms):
        size = (_farthest(low, high)[0] + jnp.abs(self.offset)) * jnp.abs(atoms).max()
        return LogitRegularity(width[0] * jnp.ptp(atoms), size)


class NeuralEncoder(AbstractEncoder):
    """A small MLP per feature, from its statistics to logits on the atoms.

    Arguments:
        readout: `[m, t, n]`.
        networks: an `eqx.nn.MLP` from `t` to `K` whose arrays carry a leading axis `m` (`NeuralEncoder.init` makes
            one). Smooth activations keep the convergence spectral; kinks slow it down.

    Raises `ValueError` if a shape does not fit or a number of the readout is not finite.
    """

    readout: Float[Array, "m t n"]
    networks: eqx.nn.MLP
    reads_atoms: ClassVar[bool] = False

    def __init__(self, readout: ArrayLike, networks: eqx.nn.MLP):
        (self.readout,) = as_floating(readout=readout)
        _check_readout(self.readout, None)
        leading = {leaf.shape[:1] for leaf in jax.tree.leaves(eqx.filter(networks, eqx.is_array))}
        if leading != {self.readout.shape[:1]}:
            raise ValueError(
                f"networks: expected a leading axis of {self.readout.shape[0]} features on every array, got {leading}."
            )
        self.networks = jax.tree.map(lambda leaf: in_single(leaf) if eqx.is_array(leaf) else leaf, networks)

    @classmethod
    def init(cls, readout: ArrayLike, atoms: int, *, width: int = 8, depth: int = 1, key: PRNGKeyArray):
        """Random networks with tanh units: `atoms = K` outputs, `depth` hidden layers of `width` units."""
        (readout,) = as_floating(readout=readout)
        _check_readout(readout, None)
        m, t, _ = readout.shape

        def make(one_key):
            # `Activation`s, not bare functions: then every leaf is an array, and jit, vmap and grad take the encoder.
            tanh, identity = ACTIVATIONS["tanh"], ACTIVATIONS["identity"]
            return eqx.nn.MLP(t, atoms, width, depth, tanh, identity, dtype=readout.dtype, key=one_key)

        return cls(readout, eqx.filter_vmap(make)(jax.random.split(key, m)))

    def log_masses(self, y, atoms):
        return jax.nn.log_softmax(self.networks(y))

    def shifted(self, shift):
        first = self.networks.layers[0]
        bias = first.bias - jnp.einsum("mht,mtn,n->mh", first.weight, self.readout, shift)
        return NeuralEncoder(self.readout, eqx.tree_at(lambda one: one.layers[0].bias, self.networks, bias))

    def regularity(self, low, high, width, atoms):
        inner, outer = self.networks.activation, self.networks.final_activation
        regularity = inner.regularity if isinstance(inner, Activation) else None
        if regularity is None or regularity.jumps or outer != ACTIVATIONS["identity"]:
            return super().regularity(low, high, width, atoms)
        *hidden, last = self.networks.layers
        real = reach = _farthest(low, high)  # on the axis, and off it
        for layer in hidden:
            width, real, reach = jnp.abs(layer.weight) @ width, _affine_size(layer, real), _affine_size(layer, reach)
            # |Im psi(b + iv)| <= |v| times a bound of |psi'| in a strip; that of the widest unit holds all.
            strip, far = jnp.max(width), jnp.max(reach)
            width = jnp.where(width > 0, width * regularity.slope(-far, far, strip), 0)
            real = jnp.broadcast_to(regularity.sup(-real, real, jnp.zeros_like(real)), real.shape)
            reach = jnp.broadcast_to(regularity.sup(-reach, reach, strip), reach.shape)
        between = jnp.abs(last.weight[:, None] - last.weight[None]) @ width
        return LogitRegularity(between.max(), _affine_size(last, real).max())


def _affine_size(layer: eqx.nn.Linear, size: Array) -> Array:
    mapped = jnp.abs(layer.weight) @ size
    return mapped if layer.bias is None else mapped + jnp.abs(layer.bias)


def _farthest(low: Array, high: Array) -> Array:
    return jnp.maximum(jnp.abs(low), jnp.abs(high))


def _check_readout(readout: Array, allowed: tuple[int, ...] | None) -> None:
    require_shape("readout", readout, (None, None, None), "features, statistics, neurons")
    require_finite("readout", readout)
    if allowed is not None and readout.shape[1] not in allowed:
        raise ValueError(f"readout: expected {' or '.join(map(str, allowed))} statistics, got {readout.shape[1]}.")

"""Slow, obvious oracles for the quantities that `analytic_vae` computes quickly.

Nothing here shares a line, or an idea, with the spectral engine. The latent states of the source are listed one by
one, and for each of them the Gaussian noise is integrated in x-space by nested composite Gauss-Legendre quadrature,
split where the activation has a kink. So the law of x1 becomes a long list of points and weights, and every
expectation is a weighted sum over that list. NumPy and SciPy only.

Axis letters are those of the package: `n1, n2` neurons before and after the layer, `m1, m2` features, `K` atoms,
`t` statistics that an encoder reads, `D` projections; `P` is the number of quadrature points.

    source = Model(atoms, masses, decoder, covariance)       # x1 = mean + decoder z + N(0, covariance)
    layer = Ridge(linear, output, direction, 0.1, *ACTIVATIONS["relu"])
    terms = elbo_terms(source, layer, target, readout, softmax_encoder(statistics, base))
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logsumexp, ndtr, xlogy

MAX_STATES = 5000  # K ** m beyond this is no longer a job for enumeration
CHUNK = 1 << 15  # points evaluated together; at some kilobytes per point this stays far below 1 GiB
REACH = 9.0  # noise is integrated over +- this many standard deviations; 2e-19 of a normal law lies outside

# name -> (function, its kinks), to be unpacked into the last arguments of `Ridge`
ACTIVATIONS: dict[str, tuple[Callable, tuple[float, ...]]] = {
    "relu": (lambda b: np.maximum(b, 0.0), (0.0,)),
    "tanh": (np.tanh, ()),
    "sigmoid": (expit, ()),
    "gelu": (lambda b: b * ndtr(b), ()),
}


# ---------------------------------------------------------------------------------------------- what is given


def _as_floats(instance, *names: str) -> None:
    """Turn the named fields of a frozen dataclass into float64 arrays, so that JAX arrays and lists may be passed."""
    for name in names:
        object.__setattr__(instance, name, np.asarray(getattr(instance, name), dtype=np.float64))


@dataclass(frozen=True)
class Model:
    """A feature model, source or target: `x = mean + sum_j decoder[:, j] z_j + N(0, covariance)`.

    The `z_j` are independent, with `P(z_j = atoms[j, k]) = masses[j, k]`; `atoms, masses: [m, K]`, `decoder: [n, m]`.
    `covariance` is a variance (scalar), `[n]` variances or an `[n, n]` matrix. These are *variances*: for the
    package's scalar `noise` pass `noise**2`, for its lower-triangular factor `L` pass `L @ L.T`.
    """

    atoms: np.ndarray
    masses: np.ndarray
    decoder: np.ndarray
    covariance: np.ndarray | float
    mean: np.ndarray | None = None

    def __post_init__(self):
        _as_floats(self, "atoms", "masses", "decoder", "covariance")
        if self.atoms.ndim != 2 or self.atoms.shape != self.masses.shape:
            raise ValueError(
                f"atoms and masses: expected one shape [m, K], got {self.atoms.shape}, {self.masses.shape}"
            )
        if self.decoder.ndim != 2 or self.decoder.shape[1] != self.atoms.shape[0]:
            raise ValueError(f"decoder: expected [n, {self.atoms.shape[0]}], got {self.decoder.shape}")
        if self.mean is None:
            object.__setattr__(self, "mean", np.zeros(self.decoder.shape[0]))
        _as_floats(self, "mean")

    @property
    def covariance_matrix(self) -> np.ndarray:
        """The noise covariance as an [n, n] matrix."""
        if self.covariance.ndim == 2:
            return self.covariance
        return np.diag(np.broadcast_to(self.covariance, self.mean.shape))


@dataclass(frozen=True)
class Ridge:
    """The paper's layer (1): `f(x) = A x + offset + w psi(b)` with `b = <u, A x> + bias`.

    `linear` is A: [n2, n1], `output` is w: [n2], `direction` is u: [n2]. `kinks` are the values of b where psi is not
    smooth. `offset`, [n2] or 0, is there for linear layers only: see `linear_layer`.
    """

    linear: np.ndarray
    output: np.ndarray
    direction: np.ndarray
    bias: float = 0.0
    activation: Callable = ACTIVATIONS["relu"][0]
    kinks: tuple[float, ...] = ACTIVATIONS["relu"][1]
    offset: np.ndarray | float = 0.0

    def __post_init__(self):
        _as_floats(self, "linear", "output", "direction", "bias", "offset")

    def affine(self, x: np.ndarray) -> np.ndarray:
        """`A x + offset`: [P, n2]."""
        return x @ self.linear.T + self.offset

    def argument(self, x: np.ndarray) -> np.ndarray:
        """`b = <u, A x> + bias`: [P]."""
        return x @ (self.linear.T @ self.direction) + self.bias

    def bend(self, x: np.ndarray) -> np.ndarray:
        """`psi(b)`: [P]."""
        return self.activation(self.argument(x))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """`f(x)`: [P, n2]."""
        return self.affine(x) + self.bend(x)[..., None] * self.output


def linear_layer(weight: np.ndarray, bias: np.ndarray | float = 0.0) -> Ridge:
    """The layer `f(x) = weight x + bias`: a ridge layer with w = 0, u = 0 and psi = 0, so U2 = U3 = 0."""
    nothing = np.zeros(np.shape(weight)[0])
    return Ridge(weight, nothing, nothing, activation=np.zeros_like, kinks=(), offset=bias)


def softmax_encoder(statistics: np.ndarray, base: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The encoder `log q_jk(y_j) = base_jk + sum_t y_jt T_jtk - logsumexp`.

    `statistics` is T: [m2, t, K2]; `base`: [m2, K2]. With two atoms and t = 1, `statistics[j] = [[0, c]]` makes it a
    logistic of slope c.
    """

    def log_q(y):
        scores = base + np.einsum("...jt,jtk->...jk", y, statistics)
        return scores - logsumexp(scores, axis=-1, keepdims=True)

    return log_q


# ------------------------------------------------------------------------------- the law of x1, point by point


@dataclass(frozen=True)
class Rule:
    """A composite Gauss-Legendre rule for one axis of noise: `panels` equal panels over +-`reach` sds, `nodes` in each.

    A function whose nearest complex singularity is `d` sds from the real axis is integrated with an error of about
    `(r + sqrt(1 + r^2)) ** (-2 nodes)`, `r = d panels / reach`. A logistic of slope c in the noise's own sds has
    `d = pi / c`.
    """

    panels: int
    nodes: int
    reach: float = REACH

    def doubled(self) -> "Rule":
        """The same rule with twice the panels: the change it makes is an estimate of the error of this one."""
        return Rule(2 * self.panels, self.nodes, self.reach)


def default_rule(n1: int) -> Rule:
    """The rule used when none is given.

    For n1 = 1, 2 doubling it changes the terms of the loss by less than 1e-14 relative, with encoders of slope 6 to 20
    and noise of 0.4. For n1 = 3 it is a compromise, three million points per state: 1e-7 for such encoders, so pass a
    rule of your own and look at what `doubled` changes.
    """
    return {1: Rule(48, 16), 2: Rule(24, 16)}.get(n1, Rule(12, 12))


legendre = functools.lru_cache(np.polynomial.legendre.leggauss)


def composite(edges: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on every interval between successive `edges`, one list for all of them."""
    node, weight = legendre(nodes)
    half = np.diff(edges)[:, None] / 2
    centre = (edges[1:] + edges[:-1])[:, None] / 2
    return (centre + half * node).ravel(), (half * weight).ravel()


def normal_axis(rule: Rule, splits=()) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for a standard normal variable, with panel edges at `splits` besides the equal ones."""
    inside = [split for split in splits if abs(split) < rule.reach]
    edges = np.union1d(np.linspace(-rule.reach, rule.reach, rule.panels + 1), inside)
    node, weight = composite(edges, rule.nodes)
    return node, weight * np.exp(-(node**2) / 2) / math.sqrt(2 * math.pi)


def states(model: Model) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every latent state of a model: which atom each feature takes `[Z, m]`, its values z `[Z, m]`, its mass `[Z]`."""
    m, k = model.atoms.shape
    if k**m > MAX_STATES:
        raise ValueError(f"model has {k}**{m} = {k**m} latent states; this oracle enumerates at most {MAX_STATES}")
    index = np.array(list(itertools.product(range(k), repeat=m)), dtype=int).reshape(-1, m)
    feature = np.arange(m)
    return index, model.atoms[feature, index], model.masses[feature, index].prod(axis=1)


def _noise_axes(source: Model, layer: Ridge | None) -> tuple[np.ndarray, float]:
    """A factor F of the covariance, `F F' = S`, such that with `x = mu + F e` only `e_1` moves b; and db / de_1."""
    factor = np.linalg.cholesky(source.covariance_matrix)
    if layer is None:
        return factor, 0.0
    gradient = factor.T @ layer.linear.T @ layer.direction
    rotation = np.linalg.qr(np.column_stack([gradient, np.eye(gradient.size)]))[0]
    return factor @ rotation, float(gradient @ rotation[:, 0])


def chunks(
    source: Model, layer: Ridge | None = None, rule: Rule | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The law of x1 as a stream of `(x [P, n1], weight [P])`, so that `E[g(x1)] = sum weight g(x)` over all chunks.

    `x1 = mu_z + F e` with e standard normal, z one of the K1 ** m1 states. The first noise axis is the one along which
    `b = <u, A x> + bias` varies; it is split exactly where b meets a kink, which depends on the state. A kink of the
    integrand elsewhere (a point encoder's threshold, an indicator) is *not* split. Without noise the states themselves
    are the points, for any n1.
    """
    n1 = source.mean.size
    rule = rule or default_rule(n1)
    _, z, mass = states(source)
    centres = source.mean + z @ source.decoder.T
    if not source.covariance.any():
        yield centres, mass
        return
    if n1 > 3:
        raise ValueError(f"source: nested quadrature is for n1 = 1, 2 or 3, got n1 = {n1}")

    factor, slope = _noise_axes(source, layer)
    node, weight = normal_axis(rule)
    table = (node.size ** (n1 - 1), n1 - 1)  # every choice of a node on each of the other axes
    rest = np.array(list(itertools.product(node, repeat=n1 - 1))).reshape(table) @ factor[:, 1:].T
    rest_weight = np.array(list(itertools.product(weight, repeat=n1 - 1))).reshape(table).prod(axis=1)
    step = max(1, CHUNK // rest_weight.size)
    for centre, p in zip(centres, mass, strict=True):
        splits = [(kink - layer.argument(centre)) / slope for kink in layer.kinks] if slope else []
        first, first_weight = normal_axis(rule, splits)
        for i in range(0, first.size, step):
            x = centre + first[i : i + step, None, None] * factor[:, 0] + rest
            yield x.reshape(-1, n1), p * np.outer(first_weight[i : i + step], rest_weight).ravel()


def points(source: Model, layer: Ridge | None = None, rule: Rule | None = None) -> tuple[np.ndarray, np.ndarray]:
    """All chunks in one: `x [P, n1], weight [P]`, some 1e6 points for n1 = 2 and eight states."""
    x, weight = zip(*chunks(source, layer, rule), strict=True)
    return np.concatenate(x), np.concatenate(weight)


def _weighted_sum(weight: np.ndarray, value):
    """`sum_P weight value[P, ...]`, for an array or for a dict of arrays."""
    if isinstance(value, dict):
        return {name: _weighted_sum(weight, array) for name, array in value.items()}
    return np.tensordot(weight, value, axes=1)


def _add(total, value):
    """The sum of two arrays, or of two dicts name by name; None counts as zero."""
    if total is None:
        return value
    if isinstance(value, dict):
        return {name: total[name] + array for name, array in value.items()}
    return total + value


def expectation(source: Model, layer: Ridge | None, fn: Callable, rule: Rule | None = None):
    """`E[fn(x1)]` for `fn: [P, n1] -> [P, ...]`, or `-> {name: [P, ...]}`. `layer` only says where to split."""
    total = None
    for x, weight in chunks(source, layer, rule):
        total = _add(total, _weighted_sum(weight, fn(x)))
    return total


def monte_carlo(source: Model, layer: Ridge | None, fn: Callable, samples: int, seed: int):
    """Mean and standard error of `fn(x1)` over independent samples, as two arrays (or two dicts, if fn returns one).

    It takes what `expectation` takes, so that either may stand for the other; the layer is not looked at.
    """
    del layer
    rng = np.random.default_rng(seed)
    covariance = source.covariance_matrix
    factor = np.linalg.cholesky(covariance) if covariance.any() else covariance
    total, squares = None, None
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        features = zip(source.atoms, source.masses, strict=True)
        z = np.stack([rng.choice(a, count, p=p / p.sum()) for a, p in features], axis=1)
        x = source.mean + z @ source.decoder.T + rng.standard_normal((count, source.mean.size)) @ factor.T
        value = fn(x)
        square = {name: array**2 for name, array in value.items()} if isinstance(value, dict) else value**2
        share = np.full(count, 1 / samples)
        total, squares = _add(total, _weighted_sum(share, value)), _add(squares, _weighted_sum(share, square))

    def standard_error(mean, mean_square):
        return np.sqrt(np.maximum(mean_square - mean**2, 0.0) / (samples - 1))

    if isinstance(total, dict):
        return total, {name: standard_error(total[name], squares[name]) for name in total}
    return total, standard_error(total, squares)


# --------------------------------------------------------------------------------------------------- the loss


def encode(layer: Ridge, readout: np.ndarray, log_q: Callable, x: np.ndarray) -> np.ndarray:
    """`log Q_j(k | y_j)` with `y_j = C_j f(x)`, for `readout` C: [m2, t, n2]; returns [P, m2, K2]."""
    return log_q(np.einsum("jtn,pn->pjt", np.asarray(readout, dtype=np.float64), layer(x)))


def encoded_moments(log_masses: np.ndarray, target: Model) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean s_j, variance v_j and `r_j = KL(Q_j || P2_j)` of the encoders at every point, each [P, m2]."""
    q = np.exp(log_masses)
    s = (q * target.atoms).sum(-1)
    v = (q * (target.atoms - s[..., None]) ** 2).sum(-1)
    r = (xlogy(q, q) - xlogy(q, target.masses)).sum(-1)
    return s, v, r


def _units(target: Model) -> tuple[np.ndarray, float, float]:
    """The matrix `sigma L^-1` that f - mean2, w and B2 are multiplied by, `sigma^2 = det(L L')^(1/n2)`, and R2."""
    factor = np.linalg.cholesky(target.covariance_matrix)
    n2, log_det = factor.shape[0], np.log(np.diag(factor)).sum()
    sigma = np.exp(log_det / n2)
    return sigma * np.linalg.inv(factor), sigma**2, n2 / 2 * math.log(2 * math.pi) + log_det


def elbo_terms(
    source: Model,
    layer: Ridge,
    target: Model,
    readout: np.ndarray,
    log_q: Callable,
    rule: Rule | None = None,
) -> dict[str, float]:
    """Every term of the loss of Theorem 3.1, each by its own definition as an expectation over x1.

    With `H = B2' B2`, `u_j` column j of B2, `a = A x1 - mean2` (plus a linear layer's offset), `g = f(x1) - mean2`:

        R1 = sum_j E[r_j]     R2 = n2/2 log(2 pi sigma^2)     R3 = (S1 + S2) / (2 sigma^2)     loss = R1 + R2 + R3
        S1 = sum_j H_jj E[v_j]          S2 = E|g - B2 s|^2 = T1 + T2 + T3
        T1 = E|g|^2 = U1 + U2 + U3      T2 = -2 sum_j E[<g, u_j> s_j]      T3 = sum_jk H_jk E[s_j s_k]
        U1 = E|a|^2                     U2 = 2 E[<a, w> psi(b)]            U3 = |w|^2 E[psi(b)^2]

    These are for `S2 = sigma^2 I`. For any other target covariance `S2 = L L'`, `sigma^2 = det(S2)^(1/n2)`, and g, a, w
    and B2 are replaced by `sigma L^-1` times themselves.
    The sums S2 = T1 + T2 + T3 and T1 = U1 + U2 + U3 are not used here, so they are checks.
    """
    units, variance, r2 = _units(target)
    decoder, w = units @ target.decoder, units @ layer.output
    gram = decoder.T @ decoder

    def pointwise(x):
        s, v, r = encoded_moments(encode(layer, readout, log_q, x), target)
        a = (layer.affine(x) - target.mean) @ units.T
        g = (layer(x) - target.mean) @ units.T
        psi = layer.bend(x)
        return {
            "R1": r.sum(-1),
            "S1": v @ np.diag(gram),
            "S2": ((g - s @ decoder.T) ** 2).sum(-1),
            "T1": (g**2).sum(-1),
            "T2": -2 * ((g @ decoder) * s).sum(-1),
            "T3": ((s @ gram) * s).sum(-1),
            "U1": (a**2).sum(-1),
            "U2": 2 * (a @ w) * psi,
            "U3": (w @ w) * psi**2,
        }

    terms = {name: float(value) for name, value in expectation(source, layer, pointwise, rule).items()}
    terms["R2"] = r2
    terms["R3"] = (terms["S1"] + terms["S2"]) / (2 * variance)
    terms["loss"] = terms["R1"] + terms["R2"] + terms["R3"]
    return terms


def elbo_direct(
    source: Model, layer: Ridge, target: Model, readout: np.ndarray, log_q: Callable, rule: Rule | None = None
) -> float:
    """The loss with no algebra at all: Lemma 2.2, with the K2 ** m2 states of the target written out.

    `loss = E_x1 sum_z2 Q(z2 | f) (log Q(z2 | f) - log P2(z2) - log N(f; mean2 + B2 z2, S2))`, `f = f(x1)`.
    """
    index, z2, mass = states(target)
    covariance = target.covariance_matrix
    precision = np.linalg.inv(covariance)
    log_normaliser = np.linalg.slogdet(2 * np.pi * covariance)[1] / 2

    def pointwise(x):
        log_masses = encode(layer, readout, log_q, x)
        loss = np.zeros(len(x))
        for state, z, p in zip(index, z2, mass, strict=True):
            log_joint = log_masses[:, np.arange(state.size), state].sum(-1)
            residual = layer(x) - (target.mean + target.decoder @ z)
            log_likelihood = -((residual @ precision) * residual).sum(-1) / 2 - log_normaliser
            q = np.exp(log_joint)
            loss += xlogy(q, q) - xlogy(q, p) - q * log_likelihood
        return loss

    return float(expectation(source, layer, pointwise, rule))


def aggregate(
    source: Model, layer: Ridge, readout: np.ndarray, log_q: Callable, rule: Rule | None = None
) -> np.ndarray:
    """The aggregate posterior `q_jk = E[Q_j(k | y_j)]`: [m2, K2]; it is the best prior for the encoder."""
    return expectation(source, layer, lambda x: np.exp(encode(layer, readout, log_q, x)), rule)


def second_moments(
    source: Model, layer: Ridge, target: Model, readout: np.ndarray, log_q: Callable, rule: Rule | None = None
) -> dict[str, np.ndarray]:
    """What the best decoder and noise are made of, by name.

    `"s": E[s] [m2]`, `"v": E[v] [m2]`, `"ss": E[s s'] [m2, m2]`, `"f": E[f] [n2]`, `"fs": E[f s'] [n2, m2]`,
    `"ff": E[f f'] [n2, n2]`. Raw moments: neither mean is subtracted. Of the target only the atoms matter.
    """

    def pointwise(x):
        s, v, _ = encoded_moments(encode(layer, readout, log_q, x), target)
        f = layer(x)
        return {
            "s": s,
            "v": v,
            "ss": s[:, :, None] * s[:, None, :],
            "f": f,
            "fs": f[:, :, None] * s[:, None, :],
            "ff": f[:, :, None] * f[:, None, :],
        }

    return expectation(source, layer, pointwise, rule)

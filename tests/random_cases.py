"""Random cases beside exact values: laws with point masses, outliers, round numbers, gradients near zero.

`test_campaigns.py` takes a few of each, `benchmarks/campaigns.py` thousands. A case is a function of its seed. What is
compared is a row: what was asked, the package's number and the exact one, how far they are apart in the units of the
bar, and the accuracy that the package states.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cases
import equinox as eqx
import exact_laws
import jax
import jax.numpy as jnp
import numpy as np
import reference
import reference_dense

import analytic_vae as av
from analytic_vae.model.conditioning import clusters_of

HARD = av.Activation(lambda b: jnp.clip(b, -1, 1), (-1.0, 1.0), "hard tanh")


class Row(NamedTuple):
    """One comparison. `apart` is in units of the spread (of gradients: relative to the largest), or in nats."""

    seed: int
    asked: str
    got: float
    exact: float
    apart: float
    accuracy: float
    closed: bool = False  # a law of one unit or of a linear layer, of which none may warn


def unit(name: str):
    """What `DenseLayer` takes for an activation of `exact_laws`."""
    return HARD if name == "hard" else name


# ---------------------------------------------------------------------------------------- laws with point masses


class _Drawn(NamedTuple):
    """A source, and what is asked of it: the parts of a case that decide on its programs, and their numbers."""

    rng: np.random.Generator
    asked: str
    lattice: bool
    inclusive: bool
    noise: float
    atoms: np.ndarray
    masses: np.ndarray
    decoder: np.ndarray
    mean: np.ndarray
    names: list[str]


def _drawn(seed: int) -> _Drawn:
    rng = np.random.default_rng(seed)
    asked = ("linear", "unit", "two units", "mixed units", "ridge")[rng.integers(5)]
    lattice, inclusive = rng.random() < 0.4, bool(rng.random() < 0.5)
    noise = 0.0 if rng.random() < 0.4 else 10 ** rng.uniform(-3, 0)
    m, K = ((3, 2), (5, 2), (3, 3))[rng.integers(3)]
    draw = (lambda *s: rng.integers(-2, 3, size=s).astype(float)) if lattice else (lambda *s: rng.normal(size=s))
    atoms, decoder, mean = draw(m, K), draw(2, m), np.zeros(2) if lattice else rng.normal(size=2)
    masses = np.maximum(rng.dirichlet(np.full(K, 0.7), size=m), 1e-6)
    masses /= masses.sum(axis=1, keepdims=True)
    names = [("relu", "leaky_relu", "hard", "tanh", "sigmoid")[i] for i in rng.integers(5, size=2)]
    return _Drawn(rng, asked, lattice, inclusive, noise, atoms, masses, decoder, mean, names)


def point_masses(seed: int) -> Row:
    """A tail of a linear layer, of a unit, of two units (together, or mixed), or of a ridge layer."""
    rng, asked, lattice, inclusive, noise, atoms, masses, B, mean, names = _drawn(seed)
    W = rng.normal(size=(2, 2)) if not lattice else np.eye(2)[:, ::-1] if rng.random() < 0.5 else np.eye(2)
    bias = np.zeros(2) if lattice else rng.normal(size=2) / 2
    if names[0] in ("tanh", "sigmoid") and rng.random() < 0.3:  # saturated
        W, bias = 30 * W, 30 * bias
    model = av.FeatureModel(av.Prior.from_masses(atoms, masses), B, noise, mean)
    z, p = exact_laws.states(atoms, masses)
    x, psi = z @ B.T + mean, [exact_laws.UNITS[name][0] for name in names]
    S = noise**2 * np.eye(2)

    def level(y, name="identity"):
        """A value that is taken, or one between; of a unit that saturates no value where it has nearly done so."""
        t = y[rng.integers(len(y))] if rng.random() < 0.5 else np.median(y) + rng.normal() * y.std() / 2
        low, high = {"tanh": (-0.999, 0.999), "sigmoid": (0.001, 0.999)}.get(name, (-np.inf, np.inf))
        return float(np.clip(t, low, high))

    if asked == "linear":
        law, means = av.pushforward(model, av.LinearLayer(W, bias), np.eye(2)[:1]), x @ W[0] + bias[0]
        t, spread = level(means), noise * np.linalg.norm(W[0])
        exact = lambda t: exact_laws.one("identity", 1.0, t, means, p, spread, inclusive)  # noqa: E731
    elif asked == "unit":
        c, means = float(rng.choice([1.0, -1.0, 0.7])), x @ W[0] + bias[0]
        law = av.pushforward(model, av.DenseLayer(W[:1], bias[:1], unit(names[0]), output=[[c]]), [[1.0]])
        t, spread = c * level(psi[0](means), names[0]), noise * np.linalg.norm(W[0])
        exact = lambda t: exact_laws.one(names[0], c, t, means, p, spread, inclusive)  # noqa: E731
    elif asked == "ridge":
        r, w, u = rng.normal(size=(3, 2))
        law = av.pushforward(model, av.RidgeLayer(W, w, u, bias[0], unit(names[0])), [r])
        rows, factors = np.stack([u @ W, r @ W]), np.array([r @ w, 1.0])
        means, covariance = x @ rows.T + [bias[0], 0], rows @ S @ rows.T
        y = (factors[0] * psi[0](means[:, 0]) + means[:, 1])[:, None]
        t = level(y[:, 0])
        given = (names[0], "identity"), factors
        exact = lambda t: exact_laws.mixed(*given, t, means, p, covariance, inclusive)  # noqa: E731
    else:
        layer, means = av.DenseLayer(W, bias, [unit(name) for name in names]), x @ W.T + bias
        y, covariance = np.stack([psi[i](means[:, i]) for i in range(2)], axis=1), W @ S @ W.T
        if asked == "two units":
            law, t = av.pushforward(model, layer, np.eye(2)), np.array([level(y[:, i], names[i]) for i in range(2)])
            exact = lambda t: exact_laws.two(names, t, means, p, covariance, inclusive)  # noqa: E731
        else:
            factors = rng.normal(size=2)
            law, y = av.pushforward(model, layer, [factors]), (y @ factors)[:, None]
            # Not a value of units that have nearly saturated: what is beyond it is rounding.
            smooth = {"tanh", "sigmoid"} & set(names)
            t = float(np.median(y) + rng.normal() * y.std() / 2) if smooth else level(y[:, 0])
            exact = lambda t: exact_laws.mixed(names, factors, t, means, p, covariance, inclusive)  # noqa: E731
    if not noise and asked not in ("linear", "unit"):
        exact = lambda t: exact_laws.listed(y, np.atleast_1d(t), p, inclusive)  # noqa: E731
    got, either = float(law.tail(t, inclusive)), exact(t)
    apart = abs(got - either)
    if law.accuracy.dtype == np.float32:  # a threshold may be on either side of a value that it is near
        near = 16 * float(jnp.finfo(jnp.float32).eps) * (np.abs(t) + np.abs(means).max())
        apart = max(exact(t + near) - got, got - exact(t - near), 0.0)
    return Row(seed, asked, got, either, apart, float(law.accuracy), asked in ("linear", "unit"))


# ------------------------------------------------------------------------------------------------------- outliers


def outlier(seed: int, activation: str | None) -> tuple:
    """A problem of `cases` with one rare large value: of probability 1e-1 to 1e-12, of size up to 1e4."""
    rng = np.random.default_rng(seed)
    source, layer, target, encoder = cases.problem(seed, activation=activation)
    j, p, size = rng.integers(cases.M1), 10 ** rng.uniform(-12, -1), 10 ** rng.uniform(0.7, 4) * rng.choice([-1, 1])
    atoms, masses = np.array(source.prior.atoms), np.array(source.prior.masses)
    atoms[j, 1], masses[j] = size, (1 - p, p)
    source = av.FeatureModel(av.Prior.from_masses(atoms, masses), source.decoder, source.noise, source.mean)
    return source, layer, target, encoder


RULE, COARSE = reference.Rule(18, 14), reference.Rule(6, 14)
LOSSES = {"linear loss": None, "ridge loss": "relu", "smooth ridge loss": "tanh"}


def outliers(seed: int) -> Iterator[Row]:
    """Losses, moments of units, a sparse autoencoder and laws of one source with an outlier."""
    asked = list(LOSSES)[seed % 3]
    source, layer, target, encoder = outlier(seed, LOSSES[asked])
    rng = np.random.default_rng(seed + 10**6)
    found = av.elbo(source, layer, target, encoder)
    parts = cases.oracle_parts(source, layer, target, encoder, LOSSES[asked])
    exact = reference.elbo_terms(*parts, rule=RULE)["loss"]
    # In nats, or relative where rare values make the loss large.
    yield Row(seed, asked, float(found.loss), exact, _relative(found.loss, exact), _share(found, exact))

    W, bias, sae = rng.normal(size=(3, 2)), rng.normal(size=3) / 2, rng.normal(size=(3, 1, 2))
    oracle = reference_dense.Dense(W, bias, np.eye(3), np.zeros((3, 2)), [(np.tanh, ())] * 3)
    x, weights, _ = reference_dense.input_points(cases.oracle_model(source), oracle, RULE)
    moments = av.dense_moments(source, av.DenseLayer(W, bias, "tanh"))
    psi = oracle.units(x)
    mean = weights @ psi
    covariance = (psi - mean).T @ ((psi - mean) * weights[:, None])
    spread = np.sqrt(np.diagonal(covariance))
    apart = np.abs(np.asarray(moments.psi_covariance) - covariance) / np.outer(spread, spread)
    i = np.unravel_index(np.argmax(apart), apart.shape)
    yield Row(seed, "dense moments", float(moments.psi_covariance[i]), covariance[i], apart[i], float(moments.accuracy))

    carried = av.fit(source, av.DenseLayer(W, bias, "tanh"), check=False)
    decoder, masses = np.asarray(carried.target.decoder), np.asarray(source.prior.masses)
    index, _, mass = reference.states(cases.oracle_model(source))
    each = np.repeat(np.arange(len(mass)), len(weights) // len(mass))
    worst = (0.0, 0.0, 0.0)
    for j in range(cases.M1):  # E[f | z_j = a] - E f, but of a value too rare for the listed points to say
        for k in np.flatnonzero(masses[j] > 0):
            own = weights * (index[each, j] == k)
            given = own @ psi / own.sum() - mean
            apart = np.max(np.abs(decoder[:, j, k] - given) / spread)
            worst = max(worst, (apart, float(decoder[0, j, k]), given[0]))
    yield Row(seed, "carried vectors", worst[1], worst[2], worst[0], float(carried.accuracy))

    model = av.SparseAutoencoder(sae, rng.normal(size=(3, 1)), rng.normal(size=(2, 3)) / 3)
    sparse = av.sparse_loss(source, av.LinearLayer(np.eye(2)), model)
    z, p = exact_laws.states(np.asarray(source.prior.atoms), np.asarray(source.prior.masses))
    centres = z @ np.asarray(source.decoder).T + np.asarray(source.mean)
    noise = float(source.noise)
    fires = [
        exact_laws.one("identity", 1.0, 0.0, centres @ C[0] + b, p, noise * np.linalg.norm(C), False)
        for C, b in zip(sae, np.asarray(model.offset)[:, 0], strict=True)
    ]
    apart = np.abs(np.asarray(sparse.l0) - fires)
    i = int(np.argmax(apart))
    yield Row(seed, "sparse l0", float(sparse.l0[i]), fires[i], apart[i], float(sparse.accuracy))

    row = rng.normal(size=2)
    law = av.pushforward(source, av.LinearLayer(np.eye(2)), [row])
    means, deviation = centres @ row, noise * np.linalg.norm(row)
    t = float(np.average(means, weights=p) + rng.normal() * np.std(means[p > 1e-3]) + 0.1)
    exact = exact_laws.one("identity", 1.0, t, means, p, deviation, False)
    yield Row(seed, "linear law", float(law.tail(t)), exact, abs(float(law.tail(t)) - exact), float(law.accuracy), True)
    law = av.pushforward(source, av.DenseLayer(row[None], [0.1]), [[1.0]])
    exact = exact_laws.one("relu", 1.0, max(t, 0), means + 0.1, p, deviation, False)
    got = float(law.tail(max(t, 0)))
    yield Row(seed, "law of a unit", got, exact, abs(got - exact), float(law.accuracy), True)


def _relative(got, exact: float) -> float:
    return abs(float(got) - exact) / max(1.0, abs(exact))


def _share(found, exact: float) -> float:
    return float(found.accuracy) / max(1.0, abs(exact))


# ------------------------------------------------------------------------------------------------- round numbers

ROUND = {  # what is asked: encoder, activation
    "linear loss": ("softmax", None),
    "ridge loss": ("softmax", "relu"),
    "smooth ridge loss": ("softmax", "tanh"),
    "loss, two statistics": ("softmax2", "relu"),
}


def rounded(tree, rng):
    """All arrays but scalars from -2 .. 1, many of them zero or equal: dead units, alike and constant rows."""
    draw = lambda leaf: jnp.asarray(rng.choice([-2.0, -1.0, 0.0, 0.0, 0.5, 1.0], size=leaf.shape), leaf.dtype)  # noqa: E731
    return jax.tree.map(lambda leaf: draw(leaf) if eqx.is_inexact_array(leaf) and leaf.ndim else leaf, tree)


def round_numbers(seed: int) -> Iterator[Row]:
    """A loss, moments of units and what a sparse autoencoder reads, where much is zero, equal or constant."""
    rng = np.random.default_rng(seed)
    asked = list(ROUND)[seed % 4]
    encoder, activation = ROUND[asked]
    inputs = 1 + seed // 4 % 2
    source, layer, target, encoder = cases.problem(seed, encoder, activation)
    source = cases.model(rng, inputs, cases.M1, cases.K1)
    layer = eqx.tree_at(lambda one: one.linear if activation else one.weight, layer, jnp.zeros((cases.N2, inputs)))
    source, layer, target, encoder = (rounded(one, rng) for one in (source, layer, target, encoder))
    found = _loss_of(source, layer, target, encoder)
    parts = cases.oracle_parts(source, layer, target, encoder, activation)
    exact = reference.elbo_terms(*parts, rule=COARSE)["loss"]
    yield Row(seed, asked, float(found.loss), exact, _relative(found.loss, exact), _share(found, exact))

    W, bias = (np.asarray(one) for one in rounded((jnp.zeros((3, inputs)), jnp.zeros(3)), rng))
    names = ["relu" if inputs == 1 else "sigmoid", "tanh", "gelu"]
    oracle = reference_dense.Dense(
        W, bias, np.eye(3), np.zeros((3, inputs)), [reference.ACTIVATIONS[one] for one in names]
    )
    x, weights, _ = reference_dense.input_points(cases.oracle_model(source), oracle, COARSE)
    psi = oracle.units(x)
    mean = weights @ psi
    covariance = (psi - mean).T @ ((psi - mean) * weights[:, None])
    spread = np.sqrt(np.maximum(np.diagonal(covariance), 1e-30))
    moments = av.dense_moments(source, av.DenseLayer(W, bias, names))
    least = 1e-12 if moments.psi.dtype == np.float64 else 1e-10  # spreads of 1e-5 are rounding of what is summed
    apart = np.abs(np.asarray(moments.psi_covariance) - covariance) / np.maximum(np.outer(spread, spread), least)
    i = np.unravel_index(np.argmax(apart), apart.shape)
    yield Row(seed, "dense moments", float(moments.psi_covariance[i]), covariance[i], apart[i], float(moments.accuracy))

    readout, offset = rounded((jnp.zeros((3, 1, inputs)), jnp.zeros((3, 1))), rng)
    model = av.SparseAutoencoder(readout, offset, np.zeros((inputs, 3)))
    sparse = av.sparse_loss(source, av.LinearLayer(np.eye(inputs)), model)
    z, p = exact_laws.states(np.asarray(source.prior.atoms), np.asarray(source.prior.masses))
    centres = z @ np.asarray(source.decoder).T + np.asarray(source.mean)
    fires = [
        exact_laws.one("identity", 1.0, 0.0, centres @ C[0] + b, p, float(source.noise) * np.linalg.norm(C), False)
        for C, b in zip(np.asarray(readout), np.asarray(offset)[:, 0], strict=True)
    ]
    apart = np.abs(np.asarray(sparse.l0) - fires)
    i = int(np.argmax(apart))
    yield Row(seed, "sparse l0", float(sparse.l0[i]), fires[i], apart[i], float(sparse.accuracy))


_loss_of = eqx.filter_jit(av.elbo)

# ----------------------------------------------------------------------------- sparse autoencoders without any noise


def sparse(seed: int) -> Iterator[Row]:
    """Reconstruction, means and firing rates of a sparse autoencoder on point masses: some of them at its kinks."""
    rng = np.random.default_rng(seed)
    ridge, jumps, lattice = seed % 2, seed // 2 % 2, rng.random() < 0.4
    draw = (lambda *s: rng.integers(-1, 2, size=s).astype(float)) if lattice else (lambda *s: rng.normal(size=s))
    source = av.FeatureModel(av.Prior.from_masses(draw(5, 2), rng.dirichlet([1, 1], size=5)), draw(2, 5), 0.0)
    bias = 0.0 if lattice else rng.normal()
    layer = av.RidgeLayer(draw(2, 2), draw(2), draw(2), bias, "relu") if ridge else av.LinearLayer(np.eye(2))
    offset = np.zeros((4, 1)) if lattice else rng.normal(size=(4, 1)) / 2
    kind = ("jumprelu", np.abs(draw(4))) if jumps else ("relu", None)
    model = av.SparseAutoencoder(draw(4, 1, 2), offset, rng.normal(size=(2, 4)) / 2, rng.normal(size=2) / 2, *kind)
    found = av.sparse_loss(source, layer, model)

    z, p = exact_laws.states(np.asarray(source.prior.atoms), np.asarray(source.prior.masses))
    f = jax.vmap(layer)(jnp.asarray(z @ np.asarray(source.decoder).T + np.asarray(source.mean)))
    e, missed = jax.vmap(model.activations)(f), jnp.sum((f - jax.vmap(model)(f)) ** 2, axis=1)
    f, e = np.asarray(f), np.asarray(e)
    exact, accuracy = float(p @ np.asarray(missed)), float(found.accuracy)
    apart = abs(float(found.reconstruction) - exact) / exact if exact > 1e-9 else float(found.reconstruction)
    yield Row(seed, "reconstruction", float(found.reconstruction), exact, apart, accuracy)
    spread = np.linalg.norm(np.asarray(model.readout)[:, 0], axis=1) * np.sqrt(p @ np.sum((f - p @ f) ** 2, axis=1))
    apart = np.abs(np.asarray(found.l1) - p @ e) / np.maximum(spread, 1e-12)
    i = int(np.argmax(apart))
    yield Row(seed, "sparse l1", float(found.l1[i]), p @ e[:, i], apart[i], accuracy)
    apart = np.abs(np.asarray(found.l0) - p @ (e > 0))
    i = int(np.argmax(apart))
    yield Row(seed, "sparse l0", float(found.l0[i]), p @ (e[:, i] > 0), apart[i], accuracy)


# -------------------------------------------------------------------- which programs a case needs, to sort cases by


def _programs_of_masses(seed: int) -> tuple:
    one = _drawn(seed)
    return one.asked, one.atoms.shape, one.lattice, one.noise > 0, *one.names


STRUCTURES: dict[str, Callable] = {
    "masses": _programs_of_masses,
    "outliers": lambda seed: (seed % 3, clusters_of(outlier(seed, LOSSES[list(LOSSES)[seed % 3]])[0])),
    "round": lambda seed: seed % 8,
    "sparse": lambda seed: seed % 4,
}


# ---------------------------------------------------------------------------------------------- gradients near zero


def _loss(activation, encoder="softmax"):
    return lambda seed: (lambda *parts: av.elbo(*parts), cases.problem(seed, encoder, activation=activation))


def _dense(seed):
    rng = np.random.default_rng(seed)
    source = cases.model(rng, 2, 3, 2)
    layer = av.DenseLayer(rng.normal(size=(3, 2)), rng.normal(size=3), ["tanh", "softplus", "gelu"])
    return (lambda source, layer: av.dense_moments(source, layer)), (source, layer)


def _carried(seed):
    function, (source, layer) = _dense(seed)
    del function
    target = cases.model(np.random.default_rng(seed + 1), 3, 3, 2)
    return (lambda *parts: av.elbo(*parts, av.CarriedEncoder(3))), (source, layer, target)


def _sparse(seed):
    rng = np.random.default_rng(seed)
    source = cases.model(rng, 2, 3, 2)
    sae = av.SparseAutoencoder(rng.normal(size=(3, 1, 2)), rng.normal(size=(3, 1)), rng.normal(size=(2, 3)))
    return (lambda source, sae: av.sparse_loss(source, av.LinearLayer(np.eye(2)), sae)), (source, sae)


def _law(seed):
    rng = np.random.default_rng(seed)
    source, layer = cases.model(rng, 2, 3, 2), cases.ridge_layer(rng, "tanh")
    return (lambda source, layer, readout: av.pushforward(source, layer, readout)), (
        source,
        layer,
        rng.normal(size=(1, 3)),
    )


# name -> from a seed a function of arrays, and the arrays; and what of its result is looked at
FUNCTIONS: dict[str, tuple[Callable, Callable]] = {
    "linear loss": (_loss(None), lambda found: found.loss),
    "ridge loss": (_loss("softplus"), lambda found: found.loss),
    "loss, two statistics": (_loss(None, "softmax2"), lambda found: found.loss),
    "loss, Gaussian encoder": (_loss(None, "gaussian"), lambda found: found.loss),
    "carried loss": (_carried, lambda found: found.loss),
    "dense moments": (_dense, lambda found: jnp.sum(jnp.sin(found.psi)) + jnp.sum(jnp.sin(found.psi_covariance))),
    "sparse loss": (_sparse, lambda found: found.reconstruction),
    "moments of a law": (_law, lambda found: found.mean[0] + found.covariance[0, 0]),
}
SCALES = (0.0, 1e-15, 1e-12, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
STEP = 1e-3


def gradients(name: str, seeds, scales=SCALES, only: str | None = None) -> Iterator[Row]:
    """Of every array of a function's arguments at every scale: its derivative along a random direction.

    Beside the central difference of values of the function, Richardson's, of which the step is far larger. The noise of
    a target is left out: a loss has no limit there.
    """
    make, look = FUNCTIONS[name]
    function, parts = make(0)
    arrays, static = eqx.partition(parts, eqx.is_inexact_array)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(arrays)]

    def value(leaves, shift, index, direction):
        leaves = [leaf + shift * direction if i == index else leaf for i, leaf in enumerate(leaves)]
        found = function(*eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), leaves), static))
        return look(found), found.accuracy

    for index, array in enumerate(names):
        if array == "[2].noise" or (only is not None and array != only):
            continue
        along = jax.jit(jax.value_and_grad(lambda s, a, d, i=index: value(a, s, i, d), has_aux=True))
        for seed in seeds:
            given = jax.tree.leaves(eqx.filter(make(seed)[1], eqx.is_inexact_array))
            rng = np.random.default_rng(seed)
            direction = jnp.asarray(rng.normal(size=given[index].shape))
            for scale in scales:
                at = [leaf * scale if i == index else leaf for i, leaf in enumerate(given)]
                (_, accuracy), slope = along(0.0, at, direction)
                ends = [along(s * STEP, at, direction)[0] for s in (-2.0, -1.0, 1.0, 2.0)]
                f = [float(one[0]) for one in ends]
                exact = (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * STEP)
                size = max(1.0, abs(exact))
                accuracy = max(float(accuracy), *(float(one[1]) for one in ends)) / size
                yield Row(seed, f"{name}, {array}, {scale:g}", float(slope), exact, abs(slope - exact) / size, accuracy)


def quietly(function: Callable, *args):
    """A list of what a campaign yields, without its warnings: rows say what they would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", av.AccuracyWarning)
        rows = function(*args)
        return [rows] if isinstance(rows, Row) else list(rows)

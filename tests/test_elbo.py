"""The loss and its terms against enumeration and quadrature, over every encoder, activation and kind of noise.

The errors are relative to the size of what a term is made of (`sizes`): a term that is a cancelling sum cannot be
known better than its parts. Two neurons before the layer are the hard case for the engine: a pair of statistics and
the ridge are then three projections of two dimensions of noise.
"""

import itertools
import math
import re

import cases
import density
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import analytic_vae as av

COARSE = av.Resolution(16)
FINE = av.Resolution(192)  # 1e-9 for statistics of any slope that the cases draw; 128 is enough for most
FINE_TWO = av.Resolution(64)  # t = 2; 48 leaves up to 3e-5
SINGLE, SINGLE_TWO = av.Resolution(64), av.Resolution(32)  # float32, t = 1 and 2
RULE = reference.Rule(6, 14)  # differs from twice as many panels by less than 1e-13 on these cases

TERMS = ("R1", "R2", "R3", "S1", "S2", "T1", "T2", "T3", "U1", "U2", "U3", "loss")

elbo = eqx.filter_jit(av.elbo)  # compiled once per encoder class, activation, kind of noise and resolution


def sizes(terms: dict, target: av.FeatureModel) -> dict:
    """What the error of each term is relative to: the sum of the sizes of the parts that it is a sum of."""
    size = {name: abs(value) for name, value in terms.items()}
    noise = np.asarray(target.noise)
    scales = np.diagonal(noise) if noise.ndim == 2 else np.atleast_1d(noise)
    variance = float(np.exp(2 * np.mean(np.log(scales))))
    size["S2"] = size["T2"] = size["T3"] = terms["T1"] + terms["T3"]  # |f|^2, |B s|^2 and twice their inner product
    size["U2"] = size["U3"] = terms["U1"] + terms["U3"]  # a unit that is hardly ever on has a U3 of rounding size
    size["R2"] = target.neurons * (1 + abs(math.log(variance)))
    size["R3"] = (size["S1"] + size["S2"]) / (2 * variance)
    size["loss"] = size["R1"] + size["R2"] + size["R3"]
    return size


def oracle(parts, activation="relu") -> dict:
    """Every term by the oracle."""
    return reference.elbo_terms(*cases.oracle_parts(*parts, activation), RULE)


def errors(result: av.Elbo, terms: dict, target: av.FeatureModel) -> dict:
    """Relative error of every term."""
    size = sizes(terms, target)
    return {name: abs(float(getattr(result, name)) - terms[name]) / size[name] for name in TERMS}


def assert_close(parts, resolution, tolerance, activation="relu", terms=None):
    """Every term agrees with the oracle."""
    terms = terms or oracle(parts, activation)
    wrong = {k: e for k, e in errors(elbo(*parts, resolution), terms, parts[2]).items() if not e < tolerance}
    assert not wrong, wrong


# ------------------------------------------------------------------------------------------------ against the oracle


@pytest.mark.optimised
@pytest.mark.parametrize("seed", range(8))
def test_every_term_of_random_cases(seed):
    assert_close(cases.problem(seed), FINE, 1e-9)


# Every encoder of one statistic, activation and kind of noise at least once (the softmax after a ReLU is above):
# (encoder, activation, noise of the source, of the target).
KINDS = [
    ("softmax", "leaky_relu", "full", "scalar"),
    ("softmax", "softplus", "scalar", "diagonal"),
    ("softmax", "identity", "diagonal", "full"),
    ("gaussian", "sigmoid", "scalar", "full"),
    ("gaussian", "relu", "full", "diagonal"),
    ("exponential", "hard_tanh", "diagonal", "scalar"),
    ("neural", "gelu", "full", "full"),
    ("neural", "tanh", "diagonal", "diagonal"),
]


def test_every_kind_is_tested():
    named = [set(kind) for kind in zip(*KINDS, strict=True)]
    assert named == [set(cases.READ_ONE), set(cases.ACTIVATIONS), set(cases.NOISES), set(cases.NOISES)]


@pytest.mark.parametrize(("encoder", "activation", "source_noise", "target_noise"), KINDS)
def test_every_encoder_activation_and_kind_of_noise(encoder, activation, source_noise, target_noise):
    parts = cases.problem(100, encoder, activation, source_noise, target_noise)
    assert_close(parts, FINE, 1e-9, activation)


def test_a_linear_layer():
    assert_close(cases.problem(400, activation=None), FINE, 1e-9, None)


@pytest.mark.parametrize("bias", [-0.2, -9.0])
def test_a_source_of_one_input(bias):
    """All that is read is then a function of the ridge alone, to the last digit; and the unit may never fire."""
    rng = np.random.default_rng(0)
    source, target = cases.model(rng, 1, 3, 2), cases.model(rng, 3, 2, 2)
    layer = av.RidgeLayer([[0.5], [-0.25], [1.0]], [0.6, 1.0, -0.3], [1.0, 0, 0], bias)
    readout = [[[1.0, 0.0, 0.0]], [[0.0, 0.5, 1.0]]]
    encoder = av.SoftmaxEncoder(readout, rng.normal(size=(2, 1, 2)), rng.normal(size=(2, 2)))
    assert_close((source, layer, target, encoder), FINE, 1e-9)


@pytest.mark.optimised
@pytest.mark.parametrize("encoder", cases.READ_TWO)
def test_every_encoder_of_two_statistics(encoder):
    """The gradients' tests have another case of each, at 48 frequencies."""
    assert_close(cases.problem(500, encoder), FINE_TWO, 1e-6)


@pytest.mark.parametrize(
    ("seed", "encoder", "resolution"),
    [*((seed, "softmax", SINGLE) for seed in range(4)), (500, "softmax2", SINGLE_TWO)],
)
def test_float32(seed, encoder, resolution):
    """Single precision gives 1e-4, and everything stays in it although x64 is on."""
    parts = cases.cast(cases.problem(seed, encoder), jnp.float32)
    terms = oracle(cases.cast(parts, jnp.float64))
    result = elbo(*parts, resolution)
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype("float32")}
    assert_close(parts, resolution, 1e-4, terms=terms)


def test_float32_is_float32_throughout():
    """No double precision between the input and the loss or its gradient, although x64 is on; the gradient is right."""
    wide = cases.problem(0)
    parts = cases.cast(wide, jnp.float32)
    loss_and_grad = jax.value_and_grad(lambda parts: av.elbo(*parts, av.Resolution(16)).loss)
    program = jax.jit(loss_and_grad)
    assert "f32[" in (text := str(jax.make_jaxpr(loss_and_grad)(parts)))
    assert not re.findall(r"f64\[\d+", text)  # arrays; literal scalars take the dtype of what they meet
    slopes = [jax.tree.leaves(program(given)[1]) for given in (parts, wide)]
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in slopes[1])
    for single, double in zip(*slopes, strict=True):
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, double, atol=1e-4 * largest)


@pytest.mark.optimised
@pytest.mark.parametrize("seed", range(2))
def test_the_moments_behind_the_closed_forms(seed):
    """Aggregate posterior and second moments of latents and output: what the best prior, decoder and noise are of."""
    parts = cases.problem(seed)
    source, layer, target, readout, log_q = cases.oracle_parts(*parts)
    given = eqx.filter_jit(av.expectations)(*parts[:2], parts[2].prior.atoms, parts[3], FINE)
    mean, covariance = given.layer.output()
    exact = reference.second_moments(source, layer, target, readout, log_q, RULE)
    found = {
        "s": given.latent_mean,
        "v": given.latent_variance,
        "ss": given.latent_second,
        "f": mean,
        "fs": given.output_latent + jnp.outer(mean, given.latent_mean),
        "ff": covariance + jnp.outer(mean, mean),
    }
    for name, value in found.items():
        np.testing.assert_allclose(value, exact[name], atol=1e-8, err_msg=name)
    aggregate = reference.aggregate(source, layer, readout, log_q, RULE)
    np.testing.assert_allclose(given.aggregate, aggregate, atol=1e-8)


@pytest.mark.parametrize("seed", range(2))
def test_covariances_of_a_latent_that_hardly_varies(seed):
    """Relative to its own spread of about 1e-6, at the default resolution: the best decoder divides by its variance."""
    source, layer, target, encoder = cases.problem(seed)
    certain = encoder.base.at[0, 0].add(14.0)
    parts = source, layer, target, eqx.tree_at(lambda e: e.base, encoder, certain)
    given = eqx.filter_jit(av.expectations)(source, layer, target.prior.atoms, parts[3])
    model, ridge, _, readout, log_q = cases.oracle_parts(*parts)

    def pointwise(x):
        s = reference.encoded_moments(reference.encode(ridge, readout, log_q, x), cases.oracle_model(target))[0]
        s, f = s - np.asarray(given.latent_mean), ridge(x)  # else the oracle would lose the spread to rounding
        return {"s": s, "f": f, "ss": s[:, :, None] * s[:, None], "fs": f[:, :, None] * s[:, None], "ff": f**2}

    exact = reference.expectation(model, ridge, pointwise, RULE)
    latent = exact["ss"] - np.outer(exact["s"], exact["s"])
    output = exact["fs"] - np.outer(exact["f"], exact["s"])
    spread, output_spread = np.sqrt(np.diagonal(latent)), np.sqrt(exact["ff"] - exact["f"] ** 2)
    assert spread[0] < 1e-5 < spread[1:].min()
    pairs, with_output = np.outer(spread, spread), np.outer(output_spread, spread)
    np.testing.assert_allclose(np.asarray(given.latent_covariance) / pairs, latent / pairs, atol=1e-3)
    np.testing.assert_allclose(np.asarray(given.output_latent) / with_output, output / with_output, atol=1e-3)


@pytest.mark.optimised
def test_the_algebra_of_the_terms_and_the_loss_without_any():
    """Lemma 2.2 with the states of the target written out; the sums of Figure 2."""
    parts = cases.problem(1)
    result = elbo(*parts, FINE)
    direct = reference.elbo_direct(*cases.oracle_parts(*parts), RULE)
    assert float(result.loss) == pytest.approx(direct, rel=1e-9)
    np.testing.assert_allclose(result.S2, result.T1 + result.T2 + result.T3, rtol=1e-12)
    np.testing.assert_allclose(result.T1, result.U1 + result.U2 + result.U3, rtol=1e-12)
    np.testing.assert_allclose(result.R1, result.rates.sum(), rtol=1e-12)
    np.testing.assert_allclose(result.loss, result.rate + result.R2 + result.distortion, rtol=1e-12)


@pytest.mark.optimised
@pytest.mark.parametrize("seed", range(4))
def test_the_loss_bounds_the_evidence(seed):
    parts = cases.problem(seed)
    source, layer, target, *_ = cases.oracle_parts(*parts)
    evidence = density.log_evidence(source, layer, target, RULE)
    assert elbo(*parts, FINE).loss >= -evidence
    # The bound is far from tight for a random encoder; section 4 of the design has the case where it is.


def test_the_bound_is_tight_for_orthogonal_features_and_the_posterior():
    """Linear layer, orthogonal columns, isotropic noise: the prior tilted by the evidence is the exact posterior."""
    rng = np.random.default_rng(0)
    source = cases.model(rng, cases.N1, cases.M1, cases.K1)
    layer = av.LinearLayer(rng.normal(size=(cases.N2, cases.N1)), rng.normal(size=cases.N2))
    prior = av.Prior(rng.normal(size=(cases.M2, cases.K2)), rng.normal(size=(cases.M2, cases.K2)))
    decoder = np.linalg.qr(rng.normal(size=(cases.N2, cases.M2)))[0] * rng.uniform(0.5, 1.0, cases.M2)
    target = av.FeatureModel(prior, decoder, 0.6)
    kappa = (decoder**2).sum(axis=0) / 0.6**2
    base = prior.log_masses - kappa[:, None] * prior.atoms**2 / 2
    encoder = av.SoftmaxEncoder((decoder.T / 0.6**2)[:, None, :], prior.atoms[:, None, :], base)
    evidence = density.log_evidence(
        cases.oracle_model(source), cases.oracle_layer(layer), cases.oracle_model(target), RULE
    )
    assert float(elbo(source, layer, target, encoder, FINE).loss) == pytest.approx(-evidence, rel=1e-9)


# --------------------------------------------------------------------------------------------- what resolution does


def test_the_error_falls_at_every_doubling():
    """Of the default problem of a seed, the largest of all terms, from 12 frequencies to 192, and below 1e-9 there."""
    parts = cases.problem(3)
    terms = oracle(parts)
    error = [np.max([*errors(elbo(*parts, av.Resolution(n)), terms, parts[2]).values()]) for n in (12, 24, 48, 96, 192)]
    assert all(fine < coarse for coarse, fine in itertools.pairwise(error)) and error[-1] < 1e-9, error


def test_the_error_falls_fast():
    """Noise of 20 % of the spread: four times the frequencies gain more than a factor 1000 (median over seeds)."""
    error = {16: [], 64: []}
    for seed in range(9):
        source, *rest = cases.problem(seed)
        spread = np.sqrt(np.trace(source.moments()[1] - source.covariance) / cases.N1)
        source = eqx.tree_at(lambda model: model.noise, source, jnp.asarray(0.2 * spread))
        parts = (source, *rest)
        terms = oracle(parts)
        for frequencies, found in error.items():
            found.append(errors(elbo(*parts, av.Resolution(frequencies)), terms, parts[2])["loss"])
    assert np.median(error[16]) > 1000 * np.median(error[64]), error


@pytest.mark.optimised
@pytest.mark.parametrize("seed", range(4))
def test_rare_features_and_little_noise(seed):
    """Bernoulli(0.001) features, noise 1 % of the spread: within 2e-4 at 64, 5e-5 at 192, and better or below 1e-6."""
    rng = np.random.default_rng(seed)
    _, layer, target, encoder = cases.problem(seed)
    prior = av.Prior.bernoulli(np.full(cases.M1, 1e-3))
    decoder = rng.normal(size=(cases.N1, cases.M1))
    spread = np.sqrt((decoder**2).sum() * 1e-3 / cases.N1)
    parts = av.FeatureModel(prior, decoder, 0.01 * spread, rng.normal(size=cases.N1) / 2), layer, target, encoder
    terms = oracle(parts)
    coarse, fine = (
        np.max([*errors(elbo(*parts, resolution), terms, target).values()]) for resolution in (av.Resolution(64), FINE)
    )
    assert coarse < 2e-4 and fine < 5e-5 and fine < max(coarse, 1e-6), (coarse, fine)


def sampled_loss(parts, samples: int, activation: str = "relu") -> tuple[float, float]:
    """Mean and standard error of the loss over samples of x1 (no algebra on the terms)."""
    source, layer, target, readout, log_q = cases.oracle_parts(*parts, activation)
    variance = float(target.covariance)
    norms = (target.decoder**2).sum(axis=0)

    def pointwise(x):
        s, v, r = reference.encoded_moments(reference.encode(layer, readout, log_q, x), target)
        square = ((layer(x) - target.mean - s @ target.decoder.T) ** 2).sum(-1) + v @ norms
        return r.sum(-1) + square / (2 * variance) + target.mean.size / 2 * math.log(2 * math.pi * variance)

    return reference.monte_carlo(source, layer, pointwise, samples, seed=0)


@pytest.mark.parametrize(("m1", "k1"), [(2, 256), (128, 2)])
def test_many_atoms_and_many_features(m1, k1):
    """Sizes beyond enumeration, against samples."""
    _, layer, target, encoder = cases.problem(0, m2=2)
    rng = np.random.default_rng(m1)
    prior = av.Prior(rng.normal(size=(m1, k1)), rng.normal(size=(m1, k1)))
    source = av.FeatureModel(prior, rng.normal(size=(cases.N1, m1)) / np.sqrt(m1), 0.3)
    parts = source, layer, target, encoder
    mean, error = sampled_loss(parts, 200_000)
    assert abs(float(elbo(*parts, av.Resolution(32)).loss) - mean) < 4 * error


# --------------------------------------------------------------------------------------------------------- transforms


def test_a_loss_prints_as_numbers_and_many_as_arrays():
    value = elbo(*cases.problem(0), SINGLE)
    assert str(value).startswith(f"loss {float(value.loss):.6f} nats = rate {float(value.rate):.6f}")
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), value)
    assert str(both) == repr(both)


def test_vmap_equals_a_loop():
    resolution = av.Resolution(16)
    problems = [cases.problem(seed) for seed in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    together = jax.jit(jax.vmap(lambda parts: av.elbo(*parts, resolution)))(batch)
    for index, parts in enumerate(problems):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], together)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11), one, elbo(*parts, resolution)
        )


def test_no_retrace_on_the_second_call():
    traces = []

    @jax.jit
    def counted(parts):
        traces.append(None)
        return av.elbo(*parts, av.Resolution(8)).loss

    first, second = counted(cases.problem(0)), counted(cases.problem(1))
    assert len(traces) == 1 and first != second


def products(jaxpr):
    """The precision of every matrix product of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            yield from products(inner) if hasattr(inner, "eqns") else ()


def test_no_product_is_rounded_on_an_accelerator():
    """GPUs and TPUs multiply float32 in fewer bits unless told otherwise."""
    parts = cases.cast(cases.problem(0), jnp.float32)
    source = cases.cast(cases.model(np.random.default_rng(0), cases.N1, 3, 12), jnp.float32)  # 12 atoms: compressed
    highest = jax.lax.Precision.HIGHEST
    loss = lambda parts: av.elbo(*parts, av.Resolution(8)).loss  # noqa: E731
    for function in (jax.grad(loss), jax.grad(jax.jit(loss))):
        found = list(products(jax.make_jaxpr(function)((source, *parts[1:])).jaxpr))
        assert len(found) > 100 and set(found) == {(highest, highest)}


# ---------------------------------------------------------------------------------------------------------- bad input


def swapped(**changes):
    """The loss of a fitting problem with some arguments replaced."""
    names = ("source", "layer", "target", "encoder")
    arguments = dict(zip(names, cases.problem(0), strict=True)) | changes
    return lambda: av.elbo(**arguments)


RNG = np.random.default_rng(0)
SOFTMAX = cases.ENCODERS["softmax"][1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (swapped(source=cases.model(RNG, 4, 3, 2)), "source: expected 2 neurons"),
        (swapped(layer=av.LinearLayer(np.ones((4, 2)))), "target: expected 4 neurons"),
        (
            swapped(encoder=av.SoftmaxEncoder(np.ones((3, 1, 4)), np.ones((3, 1, 3)), np.ones((3, 3)))),
            "encoder: expected a readout of 3 neurons",
        ),
        (swapped(target=cases.model(RNG, 4, 3, 3)), "target: expected 3 neurons"),
        (swapped(target=cases.model(RNG, 3, 2, 3)), "target: expected 3 features"),
        (swapped(encoder=SOFTMAX(RNG, 2, 1)), "target: expected 2 features"),
        (swapped(encoder=SOFTMAX(RNG, 3, 3)), "encoder: expected 1 or 2 statistics"),
        (swapped(target=cases.model(RNG, 3, 3, 2)), "(encoder|target): expected .* atoms"),
        (
            swapped(target=av.FeatureModel(av.Prior(np.ones((3, 1)), np.ones((3, 1))), np.ones((3, 3, 1)), 0.1)),
            "target: expected .* atoms",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (swapped(source=0.1), "source: expected a FeatureModel"),
        (swapped(layer=jnp.tanh), "layer: expected a"),
        (swapped(target=av.Prior.bernoulli([0.5])), "target: expected a FeatureModel"),
        (swapped(encoder=None), "encoder: expected an encoder"),
        (swapped(resolution=64), "resolution: expected a Resolution"),
    ],
)
def test_bad_types_are_refused_by_name(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("value", [7, 9, 5000])
def test_a_resolution_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="frequencies: expected"):
        av.Resolution(value)
    with pytest.raises(TypeError, match="nodes: expected an integer"):
        av.Resolution(32, 32.0)


@pytest.mark.coarse
def test_one_atom_a_feature_is_a_gaussian_source():
    """The same numbers as with two equal atoms, from every function that has sums over all atoms but the first."""
    _, layer, target, encoder = cases.problem(0)
    dense = av.DenseLayer(np.eye(cases.N1), activation="relu")

    def numbers(K):
        prior = av.Prior(np.zeros((2, K)), np.zeros((2, K)))
        source = av.FeatureModel(prior, np.eye(cases.N1, 2), 0.5)
        loss, slope = jax.value_and_grad(
            lambda noise: elbo(eqx.tree_at(lambda s: s.noise, source, noise), layer, target, encoder, COARSE).loss
        )(source.noise)
        moments = av.dense_moments(source, dense, COARSE)
        law = av.pushforward(source, layer, [np.ones(cases.N2)], COARSE)
        return np.array([loss, slope, *moments.psi, *np.ravel(moments.psi_covariance), law.tail(0.3)])

    np.testing.assert_allclose(numbers(1), numbers(2), rtol=1e-11, atol=1e-13)

"""Learning a network, checkpoints and the command, at small sizes."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import analytic_vae as av
from analytic_vae.cli.commands import main
from analytic_vae.cli.digits import train_classifier
from analytic_vae.cli.report import compare, save_report
from analytic_vae.cli.tables import markdown
from analytic_vae.model.encoder import encode

pytestmark = pytest.mark.coarse

OPTIONS = dict(noise="full", steps=6, resolution=av.Resolution(16), check=False, samples=0)


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(0)
    source = av.FeatureModel(av.Prior.bernoulli([0.3, 0.4]), rng.normal(size=(3, 2)), 0.5)
    weights = [(rng.normal(size=(2, 3)), np.array([0.5, 1.0])), (rng.normal(size=(2, 2)), rng.normal(size=2))]
    return source, av.from_weights(weights, "relu", layers="ridge"), weights


@pytest.fixture(scope="module")
def trajectory(run):
    source, network, _ = run
    return av.learn(source, network, **OPTIONS)


def leaves(trajectory):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(trajectory.models)]


def test_one_fit_and_one_model_per_layer(run, trajectory):
    source, network, _ = run
    assert len(trajectory.fits) == len(trajectory.models) == len(network.layers)
    assert trajectory.models[-1].neurons == network.outputs
    exact = av.linear_pushforward(source, network.layers[0])
    np.testing.assert_array_equal(trajectory.models[0].mean, exact.mean)
    assert trajectory.fits[0].stop is av.Stop.EXACT
    assert "nothing to learn" in str(trajectory)


def test_a_stopped_run_ends_in_the_same_bits(run, trajectory, tmp_path):
    source, network, _ = run

    class Killed(BaseException):
        pass

    def kill_after_the_second_layer(line):
        if line.startswith("layer 1 (") and "nats" in line:
            raise Killed

    with pytest.raises(Killed):
        av.learn(source, network, folder=tmp_path / "run", log=kill_after_the_second_layer, **OPTIONS)
    assert (tmp_path / "run" / "layer_001.npz").exists()
    assert not (tmp_path / "run" / "layer_002.npz").exists()
    again = av.learn(source, network, folder=tmp_path / "run", **OPTIONS)
    for one, other in zip(leaves(again), leaves(trajectory), strict=True):
        np.testing.assert_array_equal(one, other)
    # A finished run is only read; another network, source or option is refused.
    lines = []
    av.learn(source, network, folder=tmp_path / "run", log=lines.append, **OPTIONS)
    assert all("read from the run folder" in line for line in lines)
    with pytest.raises(ValueError, match="folder"):
        av.learn(source.shift(np.ones(3)), network, folder=tmp_path / "run", **OPTIONS)


def network_of(slope):
    return av.Network([av.LinearLayer([[slope]])])


LINEAR = av.FeatureModel(av.Prior.bernoulli([0.3]), [[1.0]], 0.5), network_of(2.0)


def test_a_run_of_others_says_what_differs(tmp_path):
    """Nothing here is to be compiled: the one layer is linear."""
    source, network = LINEAR
    av.learn(source, network, folder=tmp_path, steps=6, key=jax.random.key(0))

    def refused(said, source=source, network=network, **options):
        with pytest.raises(
            ValueError, match=rf"folder: .* belongs to another run: it differs in {said}; choose another folder"
        ):
            av.learn(source, network, folder=tmp_path, **({"steps": 6, "key": jax.random.key(0)} | options))

    refused("source", source=source.shift([1.0]))
    refused("network", network=network_of(3.0))
    refused(r"steps \(6 there, 7 here\)", steps=7)
    refused(r"noise \('full' there, 'scalar' here\)", noise="scalar")
    refused(r"resolution \(Resolution\(\) there, Resolution\(frequencies=16\) here\)", resolution=av.Resolution(16))
    refused("key", key=jax.random.key(1))
    refused(r"network, steps \(6 there, 7 here\), key", network=network_of(3.0), steps=7, key=jax.random.key(1))
    manifest = json.loads((tmp_path / "run.json").read_text())
    del manifest["parts"]
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    av.learn(source, network, folder=tmp_path, steps=6, key=jax.random.key(0))  # still read
    refused("source, network or options", steps=7)


def test_a_run_of_an_analytic_vae_that_recorded_no_code_is_refused(tmp_path):
    av.learn(*LINEAR, folder=tmp_path)
    manifest = json.loads((tmp_path / "run.json").read_text())
    old = {name: manifest[name] for name in ("fingerprint", "layers", "versions")}
    del old["versions"]["code"], old["versions"]["jaxlib"]
    (tmp_path / "run.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match=r"was begun with .*: it would not end in the same numbers"):
        av.learn(*LINEAR, folder=tmp_path)


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_notices_changed_code_under_an_unchanged_version(tmp_path, finished):
    """By a copy of the package: one file is changed, and so nothing is continued, or read as if it were new."""
    package, folder = tmp_path / "analytic_vae", tmp_path / "run"
    shutil.copytree(Path(av.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys, analytic_vae as av; av.learn(av.FeatureModel(av.Prior.bernoulli([0.3]), [[1.0]], 0.5), "
        "av.Network([av.LinearLayer([[2.0]])]), folder=sys.argv[1], log=print); print(av.__file__)"
    )

    def learn():
        command, environment = [sys.executable, "-c", code, str(folder)], os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    done = learn()
    assert done.returncode == 0 and str(package) in done.stdout, done.stderr
    if not finished:
        (folder / "output.npz").unlink()
        (folder / "layer_000.npz").unlink()
    file = package / "model" / "layer.py"
    whole = file.read_text()
    file.write_text(whole.replace("self.inputs, ", "self.inputs , "))  # the same numbers: but who could tell?
    assert whole != file.read_text()
    done = learn()
    assert done.returncode != 0
    assert "was begun with other code of analytic_vae: it would not end in the same numbers" in done.stderr
    file.write_bytes(whole.replace("\n", "\r\n").encode())  # as Git on Windows may have it
    done = learn()
    assert done.returncode == 0 and finished == ("read from the run folder" in done.stdout), done.stderr


def test_fits_and_models_survive_their_files(trajectory, tmp_path):
    for index, fit in enumerate(trajectory.fits):
        path = tmp_path / f"{index}.npz"
        av.save_fit(path, fit)
        loaded = av.load_fit(path)
        chex.assert_trees_all_equal(fit.target, loaded.target, strict=True)
        assert (loaded.stop, loaded.loss, loaded.seconds) == (fit.stop, fit.loss, fit.seconds)
        assert jax.tree.structure(loaded.encoder) == jax.tree.structure(fit.encoder)
        np.testing.assert_array_equal(loaded.terms, fit.terms)
        assert loaded.terms.shape == (fit.history.size, 3)
    with np.load(path) as file:
        arrays = dict(file)
    del arrays["terms"]
    np.savez(path, **arrays)
    assert av.load_fit(path).terms.shape == (0, 3)  # files of before there were any
    np.savez(path, **arrays, terms=np.ones((fit.history.size + 1, 3)))
    with pytest.raises(ValueError, match="terms: expected three for each"):
        av.load_fit(path)
    av.save_model(tmp_path / "model.npz", trajectory.models[1])
    np.testing.assert_array_equal(av.load_model(tmp_path / "model.npz").decoder, trajectory.models[1].decoder)
    np.testing.assert_array_equal(av.load_source(tmp_path / "model.npz").mean, trajectory.models[1].mean)


def test_neural_encoders_survive_their_files(trajectory, tmp_path):
    encoder = av.NeuralEncoder.init(np.ones((2, 1, 2)), 2, key=jax.random.key(0))
    fit = dataclasses.replace(trajectory.fits[1], encoder=encoder)
    av.save_fit(tmp_path / "fit.npz", fit)
    loaded = av.load_fit(tmp_path / "fit.npz").encoder
    y, atoms = np.ones((2, 5, 1)), np.zeros((2, 2))
    np.testing.assert_array_equal(encode(loaded, y, atoms), encode(encoder, y, atoms))


@pytest.mark.parametrize(
    "encoder",
    [
        av.SoftmaxEncoder(np.ones((2, 1, 3)), np.ones((2, 1, 2)), np.ones((2, 2))),
        av.GaussianEncoder(np.ones((2, 2, 3)), np.ones(2), np.ones(2)),
        av.ExponentialEncoder(np.ones((2, 1, 3)), np.ones(2)),
        av.NeuralEncoder.init(np.ones((2, 1, 3)), 4, width=3, depth=2, key=jax.random.key(0)),
        av.CarriedEncoder(5),
        av.CarriedEncoder(5, av.ExponentialEncoder(np.ones((2, 1, 3)), np.ones(2))),
        av.SparseAutoencoder(np.ones((2, 1, 3)), np.ones((2, 1)), np.ones((3, 2))),
        av.SparseAutoencoder(np.ones((2, 1, 3)), np.ones((2, 1)), np.ones((3, 2)), np.ones(3), "jumprelu", np.ones(2)),
    ],
    ids=lambda encoder: type(encoder).__name__,
)
def test_encoders_survive_their_files(encoder, tmp_path):
    path = tmp_path / "encoder.npz"
    av.save_encoder(path, encoder)
    loaded = av.load_encoder(path)
    assert type(loaded) is type(encoder) and jax.tree.structure(loaded) == jax.tree.structure(encoder)
    chex.assert_trees_all_equal(loaded, encoder, strict=True)
    with pytest.raises(TypeError, match=f"model: expected a FeatureModel, got {type(encoder).__name__}; save_encoder"):
        av.save_model(path, encoder)
    with pytest.raises(ValueError, match="path: expected a FeatureModel of analytic_vae, got Encoder"):
        av.load_model(path)


def test_what_is_no_encoder_is_refused(trajectory, tmp_path):
    for one in (trajectory.fits[0], trajectory.source, None):
        with pytest.raises(TypeError, match="encoder: expected an encoder or a SparseAutoencoder"):
            av.save_encoder(tmp_path / "encoder.npz", one)
    with pytest.raises(TypeError, match="model: expected a FeatureModel, got Fit; save_fit"):
        av.save_model(tmp_path / "model.npz", trajectory.fits[0])
    with pytest.raises(ValueError, match="which files cannot hold"):
        av.save_encoder(tmp_path / "own.npz", OwnEncoder(np.ones((2, 1, 3)), np.ones((2, 1, 2)), np.ones((2, 2))))
    assert not list(tmp_path.iterdir())


class OwnEncoder(av.SoftmaxEncoder):
    """A user's class, which no file can rebuild."""


def relu_networks(key):
    return eqx.nn.MLP(1, 2, 8, 1, jax.nn.relu, key=key)


@pytest.mark.parametrize(
    "encoder",
    [
        OwnEncoder(np.ones((2, 1, 3)), np.ones((2, 1, 2)), np.ones((2, 2))),
        av.NeuralEncoder(np.ones((2, 1, 3)), eqx.filter_vmap(relu_networks)(jax.random.split(jax.random.key(0), 2))),
        av.NeuralEncoder(
            np.ones((2, 1, 3)),
            eqx.filter_vmap(lambda key: eqx.nn.MLP(1, 2, 8, 1, use_bias=False, key=key))(
                jax.random.split(jax.random.key(0), 2)
            ),
        ),
    ],
)
def test_encoders_that_no_file_can_hold_are_refused_before_they_are_learnt(trajectory, encoder, tmp_path):
    with pytest.raises(ValueError, match="encoder: expected"):
        av.learn(trajectory.source, trajectory.network, folder=tmp_path / "run", encoder=encoder)
    assert not (tmp_path / "run").exists()


def test_bad_checkpoints(trajectory, tmp_path):
    path = tmp_path / "fit.npz"
    av.save_fit(path, trajectory.fits[1])
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="path"):
            av.load_fit(path)
    with pytest.raises(FileNotFoundError):
        av.load_fit(tmp_path / "none.npz")
    np.savez(path, a=np.ones(2))
    with pytest.raises(ValueError, match="header"):
        av.load_fit(path)
    av.save_model(path, trajectory.models[1])
    with pytest.raises(ValueError, match="expected a Fit"):
        av.load_fit(path)


def test_report_compares_with_samples(trajectory, tmp_path):
    report = compare(trajectory, samples=20_000, data=np.zeros((5, 3)), key=jax.random.key(0))
    assert report["layers"][0]["mean_error_se"] < 4
    assert abs(sum(report["classes"]["model"]) - 1) < 1e-12
    files = save_report(tmp_path, report)
    assert [file.name for file in files] == ["report.json", "report.md", "report.html", "report.png"]
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert "## Outputs" in markdown(report)


@pytest.mark.parametrize(("layers", "last"), (("dense", "layer_001"), ("ridge", "layer_003")))
def test_the_command_on_a_users_files(run, tmp_path, capsys, layers, last):
    source, _, weights = run
    av.save_model(tmp_path / "source.npz", source)
    np.savez(
        tmp_path / "net.npz",
        **{f"{n}{i}": a for i, pair in enumerate(weights) for n, a in zip("Wb", pair, strict=True)},
    )
    folder = tmp_path / "run"
    arguments = ["learn", "--network", str(tmp_path / "net.npz"), "--source", str(tmp_path / "source.npz")]
    arguments += ["--folder", str(folder), "--steps", "3", "--frequencies", "16", "--samples", "2000"]
    arguments += ["--layers", layers]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "spreads off (se)" in said
    assert main(["show", str(folder)]) == 0
    assert capsys.readouterr().out == said
    (folder / "report.json").unlink()
    assert main(["show", str(folder)]) == 0
    assert last in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["show", "nowhere"], "folder"),
        (["learn", "--network", "nowhere.npz"], "nowhere.npz"),
        (["learn", "--source", "nowhere.npz"], "--network"),
        (["learn", "--source", "nowhere.npz", "--network", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("hidden", (3, (3, 5), (3, 4, 5)))
def test_the_digits_network_has_as_many_hidden_layers_as_one_says(hidden):
    images = np.random.default_rng(0).random((20, 6))
    weights, accuracy = train_classifier(images, np.arange(20) % 4, hidden=hidden, steps=3)
    widths = [6, *np.atleast_1d(hidden), 4]
    assert [weight.shape for weight, _ in weights] == [(after, before) for before, after in pairwise(widths)]
    assert 0 <= accuracy <= 1


def test_the_command_says_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("analytic_vae ")


def test_the_command_on_names_that_say_no_order(run, tmp_path, capsys):
    source, _, weights = run
    av.save_model(tmp_path / "source.npz", source)
    np.savez(tmp_path / "net.npz", **{f"blocks.0.fc{i}.weight": weight for i, (weight, _) in enumerate(weights)})
    arguments = ["learn", "--network", str(tmp_path / "net.npz"), "--source", str(tmp_path / "source.npz")]
    arguments += ["--folder", str(tmp_path / "run"), "--frequencies", "16", "--samples", "2000"]
    assert main(arguments) == 2
    assert "--order" in capsys.readouterr().err
    assert main([*arguments, "--order", "blocks.0.fc0", "blocks.0.fc1"]) == 0
    said = capsys.readouterr()
    assert "against 2000 samples, +- their standard error, in spreads: means off by up to" in said.err
    assert "moments of 2 units" in said.err
    assert main(["learn", "--order", "blocks.0.fc0"]) == 2
    assert "--network" in capsys.readouterr().err


def test_help_needs_no_work():
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "analytic_vae", "learn", "--help"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0
    assert "--network" in done.stdout


def test_fingerprints_tell_runs_apart(run):
    import optax

    from analytic_vae.fitting.options import FitOptions
    from analytic_vae.io.fingerprint import _fingerprint

    source, network, weights = run
    clipped = [av.from_weights(weights, av.Activation(lambda b, c=c: b.clip(-c, c), (-c, c))) for c in (1.0, 2.0)]
    different = [
        _fingerprint(source, net, vars(FitOptions.of(options)))
        for net, options in [
            (network, {}),
            (network, {"steps": 5}),
            (network, {"starts": 5}),
            (network, {"optimizer": optax.adam(0.01)}),
            (network, {"optimizer": optax.adam(0.5)}),
            (network, {"optimizer": optax.sgd(0.01)}),
            (network, {"floor": 1e-3}),
            (network, {"tolerance": 1e-3}),
            (clipped[0], {}),
            (clipped[1], {}),
        ]
    ]
    assert len(set(different)) == len(different)
    assert _fingerprint(source, network, vars(FitOptions.of({"steps": 500}))) == different[0]


def _scaled(s):
    def default(b, s=s):
        return s * b

    class Callable:
        def __init__(self):
            self.s = s

        def __call__(self, b):
            return self.s * b

    return default, Callable(), jax.jit(lambda b: s * b), functools.partial(jax.nn.leaky_relu, negative_slope=s)


@pytest.mark.parametrize(
    ("one", "other"),
    [*zip(_scaled(2.0), _scaled(3.0), strict=True), (lambda b: jnp.sin(b), lambda b: jnp.cos(b))],
    ids=["default", "attribute", "jit", "partial", "name"],
)
def test_fingerprints_tell_activations_apart(run, one, other):
    from analytic_vae.fitting.options import FitOptions
    from analytic_vae.io.fingerprint import _fingerprint

    source, _, weights = run
    nets = [av.from_weights(weights, av.Activation(function, (), name="mine")) for function in (one, other, one)]
    first, second, again = (_fingerprint(source, net, vars(FitOptions.of({}))) for net in nets)
    assert first == again != second


def test_wrong_options_claim_no_folder(run, tmp_path):
    source, network, _ = run
    for options, kind in (({"foo": 1}, TypeError), ({"steps": -1}, ValueError), ({"resolution": 24}, TypeError)):
        with pytest.raises(kind, match=next(iter(options))):
            av.learn(source, network, folder=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("option", "value"), [("--samples", "1"), ("--hidden", "0"), ("--frequencies", "7")])
def test_the_command_refuses_options_before_it_starts(option, value, tmp_path, capsys):
    assert main(["learn", option, value, "--folder", str(tmp_path / "run")]) == 2
    assert option.strip("-") in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_law_of_a_logit(run, trajectory):
    """Of the last layer fed by the model before it; of the first one it is exact; wrong layers are named."""
    source, network, _ = run
    for layer, model in ((-1, trajectory.models[-2]), (0, source), (1, trajectory.models[0])):
        readout = np.eye(network.layers[layer].outputs)[:1]
        law = trajectory.law(readout, layer, av.Resolution(16))
        same = av.pushforward(model, network.layers[layer], readout, av.Resolution(16))
        assert float(law.mean[0]) == float(same.mean[0]) and float(law.tail(0.0)) == float(same.tail(0.0))
    for layer in (len(network.layers), -len(network.layers) - 1, True, 1.0):
        with pytest.raises(ValueError, match="layer: expected a number from"):
            trajectory.law(readout, layer)

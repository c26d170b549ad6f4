"""Broken and hostile files, killed runs, full disks, two processes on one folder."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import killed
import mutations
import numpy as np
import optax
import pytest

import analytic_vae as av

OPTIONS = dict(steps=2, resolution=av.Resolution(8), check=False)


LINEAR = av.LinearLayer([[1.0, 0.3], [-0.2, 0.8]])


def two_features():
    return av.FeatureModel(av.Prior.bernoulli([0.3, 0.3]), [[1.0, 0.5], [0.0, 1.0]], 0.2)


@pytest.mark.coarse
@pytest.mark.parametrize("poison", [np.nan, 1e200])
def test_a_poisoned_step_of_an_optax_optimiser_is_taken_back(poison):
    """Its third step is not finite, or so long that the loss is not."""

    def update(updates, count, params=None):
        return jax.tree.map(lambda u: jnp.where(count == 2, poison, u), updates), count + 1

    poisoned = optax.chain(optax.adam(0.02), optax.GradientTransformation(lambda _: jnp.zeros((), int), update))
    options = OPTIONS | {"steps": 20, "noise": "scalar", "tolerance": 0.0}
    result = av.fit(two_features(), LINEAR, optimizer=poisoned, **options)
    assert 1 <= result.rejected < 20 and f"({result.rejected} taken back)" in str(result)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((result.target, result.encoder)))
    assert result.loss <= result.history[0] + 1e-9 and np.isfinite(result.history).all()


@pytest.mark.coarse
def test_a_poisoned_value_in_a_line_search_is_stepped_back_from(monkeypatch):
    from analytic_vae.fitting import lbfgs

    exact, calls = lbfgs.profiled_value_and_grad, []

    def poisoned(*arguments):
        calls.append(None)
        (loss, found), gradient = exact(*arguments)
        return ((loss * np.nan, found), gradient) if len(calls) in (4, 5) else ((loss, found), gradient)

    options = OPTIONS | {"steps": 20, "noise": "scalar"}
    whole = av.fit(two_features(), LINEAR, **options)
    monkeypatch.setattr(lbfgs, "profiled_value_and_grad", poisoned)
    result = av.fit(two_features(), LINEAR, **options)
    assert result.rejected == 2 and result.loss < whole.loss + 0.01


@pytest.mark.coarse
def test_a_loss_not_to_be_believed_is_stepped_back_from(monkeypatch):
    """A law that has left its box says so by its moment error, however low the loss that it gives."""
    from analytic_vae.fitting import lbfgs

    exact, calls = lbfgs.profiled_value_and_grad, []

    def poisoned(*arguments):
        calls.append(None)
        (loss, (encoder, elbo, target)), gradient = exact(*arguments)
        if len(calls) not in (4, 5):
            return (loss, (encoder, elbo, target)), gradient
        wrong = eqx.tree_at(lambda one: one.moment_error, elbo, jnp.full((), 0.5))
        return (loss - 100, (encoder, wrong, target)), gradient

    options = OPTIONS | {"steps": 20, "noise": "scalar"}
    monkeypatch.setattr(lbfgs, "profiled_value_and_grad", poisoned)
    result = av.fit(two_features(), LINEAR, **options)
    assert result.rejected == 2 and result.loss > 0 and result.elbo.moment_error < 0.1


def test_an_optax_step_out_of_the_boxes_is_taken_back():
    from analytic_vae.fitting.optax_loop import Terms, Walk

    one, optimizer = jnp.ones(()), optax.sgd(0.1)
    terms = Terms(*[one] * len(Terms._fields))
    walk = Walk(one, optimizer.init(one), one, terms, one, jnp.zeros((), int), one * jnp.inf)
    good = walk.after(terms, one, 1e-3 * one, optimizer, lambda p: p)
    wrong = good.after(terms._replace(loss=one - 100), one, 0.5 * one, optimizer, lambda p: p)
    assert (good.rejected, wrong.rejected) == (0, 1)
    assert wrong.trial == good.safe == walk.trial and wrong.scale == 0.5 and wrong.terms == good.terms


@pytest.fixture
def parts():
    source, network = killed.parts()
    return source, av.Network(network.layers[:1])  # linear: nothing to compile


def test_mutated_files_load_or_say_why(tmp_path):
    """700 files here; benchmarks/mutated_files.py reads as many as one likes."""
    results = mutations.attack(tmp_path, 700)
    assert {kind for _, kind, _ in results} == set(mutations.KINDS)
    assert {outcome for *_, outcome in results} == {"loaded", "refused"}


def test_a_bomb_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, W0=np.zeros((2**13, 2**11)))
    with pytest.raises(ValueError, match="at most 200 times the size of the file"):
        av.load_network(path)


def test_the_trap_of_the_fuzz_works(tmp_path):
    import pickle

    pickle.loads(pickle.dumps(mutations.Marker(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_a_killed_run_ends_in_the_same_bits(tmp_path):
    """Two random moments here; benchmarks/killed_runs.py takes 60."""
    assert killed.attack(tmp_path, 2)["kills"] == 2


def test_a_second_process_is_told_to_wait(parts, tmp_path):
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); f.write('77'); f.flush(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    lock = tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match="folder: process 77 works in"):
            av.learn(*parts, folder=lock.parent, **OPTIONS, samples=0)
        other.stdin.close()
    av.learn(*parts, folder=lock.parent, **OPTIONS, samples=0)  # once it has ended


def test_a_full_disk_loses_nothing(parts, tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    av.save_model(path, parts[0])
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"path: cannot write .*model\.npz \(No space left"):
            av.save_model(path, parts[0].shift(np.ones(3)))
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["model.npz"]


def test_a_file_that_may_not_grow_is_said_at_once(tmp_path):
    """The system's own refusal: a limit of 100 bytes a file."""
    code = (
        "import resource, sys, analytic_vae as av; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
        "av.save_model(sys.argv[1], av.FeatureModel(av.Prior.bernoulli([0.5]), [[1.0]], 1.0))"
    )
    path = tmp_path / "model.npz"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "path: cannot write" in done.stderr and "File too large" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_learnt(parts):
    if not Path("/proc/self").exists():
        pytest.skip("needs a folder that not even root can write to")
    lines = []
    with pytest.raises(OSError, match="folder: cannot write to /proc/run"):
        av.learn(*parts, folder="/proc/run", log=lines.append, **OPTIONS, samples=0)
    assert not lines


def test_files_of_a_newer_version_are_named_as_such(parts, tmp_path):
    path = tmp_path / "model.npz"
    av.save_model(path, parts[0])
    with np.load(path) as arrays:
        held = dict(arrays)
    header = json.loads(held["header.json"].tobytes()) | {"version": 2}
    np.savez(path, **held | {"header.json": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    with pytest.raises(ValueError, match="has version 2, this package reads 1; update analytic_vae"):
        av.load_model(path)


def test_a_run_of_other_versions_is_not_continued(parts, tmp_path):
    av.learn(*parts, folder=tmp_path, **OPTIONS, samples=0)
    whole, manifest = (json.loads((tmp_path / "run.json").read_text()) for _ in range(2))
    manifest["versions"]["jax"] = "0.1"
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=rf"was begun with jax 0\.1 \(here {jax.__version__}\): it would not end"):
        av.learn(*parts, folder=tmp_path, **OPTIONS, samples=0)
    broken = (
        {"versions": []},
        {"fingerprint": "", "parts": 3},
        {"fingerprint": "", "parts": {"options": {"steps": 2}}},
    )
    for text in ("", "[]", "{}", "[" * 10_000, "\x00", *(json.dumps(whole | one) for one in broken)):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ValueError, match="is damaged"):
            av.learn(*parts, folder=tmp_path, **OPTIONS, samples=0)


def test_half_written_files_of_a_killed_process_are_swept_away(parts, tmp_path):
    (tmp_path / ".layer_000.npz.x8fj2").write_bytes(b"half")
    av.learn(*parts, folder=tmp_path, **OPTIONS, samples=0)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "layer_000.npz", "output.npz", "run.json"]

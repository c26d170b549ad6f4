"""What `test_sharding.py` runs in processes of their own: they need a number of devices set before JAX starts.

`python sharded.py devices` on eight virtual devices, `coordinates` on two; `python sharded.py process PORT RANK` is one
of two processes.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (1, 2)]

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

jax.config.update("jax_enable_x64", True)

import analytic_vae as av  # noqa: E402
from analytic_vae.cli.commands import main  # noqa: E402
from analytic_vae.fitting.lbfgs import coordinates as compiled_coordinates  # noqa: E402
from analytic_vae.fitting.options import FitOptions  # noqa: E402
from analytic_vae.fitting.problem import FitProblem  # noqa: E402

RESOLUTION = av.Resolution(8)


def parts(activation):
    """Seven features on two neurons: they do not divide among eight devices, nor do their pairs among two."""
    import cases

    source, layer, *_ = cases.problem(0, activation=activation)
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(7, 2))
    target = av.FeatureModel(av.Prior(atoms, 0 * atoms), rng.normal(size=(cases.N2, 7)), 0.7)
    readout = rng.normal(size=(7, 1, cases.N2))
    return source, layer, target, av.SoftmaxEncoder(readout, rng.normal(size=(7, 1, 2)), rng.normal(size=(7, 2)))


def value_and_grad(mesh):
    @eqx.filter_jit
    def run(given):
        return eqx.filter_value_and_grad(lambda p: av.elbo(*p, RESOLUTION, mesh=mesh).loss)(given)

    return run


def difference(a, b) -> float:
    """The largest, relative to the largest entry."""
    leaves = [(np.asarray(x), np.asarray(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    apart = [np.max(np.abs(x - y)) for x, y in leaves]  # `max` would pass over a NaN, NumPy's does not
    return float(np.max(apart) / np.max([np.max(np.abs(x)) for x, _ in leaves]))


def command(folder):
    """The command on two devices and on one: the same losses."""
    source, *_ = parts(None)
    av.save_model(f"{folder}/source.npz", source)
    np.savez(f"{folder}/network.npz", W0=np.ones((1, source.neurons)), W1=np.ones((2, 1)))
    losses = []
    for count in "12":
        where = f"{folder}/run{count}"
        given = {"--network": f"{folder}/network.npz", "--source": f"{folder}/source.npz", "--folder": where}
        given |= {"--devices": count, "--steps": "2", "--frequencies": "8", "--samples": "1000"}
        assert main(["learn", *(word for pair in given.items() for word in pair)]) == 0
        losses += [[av.load_fit(path).loss for path in sorted(Path(where).glob("layer_*.npz"))]]
    print("command", losses)
    assert any(loss is not None for loss in losses[0])
    for one, two in zip(*losses, strict=True):
        assert one == two or abs(one / two - 1) < 1e-9


def devices():
    """On eight devices and on one: value and gradient of a linear layer, the value of a ridge layer, fits.

    Two shapes of mesh; of the second only the first axis is used.
    """
    linear, ridge = parts(None), parts("relu")
    alone, together = value_and_grad(None)(linear), value_and_grad(jax.make_mesh((8,), ("pairs",)))(linear)
    print("difference", difference(alone, together))
    assert difference(alone, together) < 1e-12
    other = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("i", "j"))
    traced = jax.jit(lambda p: av.elbo(*p, RESOLUTION, mesh=other).loss).trace(ridge)
    assert "shard_map" in str(traced.jaxpr)
    assert abs(traced.lower().compile()(ridge) / av.elbo(*ridge, RESOLUTION).loss - 1) < 1e-12
    with tempfile.TemporaryDirectory() as folder:
        command(folder)


def coordinates():
    """Those of L-BFGS, computed by both devices of two cores at once, end: a batch of eigenvalues would not."""
    rng = np.random.default_rng(0)
    source = av.FeatureModel(av.Prior.bernoulli(np.full(4, 0.3)), rng.normal(size=(8, 4)), 0.5)
    layer = av.RidgeLayer(np.eye(8), rng.normal(size=8), rng.normal(size=8) / 3)
    atoms = rng.normal(size=(16, 12))
    encoder = av.SoftmaxEncoder(rng.normal(size=(16, 1, 8)), atoms[:, None], -(atoms**2))
    mesh = jax.make_mesh((2,), ("pairs",))
    source, layer, atoms, encoder = av.replicate((source, layer, jnp.asarray(atoms), encoder), mesh)
    problem = FitProblem.of(source, layer, FitOptions(vectors=False), mesh).with_atoms(atoms)
    for _ in range(10):
        assert np.isfinite(compiled_coordinates(problem, encoder).block_until_ready()).all()


def process(port: str, rank: str):
    """One of two processes with a device each: what both learn together is what each learns alone."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(rank))
    assert jax.process_count() == 2 and len(jax.devices()) == 2 and len(jax.local_devices()) == 1
    mesh = jax.make_mesh((2,), ("pairs",))
    options = {"noise": "scalar", "steps": 3, "resolution": RESOLUTION, "check": False}
    source, linear = parts(None)[0], av.LinearLayer(np.eye(2))
    shared = av.fit(av.replicate(source, mesh), linear, mesh=mesh, **options).history
    print("fit", repr(shared.tolist()))
    assert shared[-1] < shared[0]
    if rank == "0":  # both have the same numbers, as they print; one compares
        alone = av.fit(source, linear, **options).history
        print("difference", np.max(np.abs(alone / shared - 1)))
        assert np.max(np.abs(alone / shared - 1)) < 1e-9


if __name__ == "__main__":
    {"devices": devices, "coordinates": coordinates, "process": process}[sys.argv[1]](*sys.argv[2:])
    jnp.zeros(()).block_until_ready()
    print("passed")

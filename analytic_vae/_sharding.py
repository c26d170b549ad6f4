"""Many independent items, one device or spread over a mesh of devices and processes."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ._check import require_instance


def sharded_map(
    function: Callable,
    everywhere,
    items: tuple,
    mesh: Mesh | None = None,
    batch: int = 1,
    prepare: Callable = lambda everywhere: everywhere,
):
    """`function(prepare(everywhere), *item)` for items stacked on leading axes, results stacked; `batch` at a time.

    What is inside of `function` is computed anew for the gradient, unless all items are taken at once.
    With a mesh each device takes an equal run of the items (the last is repeated if they do not divide), and the
    results are gathered on all of them. `function` must not close over traced arrays: they belong into `everywhere`,
    whose derivatives the devices add up. Every device calls `prepare` itself: large tables are not sent around.
    """
    count = len(jax.tree.leaves(items)[0])
    batch = min(batch, count)

    def padded(leaf, size):
        return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], size - count, axis=0)]) if size > count else leaf

    def run(everywhere, share):
        return batched_map(partial(function, prepare(everywhere)), share, batch)

    if mesh is None:
        size = -(-count // batch) * batch
        results = run(everywhere, jax.tree.map(lambda leaf: padded(leaf, size), items))
        return jax.tree.map(lambda leaf: leaf[:count], results) if size > count else results
    mesh = _automatic(mesh)
    axis = mesh.axis_names[0]
    share = -(-count // mesh.shape[axis])
    batch = min(batch, share)
    size = -(-share // batch) * batch * mesh.shape[axis]
    # Between processes a message takes milliseconds, whatever its size: all that is sent at a time is one array.
    replicated = partial(jax.lax.with_sharding_constraint, shardings=NamedSharding(mesh, PartitionSpec()))
    (everywhere, unpack), (items, unpack_items) = _pack(everywhere, 0), _pack(items, 1)
    items = jax.tree.map(lambda leaf: replicated(padded(leaf, size)), items)
    specs = PartitionSpec(), PartitionSpec(axis)
    divided = jax.shard_map(
        lambda everywhere, items: run(unpack(everywhere), unpack_items(items)),
        mesh=mesh,
        in_specs=specs,
        out_specs=PartitionSpec(axis),
        check_vma=False,
    )
    results, unpack_results = _pack(divided(everywhere, items), 1)
    return unpack_results(jax.tree.map(lambda leaf: replicated(leaf)[:count], results))


def batched_map(function: Callable, items: tuple, batch: int):
    """`function(*item)` for items stacked on leading axes, results stacked; `batch` at a time.

    What is inside is computed anew for the gradient, unless all items are taken at once.
    """
    count = len(jax.tree.leaves(items)[0])
    if count == 1:
        return jax.tree.map(lambda leaf: leaf[None], function(*jax.tree.map(lambda leaf: leaf[0], items)))
    if count <= batch:
        return jax.vmap(function)(*items)
    # One by one without `vmap`, which would turn slices into gathers.
    anew = jax.checkpoint(function)
    return jax.lax.map(lambda item: anew(*item), items, batch_size=batch if batch > 1 else None)


def _pack(tree, axes: int):
    """All real and complex leaves `[*axes, ...]` as one real array, beside all other leaves; and the way back."""
    inexact, others = eqx.partition(tree, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(inexact)
    kinds = [(leaf.shape[axes:], leaf.dtype) for leaf in leaves]
    parts = [part for leaf in leaves for part in ((leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,))]
    parts = [part.reshape(*part.shape[:axes], -1) for part in parts]
    widths = [part.shape[axes] for part in parts]

    def unpack(packed):
        array, others = packed
        parts = iter(jax.lax.split(array, widths, axis=axes) if widths else ())
        unpacked = []
        for shape, dtype in kinds:
            leaf = next(parts)
            if jnp.issubdtype(dtype, jnp.complexfloating):
                leaf = jax.lax.complex(leaf, next(parts))
            unpacked.append(leaf.reshape(*leaf.shape[:axes], *shape).astype(dtype))
        return eqx.combine(jax.tree.unflatten(structure, unpacked), others)

    return (jnp.concatenate(parts, axis=axes) if parts else None, others), unpack


def replicate(tree, mesh: Mesh):
    """The same arrays on every device of a mesh, as `elbo` and `fit` need them if it spans several processes.

    Every process passes the same values.

    >>> jax.distributed.initialize()  # doctest: +SKIP
    >>> mesh = jax.make_mesh((len(jax.devices()),), ("pairs",))
    >>> jax.jit(lambda *parts: elbo(*parts, mesh=mesh).loss)(*replicate((source, layer, target, encoder), mesh))
    """
    mesh = _automatic(mesh)
    place = lambda leaf: jax.device_put(np.asarray(leaf), NamedSharding(mesh, PartitionSpec()))  # noqa: E731
    return jax.tree.map(lambda leaf: place(leaf) if eqx.is_array(leaf) else leaf, tree)


def _automatic(mesh: Mesh) -> Mesh:
    """The mesh without shardings in types, whatever the user's has: the compiler places what is not divided."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def check_mesh(mesh) -> None:
    """Raise an error that names the argument unless the mesh, if any, is one of devices."""
    if mesh is not None:
        require_instance("mesh", mesh, Mesh, "a jax.sharding.Mesh (jax.make_mesh makes one)")

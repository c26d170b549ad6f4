"""Checks of source, layer, target and encoder, before anything is computed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ._check import is_concrete, require_instance, require_precision, shown
from .encoder import AbstractEncoder, CarriedEncoder, encode
from .layer import AbstractLayer, DenseLayer
from .model import FeatureModel
from .parallel import Batches
from .spectral.compression import kept_atoms
from .spectral.memory import half_space_size, require_memory
from .spectral.resolution import Resolution
from .spectral.units import FINER, DenseMoments, applied


def check_layer(source, layer, target=None) -> None:
    """Raise an error that names the argument unless source, layer and, if there is one, target fit together."""
    require_instance("source", source, FeatureModel, "a FeatureModel")
    require_instance("layer", layer, AbstractLayer, "a LinearLayer, a DenseLayer or a RidgeLayer")
    require_precision(source=source, layer=layer)
    if source.neurons != layer.inputs:
        raise ValueError(f"source: expected {layer.inputs} neurons, the inputs of layer, got {source.neurons}.")
    if target is None:
        return
    require_instance("target", target, FeatureModel, "a FeatureModel")
    require_precision(target=target)
    if target.neurons != layer.outputs:
        raise ValueError(f"target: expected {layer.outputs} neurons, the outputs of layer, got {target.neurons}.")
    noise = target.noise if target.noise.ndim < 2 else jnp.diagonal(target.noise)
    if is_concrete(noise) and not np.all(np.asarray(noise) > 0):
        raise ValueError("target: expected noise in every direction, got one without: its density would be infinite.")


def check_encoder(layer, encoder, atoms, resolution, name: str = "atoms", source=None) -> None:
    """Raise an error that names the argument unless the encoder fits the layer and the atoms `[m2, K]` of `name`.

    One that carries features on must fit the source, too.
    """
    require_instance("encoder", encoder, AbstractEncoder, "an encoder (SoftmaxEncoder, ...)")
    require_precision(encoder=encoder)
    if resolution is not None:
        require_instance("resolution", resolution, Resolution, "a Resolution")
    if isinstance(encoder, CarriedEncoder):
        if source is None:
            raise ValueError("encoder: expected one that reads statistics, got a CarriedEncoder.")
        m1, K1 = source.prior.atoms.shape
        if encoder.carried != m1:
            raise ValueError(f"encoder: expected {m1} carried features, as many as source has, got {encoder.carried}.")
        if atoms.shape != (encoder.features, K1):
            raise ValueError(
                f"{name}: expected {encoder.features} features of {K1} atoms, as many as source has, got "
                f"{shown(atoms.shape)}."
            )
        if encoder.beside is None:
            return
        encoder, atoms = encoder.beside, atoms[m1:]
    read, what = (layer.inputs, "inputs") if isinstance(layer, DenseLayer) else (layer.outputs, "outputs")
    if encoder.readout.shape[2] != read:
        raise ValueError(
            f"encoder: expected a readout of {read} neurons, the {what} of layer, got {encoder.readout.shape[2]}."
        )
    if encoder.statistics_read > 2:
        raise ValueError(f"encoder: expected 1 or 2 statistics per feature, got {encoder.statistics_read}.")
    if atoms is None:
        return
    if atoms.shape[0] != encoder.features:
        raise ValueError(f"{name}: expected {encoder.features} features, as many as encoder, got {atoms.shape[0]}.")
    points = jax.ShapeDtypeStruct((encoder.features, 1, encoder.statistics_read), atoms.dtype)
    count = eqx.filter_eval_shape(encode, encoder, points, atoms).shape[2]
    if count != atoms.shape[1]:
        raise ValueError(f"{name}: expected {count} atoms per feature, as many as encoder, got {atoms.shape[1]}.")


def check_memory(source, layer, t: int, m2: int, K2: int, resolution, mesh=None, vectors: bool = False) -> None:
    """Raise `MemoryError` before anything starts if the largest arrays cannot fit: `m2` encoders of `t` statistics."""
    codes = K2 - 1 if vectors else 1
    linear = layer.read_form().activation is None
    batches = Batches.of(source, m2, K2, t, linear, resolution, mesh)
    nodes = 16 * resolution.ridge_panels  # of the ridge axis, and complex exponentials at them
    axis = 0 if linear else 16 * nodes * resolution.ridge_order
    order = resolution.series_order(t, linear)
    tables = 4 * source.features * m2 * codes * half_space_size(order, t) * kept_atoms(source, resolution.atoms)
    advice = "lower resolution.frequencies, or the number of features or atoms (or, to fit, pass check=False)"
    values = batches.pairs * batches.pair_values + batches.laws * batches.law_values * codes + axis + tables
    # The devices of a CPU share one memory.
    shared = 1 if mesh is None or mesh.devices.flat[0].platform != "cpu" else len(mesh.local_devices)
    require_memory(shared * values * source.mean.dtype.itemsize, "resolution", advice)


def check_units_memory(source, layer, resolution) -> None:
    """Raise `MemoryError` before anything starts if the tables of all units, or the law of one, cannot fit."""
    m, K = source.prior.atoms.shape
    tables = 16 * layer.units * m * resolution.frequencies * max(1, K - 1)
    law = 1600 * resolution.frequencies**2 * (FINER / 8) ** 2
    advice = "lower resolution.frequencies, or take fewer units at a time"
    require_memory((tables + law) * source.mean.dtype.itemsize, "resolution", advice)


def check_pairs_memory(source, layer) -> None:
    """Raise `MemoryError` before anything starts if the second-order effects of all pairs of states cannot fit."""
    m, K = source.prior.atoms.shape
    values = 4 * max(layer.units, layer.outputs) * (m * K) ** 2 + 8 * m * K * layer.outputs**2
    require_memory(values * source.mean.dtype.itemsize, "split", "pass split=False, or fewer features or atoms")


def check_moments(moments, source, layer, resolution) -> None:
    """Raise an error that names the argument unless the moments, if any, are those of such a source and layer."""
    if moments is None:
        return
    require_instance("layer", layer, DenseLayer, "a DenseLayer, as moments were given")
    require_instance("moments", moments, DenseMoments, "what av.dense_moments returns")
    shapes = f"{shown(moments.form.weight.shape)}, {shown(moments.psi_states.shape[1:])}"
    expected = f"{shown(layer.weight.shape)}, {shown(source.prior.atoms.shape)}"
    if shapes != expected:
        raise ValueError(f"moments: expected those of units and features {expected}, got {shapes}.")
    if moments.resolution != resolution:
        raise ValueError(f"moments: expected those at {resolution}, got those at {moments.resolution}.")
    if moments.apply != applied(layer):
        raise ValueError("moments: expected those of this layer's activations, got those of others.")
    given, theirs = (source, layer.weight, layer.bias), (moments.source, moments.form.weight, moments.form.bias)
    same = jax.tree.structure(given) == jax.tree.structure(theirs)
    if not (same and all(map(_may_be_equal, jax.tree.leaves(given), jax.tree.leaves(theirs)))):
        raise ValueError("moments: expected those of this source and layer, got those of others.")


def _may_be_equal(one, other) -> bool:
    """Whether two arrays are equal to rounding, or are traced and of one shape and dtype."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not (is_concrete(one) and is_concrete(other)):
        return True
    one, other = np.asarray(one), np.asarray(other)
    size = np.max(np.abs(other), where=np.isfinite(other), initial=0)
    return np.allclose(one, other, rtol=0, atol=16 * np.finfo(one.dtype).eps * size)


def check_vectors(vectors, atoms: int, name: str) -> None:
    """Raise an error that names the argument unless there may be a vector for each of so many atoms."""
    if not isinstance(vectors, bool | np.bool_):
        raise TypeError(f"vectors: expected True or False, got {vectors!r}.")
    if vectors and atoms < 2:
        raise ValueError(f"{name}: expected at least 2 atoms a feature where each has a vector, got {atoms}.")


def check_ridge(layer, what: str) -> None:
    """Raise an error that names the argument if the layer is a dense one, for which `what` is not there."""
    if isinstance(layer, DenseLayer):
        raise ValueError(f"layer: expected a LinearLayer or a RidgeLayer, {what}; got a DenseLayer.")


def check_mesh(mesh) -> None:
    """Raise an error that names the argument unless the mesh, if any, is one of devices."""
    if mesh is not None:
        require_instance("mesh", mesh, Mesh, "a jax.sharding.Mesh (jax.make_mesh makes one)")

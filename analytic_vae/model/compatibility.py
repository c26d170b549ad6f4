"""Checks of source, layer, target and encoder, before anything is computed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._check import is_concrete, require_instance, require_precision, shown
from .carried_encoder import CarriedEncoder
from .encoder import AbstractEncoder, encode
from .feature_model import FeatureModel
from .layer import AbstractLayer


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
    check_noise("target", target)


def check_noise(name: str, model: FeatureModel) -> None:
    """Raise an error that names the argument unless the model has a density."""
    noise = model.noise if model.noise.ndim < 2 else jnp.diagonal(model.noise)
    if is_concrete(noise) and not np.all(np.asarray(noise) > 0):
        raise ValueError(f"{name}: expected noise in every direction, got one without: its density would be infinite.")


def check_encoder(layer, encoder, atoms, name: str = "atoms", source=None) -> None:
    """Raise an error that names the argument unless the encoder fits the layer and the atoms `[m2, K]` of `name`.

    One that carries features on must fit the source, too.
    """
    require_instance("encoder", encoder, AbstractEncoder, "an encoder (SoftmaxEncoder, ...)")
    require_precision(encoder=encoder)
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
        if encoder.extra is None:
            return
        encoder, atoms = encoder.extra, atoms[m1:]
    read, what = (layer.inputs, "inputs") if layer.reads_input else (layer.outputs, "outputs")
    if encoder.readout.shape[2] != read:
        raise ValueError(
            f"encoder: expected a readout of {read} neurons, the {what} of layer, got {encoder.readout.shape[2]}."
        )
    if encoder.statistics_read > 2:
        raise ValueError(f"encoder: expected 1 or 2 statistics per feature, got {encoder.statistics_read}.")
    if atoms is not None:
        check_atoms(encoder, atoms, name)


def check_atoms(encoder: AbstractEncoder, atoms, name: str) -> None:
    """Raise an error that names the argument unless the atoms `[m2, K]` of `name` are as many as the encoder's."""
    if atoms.shape[0] != encoder.features:
        raise ValueError(f"{name}: expected {encoder.features} features, as many as encoder, got {atoms.shape[0]}.")
    points = jax.ShapeDtypeStruct((encoder.features, 1, encoder.statistics_read), atoms.dtype)
    count = eqx.filter_eval_shape(encode, encoder, points, atoms).shape[2]
    if count != atoms.shape[1]:
        raise ValueError(f"{name}: expected {count} atoms per feature, as many as encoder, got {atoms.shape[1]}.")


def check_vectors(vectors, atoms: int, name: str) -> None:
    """Raise an error that names the argument unless there may be a vector for each of so many atoms."""
    if not isinstance(vectors, bool | np.bool_):
        raise TypeError(f"vectors: expected True or False, got {vectors!r}.")
    if vectors and atoms < 2:
        raise ValueError(f"{name}: expected at least 2 atoms a feature where each has a vector, got {atoms}.")


def check_ridge(layer, what: str) -> None:
    """Raise an error that names the argument if the layer is a dense one, for which `what` is not there."""
    if layer.reads_input:
        raise ValueError(f"layer: expected a LinearLayer or a RidgeLayer, {what}; got a DenseLayer.")

"""Files of models, encoders and fits: a JSON header and plain arrays in one `.npz`, written atomically.

Nothing that is loaded is executed: objects are rebuilt by name from arrays, and object arrays are refused unread.
"""

import json
import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._check import real_array, require_finite, require_instance
from ..certify.terms import TERMS
from ..elbo import Elbo, ErrorBounds
from ..fitting.result import Fit, Stop
from ..model.carried_encoder import CarriedEncoder
from ..model.encoder import AbstractEncoder, ExponentialEncoder, GaussianEncoder, NeuralEncoder, SoftmaxEncoder
from ..model.feature_model import FeatureModel
from ..model.prior import Prior
from ..sparse_autoencoder import SparseAutoencoder
from ..spectral.resolution import Resolution
from .arrays import read_arrays
from .atomic import write_bytes

FORMAT, VERSION = "analytic_vae", 1

_ENCODERS = {kind.__name__: kind for kind in (SoftmaxEncoder, GaussianEncoder, ExponentialEncoder)}

_AUTOENCODER = ("readout", "offset", "decoder", "bias", "threshold")

_ELBO = ("R1", "R2", "R3", "S1", "S2", "T1", "T2", "T3", "U1", "U2", "U3", "rates", "moment_error", "accuracy")


def save_model(path: str | os.PathLike[str], model: FeatureModel) -> None:
    """Write a feature model to an `.npz` file (readable by `load_source` too), number for number.

    Raises `TypeError` for anything else: `save_encoder` is for encoders and sparse autoencoders, `save_fit` for fits.
    """
    if not isinstance(model, FeatureModel):
        hint = "; save_encoder writes it" if isinstance(model, AbstractEncoder | SparseAutoencoder) else ""
        hint = "; save_fit writes it" if isinstance(model, Fit) else hint
        raise TypeError(f"model: expected a FeatureModel, got {type(model).__name__}{hint}.")
    _write(path, {"kind": "FeatureModel"}, _model_arrays(model))


def load_model(path: str | os.PathLike[str]) -> FeatureModel:
    """Read what `save_model` wrote. Raises `FileNotFoundError` or `ValueError` that says what is wrong."""
    _, arrays = _read(path, "FeatureModel")
    return _rebuild(path, lambda: _model(arrays))


def save_encoder(path: str | os.PathLike[str], encoder: AbstractEncoder | SparseAutoencoder) -> None:
    """Write an encoder or a sparse autoencoder to an `.npz` file, number for number.

    Raises `TypeError` for anything else, `ValueError` for an encoder of a class of your own, or networks that
    `NeuralEncoder.init` does not make: no file could give them back.

    >>> save_encoder("encoder.npz", result.encoder)
    """
    if isinstance(encoder, SparseAutoencoder):
        header: dict[str, Any] = {"class": "SparseAutoencoder", "of": encoder.kind}
        arrays = {name: np.asarray(getattr(encoder, name)) for name in _AUTOENCODER}
        if encoder.kind == "relu":
            del arrays["threshold"]
    elif isinstance(encoder, AbstractEncoder):
        header, arrays = savable_parts(encoder)
    else:
        raise TypeError(f"encoder: expected an encoder or a SparseAutoencoder, got {type(encoder).__name__}.")
    _write(path, {"kind": "Encoder", "encoder": header}, arrays)


def load_encoder(path: str | os.PathLike[str]) -> AbstractEncoder | SparseAutoencoder:
    """Read what `save_encoder` wrote. Raises `FileNotFoundError` or `ValueError` that says what is wrong."""
    header, arrays = _read(path, "Encoder")

    def build() -> AbstractEncoder | SparseAutoencoder:
        if header["encoder"]["class"] == "SparseAutoencoder":
            return SparseAutoencoder(**arrays, kind=header["encoder"]["of"])
        return _encoder(header["encoder"], arrays)

    return _rebuild(path, build)


def save_fit(path: str | os.PathLike[str], fit: Fit) -> None:
    """Write a fit: target, encoder, the terms of the loss, history and why it stopped. Raises `TypeError` otherwise."""
    require_instance("fit", fit, Fit, "what av.fit returns")
    header: dict[str, Any] = {
        "kind": "Fit",
        "stop": fit.stop.name,
        "seconds": fit.seconds,
        "rejected": fit.rejected,
        "error_estimate": fit.error_estimate,
        "least_remainder": fit.least_remainder,
        "frequencies": fit.resolution.frequencies,
        "nodes": fit.resolution.nodes,
    }
    arrays = {f"target.{name}": array for name, array in _model_arrays(fit.target).items()}
    arrays |= {"history": fit.history, "start_losses": fit.start_losses, "terms": fit.terms}
    if fit.elbo is not None:
        arrays |= {f"elbo.{name}": np.asarray(getattr(fit.elbo, name)) for name in _ELBO}
        if fit.elbo.bounds is not None:
            arrays |= {f"bounds.{name}": np.asarray(getattr(fit.elbo.bounds, name)) for name in TERMS}
    if fit.encoder is not None:
        header["encoder"], encoder_arrays = savable_parts(fit.encoder)
        arrays |= {f"encoder.{name}": array for name, array in encoder_arrays.items()}
    _write(path, header, arrays)


def load_fit(path: str | os.PathLike[str]) -> Fit:
    """Read what `save_fit` wrote. Raises `FileNotFoundError` or `ValueError` that says what is wrong."""
    header, arrays = _read(path, "Fit")

    def build() -> Fit:
        terms = _under("elbo.", arrays)
        terms = (
            {"moment_error": np.array(np.nan), "accuracy": np.array(np.nan)} | terms if terms else {}
        )  # files of before there was one
        target = _model(_under("target.", arrays))
        elbo = _elbo(terms, _under("bounds.", arrays), target.features) if terms else None
        encoder = None
        if "encoder" in header:
            encoder = _encoder(header["encoder"], _under("encoder.", arrays))
            if encoder.features != target.features:
                raise ValueError(f"encoder: expected that of {target.features} features, got {encoder.features}.")
        error, remainder = header["error_estimate"], header.get("least_remainder")
        return Fit(
            target=target,
            encoder=encoder,
            elbo=elbo,
            error_estimate=None if error is None else _number("error_estimate", error),
            history=_vector("history", arrays["history"]),
            start_losses=_vector("start_losses", arrays["start_losses"]),
            stop=Stop[header["stop"]],
            seconds=_number("seconds", header["seconds"]),
            resolution=Resolution(header["frequencies"], header["nodes"]),
            rejected=int(_number("rejected", header.get("rejected", 0))),
            least_remainder=None if remainder is None else _number("least_remainder", remainder),
            terms=_terms(arrays),
        )

    return _rebuild(path, build)


def _model_arrays(model: FeatureModel) -> dict[str, np.ndarray]:
    return {
        "atoms": np.asarray(model.prior.atoms),
        "logits": np.asarray(model.prior.logits),
        "decoder": np.asarray(model.decoder),
        "noise": np.asarray(model.noise),
        "mean": np.asarray(model.mean),
    }


def _model(arrays: dict[str, np.ndarray]) -> FeatureModel:
    """The model; a factor of the noise is put in after, as `project` left it."""
    noise, decoder = jnp.asarray(arrays["noise"]), arrays["decoder"]
    prior = Prior(arrays["atoms"], arrays["logits"])
    if noise.ndim < 2:
        return FeatureModel(prior, decoder, noise, arrays["mean"])
    model = FeatureModel(prior, decoder, jnp.ones((), noise.dtype), arrays["mean"])
    if noise.shape != (model.neurons, model.neurons) or not np.all(np.isfinite(noise)):
        raise ValueError(f"noise: expected a finite factor [{model.neurons}, {model.neurons}], got {noise.shape}.")
    return eqx.tree_at(lambda m: m.noise, model, noise)


def savable_parts(encoder: AbstractEncoder) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a file holds of an encoder: header and arrays. Raises `ValueError` if they would not give it back."""
    header, arrays = _encoder_parts(encoder)
    try:
        same = jax.tree.structure(_encoder(header, arrays)) == jax.tree.structure(encoder)
    except (KeyError, ValueError):  # other arrays than NeuralEncoder.init makes
        same = False
    if not same:
        raise ValueError(
            "encoder: expected networks as NeuralEncoder.init makes them (tanh units, biases), the only ones that "
            "files can hold."
        )
    return header, arrays


def _encoder_parts(encoder: AbstractEncoder) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if type(encoder) is NeuralEncoder and isinstance(encoder.networks, eqx.nn.MLP):
        networks = encoder.networks
        leaves = jax.tree.leaves(eqx.filter(encoder, eqx.is_array))
        header = {
            "class": "NeuralEncoder",
            "width": networks.width_size,
            "depth": networks.depth,
            "atoms": networks.out_size,
        }
        return header, {f"leaf{index:03d}": np.asarray(leaf) for index, leaf in enumerate(leaves)}
    if type(encoder) is CarriedEncoder:
        header = {"class": "CarriedEncoder", "carried": encoder.carried}
        if encoder.extra is None:
            return header, {}
        inner, arrays = _encoder_parts(encoder.extra)
        return header | {"extra": inner}, {f"extra.{name}": array for name, array in arrays.items()}
    name = type(encoder).__name__
    if _ENCODERS.get(name) is not type(encoder):
        raise ValueError(f"encoder: expected one of the package's own, got {name}, which files cannot hold.")
    return {"class": name}, {field: np.asarray(value) for field, value in vars(encoder).items()}


def _encoder(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> AbstractEncoder:
    if header["class"] == "CarriedEncoder":
        extra = header.get("extra")
        if extra is not None and extra["class"] == "CarriedEncoder":
            raise ValueError("encoder: expected one that reads statistics beside the carried features.")
        inner = None if extra is None else _encoder(extra, _under("extra.", arrays))
        return CarriedEncoder(header["carried"], inner)
    if header["class"] != "NeuralEncoder":
        return _ENCODERS[header["class"]](**arrays)
    shape = {name: header[name] for name in ("atoms", "width", "depth")}
    # The numbers are the file's: nothing of their size is made before the arrays are seen to have it.
    if any(type(value) is not int for value in shape.values()) or len(arrays) != 2 * shape["depth"] + 3:
        raise ValueError(f"encoder: expected a network of {len(arrays)} arrays, got {shape}.")
    atoms = shape.pop("atoms")
    skeleton = eqx.filter_eval_shape(
        lambda readout: NeuralEncoder.init(readout, atoms, **shape, key=jax.random.key(0)), arrays["leaf000"]
    )
    parts, static = eqx.partition(skeleton, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    expected, tree = jax.tree.flatten(parts)
    loaded = [jnp.asarray(arrays[f"leaf{index:03d}"]) for index in range(len(expected))]
    for index, (leaf, like) in enumerate(zip(loaded, expected, strict=True)):
        if leaf.shape != like.shape:
            raise ValueError(f"leaf{index:03d}: expected shape {like.shape}, got {leaf.shape}.")
        require_finite(f"leaf{index:03d}", leaf)
    return eqx.combine(jax.tree.unflatten(tree, loaded), static)


def _elbo(terms: dict[str, np.ndarray], bounds: dict[str, np.ndarray], features: int) -> Elbo:
    for name in _ELBO:
        expected = (features,) if name == "rates" else ()
        if real_array(name, terms[name]).shape != expected:
            raise ValueError(f"elbo.{name}: expected shape {expected}, got {terms[name].shape}.")
    if bounds:
        for name in TERMS:
            if real_array(name, bounds[name]).shape != ():
                raise ValueError(f"bounds.{name}: expected a number, got shape {bounds[name].shape}.")
    errors = ErrorBounds(**{name: jnp.asarray(bounds[name]) for name in TERMS}) if bounds else None
    return Elbo(**{name: jnp.asarray(terms[name]) for name in _ELBO}, bounds=errors)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: expected a number, got {value!r}.")
    return float(value)


def _vector(name: str, array: np.ndarray) -> np.ndarray:
    if real_array(name, array).ndim != 1:
        raise ValueError(f"{name}: expected a row of numbers, got shape {array.shape}.")
    return array


def _terms(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Of every step; none in files of before there were any."""
    terms = real_array("terms", arrays.get("terms", np.zeros((0, 3))))
    if terms.ndim != 2 or terms.shape[1] != 3 or len(terms) not in (0, arrays["history"].size):
        raise ValueError(f"terms: expected three for each of {arrays['history'].size} steps, got shape {terms.shape}.")
    return terms


def _under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _rebuild(path, build):
    try:
        return build()
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, MemoryError) as error:
        raise ValueError(f"path: {path} is not a whole {FORMAT} file: {error}") from error


def _write(path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    import io

    header = {"format": FORMAT, "version": VERSION, **header}
    arrays = {name: real_array(name, array) for name, array in arrays.items()}  # half precision in single, exactly
    stream = io.BytesIO()
    np.savez(stream, **{"header.json": np.frombuffer(json.dumps(header).encode(), np.uint8)}, **arrays)
    write_bytes(path, stream.getvalue())


def _read(path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    arrays = read_arrays(path)
    try:
        header = json.loads(arrays.pop("header.json").tobytes())
        found, version = (header["format"], header["kind"]), header["version"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"path: expected a file written by {FORMAT}, got {path} without its header.") from error
    if found != (FORMAT, kind):
        raise ValueError(f"path: expected a {kind} of {FORMAT}, got {found[1]} of {found[0]} in {path}.")
    if version != VERSION:
        raise ValueError(f"path: {path} has version {version!r}, this package reads {VERSION}; update analytic_vae.")
    return header, arrays

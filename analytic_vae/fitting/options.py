"""What may be asked of a fit: its options, each by itself, together, and with the layer; before anything starts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._check import require_instance, shown
from ..certify.units import check_regularity
from ..closed_form import NOISES
from ..model.carried_encoder import CarriedEncoder, learnt_part
from ..model.compatibility import check_vectors
from ..model.encoder import AbstractEncoder
from ..model.feature_model import FeatureModel
from ..model.layer import DenseLayer, LinearLayer
from ..moments.budget import check_pairs_memory
from ..spectral.resolution import Resolution
from .initial import ENCODERS

KINDS = ("carried", "learnt", "both", *ENCODERS)

EXTRA = 4  # features that are learnt beside carried ones, if nobody says how many


def completed(layer, options: dict) -> dict:
    """The options with the kind of encoder, and whether there are vectors per atom, where they are not given."""
    encoder, vectors, target = options["encoder"], options["vectors"], options["target"]
    if encoder is None:
        encoder = "carried" if isinstance(layer, DenseLayer) else "softmax"
    if vectors is None:
        vectors = carries(encoder) if target is None else target.decoder.ndim == 3
    return options | {"encoder": encoder, "vectors": bool(vectors)}


def carries(encoder) -> bool:
    """Whether the features of the source are carried on."""
    return encoder in ("carried", "both") if isinstance(encoder, str) else isinstance(encoder, CarriedEncoder)


def carries_only(encoder) -> bool:
    """Whether they are and nothing is learnt beside them."""
    return encoder == "carried" if isinstance(encoder, str) else carries(encoder) and encoder.extra is None


def check_combination(source, layer, options: dict, certify: bool) -> None:
    """Raise an error that names the argument if completed options do not go with each other, or with the layer."""
    encoder, vectors, target = options["encoder"], options["vectors"], options["target"]
    if target is not None and (target.decoder.ndim == 3) != vectors:
        raise ValueError(
            f"vectors: expected {not vectors}, as target has a decoder of shape {shown(target.decoder.shape)}."
        )
    if carries(encoder):
        check_vectors(vectors, source.prior.atoms.shape[1], "source")
        refused = ["atoms"]
        if isinstance(encoder, CarriedEncoder):
            refused.append("features")
            if encoder.carried != source.features:
                raise ValueError(
                    f"encoder: expected {source.features} carried features, as many as source has, got "
                    f"{encoder.carried}."
                )
        if carries_only(encoder):
            refused += ["features", "target"]
            if options["optimizer"] != "lbfgs":
                raise ValueError("optimizer: expected none, as carried features have all in closed form, got one.")
        for name in refused:
            if options[name] is not None:
                raise ValueError(f"{name}: expected none beside this encoder, whose carried features are the source's.")
    if options["split"]:
        if not (carries_only(encoder) and isinstance(layer, DenseLayer) and vectors and options["noise"] == "full"):
            raise ValueError("split: expected False but for a DenseLayer, carried features alone and full noise.")
        if not options["floor"] > 0:
            raise ValueError(
                f"floor: expected more than 0 with split, as the noise is divided by, got {options['floor']}."
            )
        check_pairs_memory(source, layer)
    if certify:
        check_regularity(layer)
        if options["split"]:
            raise ValueError("certify: expected False with split; without it the loss is the same, and has a bound.")
        if not carries_only(encoder):
            _check_bounded(layer, options)


def _check_bounded(layer, options: dict) -> None:
    """Raise an error that names the argument if the loss of learnt features of that kind has no bounds."""
    encoder = options["encoder"]
    two = encoder.endswith("2") if isinstance(encoder, str) else learnt_part(encoder).statistics_read == 2
    if two and (isinstance(layer, DenseLayer) or carries(encoder)):
        raise ValueError(
            "certify: expected False: with two statistics only losses of linear and ridge layers (layers='ridge'), "
            "without carried features, have bounds."
        )
    if carries(encoder) and not isinstance(layer, DenseLayer | LinearLayer):
        raise ValueError("certify: expected False: with features beside carried ones ridge layers have no bounds.")


def check_options(
    *, features, atoms, encoder, vectors, noise, optimizer, target, steps, tolerance, starts, floor, resolution, check,
    certify, split, key,
) -> None:  # fmt: skip
    """Raise an error that names the option of `fit` that cannot be, whatever the layer."""
    for name, value in (("features", features), ("steps", steps), ("starts", starts)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
            raise ValueError(f"{name}: expected a positive integer, got {value!r}.")
    if noise not in NOISES:
        raise ValueError(f"noise: expected one of {', '.join(NOISES)}, got {noise!r}.")
    if isinstance(encoder, str):
        if encoder not in KINDS:
            raise ValueError(f"encoder: expected an encoder or one of {', '.join(KINDS)}, got {encoder!r}.")
    elif encoder is not None:
        require_instance("encoder", encoder, AbstractEncoder, f"an encoder or one of {', '.join(KINDS)}")
    if vectors is not None and not isinstance(vectors, bool | np.bool_):
        raise TypeError(f"vectors: expected True, False or None, got {vectors!r}.")
    if isinstance(optimizer, str):
        if optimizer != "lbfgs":
            raise ValueError(f"optimizer: expected 'lbfgs' or an optax optimiser, got {optimizer!r}.")
        if target is not None:
            raise ValueError("target: L-BFGS has the target in closed form; pass an optax optimizer to start from one.")
    else:
        require_instance("optimizer", optimizer, optax.GradientTransformation, "'lbfgs' or an optax optimiser")
    if target is not None:
        require_instance("target", target, FeatureModel, "a FeatureModel")
        noise = jnp.diagonal(target.noise) if target.noise.ndim == 2 else target.noise
        if not np.all(np.asarray(noise) > 0):
            raise ValueError("target: expected noise in every direction to start from, got a singular one.")
    Resolution.of(resolution)
    for name, value in (("check", check), ("certify", certify), ("split", split)):
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name}: expected True or False, got {value!r}.")
    typed = isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    if key is not None and not (isinstance(key, jax.Array | np.ndarray) and key.ndim == (0 if typed else 1)):
        raise TypeError(f"key: expected one such as jax.random.key(0), got {key!r}.")
    for name, value in (("tolerance", tolerance), ("floor", floor)):
        if not isinstance(value, int | float | np.generic | jax.Array) or not value >= 0:
            raise ValueError(f"{name}: expected a number of at least 0, got {value!r}.")
    if not np.isfinite(floor):
        raise ValueError(f"floor: expected a finite number, got {floor!r}.")

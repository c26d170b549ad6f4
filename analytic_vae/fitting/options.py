"""What may be asked of a fit: its options, each by itself, together, and with the layer; before anything starts."""

from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._check import require_choice, require_count, require_flag, require_instance, require_number, shown
from ..certify.units import check_slopes
from ..closed_form import NOISES, Noise
from ..model.carried_encoder import CarriedEncoder, learnt_part
from ..model.compatibility import check_vectors
from ..model.encoder import AbstractEncoder
from ..model.feature_model import FeatureModel
from ..model.layer import AbstractLayer
from ..moments.budget import check_pairs_memory
from ..spectral.resolution import Resolution
from ..types import ArrayLike, PRNGKeyArray
from .encoder_kinds import ENCODERS

KINDS = ("carried", "learnt", "both", *ENCODERS)

EXTRA = 4  # features that are learnt beside carried ones, if nobody says how many


@dataclass(frozen=True)
class FitOptions:
    """The options of `fit`, which documents them, known to be possible whatever the layer.

    Raises `ValueError` or `TypeError` that names the option.
    """

    features: int | None = None
    atoms: int | ArrayLike | None = None
    encoder: str | AbstractEncoder | None = None
    statistics: int | None = None
    vectors: bool | None = None
    noise: Noise = "full"
    optimizer: str | optax.GradientTransformation = "lbfgs"
    target: FeatureModel | None = None
    steps: int = 500
    tolerance: float = 1e-7
    starts: int = 1
    floor: float = 1e-6
    resolution: Resolution | None = None
    check: bool = True
    certify: bool = False
    split: bool = False
    key: PRNGKeyArray | None = None

    @classmethod
    def of(cls, options: dict[str, Any]) -> "FitOptions":
        """Those of a user, the others at their defaults. Raises `TypeError` for one that `fit` does not have."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise TypeError(f"{name}: expected an option of fit ({', '.join(known)}), got an unknown one.")
        return cls(**options)

    def __post_init__(self):
        for name in ("features", "steps", "starts"):
            require_count(name, getattr(self, name), optional=name == "features")
        require_choice("noise", self.noise, NOISES)
        for name in ("check", "certify", "split"):
            require_flag(name, getattr(self, name))
        require_flag("vectors", self.vectors, optional=True)
        for name in ("tolerance", "floor"):
            require_number(name, getattr(self, name))
        if not np.isfinite(self.floor):
            raise ValueError(f"floor: expected a finite number, got {self.floor!r}.")
        object.__setattr__(self, "resolution", Resolution.of(self.resolution))
        self._check_encoder()
        self._check_optimizer()
        typed = isinstance(self.key, jax.Array) and jax.dtypes.issubdtype(self.key.dtype, jax.dtypes.prng_key)
        axes = 0 if typed else 1
        if self.key is not None and not (isinstance(self.key, jax.Array | np.ndarray) and self.key.ndim == axes):
            raise TypeError(f"key: expected one such as jax.random.key(0), got {self.key!r}.")

    def _check_encoder(self) -> None:
        encoder, what = self.encoder, f"an encoder or one of {', '.join(KINDS)}"
        if isinstance(encoder, str):
            if encoder not in KINDS:
                raise ValueError(f"encoder: expected {what}, got {encoder!r}.")
        elif encoder is not None:
            require_instance("encoder", encoder, AbstractEncoder, what)
        if self.statistics is None:
            return
        if isinstance(encoder, AbstractEncoder):
            raise ValueError(f"statistics: expected none beside an encoder, got {self.statistics!r}.")
        require_count("statistics", self.statistics)
        name = "softmax" if encoder in (None, "learnt") else encoder
        possible = ENCODERS[name].statistics if name in ENCODERS else (1,)
        if self.statistics not in possible:
            asked, two = " or ".join(map(str, possible)), [one for one in ENCODERS if 2 in ENCODERS[one].statistics]
            read = f"{' and '.join(two)} may read 2"
            raise ValueError(f"statistics: expected {asked} for encoder {name!r}, got {self.statistics}; {read}.")

    def _check_optimizer(self) -> None:
        if isinstance(self.optimizer, str):
            if self.optimizer != "lbfgs":
                raise ValueError(f"optimizer: expected 'lbfgs' or an optax optimiser, got {self.optimizer!r}.")
            if self.target is not None:
                raise ValueError(
                    "target: L-BFGS has the target in closed form; pass an optax optimizer to start from one."
                )
        else:
            require_instance("optimizer", self.optimizer, optax.GradientTransformation, "'lbfgs' or an optax optimiser")
        if self.target is not None:
            require_instance("target", self.target, FeatureModel, "a FeatureModel")
            noise = self.target.noise
            if not np.all(np.asarray(jnp.diagonal(noise) if noise.ndim == 2 else noise) > 0):
                raise ValueError("target: expected noise in every direction to start from, got a singular one.")

    @property
    def random_key(self) -> PRNGKeyArray:
        """`key`, or that of everybody who gave none."""
        return jax.random.key(0) if self.key is None else self.key

    @property
    def carries(self) -> bool:
        """Whether the features of the source are handed on; known once the encoder is."""
        if isinstance(self.encoder, str):
            return self.encoder in ("carried", "both")
        return isinstance(self.encoder, CarriedEncoder)

    @property
    def carries_only(self) -> bool:
        """Whether they are and nothing is learnt."""
        if isinstance(self.encoder, str):
            return self.encoder == "carried"
        return isinstance(self.encoder, CarriedEncoder) and self.encoder.extra is None

    @property
    def statistics_read(self) -> int:
        """`t` of what is learnt."""
        if isinstance(self.encoder, AbstractEncoder):
            return learnt_part(self.encoder).statistics_read
        return self.statistics or 1

    def for_layer(self, source: FeatureModel, layer: AbstractLayer) -> "FitOptions":
        """With the kind of encoder, and whether there are vectors per atom, where they are not given.

        Raises an error that names the argument if options do not go with each other, or with the layer.
        """
        encoder = self.encoder or ("carried" if layer.reads_input and self.statistics is None else "softmax")
        options = replace(self, encoder=encoder)
        vectors = self.vectors
        if vectors is None:
            vectors = options.carries if self.target is None else self.target.decoder.ndim == 3
        options = replace(options, vectors=bool(vectors))
        options._check_combination(source, layer)
        return options

    def _check_combination(self, source: FeatureModel, layer: AbstractLayer) -> None:
        target = self.target
        if target is not None and (target.decoder.ndim == 3) != self.vectors:
            raise ValueError(
                f"vectors: expected {not self.vectors}, as target has a decoder of shape {shown(target.decoder.shape)}."
            )
        if self.carries:
            self._check_carried(source)
        if self.split:
            self._check_split(source, layer)
        if self.certify:
            self._check_certify(layer)

    def _check_carried(self, source: FeatureModel) -> None:
        check_vectors(self.vectors, source.prior.atoms.shape[1], "source")
        refused = ["atoms"]
        if isinstance(self.encoder, CarriedEncoder):
            refused.append("features")
            if self.encoder.carried != source.features:
                raise ValueError(
                    f"encoder: expected {source.features} carried features, as many as source has, got "
                    f"{self.encoder.carried}."
                )
        if self.carries_only:
            refused += ["features", "target"]
            if self.optimizer != "lbfgs":
                raise ValueError("optimizer: expected none, as carried features have all in closed form, got one.")
        for name in refused:
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: expected none beside this encoder, whose carried features are the source's.")

    def _check_split(self, source: FeatureModel, layer: AbstractLayer) -> None:
        if not (self.carries_only and layer.reads_input and self.vectors and self.noise == "full"):
            raise ValueError("split: expected False but for a DenseLayer, carried features alone and full noise.")
        if not self.floor > 0:
            raise ValueError(f"floor: expected more than 0 with split, as the noise is divided by, got {self.floor}.")
        check_pairs_memory(source, layer)

    def _check_certify(self, layer: AbstractLayer) -> None:
        check_slopes(layer)
        if self.split:
            raise ValueError("certify: expected False with split; without it the loss is the same, and has a bound.")
        if self.carries_only:
            return
        if self.statistics_read == 2 and (layer.reads_input or self.carries):
            raise ValueError(
                "certify: expected False: with two statistics only losses of linear and ridge layers (layers='ridge'), "
                "without carried features, have bounds."
            )
        if self.carries and layer.units and not layer.reads_input:
            raise ValueError("certify: expected False: with features beside carried ones ridge layers have no bounds.")

"""The law of a network's activations and the independent features that make it up, without sampling."""

from ._jit import keep_compiled
from ._sharding import replicate
from ._warning import AccuracyWarning
from .accuracy import ACCURACY
from .bounded_expectation import bounded_expectation
from .certify.ball import Bounded
from .closed_form import best_decoder, best_noise, best_prior, best_target, profiled_loss
from .effects import Effects
from .elbo import Elbo, ErrorBounds, elbo
from .expectations import dense_moments, expectations
from .fit import fit
from .fitting.result import Fit, Stop
from .io.checkpoint import load_encoder, load_fit, load_model, save_encoder, save_fit, save_model
from .io.network_files import from_arrays, load_network
from .io.source_files import load_source
from .laws.law import Law, LawBounds, LawGrid
from .learn import Trajectory, learn
from .model.activation import Activation
from .model.carried_encoder import CarriedEncoder
from .model.dense_layer import DenseLayer
from .model.encoder import ExponentialEncoder, GaussianEncoder, NeuralEncoder, SoftmaxEncoder
from .model.feature_model import FeatureModel
from .model.from_data import source_from_data
from .model.from_equinox import from_mlp
from .model.from_scikit_learn import from_scikit_learn
from .model.from_torch import from_torch
from .model.layer import LinearLayer, RidgeLayer
from .model.network import Network, from_weights
from .model.prior import Prior
from .moments.expected import Expectations
from .moments.plan import Plan, plan
from .moments.units import DenseMoments
from .pushforward import linear_pushforward, pushforward
from .resolve import Resolved, resolve
from .samples import SampledErrors
from .score import Score, score
from .sparse_autoencoder import SparseAutoencoder, SparseLoss, sparse_loss
from .spectral.resolution import Resolution

__all__ = [
    "ACCURACY",
    "AccuracyWarning",
    "Activation",
    "Bounded",
    "CarriedEncoder",
    "DenseLayer",
    "DenseMoments",
    "Effects",
    "Elbo",
    "ErrorBounds",
    "Expectations",
    "ExponentialEncoder",
    "FeatureModel",
    "Fit",
    "GaussianEncoder",
    "Law",
    "LawBounds",
    "LawGrid",
    "LinearLayer",
    "Network",
    "NeuralEncoder",
    "Plan",
    "Prior",
    "Resolution",
    "Resolved",
    "RidgeLayer",
    "SampledErrors",
    "Score",
    "SoftmaxEncoder",
    "SparseAutoencoder",
    "SparseLoss",
    "Stop",
    "Trajectory",
    "best_decoder",
    "best_noise",
    "best_prior",
    "best_target",
    "bounded_expectation",
    "dense_moments",
    "elbo",
    "expectations",
    "fit",
    "from_arrays",
    "from_mlp",
    "from_scikit_learn",
    "from_torch",
    "from_weights",
    "keep_compiled",
    "learn",
    "linear_pushforward",
    "load_encoder",
    "load_fit",
    "load_model",
    "load_network",
    "load_source",
    "plan",
    "profiled_loss",
    "pushforward",
    "replicate",
    "resolve",
    "save_encoder",
    "save_fit",
    "save_model",
    "score",
    "source_from_data",
    "sparse_loss",
]

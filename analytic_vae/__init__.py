"""The law of a network's activations and the independent features that make it up, without sampling."""

from .accuracy import ACCURACY, AccuracyWarning
from .activation import Activation
from .bounded import bounded_expectation
from .checkpoint import load_encoder, load_fit, load_model, save_encoder, save_fit, save_model
from .closed_form import best_decoder, best_noise, best_prior, best_target
from .elbo import Elbo, ErrorBounds, elbo
from .encoder import CarriedEncoder, ExponentialEncoder, GaussianEncoder, NeuralEncoder, SoftmaxEncoder
from .expectations import Expectations, dense_moments, expectations
from .fit import Fit, fit, profiled_loss
from .layer import DenseLayer, LinearLayer, Network, RidgeLayer
from .learn import Trajectory, learn
from .model import FeatureModel
from .network import from_mlp, from_weights, load_network
from .optimise import Stop
from .parallel import replicate
from .plan import Plan, plan
from .prior import Prior
from .pushforward import Law, linear_pushforward, pushforward
from .resolve import Resolved, resolve
from .samples import SampledErrors
from .sources import load_source, source_from_data
from .sparse_autoencoder import SparseAutoencoder, SparseLoss, sparse_loss
from .spectral.certified import Bounded
from .spectral.resolution import Resolution
from .spectral.units import DenseMoments

__all__ = [
    "ACCURACY",
    "AccuracyWarning",
    "Activation",
    "Bounded",
    "CarriedEncoder",
    "DenseLayer",
    "DenseMoments",
    "Elbo",
    "ErrorBounds",
    "Expectations",
    "ExponentialEncoder",
    "FeatureModel",
    "Fit",
    "GaussianEncoder",
    "Law",
    "LinearLayer",
    "Network",
    "NeuralEncoder",
    "Plan",
    "Prior",
    "Resolution",
    "Resolved",
    "RidgeLayer",
    "SampledErrors",
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
    "from_mlp",
    "from_weights",
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
    "source_from_data",
    "sparse_loss",
]

"""The law of a network's activations and the independent features that make it up, without sampling."""

from .activation import Activation
from .checkpoint import load_fit, load_model, save_fit, save_model
from .closed_form import best_decoder, best_noise, best_prior, best_target
from .elbo import Elbo, Expectations, elbo, expectations
from .encoder import ExponentialEncoder, GaussianEncoder, NeuralEncoder, SoftmaxEncoder
from .fit import Fit, Stop, fit, profiled_loss
from .layer import LinearLayer, Network, RidgeLayer
from .learn import Trajectory, learn
from .model import FeatureModel
from .network import from_mlp, from_weights, load_network
from .prior import Prior
from .pushforward import Law, linear_pushforward, pushforward
from .sources import load_source, source_from_data
from .spectral.resolution import Resolution

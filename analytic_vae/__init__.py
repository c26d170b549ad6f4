"""The law of a network's activations and the independent features that make it up, without sampling."""

from .activation import Activation
from .elbo import Elbo, elbo
from .encoder import ExponentialEncoder, GaussianEncoder, NeuralEncoder, SoftmaxEncoder
from .layer import LinearLayer, Network, RidgeLayer
from .model import FeatureModel
from .prior import Prior
from .spectral.resolution import Resolution

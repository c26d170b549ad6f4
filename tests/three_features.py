"""Three features of probabilities 0.3, 0.1 and 0.4 in two neurons, and two units that read them."""

import numpy as np

import analytic_vae as av

P = [0.3, 0.1, 0.4]
A = np.array([[1.0, 0.4], [-0.3, 1.0]])
B = np.array([[1.0, 0.5, -0.3], [0.2, 1.0, 0.7]])
BIAS = np.array([-0.5, -0.4])


def source(noise=0.3, first=(0.3, 1.0)):
    p = [first[0], *P[1:]]
    prior = av.Prior.from_masses([[0.0, first[1]], [0.0, 1.0], [0.0, 1.0]], [[1 - q, q] for q in p])
    return av.FeatureModel(prior, B, noise)


def states(first=(0.3, 1.0)):
    p = np.array([first[0], *P[1:]])
    z = np.array(np.meshgrid(*[(0, 1)] * 3)).reshape(3, -1).T
    return np.prod(np.where(z, p, 1 - p), axis=1), (z * [first[1], 1, 1]) @ B.T

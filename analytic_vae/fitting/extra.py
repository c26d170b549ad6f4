"""Where features begin that are learnt beside carried ones."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from .._jit import exact_products
from ..closed_form import best_decoder, residual_covariance
from ..model.carried_encoder import CarriedEncoder
from ..model.encoder import SoftmaxEncoder
from ..types import Array, Float
from .guess import gaussian_atoms
from .problem import FitProblem


@exact_products
def extra_features(problem: FitProblem, features: int) -> tuple[CarriedEncoder, Float[Array, "m2 K"]]:
    """Carried features and extra ones, which read x1, or f of a layer that is not dense; and all atoms.

    The new ones start along what the carried ones leave: the principal directions of the remainder of f, read through
    the mean slope of f.
    """
    source, own = problem.source, problem.source.prior.atoms
    dtype, (m1, K) = source.mean.dtype, own.shape
    given = replace(problem, vectors=True).expected(CarriedEncoder(m1), own)
    left = residual_covariance(given, best_decoder(given)[0])
    _, vectors = jnp.linalg.eigh((left + left.T) / 2)
    directions = vectors[:, ::-1][:, np.arange(features) % left.shape[0]].T
    if problem.layer.reads_input:
        form = given.layer.form
        slope = given.layer.units.slope * form.weight  # of the regression of each unit on the input
        directions = directions @ (form.linear + form.output @ slope)
        centre, spread = source.moments()
    else:
        centre, spread = given.layer.output()
    scale = jnp.sqrt(jnp.maximum(jnp.einsum("jn,nl,jl->j", directions, spread, directions), 1e-12))
    readout = directions / scale[:, None]
    atoms, mass = gaussian_atoms(K, dtype)
    atoms = jnp.broadcast_to(atoms, (features, K))
    base = jnp.log(mass)[None] - (readout @ centre)[:, None] * 2 * atoms
    encoder = SoftmaxEncoder(readout[:, None], 2 * atoms[:, None], base)
    return CarriedEncoder(m1, encoder), jnp.concatenate([own, atoms])

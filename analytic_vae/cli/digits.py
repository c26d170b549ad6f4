"""The main job's data and network: the digits, and a small classifier that is trained within the command."""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..model.from_data import _require_sklearn
from ..types import Array

Weights = list[tuple[Array, Array]]


def train_classifier(
    images: Array, labels: Array, *, hidden: int | Sequence[int] = 8, steps: int = 1500, seed: int = 0
) -> tuple[Weights, float]:
    """A ReLU network (inputs - hidden layers - classes), trained by full-batch Adam on the cross-entropy.

    Returns its weights `[(W1, b1), (W2, b2), ...]` and the training accuracy.
    """
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    hidden = [hidden] if isinstance(hidden, int) else list(hidden)
    widths, dtype = [images.shape[1], *hidden, int(labels.max()) + 1], images.dtype
    weights: Weights = [
        (jax.random.normal(key, (after, before), dtype) * (2 / before) ** 0.5, jnp.zeros(after, dtype))
        for key, (before, after) in zip(
            jax.random.split(jax.random.key(seed), len(hidden) + 1), pairwise(widths), strict=True
        )
    ]
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-2, steps), weight_decay=1e-3)

    def logits(weights: Weights) -> Array:
        x = images
        for weight, bias in weights[:-1]:
            x = jax.nn.relu(x @ weight.T + bias[None])
        weight, bias = weights[-1]
        return x @ weight.T + bias[None]

    def loss(weights: Weights) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits(weights), labels).mean()

    @jax.jit
    def train(weights: Weights):
        def step(carry, _):
            updates, state = optimizer.update(jax.grad(loss)(carry[0]), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        (after, _), _ = jax.lax.scan(step, (weights, optimizer.init(weights)), None, length=steps)
        return after, jnp.mean(jnp.argmax(logits(after), axis=1) == labels)

    trained, accuracy = train(weights)
    return trained, float(accuracy)


def digits_data() -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's handwritten digits: images `[1797, 64]` (8 by 8, from 0 to 1) and labels `[1797]` (0 to 9).

    They come with scikit-learn; nothing is downloaded.
    """
    _require_sklearn()
    from sklearn.datasets import load_digits

    images, labels = map(np.asarray, load_digits(return_X_y=True))
    return images / 16.0, labels

"""The main job's network: a small classifier, trained on the digits within the command."""

import jax
import jax.numpy as jnp
import optax

from .types import Array

Weights = list[tuple[Array, Array]]


def train_classifier(
    images: Array, labels: Array, *, hidden: int = 8, steps: int = 1500, seed: int = 0
) -> tuple[Weights, float]:
    """A ReLU network (inputs - hidden - classes), trained by full-batch Adam on the cross-entropy.

    Returns its weights `[(W1, b1), (W2, b2)]` and the training accuracy.
    """
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    classes, inputs = int(labels.max()) + 1, images.shape[1]
    first, second = jax.random.split(jax.random.key(seed))
    dtype = images.dtype
    weights: Weights = [
        (jax.random.normal(first, (hidden, inputs), dtype) * (2 / inputs) ** 0.5, jnp.zeros(hidden, dtype)),
        (jax.random.normal(second, (classes, hidden), dtype) * (2 / hidden) ** 0.5, jnp.zeros(classes, dtype)),
    ]
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-2, steps), weight_decay=1e-3)

    def logits(weights: Weights) -> Array:
        (w1, b1), (w2, b2) = weights
        return jax.nn.relu(images @ w1.T + b1[None]) @ w2.T + b2[None]

    def loss(weights: Weights) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits(weights), labels).mean()

    @jax.jit
    def train(weights: Weights):
        def step(carry, _):
            weights, state = carry
            updates, state = optimizer.update(jax.grad(loss)(weights), state, weights)
            return (optax.apply_updates(weights, updates), state), None

        (weights, _), _ = jax.lax.scan(step, (weights, optimizer.init(weights)), None, length=steps)
        return weights, jnp.mean(jnp.argmax(logits(weights), axis=1) == labels)

    weights, accuracy = train(weights)
    return weights, float(accuracy)

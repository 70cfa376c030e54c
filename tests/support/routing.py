"""Capsules and their routing, one number at a time in float64: what the layers are compared with."""

import math

import numpy as np
from scipy.special import softmax


def squashed(vector: np.ndarray) -> np.ndarray:
    """Return a vector of the same direction and the length |v|^2 / (1 + |v|^2)."""
    length = math.sqrt(sum(entry**2 for entry in vector))
    return vector / length * length**2 / (1 + length**2)


def routed(weight: np.ndarray, capsules: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one image's (O, P) output and (O, I) coupling, one capsule at a time.

    ``weight`` is (O, I, P, D), ``capsules`` (I, D). Each input's coupling is a softmax over the outputs
    (Sabour, Frosst, Hinton, NeurIPS 2017, procedure 1).
    """
    outputs, inputs = weight.shape[:2]
    prediction = {(o, i): weight[o, i] @ capsules[i] for o in range(outputs) for i in range(inputs)}
    logits = np.zeros((outputs, inputs))
    for iteration in range(iterations):
        coupling = np.array([softmax(logits[:, i]) for i in range(inputs)]).T
        sums = [sum(coupling[o, i] * prediction[o, i] for i in range(inputs)) for o in range(outputs)]
        out = [squashed(total) for total in sums]
        if iteration < iterations - 1:
            for (o, i), vector in prediction.items():
                logits[o, i] += out[o] @ vector
    return np.array(out), coupling

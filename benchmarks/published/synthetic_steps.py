"""FedProx's synthetic experiment in stacked arrays: local steps of all variants of the algorithm at once. The means are the package's."""

from collections.abc import Sequence

import numpy as np

from benchmarks.published.synthetic_devices import RATE, Array, Device, Softmax, Variant, asked, training_of, with_ones
from fedbiomed.common.params import weighted_mean


def local_steps(begun: Array, device: Device, batches: Sequence[Sequence[int]], mus: Array, last: Array) -> Array:
    """Parameters of all variants after a device's training.

    Args:
        begun: `(variants, inputs + 1, classes)`, the bias in the last row.
        device: inputs with a column of ones `(n, inputs + 1)`, and labels as rows of the unit matrix `(n, classes)`.
        batches: indices of samples, one list per step.
        mus: one per variant.
        last: number of steps of each variant.
    """
    inputs, labels = device
    now, pull = begun.copy(), (RATE * mus)[:, None, None]
    live = np.ones(len(mus))[:, None, None]
    for step, batch in enumerate(batches):
        x = inputs[batch]
        if step in last:
            live = (last > step).astype(float)[:, None, None]
        scores = x @ now
        np.exp(scores - scores.max(axis=2, keepdims=True), out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        scores -= labels[batch]
        now -= live * ((RATE / len(batch)) * (x.T @ scores) + pull * (now - begun))
    return now


def stacked(devices: Sequence[Device], variants: Sequence[Variant], seed: int, rounds: int) -> Array:
    """Parameters after each round, `(rounds, variants, inputs + 1, classes)`."""
    training = [(with_ones(inputs), np.eye(10)[labels]) for inputs, labels in map(training_of, devices)]
    now, found = np.zeros((len(variants), training[0][0].shape[1], 10)), []
    mus = np.array([variant.mu for variant in variants])
    for round_ in range(rounds):
        updates: list[list[dict[str, Array]]] = [[] for _ in variants]
        weights: list[list[float]] = [[] for _ in variants]
        for parts in zip(*(asked(seed, round_, variant.stragglers) for variant in variants), strict=True):
            own = training[parts[0].device]
            steps = [Softmax.batches(len(own[0]), part.draw, part.epochs) for part in parts]
            made = local_steps(now, own, max(steps, key=len), mus, np.array([len(one) for one in steps]))
            for number, (variant, part) in enumerate(zip(variants, parts, strict=True)):
                if variant.keeps_partial or not part.is_slow:
                    updates[number].append({"w": made[number]})
                    weights[number].append(len(own[0]))
        now = np.stack([weighted_mean(u, w)["w"] for u, w in zip(updates, weights, strict=True)])
        found.append(now)
    return np.array(found)

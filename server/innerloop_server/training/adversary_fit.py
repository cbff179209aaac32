"""Training PAIRED's adversary on the regret of the tasks that it wrote last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from innerloop.arrays import Array, Arrays
from innerloop_server.learners import adversary
from innerloop_server.training.network_steps import pack, unpack
from innerloop_server.training.optimiser import descend, leaves

if TYPE_CHECKING:
    from innerloop_server.training.adversary_generator import AdversaryGenerator

SMALLEST_DEVIATION = 1e-6
"""Regrets that differ by less than this say nothing."""


def fit(settings: AdversaryGenerator, state: Arrays, choices: Array, regrets: Array) -> dict[str, Array]:
    """The adversary after ``settings.epochs`` PPO steps on the whole batch.

    Args:
        settings: of the adversary.
        state: its state.
        choices: [M, P] int64 the bins that it wrote.
        regrets: [M] of those tasks.

    Returns:
        The parts of the state that are new.
    """
    weights, adam = unpack("adversary", state)
    seen = torch.from_numpy(adversary.prefixes(settings.centres(choices)))
    chosen = torch.from_numpy(choices)
    exists = torch.from_numpy(np.arange(settings.bins) < settings.parts[:, None])
    advantages = torch.from_numpy(standardise(regrets).astype(np.float32))
    old = adversary.log_prob(adversary.log_probabilities(weights, seen, exists), chosen)
    for _ in range(settings.epochs):
        by = leaves(weights)
        log_p = adversary.log_probabilities(by, seen, exists)
        loss = adversary.loss(log_p, chosen, old, advantages, settings.clip, settings.entropy)
        weights, adam, _ = descend(loss, by, adam, settings.learning_rate)
    return pack("adversary", weights, adam)


def standardise(regrets: Array) -> Array:
    """Mean 0, standard deviation 1; zero where all are alike."""
    centred = regrets - regrets.mean()
    deviation = np.sqrt(np.mean(centred * centred))
    standard: Array = centred / deviation if deviation > SMALLEST_DEVIATION else np.zeros_like(centred)
    return standard

"""Training the two networks of GoalGAN on the tasks that were tried last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Split
from innerloop_server.learners import goal_gan
from innerloop_server.learners.learner import Tensors
from innerloop_server.streams import Purpose, stream
from innerloop_server.training.network_steps import pack, unpack
from innerloop_server.training.optimiser import descend, leaves

if TYPE_CHECKING:
    from innerloop_server.training.goal_gan_generator import GoalGanGenerator


def fit(settings: GoalGanGenerator, state: Arrays, points: Array, labels: Array) -> dict[str, Array]:
    """Both networks after ``settings.fit_steps`` steps each, in turn.

    Half of every batch are good tasks, so that a few at the frontier outweigh the many that are mastered. The
    discriminator sees all points blurred: without that it tells the generator's from the others' perfectly, and its
    slope there, which is all that the generator learns from, vanishes (Arjovsky and Bottou 2017,
    https://arxiv.org/abs/1701.04862).

    Args:
        settings: of the generator.
        state: its state, where the networks are.
        points: [M, P] tasks tried last.
        labels: [M] 1 for those of intermediate difficulty, of which there is one at least, else 0.

    Returns:
        The parts of the state that are new.
    """
    generator, adam_g = unpack("generator", state)
    discriminator, adam_d = unpack("discriminator", state)
    rng = stream(settings.seed, Purpose.GENERATOR, list(Split).index(settings.split), int(state["reports"]), 1)
    goals, marks = (torch.from_numpy(x.astype(np.float32)) for x in (points, labels))
    good, half = np.flatnonzero(labels), settings.batch // 2

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    def score(weights: Tensors, seen: torch.Tensor) -> torch.Tensor:
        return goal_gan.discriminate(weights, seen + settings.blur * normal(*seen.shape))

    for _ in range(settings.fit_steps):
        drawn = np.concatenate([rng.choice(good, half), rng.integers(len(points), size=settings.batch - half)])
        rows = torch.from_numpy(drawn)
        noise = normal(settings.batch, settings.noise)
        by = leaves(discriminator)
        made_up = score(by, goal_gan.generate(generator, noise))
        loss = goal_gan.discriminator_loss(score(by, goals[rows]), marks[rows], made_up)
        discriminator, adam_d, _ = descend(loss, by, adam_d, settings.discriminator_rate)
        by = leaves(generator)
        loss = goal_gan.generator_loss(score(discriminator, goal_gan.generate(by, noise)))
        generator, adam_g, _ = descend(loss, by, adam_g, settings.generator_rate)
    return pack("generator", generator, adam_g) | pack("discriminator", discriminator, adam_d)

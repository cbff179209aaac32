"""The losses of a goal GAN: a generator of tasks that are neither too hard nor too easy, and what tells them apart.

Florensa et al. 2018, "Automatic Goal Generation for Reinforcement Learning Agents"
(https://arxiv.org/abs/1705.06366), equation 5: least-squares losses in which the discriminator is also shown the tasks
that are *not* of intermediate difficulty, as negative examples. So it learns from few good ones.
"""

from __future__ import annotations

import torch

from innerloop_server.learners import perceptron
from innerloop_server.learners.learner import Tensors


def generate(generator: Tensors, noise: torch.Tensor) -> torch.Tensor:
    """Points [M, P] in (-1, 1) for noise [M, Z]."""
    return torch.tanh(perceptron.forward(generator, noise, torch.tanh))


def discriminate(discriminator: Tensors, points: torch.Tensor) -> torch.Tensor:
    """[M]: towards 1 for points [M, P] of intermediate difficulty, towards -1 for others and for made up ones."""
    score: torch.Tensor = perceptron.forward(discriminator, points, torch.tanh)
    return score.squeeze(-1)


def discriminator_loss(scores: torch.Tensor, labels: torch.Tensor, made_up: torch.Tensor) -> torch.Tensor:
    """``mean(y (D(g) - 1)^2 + (1 - y) (D(g) + 1)^2) + mean((D(G(z)) + 1)^2)``.

    Args:
        scores: [M] of tasks that were tried.
        labels: [M] the y: 1 for intermediate difficulty, else 0.
        made_up: [M'] scores of points that the generator makes up.
    """
    tried = labels * (scores - 1) ** 2 + (1 - labels) * (scores + 1) ** 2
    return tried.mean() + ((made_up + 1) ** 2).mean()


def generator_loss(made_up: torch.Tensor) -> torch.Tensor:
    """``mean((D(G(z)) - 1)^2)``: the generator wants its points to be taken for good ones.

    The paper's is ``mean(D(G(z))^2)``: points that are undecided. Where good tasks are rare the discriminator is sure
    of them, and that loss drives the generator to their edge, where it starves.
    """
    return ((made_up - 1) ** 2).mean()

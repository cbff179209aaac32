"""What action values are taught, and how they are explored: pure functions of tensors.

Time is the last dimension, and in the names, as in ``returns``: ``r_t`` is the reward that ``a_t`` brought, ``v_t`` the
value of where ``a_t`` was taken.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def n_step(
    r_t: torch.Tensor, cut_t: torch.Tensor, v_t: torch.Tensor, greedy_t: torch.Tensor, discount: float, n: int
) -> torch.Tensor:
    """``y_t = r_t + ... + discount^(m-1) r_{t+m-1} + discount^m v_{t+m}``, m <= n, without the last term after a cut.

    m is n, or less where a cut, the last step or an action that is not greedy comes before: what exploring brought is
    no part of what the greedy policy is worth (Watkins 1989, Learning from Delayed Rewards, chapter 12). So the fixed
    point is that of n = 1, whoever played.

    Args:
        r_t: [..., T] rewards.
        cut_t: [..., T] bool: nothing follows the step.
        v_t: [..., T] values of what each step starts from.
        greedy_t: [..., T] bool: the action taken is the one that ``v_t`` is the value of.
        discount: per step.
        n: most rewards that are summed, at least 1.

    Returns:
        [..., T]; at the last step, which nothing is known to follow, ``v_t`` itself unless it is cut.
    """
    last = r_t[..., -1:].where(cut_t[..., -1:], v_t[..., -1:])

    def backed_up(next_t: torch.Tensor) -> torch.Tensor:
        return torch.cat([r_t[..., :-1] + discount * next_t.masked_fill(cut_t[..., :-1], 0), last], -1)

    y_t = backed_up(v_t[..., 1:])
    for _ in range(n - 1):
        y_t = backed_up(y_t[..., 1:].where(greedy_t[..., 1:], v_t[..., 1:]))
    return y_t


def double_values(q_t: torch.Tensor, chosen_t: torch.Tensor) -> torch.Tensor:
    """What one network says of the actions that another chose, so that noise is not both chosen and counted (van
    Hasselt et al. 2016, https://arxiv.org/abs/1509.06461): [...] of ``q_t`` [..., A] and ``chosen_t`` [...] int64.
    """
    return q_t.gather(-1, chosen_t.unsqueeze(-1)).squeeze(-1)


def dueling(value: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """Action values of a value [...] and advantages [..., A] that need no zero of their own (Wang et al. 2016,
    https://arxiv.org/abs/1511.06581, equation 9): [..., A].
    """
    return value.unsqueeze(-1) + advantages - advantages.mean(-1, keepdim=True)


def huber(error: torch.Tensor) -> torch.Tensor:
    """Half the square up to 1, growing linearly from there: [...]."""
    size = error.abs()
    small = size.clamp(max=1)
    return small * (size - 0.5 * small)


def ladder(rows: int, first: float, exponent: float) -> tuple[float, ...]:
    """How often each row takes a random action: ``first^(1 + exponent * i / (rows - 1))``, so that some explore at
    every stage of a training and others go where only what was learned leads (Horgan et al. 2018,
    https://arxiv.org/abs/1803.00933).
    """
    return tuple(first ** (1 + exponent * i / max(1, rows - 1)) for i in range(rows))


def epsilon_greedy(values: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
    """Probabilities [..., A] of the best action of ``values`` [..., A] and, ``epsilon`` [...] of the time, any."""
    width = values.shape[-1]
    best = F.one_hot(values.argmax(-1), width).to(values.dtype)
    chance = epsilon.unsqueeze(-1)
    return (1 - chance) * best + chance / width

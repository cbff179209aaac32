"""Returns and advantages on padded episodes: pure functions of tensors.

Time is in the names, as in rlax: ``r_t`` is the reward that action ``a_t`` brought, ``v_t`` the value of the
observation before ``a_t``, ``v_final`` the value of what was seen after the last step. Shapes: B tasks, N episodes,
T steps of capacity; steps at or past an episode's length are zero and stay zero.
"""

from __future__ import annotations

import torch


def step_mask(lengths: torch.Tensor, capacity: int) -> torch.Tensor:
    """Which steps are real.

    Args:
        lengths: [B, N] int64.
        capacity: T.

    Returns:
        [B, N, T] bool.
    """
    return torch.arange(capacity, device=lengths.device) < lengths.unsqueeze(-1)


def discounted_sums(x_t: torch.Tensor, discount: float) -> torch.Tensor:
    """``y_t = x_t + discount * y_{t+1}`` along the last dimension, with ``y_T = 0``.

    A loop over time and not a product with a matrix of powers: elementwise work cannot depend on the batch.
    """
    steps = x_t.unbind(-1)
    y_t = torch.zeros_like(steps[0])
    sums: list[torch.Tensor] = []
    for step in reversed(steps):
        y_t = torch.add(step, y_t, alpha=discount)
        sums.append(y_t)
    sums.reverse()
    return torch.stack(sums, -1)


def discounted_returns(r_t: torch.Tensor, discount: float) -> torch.Tensor:
    """``R_t = sum_{i >= t} discount^(i-t) r_i``, [B, N, T]; nothing is added after the last step."""
    return discounted_sums(r_t, discount)


def discount_to_end(lengths: torch.Tensor, capacity: int, discount: float, dtype: torch.dtype) -> torch.Tensor:
    """``discount^(L - t)``: the weight that step t gives to the value after the last step L - 1.

    Args:
        lengths: [B, N] int64, the L.
        capacity: T.
        discount: per step.
        dtype: of the result.

    Returns:
        [B, N, T], zero at padded steps.
    """
    powers = torch.tensor([discount**i for i in range(capacity + 1)], dtype=dtype, device=lengths.device)
    left = (lengths.unsqueeze(-1) - torch.arange(capacity, device=lengths.device)).clamp(min=0)
    return powers[left] * (left > 0)


def gae(
    r_t: torch.Tensor,
    v_t: torch.Tensor,
    v_final: torch.Tensor,
    lengths: torch.Tensor,
    discount: float,
    trace: float,
) -> torch.Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, https://arxiv.org/abs/1506.02438, equation 16).

    ``A_t = sum_l (discount * trace)^l delta_{t+l}`` with ``delta_t = r_t + discount * v_{t+1} - v_t``.

    Args:
        r_t: [B, N, T] rewards.
        v_t: [B, N, T] values; what stands at padded steps does not matter.
        v_final: [B, N] value after the last step: zero for an episode that ended.
        lengths: [B, N] int64.
        discount: per step.
        trace: the lambda; 1 gives the return minus the value.

    Returns:
        [B, N, T] advantages, zero at padded steps.
    """
    capacity = r_t.shape[-1]
    mask = step_mask(lengths, capacity)
    is_last = torch.arange(1, capacity + 1, device=lengths.device) == lengths.unsqueeze(-1)
    v_tp1 = torch.cat([v_t[..., 1:], torch.zeros_like(v_t[..., :1])], -1)
    v_tp1 = torch.where(is_last, v_final.unsqueeze(-1), v_tp1)
    zero = torch.zeros((), dtype=v_t.dtype, device=v_t.device)
    delta_t = torch.where(mask, r_t + discount * v_tp1 - v_t, zero)
    return discounted_sums(delta_t, discount * trace)

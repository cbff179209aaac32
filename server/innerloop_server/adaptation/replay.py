"""Whole episodes shown to rows that remember: the policy is made to take the actions that somebody else has taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from innerloop.arrays import Array
from innerloop_server.adaptation import memory, states
from innerloop_server.adaptation.inner_loop import Replay, ReplayNeed, Resident
from innerloop_server.adaptation.kernels import stack_experience
from innerloop_server.adaptation.orders import ReplayOrder
from innerloop_server.domain import Experience


def need_of(order: ReplayOrder, resident: Resident, device: torch.device) -> ReplayNeed:
    """What an order to show a row whole episodes needs."""

    def whole(array: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)[None]

    n, t = order.rewards.shape
    experience = Experience(
        observations=whole(order.observations),
        actions=whole(order.actions),
        rewards=whole(order.rewards),
        log_probs=torch.zeros(1, n, t, device=device),
        lengths=whole(order.lengths),
        bootstrap=torch.zeros(1, n, dtype=torch.bool, device=device),
        final_observations=whole(np.zeros_like(order.observations[:, 0])),
        time_offset=torch.zeros(1, n, dtype=torch.int64, device=device),
        feedback=torch.zeros(1, n, t, 0, device=device),
        success=torch.zeros(1, n, dtype=torch.bool, device=device),
    )
    return ReplayNeed(resident, memory.rows_to_device(order.memory, device), experience, whole(order.truncated))


@torch.no_grad()
def replay(needs: Sequence[ReplayNeed]) -> list[Replay]:
    """Whole episodes shown to a row of each need; what it then remembers is what having acted would have left."""
    revision = needs[0].resident.revision
    learner, meta = revision.learner, revision.meta
    shown = stack_experience([need.experience for need in needs])
    truncated = torch.cat([need.truncated for need in needs])
    state = states.stack([need.state for need in needs])
    sums = shown.rewards.new_zeros(shown.lengths.shape)
    for n in range(shown.lengths.shape[1]):
        lengths = shown.lengths[:, n : n + 1]
        for t in range(int(lengths.max())):
            seen = memory.whole_input(state, shown.observations[:, n : n + 1, t])
            distribution, kept = learner.act(meta, memory.own(state), seen)
            alive, last = t < lengths, t == lengths - 1
            sums[:, n : n + 1] += torch.where(alive, distribution.entropy(), 0.0)
            cut = truncated[:, n : n + 1]
            moved = memory.after(
                kept, shown.actions[:, n : n + 1, t], shown.rewards[:, n : n + 1, t], last & ~cut, last & cut
            )
            state = memory.where(alive, moved, state)
    entropies = (sums / shown.lengths).cpu().numpy()
    return [Replay(part, entropies[i]) for i, part in enumerate(states.split(state, len(needs)))]

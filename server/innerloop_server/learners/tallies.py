"""What a policy counts of its trial, in torch: the twin of ``innerloop.policy.tallies``, which says what it is for."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from innerloop.policy import Header
from innerloop.policy.tallies import COUNT, PAID, STATE
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.trial_record import TrialRecord


def begin(header: Header, like: torch.Tensor, n: int, rows: int) -> Tensors:
    """Nothing counted, for n tasks: [n, R, S, A] twice, and [n, R] int64; ``like`` gives dtype and device."""
    table = (n, rows, header.observation_size, header.action_size)
    state = torch.zeros((n, rows), dtype=torch.int64, device=like.device)
    return {COUNT: like.new_zeros(table), PAID: like.new_zeros(table), STATE: state}


def look(header: Header, tallies: Tensors, input: Input) -> tuple[torch.Tensor, Tensors]:
    """The step before counted in.

    Args:
        header: names the spaces and the prior.
        tallies: as :func:`begin` lays them out; other arrays are not read.
        input: [B, R, ...]; all but the observation ``None``: every row is at its trial's first step.

    Returns:
        (what the network reads, [B, R, 2 * A]; the tallies after).
    """
    count, paid = tallies[COUNT], tallies[PAID]
    if input.previous_action is None:
        count, paid = torch.zeros_like(count), torch.zeros_like(paid)
    else:
        assert input.reward is not None  # they come together
        assert input.trial_end is not None
        there = _one_hot(header, tallies[STATE], input.previous_action).to(count.dtype).reshape(count.shape)
        new = input.trial_end.bool()[..., None, None]
        reward = input.reward.to(paid.dtype)[..., None, None]
        count = (count + there).masked_fill(new, 0)
        paid = (paid + there * reward).masked_fill(new, 0)
    state = input.observation.long()
    here = state[..., None, None].expand(*state.shape, 1, count.shape[-1])
    seen = _seen(header, count.gather(-2, here).squeeze(-2), paid.gather(-2, here).squeeze(-2))
    return seen, {COUNT: count, PAID: paid, STATE: state}


def of_trials(header: Header, trials: TrialRecord, dtype: torch.dtype) -> torch.Tensor:
    """What the network reads of the tallies at each step of whole trials, [T, R, 2 * A]."""
    states, actions = trials.observations.long(), trials.actions.long()
    there = _one_hot(header, states, actions).to(dtype)  # [T, R, S * A]
    tables = (*states.shape, header.observation_size, header.action_size)
    here = states[..., None, None].expand(*states.shape, 1, header.action_size)

    def before(x: torch.Tensor) -> torch.Tensor:
        """[T, R, A]: of the present state, sums over the steps before the present one."""
        sums = torch.cat([torch.zeros_like(x[:1]), x[:-1].cumsum(0)])
        return sums.reshape(tables).gather(-2, here).squeeze(-2)

    return _seen(header, before(there), before(there * trials.rewards.to(dtype).unsqueeze(-1)))


def _seen(header: Header, count: torch.Tensor, paid: torch.Tensor) -> torch.Tensor:
    gain = (paid - count * header.tally_mean) / (header.tally_strength + count)
    return torch.cat([gain, 1 / torch.sqrt(count + 1)], -1)


def _one_hot(header: Header, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """[..., S * A]: where a state and an action are counted."""
    return F.one_hot(state * header.action_size + action.long(), header.observation_size * header.action_size)

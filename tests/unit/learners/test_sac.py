import math

import pytest
import torch

from innerloop_server.learners import sac
from innerloop_server.learners.distributions import Categorical, Gaussian

DISCOUNT, TEMPERATURE = 0.9, 0.5
# Two states, two actions: the reward and where it leads. Action 1 in state 1 ends the episode.
REWARDS = torch.tensor([[0.0, 1.0], [0.5, 2.0]], dtype=torch.float64)
NEXT = torch.tensor([[0, 1], [0, 1]])
ENDS = torch.tensor([[False, False], [False, True]])


def exact() -> torch.Tensor:
    """Soft value iteration to its fixed point: V = t log sum exp(Q / t)."""
    q = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(2_000):
        value = TEMPERATURE * torch.logsumexp(q / TEMPERATURE, -1)
        q = REWARDS + DISCOUNT * torch.where(ENDS, 0.0, value[NEXT])
    return q


def test_the_losses_lead_to_the_exact_soft_values() -> None:
    """Gradient steps on both losses alone, as training takes them, on every step of the MDP at once."""
    q = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    logits = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    everything = torch.ones(2, 2, dtype=torch.bool)
    for _ in range(6_000):
        with torch.no_grad():
            value = sac.soft_value(q, Categorical(logits), TEMPERATURE)
            targets = sac.bellman_target(REWARDS, ENDS, value[NEXT], DISCOUNT)
        loss = sac.critic_loss(q[None], targets, everything)
        actor = sac.actor_loss(
            sac.soft_value(q.detach(), Categorical(logits), TEMPERATURE), torch.ones(2, dtype=torch.bool)
        )
        step_q, step_logits = torch.autograd.grad(loss + actor, [q, logits])
        with torch.no_grad():
            q -= 1.0 * step_q
            logits -= 6.0 * step_logits
    torch.testing.assert_close(q.detach(), exact(), atol=1e-4, rtol=0)
    torch.testing.assert_close(logits.detach().softmax(-1), (exact() / TEMPERATURE).softmax(-1), atol=1e-4, rtol=0)


def test_an_end_is_worth_its_reward_and_a_clock_is_no_end() -> None:
    targets = sac.bellman_target(torch.ones(2), torch.tensor([True, False]), torch.full((2,), 10.0), 0.9)
    assert targets.tolist() == [1.0, 10.0]


def test_soft_value_of_a_gaussian() -> None:
    policy = Gaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    value = sac.soft_value(torch.tensor([3.0]), policy, 0.1)
    assert value.item() == pytest.approx(3 + 0.1 * math.log(2 * math.pi * math.e))


def test_masked_steps_count_for_nothing() -> None:
    mask = torch.tensor([True, False])
    q = torch.tensor([[1.0, 100.0], [3.0, 100.0]])
    assert sac.critic_loss(q, torch.tensor([2.0, 0.0]), mask).item() == 2.0  # (1 - 2)^2 + (3 - 2)^2
    assert sac.actor_loss(torch.tensor([4.0, 100.0]), mask).item() == -4.0
    assert sac.actor_loss(torch.tensor([4.0]), torch.tensor([False])).item() == 0.0


def test_out_of_reach() -> None:
    mean = torch.tensor([[0.5, -0.5], [2.0, -4.0]])
    low, high = torch.tensor([-1.0, -1.0]), torch.tensor([1.0, math.inf])
    assert sac.out_of_reach(mean, low, high).tolist() == [0.0, 10.0]

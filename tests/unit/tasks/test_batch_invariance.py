"""A session's numbers do not depend on its company: rows of a batch are bitwise what they are alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from innerloop.arrays import Discrete
from innerloop_server.domain import Simulator, Split
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task, stack_parameters

TASKS, EPISODES, STEPS = 13, 7, 40
# An example of a supervised task is chosen by its place among the episodes: those are no rows to be taken apart.
FAMILIES = {
    name: family
    for name, family in load_registry().families.items()
    if Simulator.BATCH in family.simulators and family.supervision is None
}
Trace = list[tuple[torch.Tensor, ...]]


def trace(family: Family, tasks: slice, episodes: slice, device: str = "cpu") -> Trace:
    """States, observations, rewards and flags of the rows asked for, under noise drawn for all rows."""
    rng = np.random.default_rng(1)
    drawn = [sample_task(family, 2, Split.TRAIN, i) for i in range(TASKS)][tasks]
    batch = family.batch(stack_parameters(drawn), torch.device(device))
    uniforms = torch.tensor(rng.random((TASKS, EPISODES, batch.reset_uniforms)))[tasks, episodes]
    state, observation = batch.reset(uniforms.to(device))
    out: Trace = [(state, observation)]
    for _ in range(STEPS):
        if isinstance(family.action_space, Discrete):
            action = torch.tensor(rng.integers(family.action_space.n, size=(TASKS, EPISODES)))
        else:
            action = torch.tensor(rng.standard_normal((TASKS, EPISODES, family.action_space.size)), dtype=torch.float32)
        noise = torch.tensor(rng.random((TASKS, EPISODES, batch.step_uniforms)))[tasks, episodes].to(device)
        before = state.clone()
        after, *rest = batch.step(state, action[tasks, episodes].to(device), noise if batch.step_uniforms else None)
        assert torch.equal(state, before), "step changed the state it was given"
        out.append((after, *rest))
        state = after
    return out


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.mark.parametrize(
    ("tasks", "episodes"),
    [
        (slice(0, 1), slice(0, 1)),
        (slice(12, 13), slice(6, 7)),
        (slice(3, 5), slice(0, 7)),
        (slice(0, 13), slice(2, 3)),
        (slice(5, 8), slice(1, 6)),
    ],
)
def test_rows_are_bitwise_the_same_in_any_company(family: Family, tasks: slice, episodes: slice) -> None:
    together = trace(family, slice(0, TASKS), slice(0, EPISODES))
    apart = trace(family, tasks, episodes)
    for whole, part in zip(together, apart, strict=True):
        for a, b in zip(whole, part, strict=True):
            assert torch.equal(a[tasks, episodes], b)


def test_shapes_and_dtypes(family: Family) -> None:
    (_, observation), *steps = trace(family, slice(0, 3), slice(0, 2))
    assert observation.shape == (3, 2, *family.observation_space.shape)
    for state, observed, reward, ended in steps:
        assert state.shape[:2] == (3, 2)
        assert state.dtype == torch.float64
        assert observed.shape == observation.shape
        seen = torch.int64 if isinstance(family.observation_space, Discrete) else torch.float32
        assert observed.dtype == observation.dtype == seen
        assert reward.shape == ended.shape == (3, 2)
        assert (reward.dtype, ended.dtype) == (torch.float32, torch.bool)


@pytest.mark.gpu
def test_the_device_computes_what_the_cpu_computes(family: Family) -> None:
    everything = (slice(0, TASKS), slice(0, EPISODES))
    there = trace(family, *everything, device="cuda" if torch.cuda.is_available() else "cpu")
    for ours, theirs in zip(trace(family, *everything), there, strict=True):
        torch.testing.assert_close(theirs[0].cpu(), ours[0], rtol=0, atol=1e-9)
        for a, b in zip(ours[1:], theirs[1:], strict=True):
            torch.testing.assert_close(b.cpu(), a, rtol=1e-5, atol=1e-6)

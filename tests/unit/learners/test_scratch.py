from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from innerloop.arrays import Box, Discrete, Space
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners.fast_weights import DEPTH
from innerloop_server.learners.scratch import FIRST_PREFIX, SECOND_PREFIX, Scratch

MakeSpec = Callable[..., LearnerSpec]
MakeExperience = Callable[..., Experience[torch.Tensor]]
ACTIONS: list[Space] = [Box.of(-1.0, 1.0, (2,)), Box.of(-1.0, 1.0, (1,)), Discrete(3)]


def only(experience: Experience[torch.Tensor], b: int) -> Experience[torch.Tensor]:
    return Experience(**{name: value[b : b + 1].clone() for name, value in vars(experience).items()})


def test_a_session_is_ppo_with_torchs_own_adam(make_spec: MakeSpec, make_experience: MakeExperience) -> None:
    learner = Scratch(make_spec(epochs=3, learning_rate=0.02, clip=0.1))
    meta = learner.initial_meta(0)
    state = learner.begin(meta, 1)
    leaves = {name: state[name][0].clone().requires_grad_() for name in learner._learned}
    adam = torch.optim.Adam(leaves.values(), lr=0.02)
    for k in range(2):
        experience = make_experience(learner.spec, 1, 3, 5, seed=k)
        prepared = learner._objective.prepare(experience)
        for _ in range(3):
            policy = learner._policy({name: value[None] for name, value in leaves.items()}, prepared)
            ratio = torch.exp(policy.log_prob(prepared.actions) - prepared.log_probs)
            gain = torch.minimum(ratio * prepared.outer_advantages, ratio.clamp(0.9, 1.1) * prepared.outer_advantages)
            adam.zero_grad()
            (-gain[prepared.mask].mean()).backward()
            adam.step()
        state, _ = learner.adapt(meta, state, experience, torch.ones(1))
    assert state[DEPTH].tolist() == [2]
    for name, leaf in leaves.items():
        torch.testing.assert_close(state[name][0], leaf.detach(), rtol=1e-4, atol=1e-6)


def test_every_session_starts_from_the_same_nothing(make_spec: MakeSpec) -> None:
    learner = Scratch(make_spec())
    meta = learner.initial_meta(3)
    state = learner.begin(meta, 2)
    for name, value in meta.items():
        assert torch.equal(state[name][0], value)
        assert torch.equal(state[name][1], value)
        assert not state[FIRST_PREFIX + name].any()
        assert not state[SECOND_PREFIX + name].any()


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_a_task_does_not_depend_on_its_company_or_its_age(
    make_spec: MakeSpec, make_experience: MakeExperience, action: Space
) -> None:
    learner = Scratch(make_spec(action=action, epochs=2))
    meta = learner.initial_meta(0)
    first, second = (make_experience(learner.spec, 3, 3, 5, seed=seed) for seed in (0, 1))
    scale = torch.tensor([1.0, 0.5, 1.0])
    older, _ = learner.adapt(meta, learner.begin(meta, 3), first, scale)
    begun = learner.begin(meta, 3)
    mixed = {name: torch.cat([value[:2], begun[name][2:]]) for name, value in older.items()}
    together, said = learner.adapt(meta, mixed, second, scale)
    for b in range(3):
        alone, heard = learner.adapt(
            meta, {name: value[b : b + 1] for name, value in mixed.items()}, only(second, b), scale[b : b + 1]
        )
        assert all(torch.equal(value[0], together[name][b]) for name, value in alone.items())
        assert all(torch.equal(value[0], said[name][b]) for name, value in heard.items())
    assert together[DEPTH].tolist() == [2, 2, 1]


def test_a_task_without_a_step_stays_as_it_is(make_spec: MakeSpec, make_experience: MakeExperience) -> None:
    learner = Scratch(make_spec())
    meta = learner.initial_meta(0)
    state, _ = learner.adapt(meta, learner.begin(meta, 2), make_experience(learner.spec, 2, 3, 5), torch.ones(2))
    lengths = torch.tensor([[0, 0, 0], [3, 2, 5]])
    after, _ = learner.adapt(meta, state, make_experience(learner.spec, 2, 3, 5, lengths=lengths), torch.ones(2))
    assert all(torch.equal(value[0], state[name][0]) for name, value in after.items())
    assert any(not torch.equal(value[1], state[name][1]) for name, value in after.items())


@pytest.mark.parametrize(("name", "value"), [("epochs", 101), ("clip", 0.0), ("updates", 0), ("rate", 0.1)])
def test_a_wrong_setting_is_named(make_spec: MakeSpec, name: str, value: object) -> None:
    with pytest.raises(InvalidField) as caught:
        Scratch(dataclasses.replace(make_spec(), settings={name: value}))
    assert caught.value.field == f"settings.{name}"

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop import policy
from innerloop.arrays import Box, Discrete, Space
from innerloop_server.domain import Experience, LearnerSpec, Supervision
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.maml import Maml
from innerloop_server.learners.reptile import Reptile

MakeSpec = Callable[..., LearnerSpec]
MakeExperience = Callable[..., Experience[torch.Tensor]]
ACTIONS: list[Space] = [Box.of(-1.0, 1.0, (2,)), Box.of(-1.0, 1.0, (1,)), Discrete(3)]


def only(experience: Experience[torch.Tensor], b: int) -> Experience[torch.Tensor]:
    return Experience(**{name: value[b : b + 1].clone() for name, value in vars(experience).items()})


def weights_of(state: Tensors) -> Tensors:
    return {name: value for name, value in state.items() if name.startswith(("layers.", "log_std"))}


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_its_inner_step_is_that_of_maml_with_a_fixed_rate(
    make_spec: MakeSpec, make_experience: MakeExperience, action: Space
) -> None:
    reptile = Reptile(make_spec(action=action, rate=0.25))
    maml = Maml(make_spec(action=action, rates="fixed", initial_rate=0.25))
    meta = reptile.initial_meta(4)
    assert all(torch.equal(value, meta[name]) for name, value in maml.initial_meta(4).items())
    experience = make_experience(reptile.spec, 2, 3, 5)
    scale = torch.tensor([1.0, 0.5])
    got, said = reptile.adapt(meta, reptile.begin(meta, 2), experience, scale)
    want, heard = maml.adapt(meta, maml.begin(meta, 2), experience, scale)
    assert got.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=1e-6, atol=1e-7)
    assert all(torch.equal(said[name], heard[name]) for name in heard)


def test_adam_starts_anew_with_every_task_and_goes_on_within_one(
    make_spec: MakeSpec, make_experience: MakeExperience
) -> None:
    """Against torch's own Adam without momentum."""
    learner = Reptile(make_spec(optimiser="adam", rate=0.01))
    meta = learner.initial_meta(0)
    state = learner.begin(meta, 1)
    assert all(not value.any() for name, value in state.items() if name.startswith("second."))
    leaves = {name: value[0].clone().requires_grad_() for name, value in weights_of(state).items()}
    adam = torch.optim.Adam(leaves.values(), lr=0.01, betas=(0.0, 0.999), eps=1e-8)
    for k in range(3):
        experience = make_experience(learner.spec, 1, 3, 5, seed=k)
        prepared = learner._objective.prepare(experience)
        stacked = {name: value[None] for name, value in leaves.items()}
        loss = learner._objective.inner(learner._policy(stacked, prepared), prepared)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        state, _ = learner.adapt(meta, state, experience, torch.ones(1))
    for name, leaf in leaves.items():
        torch.testing.assert_close(state[name][0], leaf.detach(), rtol=1e-4, atol=1e-6)
    assert state["depth"].tolist() == [3]


def test_the_outer_step_by_hand(make_spec: MakeSpec) -> None:
    """Half of the way to the mean of the tasks that count, in the middle of training a quarter."""
    learner = Reptile(make_spec(action=Discrete(3), hidden_sizes=[], updates=10, outer_step=0.5))
    meta = {name: torch.ones_like(value) for name, value in learner.initial_meta(0).items()}
    state = learner.begin(meta, 3)
    adapted = {n: v + torch.tensor([2.0, 40.0, 4.0]).reshape(3, *(1,) * (v.dim() - 1)) for n, v in state.items()}
    for update, share in ((0, 0.5), (5, 0.25), (10, 0.0)):
        after = learner.outer_update(meta, adapted, [True, False, True], update)
        assert after.keys() == meta.keys()
        assert all(torch.allclose(value, torch.tensor(1 + share * 3)) for value in after.values())


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_no_experience_changes_no_weight(make_spec: MakeSpec, make_experience: MakeExperience, optimiser: str) -> None:
    learner = Reptile(make_spec(optimiser=optimiser))
    meta = learner.initial_meta(0)
    state = learner.begin(meta, 2)
    empty = make_experience(learner.spec, 2, 3, 5, lengths=torch.tensor([[0, 0, 0], [5, 5, 5]]))
    after, metrics = learner.adapt(meta, state, empty, torch.ones(2))
    for name, value in weights_of(state).items():
        assert torch.equal(after[name][0], value[0])
        assert not torch.equal(after[name][1], value[1])
    assert all(torch.isfinite(value).all() for value in metrics.values())


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 6),
    st.integers(1, 21),
    st.integers(1, 70),
    st.sampled_from(ACTIONS),
    st.sampled_from([[], [8], [32, 32]]),
    st.integers(0, 2**32 - 1),
)
def test_a_task_adapts_to_the_same_bits_alone_and_in_company(
    make_spec: MakeSpec,
    make_experience: MakeExperience,
    b: int,
    n: int,
    t: int,
    action: Space,
    hidden: list[int],
    seed: int,
) -> None:
    learner = Reptile(make_spec(action=action, hidden_sizes=hidden, horizon=t, optimiser="adam", rate=0.01))
    meta = learner.initial_meta(seed)
    together = make_experience(learner.spec, b, n, t, seed=seed)
    depths = torch.arange(b) * 3
    begun = learner.begin(meta, b) | {"depth": depths}
    state, _ = learner.adapt(meta, begun, together, torch.ones(b))
    state, _ = learner.adapt(meta, state, together, torch.ones(b))
    for i in range(b):
        alone = learner.begin(meta, 1) | {"depth": depths[i : i + 1]}
        for _ in range(2):
            alone, _ = learner.adapt(meta, alone, only(together, i), torch.ones(1))
        for name in state:
            assert torch.equal(state[name][i], alone[name][0]), name


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_the_exported_policy_acts_like_the_served_one(
    make_spec: MakeSpec, make_experience: MakeExperience, action: Space
) -> None:
    learner = Reptile(make_spec(action=action, optimiser="adam", rate=0.01))
    meta = learner.initial_meta(0)
    state, _ = learner.adapt(meta, learner.begin(meta, 2), make_experience(learner.spec, 2, 3, 5), torch.ones(2))
    header, weights = learner.export(meta, state)
    observation = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    served, unchanged = learner.act(meta, state, Input(torch.from_numpy(observation).repeat(2, 1, 1)))
    assert unchanged is state
    for b in range(2):
        local = policy.Policy.from_bytes(policy.Policy(header, weights[b]).to_bytes())
        for name, value in policy.forward(local.header, local.weights, observation).items():
            np.testing.assert_allclose(
                np.broadcast_to(getattr(served, name)[b].numpy(), value.shape), value, rtol=1e-5, atol=1e-5
            )


def test_a_regression_has_no_deviation_to_learn(make_spec: MakeSpec) -> None:
    spec = dataclasses.replace(make_spec(optimiser="adam"), supervision=Supervision.REGRESSION)
    learner = Reptile(spec)
    meta = learner.initial_meta(0)
    assert "log_std" not in meta
    state = learner.begin(meta, 2)
    assert "second.log_std" not in state
    assert "log_std" in learner.export(meta, state)[1][0]

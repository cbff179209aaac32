from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop import policy
from innerloop.arrays import Box, Discrete, Space
from innerloop_server.adaptation.rollout import Noise, Rollout, bucket, draw, environment_action, rollout, trim
from innerloop_server.domain import Features, LearnerSpec
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.maml import Maml
from innerloop_server.tasks.batch import TaskBatch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Drift(TaskBatch):
    """A point drifts by its task's own speed plus the action; the episode ends where it enters (1, 1.5)."""

    reset_uniforms = 1

    def __init__(self, speed: list[float], device: torch.device | None = None) -> None:
        self.speed = torch.tensor(speed, dtype=torch.float64, device=device)[:, None, None]

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return uniforms, uniforms.float()

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        push = action.double().reshape(*state.shape[:2], -1).sum(-1, keepdim=True)
        state = state + self.speed + 0.01 * push
        return state, state.float(), state[..., 0].float(), (state[..., 0] > 1) & (state[..., 0] < 1.5)


def learner_for(action: Space, horizon: int, rate: float = 0.1) -> Maml:
    size = 0 if isinstance(action, Discrete) else action.size
    return Maml(
        LearnerSpec(
            name="drift-maml",
            method="maml",
            family="drift",
            observation_space=Box.of(-np.inf, np.inf, (1,)),
            action_space=action,
            observation_shift=(0.0,),
            observation_scale=(1.0,),
            action_shift=(0.5,) * size,
            action_scale=(2.0,) * size,
            horizon=horizon,
            baseline=Features(),
            settings={"hidden_sizes": [8], "initial_rate": rate},
        )
    )


def run(learner: Maml, meta: Tensors, state: Tensors, speeds: list[float], seeds: list[int], n: int) -> Rollout:
    batch = Drift(speeds, state["depth"].device)
    return rollout(
        learner, meta, state, batch, draw(learner.spec, seeds, 0, episodes=n, reset_uniforms=batch.reset_uniforms)
    )


ACTIONS: list[Space] = [Box.of(-1.0, 1.0, (2,)), Box.of(-1.0, 1.0, (1,)), Discrete(3)]


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_episodes_replay_in_numpy(action: Space) -> None:
    """Step the same noise through the portable policy and the environment's own arithmetic, one episode."""
    learner = learner_for(action, horizon=40)
    meta = learner.initial_meta(0)
    speeds = [0.05, 0.0]
    noise = draw(learner.spec, [7, 8], 0, episodes=3, reset_uniforms=1)
    got = rollout(learner, meta, learner.begin(meta, 2), Drift(speeds), noise).experience
    header, weights = learner.export(meta, learner.begin(meta, 2))
    for b, n in ((0, 1), (1, 2)):
        x, t, over = noise.resets[b, n, 0], 0, False
        while t < 40 and not over:
            parameters = policy.forward(header, weights[b], np.array([[x]], np.float32))
            raw, log_prob = policy.sample(parameters, noise.actions[b, n, t][None])
            np.testing.assert_allclose(got.observations[b, n, t].numpy(), [x], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(got.actions[b, n, t].numpy(), raw[0], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(got.log_probs[b, n, t].item(), log_prob[0], rtol=1e-4, atol=1e-5)
            x = x + speeds[b] + 0.01 * policy.to_environment(header, raw)[0].sum()
            np.testing.assert_allclose(got.rewards[b, n, t].item(), x, rtol=1e-5, atol=1e-6)
            over, t = 1 < x < 1.5, t + 1
        assert got.lengths[b, n].item() == t


def test_padding_is_zero_and_returns_are_sums() -> None:
    learner = learner_for(ACTIONS[0], horizon=30)
    meta = learner.initial_meta(0)
    one = run(learner, meta, learner.begin(meta, 2), [0.2, 0.0], [1, 2], 4)
    e = one.experience
    assert e.observations.shape == (2, 4, 30, 1)
    assert (e.lengths[0] < 12).all()
    past = torch.arange(30) >= e.lengths[..., None]
    for value in (e.observations[..., 0], e.actions[..., 0], e.rewards, e.log_probs):
        assert not value[past].any()
    assert not e.bootstrap.any()
    assert not e.time_offset.any()
    torch.testing.assert_close(one.returns, e.rewards.sum(-1))


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_a_rollout_that_stops_early_equals_one_that_does_not(action: Space) -> None:
    """Company that keeps the batch running to the horizon leaves a finished task's arrays as they are."""
    learner = learner_for(action, horizon=80)
    meta = learner.initial_meta(0)
    short = run(learner, meta, learner.begin(meta, 1), [0.3], [5], 2)
    long = run(learner, meta, learner.begin(meta, 2), [0.3, -0.5], [5, 6], 2)
    assert long.experience.lengths[1].tolist() == [80, 80]
    for f in dataclasses.fields(short.experience):
        assert torch.equal(getattr(short.experience, f.name)[0], getattr(long.experience, f.name)[0]), f.name


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(-0.3, 0.3), min_size=2, max_size=6),
    st.integers(1, 21),
    st.integers(1, 40),
    st.sampled_from(ACTIONS),
    st.integers(0, 2**32 - 1),
)
def test_rollout_and_adapt_give_a_task_the_same_bits_alone_and_in_company(
    speeds: list[float], n: int, horizon: int, action: Space, seed: int
) -> None:
    learner = learner_for(action, horizon)
    meta = learner.initial_meta(seed)

    def two_steps(speeds: list[float], seeds: list[int]) -> tuple[Tensors, torch.Tensor]:
        state = learner.begin(meta, len(speeds))
        for _ in range(2):
            one = run(learner, meta, state, speeds, seeds, n)
            state, _ = learner.adapt(meta, state, one.experience, torch.ones(len(speeds)))
        return state, one.returns

    seeds = list(range(len(speeds)))
    together, returns = two_steps(speeds, seeds)
    for b, speed in enumerate(speeds):
        alone, its_returns = two_steps([speed], [seeds[b]])
        assert torch.equal(returns[b], its_returns[0])
        for name in alone:
            assert torch.equal(together[name][b], alone[name][0]), name


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_greedy_episodes_take_the_modes(action: Space) -> None:
    learner = learner_for(action, horizon=9)
    meta = learner.initial_meta(0)
    state = learner.begin(meta, 1)
    one = rollout(
        learner, meta, state, Drift([0.01]), draw(learner.spec, [1], episodes=2, reset_uniforms=1), greedy=True
    )
    for t in range(9):
        policies, _ = learner.act(meta, state, Input(one.experience.observations[:, :, t]))
        torch.testing.assert_close(one.experience.actions[:, :, t], policies.sample(None))


def test_noise_is_a_function_of_seed_and_counters() -> None:
    spec = learner_for(ACTIONS[0], horizon=6).spec
    both = draw(spec, [3, 4], 1, 2, episodes=5, reset_uniforms=2)
    assert both.resets.shape == (2, 5, 2)
    assert both.actions.shape == (2, 5, 6, 2)
    assert np.array_equal(draw(spec, [4], 1, 2, episodes=5, reset_uniforms=2).actions[0], both.actions[1])
    assert not np.array_equal(draw(spec, [4], 1, 3, episodes=5, reset_uniforms=2).actions[0], both.actions[1])
    assert isinstance(draw(spec, [4], episodes=1, reset_uniforms=0), Noise)


def test_actions_are_scaled_and_clipped_as_the_portable_policy_does() -> None:
    learner = learner_for(Box.of(-1.0, 1.0, (2,)), horizon=3)
    raw = np.array([[[0.1, -5.0], [0.2, 0.7]]], np.float32)
    got = environment_action(learner.spec, torch.from_numpy(raw)).numpy()
    np.testing.assert_array_equal(got, policy.to_environment(learner.header, raw))
    assert got[0, 0, 1] == -1
    chosen = torch.tensor([[2]])
    assert environment_action(learner_for(Discrete(3), 3).spec, chosen) is chosen


@pytest.mark.parametrize(
    ("longest", "horizon", "capacity"),
    [(0, 500, 64), (64, 500, 64), (65, 500, 128), (257, 500, 500), (500, 500, 500), (10, 40, 40), (100, 100, 100)],
)
def test_bucket(longest: int, horizon: int, capacity: int) -> None:
    assert bucket(longest, horizon) == capacity


def test_trim() -> None:
    learner = learner_for(Discrete(3), horizon=200)
    meta = learner.initial_meta(0)
    whole = run(learner, meta, learner.begin(meta, 1), [0.1], [0], 3).experience
    short = trim(whole, 64)
    assert short.observations.shape == (1, 3, 64, 1)
    assert torch.equal(short.rewards, whole.rewards[:, :, :64])
    assert torch.equal(short.rewards.sum(-1), whole.rewards.sum(-1))
    with pytest.raises(ValueError, match="does not fit"):
        trim(whole, int(whole.lengths.max()) - 1)


@pytest.mark.gpu
def test_episodes_do_not_depend_on_the_device() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner = learner_for(ACTIONS[0], horizon=20)
    meta = learner.initial_meta(0)
    moved = {name: value.to(device) for name, value in meta.items()}
    want = run(learner, meta, learner.begin(meta, 2), [0.0, 0.01], [1, 2], 3)
    got = run(learner, moved, learner.begin(moved, 2), [0.0, 0.01], [1, 2], 3)
    torch.testing.assert_close(got.returns.cpu(), want.returns, rtol=1e-4, atol=1e-4)
    assert got.experience.actions.device.type == device.type

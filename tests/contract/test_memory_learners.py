"""A learner that remembers on a real server: sessions of both kinds, its policy, and what a trial brings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import safetensors.torch
from click.testing import CliRunner

import innerloop
from innerloop import Input, Policy
from innerloop import policy as portable
from innerloop.cli import main
from innerloop_server.domain import Split
from innerloop_server.learners.registry import build
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training.specs import spec_for

FAMILY = load_registry().get("gridnavi")
NAME = "gridnavi-rl2"
ATTENTIVE = "gridnavi-rl2-transformer"
SETTINGS = {
    "encoder_sizes": [8],
    "memory_size": 8,
    "hidden_sizes": [8],
    "last_layer_scale": 1.0,
    "episodes_per_trial": 4,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[innerloop.Client]:
    data: Path = tmp_path_factory.mktemp("data")
    with Store.open(data) as store:
        for name, more in ((NAME, {}), (ATTENTIVE, {"memory": "transformer", "transitions": True})):
            spec = replace(spec_for(FAMILY), name=name, method="rl2", settings=SETTINGS | more)
            store.put_learner(spec)
            store.add_revision(name, safetensors.torch.save(build(spec).initial_meta(0)), {})
            store.promote(name, 1)
    with innerloop.embedded(data, device="cpu", actors=1) as client:
        yield client


def environment() -> Any:
    return FAMILY.make(sample_task(FAMILY, 0, Split.TEST, 0))


@pytest.mark.parametrize("learner", [NAME, ATTENTIVE])
def test_the_servers_own_episodes(client: innerloop.Client, learner: str) -> None:
    (task,) = client.sample_tasks("gridnavi")
    for simulator in ("batch", "actors"):
        adaptation = client.adapt(learner, task, steps=4, seed=3, simulator=simulator)
        steps = list(adaptation)
        assert [(step.number, step.episodes, step.post_return, step.guarded) for step in steps] == [
            (k, 1, None, k == 4) for k in (1, 2, 3, 4)
        ]
        assert len({step.state_hash for step in steps}) == 3
        assert adaptation.opened.guard
        policy = adaptation.policy()
        assert policy.header.remembers
        assert not policy.header.adapts
        assert any(array.any() for name, array in policy.begin().items() if name.startswith("memory"))
    free = client.adapt(learner, task, steps=4, seed=3, guard=False)
    assert len({step.state_hash for step in free}) == 4
    assert free.policy().header.adapts


def test_the_command_line(client: innerloop.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERLOOP_ADDRESS", client.options.address)
    save = tmp_path / "policy.safetensors"
    shown = CliRunner().invoke(main, ["adapt", NAME, "--test-index", "2", "--steps", "5", "--save", str(save)])
    assert shown.exit_code == 0, shown.output
    assert "None" not in shown.output
    assert shown.output.count("held") == 2, "trials of four episodes: three are remembered"
    assert "act(input, memory=policy.begin())" in shown.output
    assert innerloop.load_policy(save).header.steps == 5


@pytest.mark.parametrize("learner", [NAME, ATTENTIVE])
def test_ones_own_environment(client: innerloop.Client, learner: str) -> None:
    adaptation = client.adapt_env(environment(), learner, steps=3)
    assert [step.episodes for step in adaptation] == [1, 1, 1]
    assert all(0 < step.entropy <= np.log(5) for step in adaptation.steps)
    assert [step.end_reason for step in adaptation.steps] == ["", "", "budget_steps"]
    assert adaptation.policy().begin()["last.truncated"].all()


class Recorded(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps what was seen, done and earned, episode by episode."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.episodes: list[list[tuple[Any, int, float]]] = []

    def reset(self, **options: Any) -> Any:
        self.seen, info = self.env.reset(**options)
        self.episodes.append([])
        return self.seen, info

    def step(self, action: Any) -> Any:
        before = self.seen
        self.seen, reward, *rest = self.env.step(action)
        self.episodes[-1].append((before, int(action), float(reward)))
        return self.seen, reward, *rest


def recalled(policy: Policy, memory: dict[str, Any], episode: list[tuple[Any, int, float]]) -> dict[str, Any]:
    """What the portable policy remembers after an episode that was cut, made to act as it was acted."""
    for t, (seen, action, reward) in enumerate(episode, start=1):
        given = portable.told(memory, Input(np.asarray(seen, np.float32)[None]))
        _, hidden = portable.forward_with_memory(policy.header, policy.weights, memory, given)
        told = {"last.reward": np.array([reward], np.float32), "last.truncated": np.array([t == len(episode)])}
        memory = portable.acted(hidden, np.array([action])) | told
    return memory


@pytest.mark.parametrize("learner", [NAME, ATTENTIVE])
def test_acting_here_and_showing_whole_episodes(client: innerloop.Client, learner: str) -> None:
    """The server remembers what the client's own policy did, from episode to episode."""
    env = Recorded(environment())
    adaptation = client.adapt_env(env, learner, steps=3, local=True, seed=4)
    steps = list(adaptation)
    assert adaptation.opened.policy is not None
    memory = adaptation.opened.policy.begin()
    played = [episode for episode in env.episodes if episode]  # an episode's end resets, and so does a fresh start
    for step, episode in zip(steps, played, strict=True):
        memory = recalled(adaptation.opened.policy, memory, episode)
        assert step.policy is not None
        for name, array in step.policy.begin().items():
            np.testing.assert_allclose(array, memory[name], atol=1e-5, err_msg=name)
    assert [(step.number, step.episodes) for step in steps] == [(1, 1), (2, 1), (3, 1)]
    assert len({step.state_hash for step in steps}) == 3
    twins = gymnasium.vector.SyncVectorEnv([environment, environment])
    with pytest.raises(ValueError, match="leave `local` out"):
        client.adapt_env(twins, NAME, steps=1, local=True)


def test_a_vector_of_environments_plays_whole_trials(client: innerloop.Client) -> None:
    """Three episodes in each of two rows, as many as a trial has before its last."""
    twins = gymnasium.vector.SyncVectorEnv([environment, environment])
    adaptation = client.adapt_env(twins, NAME)
    assert sum(step.episodes for step in adaptation) == 6
    assert adaptation.result().end_reason == "budget_episodes"


def test_simulators_report_the_same_entropy(client: innerloop.Client) -> None:
    """The actors' is computed again from what they played: the families' faces agree, so do these."""
    (task,) = client.sample_tasks("gridnavi")
    for simulator in ("batch", "actors"):
        (step,) = client.adapt(NAME, task, steps=1, seed=3, simulator=simulator)
        assert 0 < step.entropy <= np.log(5)
        assert step.uncertainty is None


def played(policy: Policy, steps: int = 20) -> Iterator[tuple[Input, dict[str, Any]]]:
    """Inputs of two rows, and the memory before each."""
    rng = np.random.default_rng(0)
    memory = policy.begin(2)
    for t in range(steps):
        reward = rng.standard_normal(2).astype(np.float32) if t else None
        place = rng.integers(0, 5, (2, 2)).astype(np.float32)
        seen = Input(place, reward=reward, truncated=np.array([t % 15 == 0, False]) if t else None)
        yield seen, dict(memory)
        policy.act(seen, memory=memory, greedy=True)


def test_the_policy_acts_there_as_it_acts_here(client: innerloop.Client) -> None:
    adaptation = client.adapt(NAME, client.sample_tasks("gridnavi")[0], steps=2)
    name, policy = adaptation.result().policy.name, adaptation.policy()
    state: Any = None
    with client.act_stream(name, greedy=True) as stream:
        for seen, memory in played(policy):
            here = policy.decide(seen, memory=memory, greedy=True)
            there = client.act(name, seen, greedy=True, state=state)
            np.testing.assert_array_equal(there.raw_actions, here.raw)
            for key, value in here.memory.items():
                np.testing.assert_array_equal(there.state[key], value, err_msg=key)
            np.testing.assert_array_equal(stream.act(seen).raw_actions, here.raw)
            state = there.state


def test_scores_count_episodes_and_say_what_a_trial_brings(client: innerloop.Client) -> None:
    scores = client.evaluate(NAME, tasks=5, steps=4, evaluation_episodes=2, greedy=True).result().scores
    assert [score.k for score in scores] == [0, 1, 2, 3, 4]
    (whole,) = [score for score in scores if "trial_return" in score.metrics]
    assert whole.k == 3
    assert whole.metrics["trial_return"] == pytest.approx(sum(score.mean for score in scores[:4]))
    assert whole.metrics["trial_low"] <= whole.metrics["trial_return"] <= whole.metrics["trial_high"]
    known = {reference.name: reference.value for reference in whole.trial_references}
    assert known["bayes-optimum"] == pytest.approx(37.2143, abs=1e-4)
    share = (whole.metrics["trial_return"] - known["memoryless"]) / (known["oracle"] - known["memoryless"])
    assert whole.trial_gap_closed == pytest.approx(share)
    assert not any(score.trial_references for score in scores if score != whole)


def test_the_command_line_sets_trials_beside_the_optimum(
    client: innerloop.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNERLOOP_ADDRESS", client.options.address)
    wanted = ["evaluate", NAME, "--tasks", "3", "--steps", "3", "--evaluation-episodes", "1"]
    shown = CliRunner().invoke(main, wanted)
    assert shown.exit_code == 0, shown.output
    heading, *below = shown.output[shown.output.index("whole trials, 4 episodes each: ") :].splitlines()
    assert "of the gap closed" in heading
    assert below[0].startswith("bayes-optimum: 37.21 (")
    assert "trial_low" not in shown.output


@pytest.mark.parametrize("guard", [None, False])
def test_a_score_says_whether_the_memory_was_held(client: innerloop.Client, guard: bool | None) -> None:
    scored = client.evaluate(NAME, tasks=1, steps=1, evaluation_episodes=1, guard=guard).result()
    assert {score.guard for score in scored.scores} == {guard is None}

"""A learner that remembers on a real server: sessions of both kinds, its policy, and what a trial brings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from click.testing import CliRunner

import innerloop
from innerloop import Input, Policy
from innerloop.cli import main
from innerloop.errors import InvalidRequest, ProtocolError
from innerloop_server.domain import Split
from innerloop_server.learners.registry import build
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training.specs import spec_for

FAMILY = load_registry().get("gridnavi")
NAME = "gridnavi-rl2"
SETTINGS = {"encoder_sizes": [8], "memory_size": 8, "hidden_sizes": [8], "last_layer_scale": 1.0}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[innerloop.Client]:
    data: Path = tmp_path_factory.mktemp("data")
    spec = replace(spec_for(FAMILY), name=NAME, method="rl2", settings=SETTINGS)
    with Store.open(data) as store:
        store.put_learner(spec)
        store.add_revision(NAME, safetensors.torch.save(build(spec).initial_meta(0)), {})
        store.promote(NAME, 1)
    with innerloop.embedded(data, device="cpu", actors=1) as client:
        yield client


def environment() -> Any:
    return FAMILY.make(sample_task(FAMILY, 0, Split.TEST, 0))


def test_the_servers_own_episodes(client: innerloop.Client) -> None:
    (task,) = client.sample_tasks("gridnavi")
    for simulator in ("batch", "actors"):
        adaptation = client.adapt(NAME, task, steps=4, seed=3, simulator=simulator)
        steps = list(adaptation)
        assert [(step.number, step.episodes, step.post_return, step.guarded) for step in steps] == [
            (k, 1, None, False) for k in (1, 2, 3, 4)
        ]
        assert len({step.state_hash for step in steps}) == 4
        assert not adaptation.opened.guard
        policy = adaptation.policy()
        assert policy.header.remembers
        assert policy.header.adapts
        assert policy.begin()["memory"].any()
    with pytest.raises(InvalidRequest, match="adapts by remembering"):
        client.adapt(NAME, task, steps=1, guard=True).result()


def test_the_command_line(client: innerloop.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERLOOP_ADDRESS", client.options.address)
    save = tmp_path / "policy.safetensors"
    shown = CliRunner().invoke(main, ["adapt", NAME, "--test-index", "2", "--steps", "2", "--save", str(save)])
    assert shown.exit_code == 0, shown.output
    assert "None" not in shown.output
    assert "decide(input, memory=memory)" in shown.output
    assert innerloop.load_policy(save).header.steps == 2


def test_ones_own_environment(client: innerloop.Client) -> None:
    adaptation = client.adapt_env(environment(), NAME, steps=3)
    assert [step.episodes for step in adaptation] == [1, 1, 1]
    assert adaptation.policy().begin()["last.truncated"].all()
    with pytest.raises(ProtocolError, match="leave `local` out"):
        client.adapt_env(environment(), NAME, steps=1, local=True).result()


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


def test_no_guard_is_said_to_have_run(client: innerloop.Client) -> None:
    scored = client.evaluate(NAME, tasks=1, steps=1, episodes_per_step=20, evaluation_episodes=1).result()
    assert not any(score.guard for score in scored.scores)
    with pytest.raises(InvalidRequest, match="no guard"):
        client.evaluate(NAME, tasks=1, guard=True)

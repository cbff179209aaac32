"""A learner that believes on a real server: sessions of both kinds say how unsure it is, and so does its policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

import innerloop
from innerloop import Policy
from innerloop.policy import BELIEF_LOG_VARIANCE
from innerloop_server.domain import Split
from innerloop_server.learners.registry import build
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training.specs import spec_for

FAMILY = load_registry().get("gridnavi")
NAME = "gridnavi-varibad"
SETTINGS = {"encoder_sizes": [8], "memory_size": 8, "latent": 3, "hidden_sizes": [8], "last_layer_scale": 1.0}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[innerloop.Client]:
    data: Path = tmp_path_factory.mktemp("data")
    spec = spec_for(FAMILY, "varibad", NAME, settings=SETTINGS)
    with Store.open(data) as store:
        store.put_learner(spec)
        store.add_revision(NAME, safetensors.torch.save(build(spec).initial_meta(0)), {})
        store.promote(NAME, 1)
    with innerloop.embedded(data, device="cpu", actors=1) as client:
        yield client


def test_an_inference_has_no_guard_that_nobody_asked_for(client: innerloop.Client) -> None:
    (task,) = client.sample_tasks("point-robot-dense")
    adaptation = client.adapt("point-robot-dense-pearl", task, steps=2)
    assert [(step.guarded, step.episodes) for step in adaptation] == [(False, 2), (False, 1)]
    assert not adaptation.opened.guard
    assert client.adapt("point-robot-dense-pearl", task, steps=1, guard=True).opened.guard


def entropy(policy: Policy) -> float:
    return float(0.5 * (np.log(2 * np.pi * np.e) + policy.begin()[BELIEF_LOG_VARIANCE]).sum())


@pytest.mark.parametrize("simulator", ["batch", "actors"])
def test_the_servers_own_episodes(client: innerloop.Client, simulator: str) -> None:
    (task,) = client.sample_tasks("gridnavi")
    adaptation = client.adapt(NAME, task, steps=3, seed=3, simulator=simulator)
    steps = list(adaptation)
    assert len({step.uncertainty for step in steps}) == 3
    policy = adaptation.policy()
    assert policy.header.architecture == "belief"
    assert steps[-1].uncertainty == pytest.approx(entropy(policy), rel=1e-5)
    memory = policy.begin()
    policy.act(np.zeros(2, np.float32), memory=memory)
    assert memory[BELIEF_LOG_VARIANCE].shape == (1, 3)


def test_ones_own_environment(client: innerloop.Client) -> None:
    environment = FAMILY.make(sample_task(FAMILY, 0, Split.TEST, 0))
    adaptation = client.adapt_env(environment, NAME, steps=3)
    steps = list(adaptation)
    assert [step.episodes for step in steps] == [1, 1, 1]
    assert steps[-1].uncertainty == pytest.approx(entropy(adaptation.policy()), rel=1e-5)


def test_a_served_policy_gives_its_belief_back(client: innerloop.Client) -> None:
    adaptation = client.adapt(NAME, client.sample_tasks("gridnavi")[0], steps=1)
    name, policy = adaptation.result().policy.name, adaptation.policy()
    memory = policy.begin()
    for place in ([0.0, 1.0], [1.0, 1.0]):
        seen = np.float32([place])
        here = policy.decide(seen, memory=memory, greedy=True)
        there = client.act(name, seen, greedy=True, state=memory)
        for key, value in here.memory.items():
            np.testing.assert_array_equal(there.state[key], value, err_msg=key)
        memory = dict(here.memory)

"""A learner that counts (``tallies``) on a real server: what it counted is in its policy, whoever ran the episodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

import innerloop
from innerloop.policy.tallies import COUNT, PAID, STATE
from innerloop_server.domain import Split
from innerloop_server.learners.registry import build
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training.specs import spec_for

FAMILY = load_registry().get("tabular-mdp.states-3.actions-2.episodes-4")
NETWORK = {"encoder_sizes": [8], "memory_size": 8, "hidden_sizes": [8], "last_layer_scale": 1.0}
STEPS = 3 * FAMILY.horizon


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[innerloop.Client]:
    data: Path = tmp_path_factory.mktemp("data")
    spec = spec_for(FAMILY, "rl2", "counting", settings=NETWORK)
    assert spec.settings["tallies"]
    with Store.open(data) as store:
        store.put_learner(spec)
        store.add_revision("counting", safetensors.torch.save(build(spec).initial_meta(0)), {})
        store.promote("counting", 1)
    with innerloop.embedded(data, device="cpu", actors=1) as client:
        yield client


def check(policy: innerloop.Policy) -> None:
    memory = policy.begin()
    # The session's last step is in ``last.*``: it is counted when the next one begins.
    assert memory[COUNT].sum() == STEPS - 1
    assert not memory[PAID][memory[COUNT] == 0].any()
    assert memory[PAID].any()
    assert 0 <= int(memory[STATE][0]) < 3
    action = policy.decide(innerloop.Input(np.int64(2)), memory=memory)
    assert action.memory[COUNT].sum() == STEPS
    assert action.memory[PAID].sum() == pytest.approx(memory[PAID].sum() + memory["last.reward"].sum(), rel=1e-4)


@pytest.mark.parametrize("simulator", ["batch", "actors"])
def test_the_servers_own_episodes(client: innerloop.Client, simulator: str) -> None:
    (task,) = client.sample_tasks(FAMILY.name)
    check(client.adapt("counting", task, steps=3, seed=3, simulator=simulator).policy())


@pytest.mark.parametrize("local", [False, True])
def test_an_environment_of_ones_own(client: innerloop.Client, local: bool) -> None:
    environment = FAMILY.make(sample_task(FAMILY, 0, Split.TEST, 0))
    check(client.adapt_env(environment, "counting", steps=3, seed=3, local=local).policy())

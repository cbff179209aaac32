"""Sessions of the references and of the prototype head: alone, in company or resumed they end in the same bits."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from innerloop.policy import Policy, forward
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import Attach, RevisionRef, RolloutOrder, StepOrder
from innerloop_server.domain import Split
from innerloop_server.learners.registry import build
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training.specs import spec_for

REGISTRY = load_registry()
SHOWN = ".parameters-shown"
SESSIONS = [("multitask", "gridnavi"), ("oracle", "gridnavi" + SHOWN), ("scratch", "gridnavi"), ("prototype", "digits")]


def revision(folder: Path, method: str, family: str) -> RevisionRef:
    spec = spec_for(REGISTRY.get(family), method, settings={"hidden_sizes": [16]})
    data = safetensors.torch.save(build(spec).initial_meta(0))
    digest = hashlib.sha256(data).hexdigest()
    (folder / digest).write_bytes(data)
    return RevisionRef(f"learners/{spec.name}/revisions/1", digest, str(folder / digest), spec)


def engine() -> LocalEngine:
    return LocalEngine(EngineCore(REGISTRY, torch.device("cpu"), device_rows=16))


def attach(key: int, ref: RevisionRef, i: int, **changes: Any) -> Attach:
    family = REGISTRY.get(ref.spec.family)
    task = sample_task(family, 0, Split.TEST, i)
    return Attach(
        key, ref, 100 + i, episodes_per_step=4, guard=False, task=task, simulator=family.simulators[0], **changes
    )


async def hashes(used: LocalEngine, ref: RevisionRef, i: int, interrupted: bool = False) -> list[str]:
    key = used.new_key()
    await used.attach(attach(key, ref, i))
    found = []
    for number in (1, 2):
        step = await used.step(StepOrder(key, number))
        found.append(step.state_hash)
        if interrupted:
            used.detach(key)
            key = used.new_key()
            await used.attach(attach(key, ref, i, snapshot=step.snapshot, number=number))
    used.detach(key)
    return found


@pytest.mark.parametrize(("method", "family"), SESSIONS)
async def test_a_session_ends_in_the_same_bits(tmp_path: Path, method: str, family: str) -> None:
    ref, used = revision(tmp_path, method, family), engine()
    together = await asyncio.gather(*(hashes(used, ref, i) for i in range(3)))
    assert together == [await hashes(engine(), ref, i) for i in range(3)]
    assert together == [await hashes(engine(), ref, i, interrupted=True) for i in range(3)]
    adapts = method in ("scratch", "prototype")
    assert len({hashed for found in together for hashed in found}) == (6 if adapts else 1)


@pytest.mark.parametrize(("method", "family"), SESSIONS)
async def test_a_step_brings_its_portable_policy(tmp_path: Path, method: str, family: str) -> None:
    ref, used = revision(tmp_path, method, family), engine()
    key = used.new_key()
    await used.attach(attach(key, ref, 0))
    step = await used.step(StepOrder(key, 1, policy=True))
    rolled = await used.rollout(RolloutOrder(key, 2, 1, trajectories=True))
    used.detach(key)
    policy = Policy.from_bytes(step.policy)
    assert policy.header.family == family
    assert all(name.startswith("layers.") for name in policy.weights)
    experience = rolled.experience
    assert experience is not None
    seen, done = experience.observations[0, 0, 0], int(experience.actions[0, 0, 0])
    told = forward(policy.header, policy.weights, np.asarray(seen)[None])["logits"][0]
    if REGISTRY.get(family).supervision is None:
        assert experience.log_probs[0, 0, 0] == pytest.approx(told[done] - np.log(np.exp(told).sum()), abs=1e-5)

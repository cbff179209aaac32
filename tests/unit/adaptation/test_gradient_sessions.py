"""Sessions of the other gradient methods: alone or in company, resumed or not, they end in the same bits."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from innerloop.policy import Policy
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import Attach, RevisionRef, StepOrder
from innerloop_server.domain import Simulator, Split
from innerloop_server.learners.registry import build
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training.specs import spec_for

REGISTRY = load_registry()
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "reptile": ("reptile", {"optimiser": "sgd"}),
    "reptile, adam": ("reptile", {"optimiser": "adam", "rate": 0.01}),
    "head": ("maml", {"adapt": "head"}),
}


def revision(folder: Path, family: str, method: str, settings: dict[str, Any]) -> RevisionRef:
    spec = spec_for(REGISTRY.get(family), method, settings={"hidden_sizes": [16], **settings})
    data = safetensors.torch.save(build(spec).initial_meta(0))
    digest = hashlib.sha256(data).hexdigest()
    (folder / digest).write_bytes(data)
    return RevisionRef(f"learners/{spec.name}/revisions/1", digest, str(folder / digest), spec)


def engine() -> LocalEngine:
    return LocalEngine(EngineCore(REGISTRY, torch.device("cpu"), device_rows=16))


def attach(key: int, ref: RevisionRef, i: int, **changes: Any) -> Attach:
    return Attach(
        key=key,
        revision=ref,
        seed=100 + i,
        episodes_per_step=3,
        guard=i == 2,
        task=sample_task(REGISTRY.get(ref.spec.family), 0, Split.TEST, i),
        simulator=Simulator.BATCH,
        **changes,
    )


async def hashes(used: LocalEngine, ref: RevisionRef, i: int, interrupted: bool = False) -> list[str]:
    """Of the states after each of three steps; ``interrupted``: detached after each, and resumed."""
    key = used.new_key()
    await used.attach(attach(key, ref, i))
    found = []
    for number in (1, 2, 3):
        step = await used.step(StepOrder(key, number))
        found.append(step.state_hash)
        if interrupted:
            used.detach(key)
            key = used.new_key()
            await used.attach(attach(key, ref, i, snapshot=step.snapshot, number=number))
    used.detach(key)
    return found


@pytest.mark.parametrize("family", ["navigation-2d", "bernoulli-bandit", "sinusoid"])
@pytest.mark.parametrize("method", METHODS)
async def test_a_session_ends_in_the_same_bits_alone_and_in_company_and_resumed(
    tmp_path: Path, method: str, family: str
) -> None:
    ref = revision(tmp_path, family, *METHODS[method])
    used = engine()
    together = await asyncio.gather(*(hashes(used, ref, i) for i in range(4)))
    assert together == [await hashes(engine(), ref, i) for i in range(4)]
    assert together == [await hashes(engine(), ref, i, interrupted=True) for i in range(4)]
    assert len({hashed for found in together for hashed in found}) > 8


@pytest.mark.parametrize("method", METHODS)
async def test_a_step_brings_its_portable_policy(tmp_path: Path, method: str) -> None:
    ref = revision(tmp_path, "navigation-2d", *METHODS[method])
    used = engine()
    key = used.new_key()
    begun = await used.attach(attach(key, ref, 0))
    step = await used.step(StepOrder(key, 1, policy=True))
    used.detach(key)
    before, after = Policy.from_bytes(begun.policy), Policy.from_bytes(step.policy)
    assert after.weights.keys() == before.weights.keys()
    assert not any(name.startswith("second.") for name in after.weights)
    assert after.header.family == "navigation-2d"
    assert any((before.weights[name] != value).any() for name, value in after.weights.items())

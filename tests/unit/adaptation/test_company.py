"""A session's result does not depend on who is adapted beside it, nor on who runs its episodes how many at a time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import drift
import pytest
import safetensors.torch
import torch

from innerloop_server.actors.pool import ActorPool
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import Attach, RevisionRef, StepOrder
from innerloop_server.domain import Simulator, Split
from innerloop_server.learners.registry import build
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training.specs import spec_for

FAMILIES = ("navigation-2d", "cartpole-dynamics", "navigation-2d", "cartpole-dynamics", "pendulum-dynamics")
"""Of sessions 0, 1, 2, ... in turn."""
SESSIONS = 64
STEPS = 2
REGISTRY = load_registry()

Outcome = tuple[str, float, float | None, bool, float]


@pytest.fixture(scope="module")
def revisions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RevisionRef]:
    folder = tmp_path_factory.mktemp("revisions")
    refs = {}
    for name in set(FAMILIES):
        spec = spec_for(REGISTRY.get(name), settings={"hidden_sizes": [16]})
        data = safetensors.torch.save(build(spec).initial_meta(0))
        digest = hashlib.sha256(data).hexdigest()
        (folder / digest).write_bytes(data)
        refs[name] = RevisionRef(f"learners/{spec.name}/revisions/1", digest, str(folder / digest), spec)
    return refs


def engine() -> LocalEngine:
    return LocalEngine(EngineCore(REGISTRY, torch.device("cpu"), device_rows=SESSIONS))


def order(key: int, i: int, refs: dict[str, RevisionRef]) -> Attach:
    """Session i: families take turns, one in eight samples more episodes and has a guard."""
    family = FAMILIES[i % len(FAMILIES)]
    many = i % 8 == 0
    return Attach(
        key=key,
        revision=refs[family],
        seed=100 + i,
        episodes_per_step=6 if many else 2,
        guard=many,
        task=sample_task(REGISTRY.get(family), 0, Split.TEST, i),
        simulator=Simulator.BATCH,
    )


async def session(used: LocalEngine, i: int, refs: dict[str, RevisionRef], late: int = 0) -> list[Outcome]:
    """Opens ``late`` turns of the event loop after the others."""
    for _ in range(late):
        await asyncio.sleep(0)
    key = used.new_key()
    await used.attach(order(key, i, refs))
    outcomes = []
    for number in range(1, STEPS + 1):
        step = await used.step(StepOrder(key, number))
        outcomes.append((step.state_hash, step.pre_return, step.post_return, step.guarded, step.rate_scale))
    used.detach(key)
    return outcomes


async def test_64_sessions_of_mixed_families_end_as_they_do_alone(revisions: dict[str, RevisionRef]) -> None:
    used = engine()
    together = await asyncio.gather(*(session(used, i, revisions, late=i % 5) for i in range(SESSIONS)))
    occupancy = await used.occupancy()
    assert occupancy.batched > 4 * occupancy.ticks  # they did keep company
    assert (occupancy.device_rows, occupancy.pending) == (0, 0)
    alone = [await session(engine(), i, revisions) for i in range(SESSIONS)]
    assert together == alone
    moved = [hashed for outcomes in together for hashed, _, _, guarded, _ in outcomes if not guarded]
    assert len(set(moved)) == len(moved) > SESSIONS


async def test_sessions_that_come_and_go_disturb_nobody(revisions: dict[str, RevisionRef]) -> None:
    used = engine()
    leaving = [asyncio.ensure_future(session(used, i, revisions)) for i in range(20, 32)]
    staying = [asyncio.ensure_future(session(used, i, revisions)) for i in range(6)]
    for turn, task in enumerate(leaving):
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
    together = await asyncio.gather(*staying)
    assert together == [await session(engine(), i, revisions) for i in range(6)]


@pytest.fixture(scope="module")
def two_pools() -> Iterator[list[ActorPool]]:
    pools = [ActorPool(actors, slots, drift.SOURCE) for actors, slots in ((1, 2), (2, 16))]
    yield pools
    for pool in pools:
        pool.close()


async def test_actors_give_the_same_however_many_they_are(tmp_path: Path, two_pools: list[ActorPool]) -> None:
    ref = drift.revision(tmp_path)

    async def one(used: LocalEngine, seed: int) -> list[tuple[str, float]]:
        key = used.new_key()
        await used.attach(drift.attach(key, ref, drift.task(0.1 * seed), seed=seed, simulator=Simulator.ACTORS))
        steps = [await used.step(StepOrder(key, number)) for number in (1, 2)]
        used.detach(key)
        return [(step.state_hash, step.pre_return) for step in steps]

    results = []
    for pool in two_pools:
        used = drift.engine(actors=pool)
        results.append(await asyncio.gather(*(one(used, seed) for seed in range(4))))
        occupancy = await used.occupancy()
        assert (occupancy.device_rows, occupancy.actor_slots, occupancy.pending) == (0, 0, 0)
    assert results[0] == results[1]
    assert len({hashed for steps in results[0] for hashed, _ in steps}) == 8


async def test_a_task_that_fails_on_the_actors_and_one_that_is_given_up(
    tmp_path: Path, two_pools: list[ActorPool]
) -> None:
    ref = drift.revision(tmp_path)
    used = drift.engine(actors=two_pools[1])
    keys = [used.new_key() for _ in range(3)]
    for key, fault in zip(keys, (0, drift.RAISES, 0), strict=True):
        await used.attach(drift.attach(key, ref, drift.task(0.1, fault), simulator=Simulator.ACTORS))
    steps = [asyncio.ensure_future(used.step(StepOrder(key, 1))) for key in keys]
    await asyncio.sleep(0)
    used.detach(keys[2])
    good, failed, given_up = await asyncio.gather(*steps, return_exceptions=True)
    assert not isinstance(good, BaseException)
    assert getattr(failed, "reason", "") == "ENVIRONMENT_FAILED"
    assert getattr(given_up, "reason", "") == "UNAVAILABLE"
    for key in keys:
        used.detach(key)
    occupancy = await used.occupancy()
    assert (occupancy.device_rows, occupancy.actor_slots, occupancy.pending) == (0, 0, 0)

"""A store in a temporary directory, on a clock that the test moves.

``INNERLOOP_TEST_DATABASE_URL`` runs the same tests on another database. Its schema ``public`` is emptied each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import sqlalchemy

from innerloop.arrays import Box, Discrete
from innerloop_server.domain import Budget, Features, LearnerSpec, Split, Task
from innerloop_server.store.records import CommitStep, NewSession, SessionRecord, StepRecord
from innerloop_server.store.store import Store

DATABASE_URL = os.environ.get("INNERLOOP_TEST_DATABASE_URL", "")

TASK = Task("navigation-2d", {"goal": np.array([0.25, -0.0, np.inf])}, Split.TEST, seed=7, index=3)
SPEC = LearnerSpec(
    name="navigation-2d-maml",
    method="maml",
    family="navigation-2d",
    observation_space=Box.of(-np.inf, np.inf, (2,)),
    action_space=Discrete(5),
    observation_shift=(0.0, 0.1),
    observation_scale=(1.0, 3.0),
    action_shift=(),
    action_scale=(),
    horizon=100,
    baseline=Features("polynomial", 2),
    settings={"hidden_sizes": [64, 64], "rate": 0.1},
)


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Made:
    """What tests make things with."""

    spec: LearnerSpec
    task: Task

    def weights(self, value: float = 0.0) -> bytes:
        return safetensors.numpy.save({"w": np.full((4,), value, np.float32)})

    def session(self, owner: str = "ann", request_id: str = "", **changes: object) -> NewSession:
        values = {
            "owner": owner,
            "request_id": request_id,
            "learner_id": self.spec.name,
            "revision": 1,
            "family": self.spec.family,
            "simulated": True,
            "task": self.task,
            "budget": Budget(steps=3, target_return=-1.5),
            "seed": 2**63 - 1,
            "lease_seconds": 900.0,
            "options": {"guard": True},
        }
        return NewSession(**{**values, **changes})

    def step(self, session_id: str, number: int, sequence: int | None = None) -> CommitStep:
        record = StepRecord(session_id, number, f"reply {number}".encode(), sequence)
        return CommitStep(
            record, f"state {number} of {session_id}".encode(), episodes=20 * number, seconds=0.5 * number
        )


@pytest.fixture
def made() -> Made:
    return Made(SPEC, TASK)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_store(tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Store]]:
    """Opens the same data directory again and again; the one before must be closed."""
    if DATABASE_URL:
        engine = sqlalchemy.create_engine(DATABASE_URL)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
        engine.dispose()
    opened = []

    def open_one() -> Store:
        opened.append(Store.open(tmp_path / "data", DATABASE_URL, clock))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def empty(open_store: Callable[[], Store]) -> Store:
    return open_store()


@pytest.fixture
def store(empty: Store, made: Made) -> Store:
    """With one learner and its first revision."""
    empty.put_learner(made.spec)
    empty.add_revision(made.spec.name, made.weights(1), {"seed": 1})
    return empty


@pytest.fixture
def session(store: Store, made: Made) -> SessionRecord:
    """Active, and ann's."""
    return store.create_session(made.session())[0]


@pytest.fixture
def sqlite_only() -> None:
    if DATABASE_URL:
        pytest.skip("about the SQLite file")

"""Actors, and their owner, are killed on purpose. The answers are those of an undisturbed twin."""

import os
import select
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from innerloop_server.actors.orders import Answer, EpisodesFailure, EpisodesResult
from innerloop_server.actors.pool import ActorPool
from innerloop_server.actors.supervision import backoff_seconds

TOYS = Path(__file__).parents[1] / "unit" / "actors"
sys.path.insert(0, str(TOYS))

import toy_families as toy  # noqa: E402 - lives with the unit tests of the actors

pytestmark = pytest.mark.faults


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> toy.Gate:
    monkeypatch.setenv("TOY_GATE", str(tmp_path))
    return toy.Gate(tmp_path)


def assert_same(a: Answer, b: Answer) -> None:
    assert isinstance(a, EpisodesResult), a
    assert isinstance(b, EpisodesResult), b
    for field in fields(a.experience):
        np.testing.assert_array_equal(getattr(a.experience, field.name), getattr(b.experience, field.name))


def ended(pid: int, seconds: float = 20.0) -> bool:
    """Wait for the end of a process that need not be our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("actors", [1, 2])
def test_an_actor_killed_in_a_step_changes_no_bit(gate: toy.Gate, actors: int) -> None:
    with ActorPool(actors, 16, toy.SOURCE) as pool:
        pool.submit(toy.order(1, "gated", episodes=1))
        pool.submit(toy.order(2))
        toy.settle_slots(pool, 8)
        victim = gate.reached()
        gate.disarm()
        assert victim in pool.statistics().pids
        os.kill(victim, signal.SIGKILL)
        disturbed = toy.settle(pool, 2)
        statistics = pool.statistics()
        assert statistics.restarts == 1
        assert victim not in statistics.pids
        pool.submit(toy.order(1, "gated", episodes=1))
        pool.submit(toy.order(2))
        undisturbed = toy.settle(pool, 2)
    for key in (1, 2):
        assert_same(disturbed[key], undisturbed[key])


def test_rows_that_kill_every_actor_are_given_up_and_take_nobody_along() -> None:
    with ActorPool(1, 16, toy.SOURCE) as pool:
        pool.submit(toy.order(1, "deadly"))
        pool.submit(toy.order(2))
        answers = toy.settle(pool, 2)
        assert pool.statistics().restarts == 4
        pool.submit(toy.order(2))
        assert_same(toy.settle(pool, 1)[2], answers[2])
    failure = answers[1]
    assert isinstance(failure, EpisodesFailure)
    assert failure.retryable
    assert failure.message == "family deadly: 4 environment actors died running its episodes"


def test_an_idle_actor_is_replaced() -> None:
    with ActorPool(1, 4, toy.SOURCE) as pool:
        (pid,) = pool.statistics().pids
        os.kill(pid, signal.SIGKILL)
        assert ended(pid)
        pool.submit(toy.order(1))
        assert isinstance(toy.settle(pool, 1)[1], EpisodesResult)
        assert pool.statistics().restarts == 1


def test_closing_does_not_wait_for_a_stuck_environment(gate: toy.Gate) -> None:
    pool = ActorPool(1, 8, toy.SOURCE)
    pool.submit(toy.order(1, "gated", episodes=1))
    toy.settle_slots(pool, 1)
    pid = gate.reached()
    pool.close()
    assert ended(pid, seconds=0)
    assert [type(answer) for answer in pool.poll()] == [EpisodesFailure]


def test_an_actor_that_keeps_a_dropped_run_is_killed(gate: toy.Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("innerloop_server.actors.supervision.DROP_SECONDS", 0.0)
    with ActorPool(1, 8, toy.SOURCE) as pool:
        pool.submit(toy.order(1, "gated", episodes=1))
        toy.settle_slots(pool, 1)
        stuck = gate.reached()
        gate.disarm()
        pool.cancel(1)
        pool.submit(toy.order(2))
        assert isinstance(toy.settle(pool, 1)[2], EpisodesResult)
        assert ended(stuck, seconds=0)


def test_the_owner_never_waits_for_an_actor_that_does_not_read() -> None:
    with ActorPool(1, 1_024, toy.SOURCE) as pool:
        pool.submit(toy.order(0))
        toy.settle(pool, 1)
        (pid,) = pool.statistics().pids
        os.kill(pid, signal.SIGSTOP)
        wide = toy.header(hidden=(256, 256))
        for key in range(40):  # 11 MB, where a pipe takes some tens of kilobytes
            pool.submit(toy.order(key, header=wide, episodes=1))
        assert pool.poll() == []
        os.kill(pid, signal.SIGCONT)
        assert len(toy.settle(pool, 40)) == 40


OWNER = """
import sys
import toy_families as toy
from innerloop_server.actors.pool import ActorPool

pool = ActorPool(2, 8, toy.SOURCE)
pool.submit(toy.order(1, "gated", episodes=1))
toy.settle_slots(pool, 1)
print(*pool.statistics().pids, flush=True)
sys.stdin.read()
"""


def test_actors_end_with_their_owner_even_in_a_stuck_step(gate: toy.Gate) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TOYS)},
    )
    with owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2
        assert gate.reached() in pids
        owner.kill()
        assert all(ended(pid) for pid in pids)


def test_backoff_grows_to_its_bound() -> None:
    assert [backoff_seconds(n) for n in range(5)] == [0.0, 0.0, 0.1, 0.2, 0.4]
    assert backoff_seconds(100) == 5.0

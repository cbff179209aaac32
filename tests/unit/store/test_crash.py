"""``kill -9`` in the middle of commits: whatever was acknowledged is there, and ticks are there whole or not at all."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from innerloop_server.store.store import Store

CHILD = Path(__file__).parent / "crash_child.py"


def run_until_dead(directory: Path, where: str, when: int, kill_after: int | None = None) -> tuple[list[str], int]:
    """The sessions, and the last tick that was acknowledged."""
    command = [sys.executable, str(CHILD), str(directory), where, str(when)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        ids = child.stdout.readline().split()
        acknowledged = 0
        for line in child.stdout:
            if line.endswith("\n"):
                acknowledged = int(line)
            if acknowledged == kill_after:
                child.kill()
        assert child.wait() == -signal.SIGKILL
    return ids, acknowledged


def durable_step(directory: Path, ids: list[str]) -> int:
    """Open again; every session is at the same step, with that step's state and all replies up to it."""
    with Store.open(directory) as store:
        (step,) = {store.get_session(each).step for each in ids}
        for each in ids:
            assert store.state_of(each) == (f"{each}:{step};".encode() * 500 if step else None)
            assert [(s.number, s.sequence) for s in store.steps_after(each, 0)] == [(n, n) for n in range(1, step + 1)]
            assert all(s.reply == (f"{each}:{s.number};".encode() * 500)[:50] for s in store.steps_after(each, 0))
            assert store.get_session(each).last_sequence == step
    return step


@pytest.mark.faults
@pytest.mark.parametrize(
    ("where", "survives"),
    [("UPDATE sessions", 0), ("INSERT INTO steps", 0), ("UPDATE states", 0), ("COMMIT", 0), ("answer", 1)],
)
def test_killed_at_a_known_point(tmp_path, where, survives) -> None:
    when = random.Random(where).randint(1, 20)
    ids, acknowledged = run_until_dead(tmp_path, where, when)
    assert acknowledged == when - 1
    assert durable_step(tmp_path, ids) == acknowledged + survives


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(5))
def test_killed_from_outside(tmp_path, seed) -> None:
    kill_after = random.Random(seed).randint(1, 60)
    ids, acknowledged = run_until_dead(tmp_path, "-", 0, kill_after)
    assert acknowledged >= kill_after
    assert acknowledged <= durable_step(tmp_path, ids) <= acknowledged + 1

"""``kill -9`` of the trainer, and of the server above it: the work goes on, and nothing shows in the result."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # training_support
from training_support import ended, final_weights, logged, newest_checkpoint, supervising, tiny_request, tiny_run

from innerloop_server.store.records import TrainingState
from innerloop_server.store.store import Store
from innerloop_server.training.messages import Checkpointed, Done, Failed, Message, Updated, decode
from innerloop_server.training.metrics import UpdateMetrics
from innerloop_server.training.run import RunFolder
from innerloop_server.training.trainer import ORPHANED

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]  # a dozen processes that load torch, beside other tests

UPDATES = 8
POINTS = [
    *(f"training.logged:{n}" for n in range(1, UPDATES + 1)),
    *(f"training.checkpoint.{when}:{n}" for when in ("before", "after") for n in (1, 2, 3)),
    "training.candidate:1",
]
"""Every place of a run at which its trainer may be killed."""
SETTINGS = {"updates": UPDATES, "checkpoint_every": 3}


def spawn(folder: RunFolder, fault: str = "") -> subprocess.Popen[bytes]:
    """A trainer that kills itself, unannounced, at ``fault``."""
    return subprocess.Popen(
        [sys.executable, "-m", "innerloop_server.training", "run", "--run", str(folder.path), "--supervised"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "INNERLOOP_FAULT": fault},
    )


def run(folder: RunFolder, fault: str = "") -> tuple[list[Message], int]:
    """Run a trainer to its end; what it said, and its exit status."""
    with spawn(folder, fault) as process:
        assert process.stdout is not None
        said = [decode(line) for line in process.stdout]
        return said, process.wait(30)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run that nobody disturbed."""
    folder = tiny_run(tmp_path_factory.mktemp("twin") / "run", **SETTINGS)
    said, status = run(folder)
    assert (said[-1], status) == (Done(UPDATES), 0)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data") as opened:
        yield opened


def assert_same(folder: RunFolder, twin: RunFolder) -> None:
    assert logged(folder) == logged(twin)
    assert final_weights(folder) == final_weights(twin)
    assert newest_checkpoint(folder) == newest_checkpoint(twin)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_seeded_points_and_resumed(twin: RunFolder, tmp_path: Path, seed: int) -> None:
    folder = tiny_run(tmp_path / "run", **SETTINGS)
    killed = [run(folder, point)[1] for point in random.Random(seed).sample(POINTS, 2)]
    assert killed[0] == -signal.SIGKILL
    said, status = run(folder)
    assert (said[-1], status) == (Done(UPDATES), 0)
    assert_same(folder, twin)


def test_the_trainer_ends_with_its_supervisor(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path / "run", updates=100_000)
    process = spawn(folder)
    assert process.stdin is not None
    assert process.stdout is not None
    assert decode(process.stdout.readline()) == Updated(1)
    process.stdin.close()  # what the kernel does when the supervisor is killed
    assert process.wait(30) == ORPHANED
    process.stdout.close()


def test_sigterm_leaves_a_checkpoint_and_errors_are_told(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path / "run", updates=100_000, checkpoint_every=100_000)
    with spawn(folder) as process:
        assert process.stdout is not None
        first = decode(process.stdout.readline())
        process.terminate()
        *_, checkpointed, paused = [decode(line) for line in process.stdout]
        assert process.wait(30) == 0
    assert first == Updated(1)
    assert isinstance(checkpointed, Checkpointed)
    assert len(logged(folder)) == checkpointed.update == paused.update  # type: ignore[union-attr]
    folder.metrics.unlink()
    (failed,), _ = run(folder)  # the checkpoint is behind a log that is gone
    assert isinstance(failed, Failed)


async def test_a_killed_trainer_is_started_again_and_followers_see_every_update_once(
    twin: RunFolder, store: Store
) -> None:
    async with supervising(store) as supervisor:
        record = await supervisor.start(tiny_request(settings=SETTINGS), "ann")
        pids: list[int] = []
        seen: list[int] = []

        async def follow() -> None:
            async for news in supervisor.follow(record.id):
                if isinstance(news, UpdateMetrics):
                    seen.append(news.update)
                    if news.update in (2, 5) and supervisor.pid is not None:
                        pids.append(supervisor.pid)
                        os.kill(supervisor.pid, signal.SIGKILL)

        await asyncio.wait_for(follow(), 200)
        assert len(set(pids)) == 2
        assert seen == list(range(1, UPDATES + 1))
    assert store.get_training(record.id).state is TrainingState.DONE
    assert_same(RunFolder(store.training_dir(record.id)), twin)
    (revision,) = store.list_revisions(record.learner_id).items
    assert revision.promoted


async def test_a_killed_server_goes_on_where_its_trainer_was(twin: RunFolder, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("training_server_child.py")), str(tmp_path / "data")],
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        training_id = server.stdout.readline().decode().strip()
        for line in server.stdout:
            if line.strip() == b"4":
                server.kill()
    with Store.open(tmp_path / "data") as store:
        assert store.get_training(training_id).state is TrainingState.RUNNING
        async with supervising(store) as supervisor:
            assert (await ended(supervisor, training_id)).state is TrainingState.DONE
        assert_same(RunFolder(store.training_dir(training_id)), twin)
        assert len(store.list_revisions("navigation-2d-maml").items) == 1

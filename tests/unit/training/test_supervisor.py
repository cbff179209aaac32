"""Trainings in the background, with scripted validation; on threads, but where the process itself is meant."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from training_support import ThreadTrainer, ended, final_weights, logged, scripted, supervising, tiny_request, tiny_run

from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.errors import Exhausted, InvalidField, NotFound, PreconditionFailed
from innerloop_server.store.records import TrainingRecord, TrainingState
from innerloop_server.store.store import Store
from innerloop_server.training.intake import TrainerSettings
from innerloop_server.training.metrics import UpdateMetrics
from innerloop_server.training.promotion import Validate
from innerloop_server.training.run import RunFolder
from innerloop_server.training.supervisor import MOST_DEATHS, TrainingSupervisor, backoff_seconds
from innerloop_server.training.trainer import train

LEARNER = "navigation-2d-maml"
LONG = {"updates": 100_000, "checkpoint_every": 1}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data") as opened:
        yield opened


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tiny_run(tmp_path_factory.mktemp("twin") / "run")
    train(folder, lambda _: None, lambda: False)
    return folder


def threaded(
    store: Store, validate: Validate | None = None, settings: TrainerSettings | None = None
) -> AbstractAsyncContextManager[TrainingSupervisor]:
    return supervising(store, validate, settings, ThreadTrainer.start)


def folder_of(store: Store, record: TrainingRecord) -> RunFolder:
    return RunFolder(store.training_dir(record.id))


async def updates_until(supervisor: TrainingSupervisor, training_id: str, update: int) -> list[int]:
    seen: list[int] = []
    async for news in supervisor.follow(training_id):
        if isinstance(news, UpdateMetrics):
            seen.append(news.update)
            if news.update >= update:
                break
    return seen


async def test_a_training_ends_as_a_champion_with_a_manifest(store: Store, twin: RunFolder) -> None:
    async with threaded(store) as supervisor:
        record = await supervisor.start(tiny_request(request_id="mine"), "ann")
        assert (record.state, record.owner, record.updates) == (TrainingState.RUNNING, "ann", 4)
        assert await supervisor.start(tiny_request(request_id="mine", seed=9), "ann") == record
        news = [n async for n in supervisor.follow(record.id)]
        assert supervisor.pid is None
    assert [n.update for n in news if isinstance(n, UpdateMetrics)] == [1, 2, 3, 4]
    said = [n.state for n in news if isinstance(n, TrainingRecord)]
    assert (said[0], said[-1]) == (TrainingState.RUNNING, TrainingState.DONE)
    assert store.get_training(record.id).update == 4
    assert store.get_learner(LEARNER).champion == 1
    assert store.get_learner(LEARNER).owner == "ann"
    revision = store.get_revision(LEARNER, 1)
    assert revision.manifest["promotion"]["promote"]
    assert revision.manifest["validation"] == {"protocol": {"scripted": True}, "scores": [], "gains": []}
    assert revision.manifest["training"] == record.id
    assert store.read_blob(revision.blob) == final_weights(twin)
    assert logged(folder_of(store, record)) == logged(twin)


async def test_better_and_worse_challengers(store: Store) -> None:
    scores = iter([1.0, 3.0, 1.0, 2.0, 3.0])  # the first alone; challenger, champion; challenger, champion

    async with threaded(store, scripted(lambda ref: next(scores))) as supervisor:
        for seed, champion in ((1, 1), (2, 2), (3, 2)):
            record = await supervisor.start(tiny_request(seed=seed, settings={"updates": 1}), "ann")
            assert (await ended(supervisor, record.id)).state is TrainingState.DONE
            assert store.get_learner(LEARNER).champion == champion
        verdict = store.get_revision(LEARNER, 3).manifest["promotion"]
        assert (verdict["promote"], verdict["champion"], verdict["difference"]) == (False, 2, -1.0)
        bell = asyncio.create_task(anext(aiter(supervisor.follow(record.id))))
        await bell
        assert (await supervisor.roll_back(LEARNER)).champion == 1
        assert (await supervisor.promote(LEARNER, 3)).champion == 3


async def test_a_run_with_several_revisions_and_one_that_continues(store: Store) -> None:
    seen: list[RevisionRef] = []

    def score(ref: RevisionRef) -> float:
        seen.append(ref)
        return 0.0

    async with threaded(store, scripted(score)) as supervisor:
        record = await supervisor.start(tiny_request(settings={"revision_every": 2}), "ann")
        await ended(supervisor, record.id)
        assert [store.get_revision(LEARNER, n).manifest["update"] for n in (1, 2)] == [2, 4]
        assert store.get_learner(LEARNER).champion == 2  # equal scores are no worse
        assert seen[0].path != seen[1].path
        more = await supervisor.start(tiny_request(continue_from=(LEARNER, 1), settings={"updates": 1}), "ann")
        assert (await ended(supervisor, more.id)).state is TrainingState.DONE
    assert folder_of(store, more).initial.read_bytes() == store.read_blob(store.get_revision(LEARNER, 1).blob)
    assert store.get_revision(LEARNER, 3).manifest["continue_from"] == f"learners/{LEARNER}/revisions/1"


async def test_pause_and_resume(store: Store, twin: RunFolder) -> None:
    async with threaded(store) as supervisor:
        record = await supervisor.start(tiny_request(settings=LONG), "ann")
        waiting = await supervisor.start(tiny_request(), "ann")
        await updates_until(supervisor, record.id, 2)
        paused = await supervisor.pause(record.id)
        assert paused.state is TrainingState.PAUSED
        assert paused.update >= 2
        assert paused == await supervisor.pause(record.id)
        assert (await ended(supervisor, waiting.id)).state is TrainingState.DONE
        assert (await supervisor.resume(record.id)).state is TrainingState.RUNNING
        assert paused.update + 1 in await updates_until(supervisor, record.id, paused.update + 1)
        queued = await supervisor.start(tiny_request(), "ann")
        assert (await supervisor.pause(queued.id)).state is TrainingState.PAUSED
        await supervisor.pause(record.id)
        with pytest.raises(PreconditionFailed, match="done"):
            await supervisor.pause(waiting.id)
        with pytest.raises(PreconditionFailed, match="continue_from"):
            await supervisor.resume(waiting.id)
    assert [update for update, _ in logged(folder_of(store, record))] == list(
        range(1, store.get_training(record.id).update + 1)
    )


async def test_the_next_server_goes_on(store: Store, twin: RunFolder) -> None:
    async with threaded(store) as supervisor:
        record = await supervisor.start(tiny_request(), "ann")
        await updates_until(supervisor, record.id, 1)
    assert store.get_training(record.id).state is TrainingState.RUNNING
    async with threaded(store) as supervisor:
        assert (await ended(supervisor, record.id)).state is TrainingState.DONE
    assert logged(folder_of(store, record)) == logged(twin)
    assert len(store.list_revisions(LEARNER).items) == 1


async def test_a_candidate_that_is_told_again_is_kept_once(store: Store) -> None:
    async with threaded(store) as supervisor:
        record = await supervisor.start(tiny_request(settings={**LONG, "revision_every": 1}), "ann")
        for _ in range(2):
            await updates_until(supervisor, record.id, store.get_training(record.id).update + 2)
            paused = await supervisor.pause(record.id)
            kept = [revision.manifest["update"] for revision in store.list_revisions(LEARNER).items]
            assert kept == list(range(paused.update, 0, -1))
            await supervisor.resume(record.id)
        await supervisor.pause(record.id)


async def test_a_validation_that_fails_can_be_had_again(store: Store) -> None:
    broken = True

    def score(ref: RevisionRef) -> float:
        if broken:
            raise PreconditionFailed("no simulator today")
        return 1.0

    async with threaded(store, scripted(score)) as supervisor:
        record = await supervisor.start(tiny_request(settings={"updates": 1}), "ann")
        failed = await ended(supervisor, record.id)
        assert (failed.state, failed.error) == (TrainingState.FAILED, "no simulator today")
        broken = False
        await supervisor.resume(record.id)
        done = await ended(supervisor, record.id)
        assert (done.state, done.error) == (TrainingState.DONE, "")
    assert store.get_learner(LEARNER).champion == 1


async def test_an_error_of_the_trainer_fails_the_training(store: Store) -> None:
    async with supervising(store) as supervisor:
        record = await supervisor.start(tiny_request(settings=LONG), "ann")
        await updates_until(supervisor, record.id, 1)
        await supervisor.pause(record.id)
        folder_of(store, record).metrics.write_bytes(b"")
        await supervisor.resume(record.id)
        failed = await ended(supervisor, record.id)
    assert failed.state is TrainingState.FAILED
    assert "does not hold updates 1 to" in failed.error
    assert "Traceback" in folder_of(store, record).log.read_text()


async def test_a_trainer_that_keeps_dying_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("innerloop_server.training.process.MODULE", "innerloop_server.no_such_module")
    async with supervising(store) as supervisor:
        record = await supervisor.start(tiny_request(), "ann")
        failed = await ended(supervisor, record.id)
    assert failed.state is TrainingState.FAILED
    assert failed.error.startswith(f"the trainer died {MOST_DEATHS} times in a row")


async def test_refusals(store: Store) -> None:
    async with threaded(store, settings=TrainerSettings(trainings_per_owner=1)) as supervisor:
        with pytest.raises(NotFound):
            await supervisor.get("t0")
        with pytest.raises(NotFound):
            await supervisor.start(tiny_request(continue_from=("nobody", 1)), "ann")
        with pytest.raises(InvalidField, match=r"settings\.hiden_sizes: unknown; there are hidden_sizes, "):
            await supervisor.start(tiny_request(settings={"hiden_sizes": [3]}), "ann")
        assert not store.list_learners().items
        record = await supervisor.start(tiny_request(settings=LONG), "ann")
        with pytest.raises(Exhausted, match="1 trainings of yours"):
            await supervisor.start(tiny_request(), "ann")
        with pytest.raises(InvalidField, match=r"settings\.hidden_sizes: is \[4\] for learner"):
            await supervisor.start(tiny_request(settings={"hidden_sizes": [5]}), "bob")
        await supervisor.pause(record.id)


async def test_sigterm_from_elsewhere_only_costs_a_restart(store: Store) -> None:
    async with supervising(store) as supervisor:
        record = await supervisor.start(tiny_request(settings=LONG), "ann")
        await updates_until(supervisor, record.id, 1)
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGTERM)
        seen = len(logged(folder_of(store, record)))
        await updates_until(supervisor, record.id, seen + 2)
        await supervisor.pause(record.id)


def test_backoff() -> None:
    assert [backoff_seconds(n) for n in (1, 2, 3, 4, 10)] == [0.5, 1.0, 2.0, 4.0, 30.0]

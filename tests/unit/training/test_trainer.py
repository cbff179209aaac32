"""The trainer's loop in this process: what it leaves, and that no crash shows in it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.numpy
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from training_support import actors_run, final_weights, logged, newest_checkpoint, tiny_run, tiny_settings

from innerloop_server.errors import DataLoss, PreconditionFailed
from innerloop_server.training import behaviour, candidates, outer_loop
from innerloop_server.training.messages import (
    Checkpointed,
    Done,
    Failed,
    Message,
    Paused,
    Revised,
    Updated,
    decode,
    encode,
)
from innerloop_server.training.run import RunFolder, RunSettings, Schedule
from innerloop_server.training.trainer import Diverged, train


class Crash(Exception):
    pass


def never() -> bool:
    return False


def run_to_end(folder: RunFolder) -> list[Message]:
    said: list[Message] = []
    train(folder, said.append, never)
    return said


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run that nothing disturbed."""
    folder = tiny_run(tmp_path_factory.mktemp("twin") / "run")
    run_to_end(folder)
    return folder


def test_what_a_run_says_and_leaves(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path / "run", Schedule(checkpoint_every=4, revision_every=3), updates=6)
    assert run_to_end(folder) == [
        *(Updated(1), Updated(2), Updated(3), Checkpointed(3), Revised(3)),
        *(Updated(4), Checkpointed(4), Updated(5), Updated(6), Checkpointed(6), Revised(6)),
        Done(6),
    ]
    assert [update for update, _ in logged(folder)] == [1, 2, 3, 4, 5, 6]
    assert {"return_0", "return_1", "kl_0", "loss", "gradient_norm", "environment_steps"} == logged(folder)[0][1].keys()
    assert len(list(folder.checkpoints.iterdir())) == 2
    assert [p.name for p in sorted(folder.revisions.iterdir())] == ["00000003", "00000006"]
    assert list(folder.tensorboard.glob("events.out.tfevents.*"))
    manifest = json.loads((folder.revisions / "00000006" / "manifest.json").read_bytes())
    assert (manifest["update"], manifest["seed"]) == (6, 3)
    assert manifest["environment_steps"] == sum(values["environment_steps"] for _, values in logged(folder))
    assert manifest["versions"].keys() == {"python", "innerloop", "numpy", "torch"}
    assert manifest["wall_seconds"] > 0
    assert manifest["cpu_seconds"] > 0
    assert manifest["command"].startswith("scripts/train navigation-2d --method maml --seed 3 --updates 6")


def test_a_finished_run_says_so_again(twin: RunFolder) -> None:
    before = twin.metrics.read_bytes()
    assert run_to_end(twin) == [Revised(4), Done(4)]
    assert twin.metrics.read_bytes() == before


@pytest.mark.parametrize("message", range(7))
def test_a_crash_at_any_message_shows_nowhere(twin: RunFolder, tmp_path: Path, message: int) -> None:
    folder = tiny_run(tmp_path / "run")
    said: list[Message] = []

    def crash(news: Message) -> None:
        said.append(news)
        if len(said) == message + 1:
            raise Crash

    with pytest.raises(Crash):
        train(folder, crash, never)
    run_to_end(folder)
    assert logged(folder) == logged(twin)
    assert final_weights(folder) == final_weights(twin)
    assert newest_checkpoint(folder) == newest_checkpoint(twin)


def test_half_a_line_and_lines_past_the_checkpoint_are_cut(twin: RunFolder, tmp_path: Path) -> None:
    folder = tiny_run(tmp_path / "run")
    train(folder, lambda _: None, stop_after(folder, 3))
    with folder.metrics.open("ab") as file:
        file.write(b'{"update": 4, "return_0": 99.0, "wall_seconds": 1, "cpu_seconds": 1}\n{"update": 5, "ret')
    run_to_end(folder)
    assert logged(folder) == logged(twin)


def stop_after(folder: RunFolder, update: int) -> Callable[[], bool]:
    return lambda: len(logged(folder)) >= update


def test_a_manifest_names_the_commit_that_the_training_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(["the first", *["the checkout moved on"] * 9])
    monkeypatch.setattr(candidates, "commit", lambda: next(said))
    folder = tiny_run(tmp_path, Schedule(checkpoint_every=1, revision_every=1), updates=2)
    train(folder, lambda _: None, lambda: False)
    assert [candidates.read(folder, update).manifest["commit"] for update in (1, 2)] == ["the first"] * 2


def test_pause_writes_a_checkpoint_and_wall_clock_goes_on(twin: RunFolder, tmp_path: Path) -> None:
    folder = tiny_run(tmp_path / "run")
    said: list[Message] = []
    train(folder, said.append, stop_after(folder, 3))
    assert said[-2:] == [Checkpointed(3), Paused(3)]
    assert newest_checkpoint(folder)[0].startswith("00000003.")
    run_to_end(folder)
    assert logged(folder) == logged(twin)
    seconds = [json.loads(line)["wall_seconds"] for line in folder.metrics.read_text().splitlines()]
    assert seconds == sorted(seconds)
    assert len(list(folder.tensorboard.glob("events.out.tfevents.*"))) == 2


def test_a_damaged_checkpoint_costs_time_and_nothing_else(twin: RunFolder, tmp_path: Path) -> None:
    folder = tiny_run(tmp_path / "run")
    train(folder, lambda _: None, stop_after(folder, 3))
    newest = max(folder.checkpoints.iterdir())
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    run_to_end(folder)
    assert logged(folder) == logged(twin)
    assert final_weights(folder) == final_weights(twin)


def test_a_log_that_lacks_an_update_is_refused(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path / "run")
    train(folder, lambda _: None, stop_after(folder, 3))
    folder.metrics.write_bytes(b"".join(folder.metrics.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(DataLoss, match="updates 1 to 3"):
        run_to_end(folder)


def test_a_run_goes_on_from_a_revision(twin: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(tiny_settings(updates=1), final_weights(twin))
    run_to_end(folder)
    fresh = tiny_run(tmp_path / "fresh", updates=1)
    run_to_end(fresh)
    start, other = (safetensors.numpy.load(final_weights(f)) for f in (folder, fresh))
    before = safetensors.numpy.load(final_weights(twin))
    name = "layers.0.weight"
    assert abs(start[name] - before[name]).max() < abs(other[name] - before[name]).max()
    bad = RunFolder(tmp_path / "bad")
    bad.create(tiny_settings(hidden_sizes=[5]), final_weights(twin))
    with pytest.raises(DataLoss, match="does not hold the meta-parameters"):
        run_to_end(bad)


def test_divergence_stops_the_run_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = outer_loop.teach

    def broken(*arguments: object) -> object:
        state, metrics = real(*arguments)  # type: ignore[arg-type]
        return state, {**metrics, "loss": float("nan")} if state.update == 2 else metrics

    monkeypatch.setattr(outer_loop, "teach", broken)
    folder = tiny_run(tmp_path / "run")
    with pytest.raises(Diverged, match="update 2: loss is nan"):
        run_to_end(folder)
    assert len(logged(folder)) == 1


def test_weights_that_are_not_finite_become_no_checkpoint_and_no_revision(tmp_path: Path) -> None:
    """Metrics are of what the update found: the last one's tell nothing of what it left."""
    folder = RunFolder(tmp_path / "run")
    folder.create(tiny_settings(updates=1, learning_rate=1e300))
    with pytest.raises(Diverged, match=r"update 1: .* is not finite; start again with lower learning rates"):
        run_to_end(folder)
    assert logged(folder) == []
    assert not list(folder.revisions.iterdir())
    assert not list(folder.checkpoints.iterdir())


def test_a_picture_that_cannot_be_drawn_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def hindered(*_: object) -> object:
        raise PreconditionFailed("a session diverged", reason="DIVERGED")

    monkeypatch.setattr(behaviour, "picture", hindered)
    folder = tiny_run(tmp_path / "run", updates=10)
    assert run_to_end(folder)[-1] == Done(10)
    assert "no picture after update 5: a session diverged" in capfd.readouterr().err


def test_a_training_whose_checkpoints_are_all_damaged_says_that_it_starts_over(
    tmp_path: Path, twin: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(shutil.copytree(twin.path, tmp_path / "run"))
    shutil.rmtree(folder.revisions)
    folder.revisions.mkdir()
    for file in folder.checkpoints.iterdir():
        file.write_bytes(b"")
    run_to_end(folder)
    assert "the training starts over" in capfd.readouterr().err
    assert final_weights(folder) == final_weights(twin)


def test_two_trainers_never_share_a_folder(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path / "run")
    with (
        folder.locked(),
        pytest.raises(PreconditionFailed, match="another trainer works"),
        folder.locked(wait_seconds=0.0),
    ):
        pass


def test_actors_run_a_training_too(tmp_path: Path) -> None:
    folder, again = actors_run(tmp_path / "run"), actors_run(tmp_path / "again")
    run_to_end(folder)
    train(again, lambda _: None, stop_after(again, 1))
    run_to_end(again)
    assert logged(folder) == logged(again)
    assert final_weights(folder) == final_weights(again)


@pytest.mark.gpu
def test_a_run_on_the_best_device_there_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(replace(tiny_settings(updates=1), device="auto"))
    assert run_to_end(folder)[-1] == Done(1)
    (manifest,) = folder.revisions.glob("*/manifest.json")
    assert json.loads(manifest.read_bytes())["device"] == ("cuda" if torch.cuda.is_available() else "cpu")


def test_settings_survive_the_trip_through_their_file(tmp_path: Path) -> None:
    settings = tiny_settings(Schedule(7, 9))
    assert RunSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    with pytest.raises(DataLoss, match=r"no settings\.json"):
        RunFolder(tmp_path).settings()
    with pytest.raises(DataLoss, match="damaged"):
        RunSettings.from_json({"format": "innerloop-training/1"})


@pytest.mark.parametrize(
    "message", [Updated(3), Checkpointed(2), Revised(4), Paused(1), Done(9), Failed('a "quoted" newline\n')]
)
def test_messages_survive_the_pipe(message: Message) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message


def test_an_unknown_message_is_refused() -> None:
    with pytest.raises(ValueError, match="not a trainer's message"):
        decode(b'{"kind": "surprise"}\n')

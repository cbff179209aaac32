"""A training's generator: chosen by name, written down, resumed to the bit, and obeyed by whoever learns."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from training_support import final_weights, logged, newest_checkpoint, tiny_request, tiny_settings

from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField
from innerloop_server.learners import registry as methods
from innerloop_server.store.store import Store
from innerloop_server.tasks.families.point_maze import PointMaze
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import custom_task, sample_task
from innerloop_server.training import generators, outer_loop, references
from innerloop_server.training.collect import batch_collector
from innerloop_server.training.episodes import batch_collector as episodes_collector
from innerloop_server.training.messages import Message, Updated
from innerloop_server.training.meta_student import MetaStudent
from innerloop_server.training.offline import _parser, _settings
from innerloop_server.training.ppo_student import PpoStudent
from innerloop_server.training.proposals import TrainingProposals
from innerloop_server.training.requests import TrainingRequest, plan
from innerloop_server.training.run import RunFolder, RunSettings
from innerloop_server.training.trainer import train

REGISTRY = load_registry()
MAZE = PointMaze()
TINY_MAZE = {
    "hidden_sizes": [4],
    "inner_steps": 1,
    "episodes_per_step": 2,
    "tasks_per_update": 40,
    "epochs": 1,
    "updates": 4,
    "checkpoint_every": 2,
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def maze_run(generator: str) -> RunSettings:
    return plan(TrainingRequest("point-maze", settings=TINY_MAZE, seed=3, generator=generator), MAZE)


class Crash(Exception):
    pass


# -- choosing ---------------------------------------------------------------------------------------------------------


def test_a_generator_is_chosen_by_name_and_written_down() -> None:
    run = maze_run("goal-gan")
    assert run.generator == "goal-gan"
    assert RunSettings.from_json(json.loads(json.dumps(run.to_json()))) == run
    words = shlex.split(run.command)
    assert words[words.index("--generator") + 1] == "goal-gan"
    assert _settings(_parser().parse_args(words[1:]), REGISTRY).generator == "goal-gan"
    uniform = plan(tiny_request(), REGISTRY.get("navigation-2d"))
    assert uniform.generator == "uniform"
    assert "--generator" not in uniform.command


def test_a_run_from_before_there_was_a_choice_is_uniform() -> None:
    value = maze_run("").to_json()
    del value["generator"]
    assert RunSettings.from_json(value).generator == "uniform"


def test_an_unknown_generator_is_refused_by_name_and_so_is_one_that_does_not_fit_the_family() -> None:
    with pytest.raises(InvalidField, match="use one of uniform, grid, replay, goal-gan, paired") as caught:
        plan(tiny_request(generator="alp-gmm"), REGISTRY.get("navigation-2d"))
    assert caught.value.field == "generator"

    class HoldsOut(PointMaze):
        splits_hold_out = True

    for name in ("grid", "goal-gan", "paired"):
        with pytest.raises(InvalidField, match="use uniform or replay"):
            plan(TrainingRequest("point-maze", generator=name), HoldsOut())
    for name in ("uniform", "replay"):
        assert plan(TrainingRequest("point-maze", generator=name), HoldsOut()).generator == name


def test_goal_gan_refuses_a_family_that_knows_no_success() -> None:
    with pytest.raises(InvalidField, match="generator: goal-gan goes by success, and navigation-2d knows none"):
        plan(tiny_request(generator="goal-gan"), REGISTRY.get("navigation-2d"))


# -- a training with each ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generator", ["replay", "goal-gan", "paired", "grid"])
def test_a_crash_shows_nowhere_whatever_the_generator(generator: str, tmp_path: Path) -> None:
    """The trainer dies after its third update, and goes on from the checkpoint behind its second."""

    def crash(news: Message) -> None:
        if news == Updated(3):
            raise Crash

    folders = [RunFolder(tmp_path / name) for name in ("twin", "crashed")]
    for folder in folders:
        folder.create(maze_run(generator))
    twin, crashed = folders
    train(twin, lambda _: None, lambda: False)
    with pytest.raises(Crash):
        train(crashed, crash, lambda: False)
    train(crashed, lambda _: None, lambda: False)
    assert newest_checkpoint(crashed) == newest_checkpoint(twin)
    assert final_weights(crashed) == final_weights(twin)
    assert logged(crashed) == logged(twin)
    manifest = json.loads((max(twin.revisions.glob("[0-9]*")) / "manifest.json").read_bytes())
    assert manifest["generator"] == generator
    assert ("regret" in logged(twin)[0][1]) == (generator == "paired")
    if generator == "goal-gan":
        state = outer_loop.from_bytes(newest_checkpoint(twin)[1]).generator
        assert int(state["archived"]) > 0  # else its networks were not trained
        assert int(state["generator/count"]) > 0


# -- tasks that are only looked at ------------------------------------------------------------------------------------


def test_an_outer_loop_learns_from_the_tasks_to_learn_from_alone() -> None:
    family = REGISTRY.get("navigation-2d")
    learner = methods.build(tiny_settings().spec)
    student = MetaStudent(learner, batch_collector(family, learner, torch.device("cpu")))
    meta = student.initial_meta(0)
    adam = outer_loop.optimiser.start(meta)
    tasks = [sample_task(family, 0, Split.TRAIN, i) for i in range(3)]
    three, one = student.play(meta, tasks, [7, 8, 9]), student.play(meta, tasks[1:2], [8])
    masked = student.learn(meta, adam, three, (False, True, False), 0, 0)
    alone = student.learn(meta, adam, one, (True,), 0, 0)
    all_three = student.learn(meta, adam, three, (True, True, True), 0, 0)
    assert masked[2] == alone[2] != all_three[2]
    for name, value in meta.items():
        assert torch.equal(masked[0][name], alone[0][name])
        assert masked[0][name].shape == value.shape
    kept, same, metrics = student.learn(meta, adam, three, (False, False, False), 0, 0)
    assert kept is meta
    assert same is adam
    assert metrics == {"loss": 0.0, "gradient_norm": 0.0}


def test_ppo_learns_from_the_tasks_to_learn_from_alone() -> None:
    seen, ppo = references.bind(MAZE, "oracle", {"hidden_sizes": [4], "minibatches": 2, "epochs": 2})
    student = PpoStudent(ppo, episodes_collector(seen), episodes_per_task=2)
    meta = student.initial_meta(0)
    adam = outer_loop.optimiser.start(meta)
    tasks = [sample_task(MAZE, 0, Split.TRAIN, i) for i in range(3)]
    played = student.play(meta, tasks, [7, 8, 9])
    assert [heard.task for heard in played.feedback] == tasks
    rewards = played.episodes.rewards.sum(-1).reshape(3, 2).tolist()
    assert [heard.returns[0] for heard in played.feedback] == [sum(row) / 2 for row in rewards]
    _, _, metrics = student.learn(meta, adam, played, (False, True, False), 0, 0)
    assert metrics["learned_steps"] == float(played.episodes.lengths[0, 2:4].sum())
    kept, same, _ = student.learn(meta, adam, played, (False,) * 3, 0, 0)
    assert kept is meta
    assert same is adam


def test_feedback_says_how_each_task_went_after_each_step() -> None:
    """A goal at the start is reached in every episode, one at the other end in none."""
    family = PointMaze()
    learner = methods.build(maze_run("").spec)
    student = MetaStudent(learner, batch_collector(family, learner, torch.device("cpu")))
    tasks = [custom_task(family, {"goal": np.array(goal)}) for goal in ([-1.5, -1.0], [-1.5, 1.2])]
    near, far = student.play(student.initial_meta(0), tasks, [1, 2]).feedback
    assert near.successes == near.returns == near.best_returns == (1.0, 1.0)
    assert far.successes == far.returns == far.best_returns == (0.0, 0.0)


# -- asking a training ------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data") as opened:
        yield opened


@pytest.mark.parametrize("generator", ["replay", "goal-gan", "paired"])
def test_what_a_training_would_run_next_is_what_it_runs_next(generator: str, store: Store) -> None:
    run = maze_run(generator)
    store.put_learner(run.spec)
    record = store.create_training(run.spec.name, {"run": run.to_json(), "request_id": ""}, 3, 4)
    folder = RunFolder(store.training_dir(record.id))
    folder.create(replace(run, training=record.id))
    updates = iter(range(3))
    state = train(folder, lambda _: None, lambda: next(updates) == 2)
    assert state.update == 2
    proposals = TrainingProposals(store)
    asked = proposals.next(record.id, generator, MAZE, 40)
    built = generators.build(generator, MAZE, 3)
    expected = built.propose(state.generator, 40)[0].tasks
    for task, other in zip(asked, expected, strict=True):
        np.testing.assert_array_equal(task.parameters["goal"], other.parameters["goal"])
    with pytest.raises(InvalidField, match=f"uses {generator}"):
        proposals.next(record.id, "uniform", MAZE, 1)
    with pytest.raises(InvalidField, match="trains on point-maze"):
        proposals.next(record.id, generator, REGISTRY.get("navigation-2d"), 1)

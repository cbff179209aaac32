"""Pictures of behaviour: when, of what, and that a training's numbers know nothing of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_support import final_weights, logged, tiny_run, tiny_settings

from innerloop_server.domain import Experience, Split
from innerloop_server.evaluation.protocol import EvaluationResult
from innerloop_server.learners.registry import build
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import behaviour
from innerloop_server.training.trainer import train

REGISTRY = load_registry()
FAMILY = REGISTRY.get("navigation-2d")
BLUE = (31, 119, 180)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("updates", "wanted"),
    [
        (4, []),
        (5, [5]),
        (12, [5, 10, 12]),
        (50, [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]),
        (95, [10, 20, 30, 40, 50, 60, 70, 80, 90, 95]),
    ],
)
def test_a_training_has_about_ten_pictures_the_last_at_its_end(updates: int, wanted: list[int]) -> None:
    assert [update for update in range(1, updates + 1) if behaviour.due(update, updates)] == wanted


def test_a_run_shows_pictures_and_is_the_same_run_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, dark = tiny_run(tmp_path / "shown", updates=5), tiny_run(tmp_path / "dark", updates=5)
    train(shown, lambda _: None, lambda: False)
    monkeypatch.setattr(behaviour, "shows", lambda _: False)
    train(dark, lambda _: None, lambda: False)
    assert logged(shown) == logged(dark)
    assert final_weights(shown) == final_weights(dark)
    events = {name: EventAccumulator(str(run.tensorboard)).Reload() for name, run in (("s", shown), ("d", dark))}
    (picture,) = events["s"].Images("behaviour")
    assert (picture.step, picture.encoded_image_string[:4]) == (5, b"\x89PNG")
    assert {"training/gradient_norm", "return/0", "return/1"} <= set(events["s"].Tags()["scalars"])
    assert events["d"].Tags()["images"] == []


def test_the_same_weights_give_the_same_picture() -> None:
    learner = build(tiny_settings().spec)
    first, again = (behaviour.picture(REGISTRY, learner, learner.initial_meta(0)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first.shape[2], first.dtype) == (3, np.uint8)
    assert not np.array_equal(first, behaviour.picture(REGISTRY, learner, learner.initial_meta(1)))


def walk(end: tuple[float, float]) -> Experience[np.ndarray]:
    """One straight episode of two steps from the origin; what is past them is nowhere near."""
    way = np.array([[0.0, 0.0], end, [90.0, 90.0]], np.float32)[None, None]
    empty = np.zeros((1, 1, 3), np.float32)
    return Experience(
        way, way, empty, empty, np.array([[2]]), empty, way[:, :, 0], empty, np.zeros((1, 1, 3, 0)), empty
    )


def test_paths_end_where_their_episodes_do_and_goals_are_marked() -> None:
    task = replace(sample_task(FAMILY, 0, Split.VALIDATION, 0), parameters={"goal": np.array([0.5, 0.0])})
    result = EvaluationResult(np.array([[-2.0, -1.0]]), (), {(0, 0): walk((0.1, 0.0)), (0, 1): walk((0.45, 0.0))})
    ax = Figure().subplots()
    behaviour._paths(ax, [task], result, 1)
    path, goal = ax.lines
    np.testing.assert_allclose(path.get_xydata(), [[0, 0], [0.45, 0]], rtol=1e-6)
    np.testing.assert_array_equal(goal.get_xydata(), [[0.5, 0.0]])
    assert ax.get_title() == "after 1 step"


def test_where_nothing_is_a_place_there_are_returns_alone() -> None:
    result = EvaluationResult(np.array([[-2.0, -1.0]]), (), {(0, k): walk((0.1, 0.0)) for k in (0, 1)})
    task = sample_task(FAMILY, 0, Split.VALIDATION, 0)
    wide, narrow = (
        behaviour.draw(REGISTRY.get(name), [task], result) for name in ("navigation-2d", "cartpole-dynamics")
    )
    assert narrow.shape[1] == wide.shape[1] // 3
    assert (narrow == BLUE).all(-1).any()


def test_trainings_on_actors_alone_are_not_shown() -> None:
    assert behaviour.shows(FAMILY)
    assert not behaviour.shows(REGISTRY.get("halfcheetah-velocity"))

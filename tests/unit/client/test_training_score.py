"""The score that moves while a training is watched on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from innerloop.cli.train import _draw
from innerloop.cli.training_score import UPDATES, LiveScore, sparkline
from innerloop.types import TrainingMetrics


def returns(update: int, *values: float, **others: float) -> TrainingMetrics:
    return TrainingMetrics(update, {f"return_{k}": value for k, value in enumerate(values)} | others)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([1.0], "▁"),
        ([3.0, 3.0, 3.0], "▁▁▁"),
        ([0.0, 7.0, 8.0], "▁██"),
        ([0.0, 4.0, 3.9, 8.0], "▁▅▄█"),
    ],
)
def test_a_line_of_blocks(values: list[float], line: str) -> None:
    assert sparkline(values) == line


def test_a_long_line_is_thinned_and_ends_with_the_newest() -> None:
    assert sparkline([float(i) for i in range(1000)], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0] * 999 + [1.0], 8) == "▁▁▁▁▁▁▁█"


def test_the_score_is_of_the_last_step_and_the_newest_updates() -> None:
    score = LiveScore()
    assert str(score) == ""
    score.add(TrainingMetrics(1, {"loss": 1.0}))
    assert str(score) == ""
    score.add(returns(1, -9.0, -4.0))
    assert str(score) == "return after 1 step -4.00 ▁"
    score.add(returns(2, -9.0, -2.0))
    assert str(score) == "return after 1 step -3.00 ▁█"
    for update in range(3, 3 + UPDATES):
        score.add(returns(update, -9.0, -1.0))
    assert str(score).startswith("return after 1 step -1.00 ")


def test_of_learners_that_remember_it_is_the_trials() -> None:
    score = LiveScore()
    score.add(returns(1, 1.0, 2.0, return_trial=12.5))
    assert str(score).startswith("return trial 12.50")


def test_on_a_terminal_one_line_moves(client) -> None:
    screen = io.StringIO()
    run = client.train("navigation-2d", "maml", updates=2)
    _draw(run, Console(file=screen, force_terminal=True, width=100), 0)
    assert "navigation-2d-maml" in screen.getvalue()
    assert "2/2" in screen.getvalue()
    assert "return after 2 steps -41.7" in screen.getvalue()  # the mean of -55.6 and -27.8
    assert "update 1/2" not in screen.getvalue(), "lines are for pipes"

"""Learned time with shipped learners: sessions stop where the curve that is kept with their revision says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import innerloop
from innerloop.cli import main
from innerloop_server.adaptation.worth import Curve, worth


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[innerloop.Client]:
    with innerloop.embedded(tmp_path_factory.mktemp("data"), device="cpu", actors=0) as client:
        yield client


@pytest.mark.parametrize(("learner", "episodes"), [("navigation-2d", 20), ("digits", None)])
def test_shipped_learners_stop_where_their_curve_says(
    client: innerloop.Client, learner: str, episodes: int | None
) -> None:
    curve = Curve.of(client.revision(client.learner(learner).champion).manifest)
    assert curve is not None
    wanted = worth(curve, episodes)
    assert wanted.steps > 1, "a session that stops at once proves little"
    (task,) = client.sample_tasks(learner, split="test", seed=7)
    adaptation = client.adapt(learner, task, budget="auto", seed=1)
    steps = list(adaptation)
    assert len(steps) == wanted.steps
    assert [step.end_reason for step in steps] == [""] * (wanted.steps - 1) + ["budget_auto"]
    gains = np.diff(curve.means)
    for step in steps:
        expected = None if step.number >= len(gains) else pytest.approx(gains[step.number])
        assert step.expected_gain == expected
    assert adaptation.result().end_reason == "budget_auto"
    assert client.session(adaptation.session).budget == innerloop.Budget(auto=True)


def test_the_word_goes_with_other_bounds(client: innerloop.Client) -> None:
    (task,) = client.sample_tasks("navigation-2d")
    adaptation = client.adapt("navigation-2d", task, budget="auto", steps=1)
    assert adaptation.result().end_reason == "budget_steps"
    with pytest.raises(ValueError, match="'forever' is unknown"):
        client.adapt("navigation-2d", task, budget="forever")  # type: ignore[arg-type]


def test_the_command_line(client: innerloop.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INNERLOOP_ADDRESS", client.options.address)
    shown = CliRunner().invoke(main, ["adapt", "digits", "--budget", "auto", "--save", str(tmp_path / "p.safetensors")])
    assert shown.exit_code == 0, shown.output
    assert "ended by budget auto" in shown.output
    assert "expected" in shown.output


def test_a_learner_that_is_good_at_once_takes_one_step(client: innerloop.Client) -> None:
    """Its trial is one episode, so no curve says what a second would bring."""
    (task,) = client.sample_tasks("acrobot-dynamics")
    steps = list(client.adapt("acrobot-dynamics-rl2", task, budget="auto"))
    assert [(step.end_reason, step.expected_gain) for step in steps] == [("budget_auto", None)]

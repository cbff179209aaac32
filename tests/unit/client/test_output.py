"""What people see: tables that fit, ids in one piece, sentences that break between words."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.progress import Progress

from innerloop.cli.output import Output, wrapped
from innerloop.cli.training_report import made_by, update_line, verdict
from innerloop.types import Revision, Step, Training, TrainingMetrics

ID = "s73f2c1a90b84e55"
COLUMNS = ("session", "revision", "bytes", "note")
ROWS = [(ID, "navigation-2d-maml/revisions/12", 1172, "it is a long story of words")]


@pytest.fixture
def terminal(monkeypatch):
    """Standard output as a terminal of some width; call it again for what was written."""
    screen = io.StringIO()

    def use(columns: int) -> io.StringIO:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "stdout", screen)
        return screen

    return use


def test_a_row_in_a_pipe_is_a_line(capsys):
    Output(False, terminal=False).table(COLUMNS, [(*ROWS[0][:3], "word " * 100)], droppable=("bytes",))
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("columns", [100, 80, 60, 50, 30])
def test_ids_stay_in_one_piece(terminal, columns):
    screen = terminal(columns)
    Output(False, terminal=True).table(COLUMNS, ROWS, droppable=("bytes", "note"))
    text = screen.getvalue()
    assert ID in text
    assert "navigation-2d-maml/revisions/12" in text
    assert ("1172" in text) == (columns == 100)
    assert ("story" in text) == (columns >= 80)


def test_prose_gives_way_to_ids(terminal):
    screen = terminal(60)
    Output(False, terminal=True).table(("policy", "note"), [("p" * 45, "it is a long story of words")])
    assert "p" * 45 in screen.getvalue()
    assert max(map(len, screen.getvalue().splitlines()[1:])) <= 60


def test_ids_stay_in_one_piece_on_a_dumb_terminal(terminal, monkeypatch):
    screen = terminal(80)
    monkeypatch.setenv("TERM", "dumb")
    Output(False, terminal=True).table(("session",), [(ID * 8,)])
    assert ID * 8 in screen.getvalue()


def test_brackets_are_text(capsys):
    Output(False, terminal=False).table(("state",), [("needs pip install 'innerloop[mujoco]'",)])
    assert "'innerloop[mujoco]'" in capsys.readouterr().out


def test_sentences_break_between_words(terminal, monkeypatch):
    terminal(20)
    assert wrapped("one sentence of a few-words\n\nend") == "one sentence of a\nfew-words\n\nend"
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert wrapped("one sentence of a few-words") == "one sentence of a few-words"


def test_a_line_that_is_said_under_a_live_bar_does_not_land_in_it(terminal, monkeypatch):
    terminal(80)
    written = io.BytesIO()  # bytes below text, as in a true stdout: writers that look for the bytes go past the bar
    screen = io.TextIOWrapper(written, "utf-8", write_through=True)
    monkeypatch.setattr(sys, "stdout", screen)
    with Progress(console=Console(file=screen, force_terminal=True, width=80)) as bars:
        bars.add_task("opening", total=3)
        bars.refresh()
        Output(False, terminal=True).say("sessions/s0: adapts")
    assert b"\x1b[2Ksessions/s0: adapts\n" in written.getvalue()  # the bar's line is erased first


def revision(number: int, training: str = "t0", **manifest) -> Revision:
    return Revision(f"learners/l/revisions/{number}", "", {"training": training, **manifest}, False, None)


@pytest.mark.parametrize(
    ("promotion", "told"),
    [
        (
            {"promote": True, "champion": None, "difference": None},
            "revision 2: nothing to compare it with; it is the champion now",
        ),
        (
            {"promote": True, "champion": 1.0, "difference": 3.25},
            "revision 2: better than revision 1 by 3.25 on 100 validation tasks; it is the champion now",
        ),
        (
            {"promote": True, "champion": 1.0, "difference": 0.0},
            "revision 2: as good as revision 1 on 100 validation tasks; it is the champion now",
        ),
        (
            {"promote": False, "champion": 1.0, "difference": None, "reason": "its returns are not finite"},
            "revision 2: its returns are not finite; the champion stays revision 1",
        ),
    ],
)
def test_verdicts(promotion, told):
    assert verdict(revision(2, promotion=promotion, validation={"protocol": {"tasks": 100.0}})) == told


def test_a_training_is_told_its_own_revision():
    training = Training("trainings/t0", "learners/l", "done", 1, 1, 0, "batch", "", None)
    assert made_by(training, [revision(3, "t1"), revision(2), revision(1)]) == revision(2)
    assert made_by(training, [revision(3, "t1")]) is None


def test_update_lines():
    assert update_line(TrainingMetrics(3, {"loss": 1.0}), 0) == "update 3"
    assert update_line(TrainingMetrics(3, {"return_0": -1.0, "environment_steps": 2.5e6}), 9) == (
        "update 3/9: return -1.0 (2.5 M steps)"
    )


def test_a_step_in_words():
    step = Step(3, "", -1.95, -2.99, 0.0, 0.0, 0.0, True, 1.0, 20, 60, 0.1, 0.3)
    assert str(step) == "step 3: return -1.95 -> -2.99 (guarded)"

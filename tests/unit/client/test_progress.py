from __future__ import annotations

import io

from fake_answers import policy_message
from rich.console import Console

from innerloop._core import reading
from innerloop._progress import Live, Silent, progress_for
from innerloop.types import Adapted
from innerloop.v1 import adaptation_pb2 as pb


def test_steps_are_drawn_for_people():
    drawn = io.StringIO()
    with Live(2, console=Console(file=drawn, force_terminal=True, width=100)) as live:
        live.show(reading.step(pb.Step(number=1, pre_return=-20.5, post_return=-3.25)))
        live.show(reading.step(pb.Step(number=2, pre_return=-3.25, guarded=True)))
        policy = reading.policy_info(policy_message("policies/p", "learners/navigation-2d-maml", 2))
        live.show(Adapted(policy, "budget_steps", 2))
    assert "step 2: return -3.25 (guarded)" in drawn.getvalue()
    assert "2/2" in drawn.getvalue()


def test_nothing_is_drawn_where_nobody_watches(capsys, client):
    assert isinstance(progress_for(None, 3), Silent)
    assert isinstance(progress_for(False, 3), Silent)
    client.adapt("navigation-2d", {"goal": [0.0, 0.0]}, steps=2).policy()
    assert capsys.readouterr().out == ""


def test_a_live_line_is_drawn_when_wanted(capsys, client):
    client.adapt("navigation-2d", {"goal": [0.0, 0.0]}, steps=2, progress=True).policy()
    assert "step 2: return 2.00 -> 3.00" in capsys.readouterr().out

"""Families: what a client defines, as the wire wants it, and what the command line makes of what a server says."""

from __future__ import annotations

from dataclasses import replace

import click
import fake_answers
import numpy as np
import pytest
from click.testing import CliRunner

from innerloop import Box, Discrete, Family
from innerloop._core import reading
from innerloop._core.names import default_learner
from innerloop.cli import main
from innerloop.cli.families import brief, describe, overview, parameter_of
from innerloop.cli.output import Output
from innerloop.errors import NotFound
from innerloop.types import FamilyDefinition, FamilyOption, Reference
from innerloop.v1 import task_pb2
from innerloop_server.training.specs import learner_id

FAMILY = Family(
    name="families/bandit.arms-3",
    title="Find the best arm",
    description="Three arms.",
    observation_space=Box.of(0, 1, (1,)),
    action_space=Discrete(3),
    parameter_space={"chances": Box.of(0, 1, (3,))},
    horizon=1,
    episodes_per_trial=10,
    discount=0.99,
    simulators=("batch", "actors"),
    references=tuple(Reference(name, value, "a proof", "trial") for name, value in zip("abcd", range(4), strict=True)),
    missing_extra="",
    broken_reason="",
    options=(FamilyOption("arms", "3", "5"), FamilyOption("pulls", "10", "10")),
)


def test_a_definition_on_the_wire(client, server):
    spaces = {
        "length": (0.1, 0.7),
        "start": ([-1.0, 0.0], 1.0),
        "map": 4,
        "box": Box.of(0, 1, (2, 1)),
        "choice": Discrete(2),
    }
    family = client.define_family("mine", "CartPole-v1", spaces, horizon=9, apply="attributes", episodes_per_trial=2)
    assert family.definition == FamilyDefinition("CartPole-v1", "attributes", "local", None)
    (sent,) = server.defined
    assert (sent.name, sent.env_id, sent.apply) == ("families/mine", "CartPole-v1", task_pb2.APPLY_ATTRIBUTES)
    assert (sent.horizon, sent.episodes_per_trial) == (9, 2)
    boxes = {name: (list(s.box.shape), list(s.box.low), list(s.box.high)) for name, s in sent.parameters.items()}
    assert boxes["length"] == ([], [0.1], [0.7])  # in full precision
    assert boxes["start"] == ([2], [-1.0, 0.0], [1.0, 1.0])
    assert boxes["box"] == ([2, 1], [0.0, 0.0], [1.0, 1.0])
    assert (sent.parameters["map"].discrete.n, sent.parameters["choice"].discrete.n) == (4, 2)


@pytest.mark.parametrize("value", [True, 0.5, "2:3", (1.0,), (1.0, 2.0, 3.0), None])
def test_what_is_no_parameter(client, server, value):
    with pytest.raises(TypeError, match="parameter g: give a space, a number of values, or"):
        client.define_family("mine", "Pendulum-v1", {"g": value}, horizon=9)
    assert server.defined == []


def test_an_unknown_way_to_apply_is_told_before_anything_is_sent(client, server):
    with pytest.raises(ValueError, match="apply 'magic' is unknown; use one of arguments, attributes"):
        client.define_family("mine", "Pendulum-v1", {"g": (1, 2)}, horizon=9, apply="magic")
    assert server.defined == []


def test_deleting(client, server):
    client.delete_family("mine")
    assert server.deleted == ["families/mine"]


def test_a_family_with_options_means_its_learner(client, server):
    with pytest.raises(NotFound, match=r"train one: innerloop train navigation-2d\.size-3$"):
        client.learner("navigation-2d.size-3")
    fake_answers.LEARNERS["learners/navigation-2d-size-3-maml"] = "families/navigation-2d"
    try:
        for name in ("navigation-2d.size-3", "families/navigation-2d.size-3", "navigation-2d-size-3-maml"):
            assert client.learner(name).name == "learners/navigation-2d-size-3-maml"
    finally:
        del fake_answers.LEARNERS["learners/navigation-2d-size-3-maml"]
    assert default_learner("bandit.arms-3", "rl2") == learner_id("bandit.arms-3", "rl2") == "bandit-arms-3-rl2"


def test_a_family_means_its_only_learner_where_the_usual_one_is_missing(client, server, monkeypatch):
    monkeypatch.delitem(fake_answers.LEARNERS, "learners/navigation-2d-maml")
    monkeypatch.setitem(fake_answers.LEARNERS, "learners/navigation-2d-rl2", "families/navigation-2d")
    for name in ("navigation-2d", "families/navigation-2d"):
        assert client.learner(name).name == "learners/navigation-2d-rl2"
    monkeypatch.setitem(fake_answers.LEARNERS, "learners/wanderer", "families/navigation-2d")
    with pytest.raises(NotFound, match=r"no learner navigation-2d-maml; it has navigation-2d-rl2, wanderer$"):
        client.learner("navigation-2d")


def test_a_family_goes_on_meaning_the_learner_that_ships(client, server, monkeypatch):
    monkeypatch.setitem(fake_answers.LEARNERS, "learners/navigation-2d-rl2", "families/navigation-2d")
    for mine in ("learners/navigation-2d-maml", "learners/wanderer"):
        monkeypatch.setitem(fake_answers.LEARNERS, mine, "families/navigation-2d")
        monkeypatch.setitem(fake_answers.OWNERS, mine, "local")
    for name in ("navigation-2d", "families/navigation-2d"):
        assert client.learner(name).name == "learners/navigation-2d-rl2"
    assert client.learner("navigation-2d-maml").name == "learners/navigation-2d-maml"
    monkeypatch.setitem(fake_answers.OWNERS, "learners/navigation-2d-rl2", "local")
    for name in ("navigation-2d", "families/navigation-2d"):
        assert client.learner(name).name == "learners/navigation-2d-maml"


def test_every_field_of_a_family_is_read():
    message = task_pb2.Family(
        name="families/f",
        splits_share_tasks=True,
        supervision=task_pb2.SUPERVISION_CLASSIFICATION,
        feedback_size=1,
        missing_extra="images",
        missing_extra_command="pip install 'innerloop[images]'",
        options=[task_pb2.FamilyOption(name="ways", value="5", default_value="2")],
        references=[
            task_pb2.Reference(name="old", value=1),
            task_pb2.Reference(name="one", value=1, unit=task_pb2.RETURN_UNIT_EPISODE),
            task_pb2.Reference(name="all", value=1, unit=task_pb2.RETURN_UNIT_TRIAL),
        ],
    )
    read = reading.family(message)
    assert (read.splits_share_tasks, read.supervision, read.feedback_size) == (True, "classification", 1)
    assert (read.missing_extra, read.missing_extra_command) == ("images", "pip install 'innerloop[images]'")
    assert read.options == (FamilyOption("ways", "5", "2"),)
    assert [reference.unit for reference in read.references] == ["episode", "episode", "trial"]
    assert read.definition is None


# ---------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (Discrete(5), "1 of 5"),
        (Box.of(0, 1, (1,)), "1 number"),
        (Box.of(0, 1, (17,)), "17 numbers"),
        (Box.of(0, 1, ()), "1 number"),
        (Box.of(0, 1, (12, 12, 3)), "12x12x3"),
        (None, ""),
    ],
)
def test_spaces_in_a_cell(space, said):
    assert brief(space) == said


def test_the_whole_story():
    lines = describe(FAMILY).splitlines()
    assert lines[:3] == ["bandit.arms-3: Find the best arm", "", "Three arms."]
    assert "episode     1 step, 10 episodes a trial, discount 0.99" in lines
    assert "hidden      chances: 3 numbers from 0 to 1" in lines
    assert "option      arms = 3 (default 5)" in lines
    assert "option      pulls = 10" in lines
    assert "reference   b 1.00 a trial (a proof)" in lines
    assert lines[-1] == "state       ready"
    assert not any(line.startswith(("feedback", "tasks", "defined")) for line in lines)


def test_the_whole_story_of_others():
    box = Box(np.float32([-np.inf, 0, 1]), np.float32([np.inf, 2, 3]))
    shown = describe(
        replace(
            FAMILY,
            observation_space=box,
            action_space=Box.of(-np.inf, np.inf, (9,)),
            supervision="regression",
            feedback_size=2,
            splits_share_tasks=True,
            missing_extra="sim",
            missing_extra_command="pip install 'theirs[sim]'",
            definition=FamilyDefinition("CartPole-v1", "attributes", "ann", None),
        )
    ).splitlines()
    assert "sees        3 numbers from (-inf, 0, 1) to (inf, 2, 3)" in shown
    assert "does        9 numbers" in shown
    assert "feedback    the target, 2 numbers (regression)" in shown
    assert "tasks       few: train, validation and test share them" in shown
    assert "defined     by ann: CartPole-v1, parameters as attributes" in shown
    assert "state       needs pip install 'theirs[sim]'" in shown


def test_the_table(capsys):
    needy = replace(FAMILY, name="families/needy", missing_extra="images", references=FAMILY.references[:2])
    broken = Family("families/torn", "", "", None, None, {}, 0, 0, 0.0, (), (), "", "ImportError: no such thing")
    overview(Output(as_json=False, terminal=False), [FAMILY, needy, broken], {FAMILY.name})
    header, first, second, third, why = capsys.readouterr().out.splitlines()
    assert header.split() == ["family", "sees", "does", "steps", "trial", "references", "state"]
    assert " ".join(first.split()) == "bandit.arms-3 1 number 1 of 3 1 10 a 0.00, b 1.00, c 2.00 a trial; 1 more ready"
    assert " ".join(second.split()) == "needy 1 number 1 of 3 1 10 a 0.00, b 1.00 a trial needs [images]"
    assert third.split() == ["torn", "broken"]
    assert why == "torn is broken: ImportError: no such thing"
    assert describe(broken).splitlines() == ["torn", "", "state       broken: ImportError: no such thing"]


@pytest.mark.parametrize(
    ("text", "value"), [("g=2:20.5", (2.0, 20.5)), ("g=-1:1e3", (-1.0, 1000.0)), ("g=4", 4), ("g=0.5:0.5", (0.5, 0.5))]
)
def test_a_parameter_that_is_typed(text, value):
    assert parameter_of(text) == ("g", value)


@pytest.mark.parametrize("text", ["g", "g=", "=1:2", "g=one:two", "g=1:", "g=1.5", "g=1:2:3"])
def test_a_parameter_that_is_mistyped(text):
    with pytest.raises(click.UsageError, match="write NAME=LOW:HIGH"):
        parameter_of(text)


def invoke(server, *words):
    return CliRunner().invoke(main, ["families", *words, "--server", server.address])


def test_defining_and_deleting_by_command(server):
    words = ("mine", "--define", "CartPole-v1", "--parameter", "length=0.3:0.7", "--parameter", "map=3")
    result = invoke(server, *words, "--horizon", "9", "--trial", "2", "--apply", "attributes")
    assert result.exit_code == 0, result.output
    assert "defined     by local: CartPole-v1, parameters as attributes" in result.stdout
    (sent,) = server.defined
    assert (sent.name, sent.horizon, sent.episodes_per_trial) == ("families/mine", 9, 2)
    assert (sent.parameters["length"].box.high[0], sent.parameters["map"].discrete.n) == (0.7, 3)
    result = invoke(server, "navigation-2d", "--delete")
    assert result.exit_code == 0, result.output
    assert server.deleted == ["families/navigation-2d"]
    assert "deleted families/navigation-2d" in result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--delete",), "need the NAME"),
        (("--define", "CartPole-v1"), "need the NAME"),
        (("mine", "--define", "CartPole-v1", "--horizon", "9"), "--define needs --parameter and --horizon"),
        (("mine", "--define", "CartPole-v1", "--parameter", "g=1:2"), "--define needs --parameter and --horizon"),
        (("mine", "--define", "X-v0", "--parameter", "g=1:2", "--horizon", "9", "--delete"), "no --delete"),
        (("mine", "--horizon", "9"), "need --define"),
        (("mine", "--define", "X-v0", "--parameter", "g", "--horizon", "9"), "write NAME=LOW:HIGH"),
    ],
)
def test_words_that_do_not_go_together(server, words, told):
    result = invoke(server, *words)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.replace("│", " ").split())
    assert (server.defined, server.deleted, server.calls) == ([], [], [])

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_answers import Refusal

import innerloop
from innerloop import errors
from innerloop.cli import main
from innerloop.cli.output import to_json


@pytest.fixture
def run(server, monkeypatch):
    monkeypatch.setenv("INNERLOOP_ADDRESS", server.address)

    def invoke(*words: str, code: int = 0):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == code, (result.output, result.exception)
        assert "Traceback" not in result.output
        return result

    return invoke


@pytest.fixture
def read(run):
    """Run with --json: the values on stdout, which must be all there is."""

    def invoke(*words: str):
        return [json.loads(line) for line in run(*words, "--json").stdout.splitlines()]

    return invoke


def test_help_names_every_command():
    result = CliRunner().invoke(main, ["--help"])
    listed = [line.split()[0] for line in result.output.split("Commands:")[1].splitlines() if line.strip()]
    names = "serve families tasks adapt evaluate scores train trainings learners policies sessions"
    assert " ".join(listed) == names
    for name in listed:
        assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_families(run, read):
    text = run("families").stdout
    assert "cartpole-dynamics" in text
    assert "Discrete(2)" in text
    assert "oracle -0.50 (a formula)" in run("families", "navigation-2d").stdout
    (found,) = read("families")
    assert [f["name"] for f in found] == ["families/cartpole-dynamics", "families/navigation-2d"]
    assert found[0]["observation_space"]["low"] == ["-inf"] * 4
    assert read("families", "navigation-2d")[0]["horizon"] == 100


def test_tasks(run, read):
    assert (
        "families/navigation-2d/tasks/validation-3-1"
        in run("tasks", "navigation-2d", "--split", "validation", "--seed", "3", "--count", "2").stdout
    )
    (found,) = read("tasks", "navigation-2d", "--start-index", "4", "--count", "1")
    assert found[0]["parameters"] == {"goal": [0.4, -0.2]}


def test_adapt_prints_each_step_and_saves_the_policy(run, tmp_path):
    path = tmp_path / "policy.safetensors"
    result = run("adapt", "navigation-2d", "--steps", "2", "--seed", "5", "--save", str(path))
    lines = result.stdout.splitlines()
    assert lines[0].startswith("sessions/s0: learners/navigation-2d-maml/revisions/1 adapts to goal=0,-0.2 (seed 5)")
    assert lines[1].split()[:4] == ["step", "return", "before", "after"]
    assert [line.split()[:3] for line in lines[2:4]] == [["1", "1.00", "2.00"], ["2", "2.00", "3.00"]]
    assert lines[-1] == "policies/s0: 2 steps, ended by budget steps"
    assert f"saved {path}" in result.stderr
    assert innerloop.load_policy(path).header.steps == 2


def test_adapt_tells_programs_every_event(read):
    events = read("adapt", "navigation-2d", "--steps", "2", "--test-index", "3")
    assert [e["event"] for e in events] == ["opened", "step", "step", "adapted"]
    assert events[0]["opened"]["task"]["name"] == "families/navigation-2d/tasks/test-0-3"
    assert events[2]["step"]["number"] == 2
    assert events[3]["adapted"]["policy"]["name"] == "policies/s0"


def test_adapt_takes_a_task_of_ones_own(server, run):
    run("adapt", "navigation-2d-maml", "--param", "goal=0.3,-0.2", "--steps", "1")
    task = server.session.open.task
    assert task.family == "families/navigation-2d"
    assert list(task.parameters["goal"].shape) == [2]
    assert "has no parameter gaol; it has goal" in run("adapt", "navigation-2d", "--param", "gaol=1", code=2).stderr
    assert "not a list of numbers" in run("adapt", "navigation-2d", "--param", "goal=a", code=2).stderr
    assert "give one of" in run("adapt", "x", "--param", "goal=1", "--test-index", "2", code=2).stderr


def test_evaluate_and_scores(run, read):
    text = run("evaluate", "navigation-2d", "--tasks", "5").stdout
    assert "evaluations/e0: learners/navigation-2d-maml on 5 test tasks" in text
    assert "50.0 %" in text
    assert read("scores", "--k", "1")[0][0]["mean"] == -9.0
    assert "navigation-2d-maml/revisions/1" in run("scores", "--family", "navigation-2d").stdout


def test_train_and_trainings(run, read):
    text = run("train", "navigation-2d", "--updates", "2", "--set", "inner_rate=0.1", "--set", "outer=trpo").stdout
    assert text.splitlines() == [
        "update 1: loss 1",
        "update 2: loss 0.5",
        "trainings/t0: learners/navigation-2d-maml is done at update 2",
    ]
    assert "done" in run("trainings").stdout
    assert read("trainings", "t0", "--pause")[0]["training"]["state"] == "paused"
    events = read("trainings", "t0", "--resume")
    assert [e["event"] for e in events] == ["training"]
    assert read("train", "navigation-2d", "--detach")[0]["training"]["name"] == "trainings/t0"
    assert "needs the NAME" in run("trainings", "--pause", code=2).stderr
    assert "NAME=VALUE" in run("train", "navigation-2d", "--set", "x", code=2).stderr


def test_learners(run, read):
    assert "cartpole-dynamics-maml" in run("learners").stdout
    assert len(read("learners", "--family", "navigation-2d")[0]) == 1
    assert [r["champion"] for r in read("learners", "navigation-2d")[0]] == [False, True]
    assert (
        "champion is learners/navigation-2d-maml/revisions/2"
        in run("learners", "navigation-2d-maml/revisions/2", "--promote").stdout
    )
    assert "needs a NAME" in run("learners", "--roll-back", code=2).stderr


def test_policies_and_sessions(run, read, tmp_path):
    run("adapt", "navigation-2d", "--steps", "1")
    assert "policies/s0" in run("policies").stdout
    path = tmp_path / "p.safetensors"
    assert read("policies", "s0", "--save", str(path))[0]["steps"] == 1
    assert innerloop.load_policy(path).header.steps == 1
    assert "finished" in run("sessions").stdout
    assert read("sessions", "s0")[0]["state"] == "finished"
    assert read("sessions", "s0", "--cancel")[0]["state"] == "cancelled"
    assert "deleted policies/s0" in run("policies", "s0", "--delete").stderr
    assert "need the NAME" in run("policies", "--delete", code=2).stderr


def test_errors_are_sentences_on_stderr(server, run):
    result = run("families", "nowhere", code=1)
    assert result.stdout == ""
    assert result.stderr == (
        "Error: families/nowhere does not exist; there are families/cartpole-dynamics, families/navigation-2d\n"
    )
    server.refuse["ListFamilies"] = [
        Refusal("INVALID_ARGUMENT", "INVALID_FIELD", "no", violations=[("page_size", "at most 1000")])
    ]
    assert "page_size: at most 1000" in run("families", code=1).stderr
    assert "no server answers at" in run("families", "--server", "127.0.0.1:1", code=1).stderr
    assert "in the clear" in run("families", "--server", "far.example:1", "--token", "t", code=1).stderr
    run("families", "--no-such-option", code=2)


def test_without_a_server_a_private_one_is_started(server, monkeypatch, tmp_path):
    from innerloop.cli import connection

    started = []

    def embedded(where):
        started.append(where)
        return innerloop.connect(server.address)

    monkeypatch.delenv("INNERLOOP_ADDRESS", raising=False)
    monkeypatch.setenv("INNERLOOP_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(connection, "DEFAULT_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(connection, "embedded", embedded)
    result = CliRunner().invoke(main, ["families", "--json"])
    assert started == [tmp_path]
    assert len(json.loads(result.stdout)) == 2
    assert "no server answers at 127.0.0.1:1; starting a private one" in result.stderr
    monkeypatch.setattr(connection, "DEFAULT_ADDRESS", server.address)
    assert CliRunner().invoke(main, ["families"]).exit_code == 0
    assert started == [tmp_path]


def test_serve_becomes_the_server(monkeypatch, tmp_path):
    became = []
    monkeypatch.setattr(os, "execv", lambda path, words: became.append(words))
    monkeypatch.delenv("INNERLOOP_DATA_DIR", raising=False)
    monkeypatch.setattr("innerloop.cli.serve.server_command", lambda: ["python", "-m", "innerloop_server"])
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    words = ["serve", "--port", "0", "--device", "cpu", "--insecure", "--admin-port", "0", "--drain-seconds", "3"]
    assert CliRunner().invoke(main, words).exit_code == 0
    (typed,) = became
    assert typed[:3] == ["python", "-m", "innerloop_server"]
    options = " ".join(typed[3:])
    assert f"--data-dir {tmp_path / '.local' / 'share' / 'innerloop'}" in options
    for part in ("--host 127.0.0.1", "--port 0", "--device cpu", "--insecure", "--admin-port 0", "--drain-seconds 3"):
        assert part in options
    assert "--tls-cert" not in options


def test_serve_without_a_server_says_what_to_install(monkeypatch):
    def missing():
        raise errors.ServerNotInstalled("torch")

    monkeypatch.setattr("innerloop.cli.serve.server_command", missing)
    result = CliRunner().invoke(main, ["serve"])
    assert result.exit_code == 1
    assert "pip install 'innerloop[server]'" in result.stderr


def test_json_holds_no_infinities():
    assert to_json({"a": float("inf"), "b": [1.0, float("nan")]}) == {"a": "inf", "b": [1.0, "nan"]}

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fake_answers
import pytest
from click.testing import CliRunner
from fake_answers import FAMILIES, Refusal

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
    assert "1 of 2" in text
    assert "oracle -0.50 (a formula)" in run("families", "navigation-2d").stdout
    (found,) = read("families")
    assert [f["name"] for f in found] == list(FAMILIES)
    assert found[0]["observation_space"]["low"] == ["-inf"] * 4
    assert read("families", "navigation-2d")[0]["horizon"] == 100


def test_tasks(run, read):
    assert (
        "\nnavigation-2d/tasks/validation-3-1 "
        in run("tasks", "navigation-2d", "--split", "validation", "--seed", "3", "--count", "2").stdout
    )
    (found,) = read("tasks", "navigation-2d", "--start-index", "4", "--count", "1")
    assert found[0]["parameters"] == {"goal": [0.4, -0.2]}


def test_adapt_prints_each_step_and_saves_the_policy(run, tmp_path):
    path = tmp_path / "policy.safetensors"
    result = run("adapt", "navigation-2d", "--steps", "2", "--seed", "5", "--save", str(path))
    lines = result.stdout.splitlines()
    assert lines[0].startswith("sessions/s0: navigation-2d-maml/revisions/1 adapts to goal=0,-0.2 (seed 5)")
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
    head, first, second = (line.split() for line in text.splitlines()[1:4])
    assert head[-2:] == ["accuracy", "success"]  # a column for each metric that some score has
    assert "0.0625" not in first
    assert second[-2:] == ["0.0625", "0.38"]
    assert read("scores", "--k", "1")[0][0]["mean"] == -9.0
    assert "navigation-2d-maml/revisions/1" in run("scores", "--family", "navigation-2d").stdout


def test_train_and_trainings(run, read):
    text = run("train", "navigation-2d", "--updates", "2", "--set", "inner_rate=0.1", "--set", "outer=trpo").stdout
    assert text.splitlines() == [
        "trainings/t0: learners/navigation-2d-maml trains from fresh meta-parameters"
        " (--continue-from starts from a revision)",
        "update 1/2: return -64.1 -> -59.9 -> -55.6 (314 k steps)",
        "update 2/2: return -32.0 -> -29.9 -> -27.8 (314 k steps)",
        "trainings/t0: learners/navigation-2d-maml is done at update 2",
        "revision 2: worse than revision 1 by 17.1 on 100 validation tasks; the champion stays revision 1",
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
    assert "\ns0 " in run("policies").stdout
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
    assert result.stderr == (f"Error: families/nowhere does not exist; there are {', '.join(FAMILIES)}\n")
    server.refuse["ListFamilies"] = [
        Refusal("INVALID_ARGUMENT", "INVALID_FIELD", "no", violations=[("page_size", "at most 1000")])
    ]
    assert "page_size: at most 1000" in run("families", code=1).stderr
    assert "no server answers at" in run("families", "--server", "127.0.0.1:1", code=1).stderr
    assert "in the clear" in run("families", "--server", "far.example:1", "--token", "t", code=1).stderr
    run("families", "--no-such-option", code=2)


def test_a_learner_that_is_not_there(server, run, monkeypatch):
    there_are = "there are cartpole-dynamics-maml, digits-maml, navigation-2d-maml"
    assert run("adapt", "navigatoin-2d", code=1).stderr == (
        f"Error: learners/navigatoin-2d does not exist; {there_are}; did you mean navigation-2d?\n"
    )
    assert run("adapt", "xyz", code=1).stderr == f"Error: learners/xyz does not exist; {there_are}\n"
    assert run("adapt", "xyz/revisions/3", code=1).stderr == f"Error: learners/xyz does not exist; {there_are}\n"
    assert server.calls.count("GetLearner") == 5
    monkeypatch.delitem(fake_answers.LEARNERS, "learners/cartpole-dynamics-maml")
    untrained = "family cartpole-dynamics has no learner yet; train one: innerloop train cartpole-dynamics\n"
    assert run("adapt", "cartpole-dynamics", code=1).stderr == f"Error: {untrained}"
    assert run("evaluate", "cartpole", code=1).stderr == (
        "Error: learners/cartpole does not exist; there are digits-maml, navigation-2d-maml; "
        f"did you mean cartpole-dynamics? {untrained}"
    )


def test_numbers_that_cannot_be(run, tmp_path):
    for words in (
        ("evaluate", "navigation-2d", "--tasks", "0"),
        ("adapt", "navigation-2d", "--episodes-per-step", "0"),
        ("train", "navigation-2d", "--updates", "0"),
        ("serve", "--port", "65536"),
    ):
        assert "is not in the range" in run(*words, code=2).stderr


def test_where_a_policy_cannot_be_saved_nothing_is_computed(server, run, tmp_path):
    path = tmp_path / "nowhere" / "policy.safetensors"
    assert "there is no folder" in run("adapt", "navigation-2d", "--save", str(path), code=2).stderr
    assert server.calls == []


def test_empty_lists_say_so(run, read):
    assert run("policies").stdout == "no policies yet\n"
    assert run("sessions").stdout == "no sessions yet\n"
    assert read("policies") == [[]]


def test_ctrl_c_says_what_goes_on(run, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("innerloop._handles.Adaptation.result", pressed)
    told = run("adapt", "navigation-2d", code=130).stderr
    assert told == "interrupted; sessions/s0 can be resumed until its lease ends: client.resume('s0')\n"
    monkeypatch.setattr("innerloop._handles.EvaluationRun.follow", pressed)
    assert run("evaluate", "navigation-2d", code=130).stderr == "interrupted; evaluations/e0 goes on in the server\n"
    monkeypatch.setattr("innerloop._handles.TrainingRun.follow", pressed)
    assert run("train", "navigation-2d", code=130).stderr == "interrupted; trainings/t0 goes on in the server\n"
    monkeypatch.setattr("innerloop.client.Client.families", pressed)
    assert run("families", code=130).stderr == "interrupted\n"


def test_ctrl_c_during_the_imports():
    probe = (
        "import builtins, sys; real = builtins.__import__\n"
        "def fake(name, *rest):\n    if name == 'grpc': raise KeyboardInterrupt\n    return real(name, *rest)\n"
        "builtins.__import__ = fake\nimport innerloop.cli"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_reader_that_is_gone_is_no_error(server):
    command = [sys.executable, "-c", "import innerloop.cli; innerloop.cli.main()", "policies", "--server"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [*command, server.address], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False, env=buffered
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")


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
    assert len(json.loads(result.stdout)) == len(FAMILIES)
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

"""``scripts/train``: the command that a manifest names."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from training_support import final_weights, logged, tiny_settings

from innerloop_server.errors import PreconditionFailed
from innerloop_server.training import offline
from innerloop_server.training.__main__ import main as command
from innerloop_server.training.messages import Message, Updated
from innerloop_server.training.run import RunFolder

ARGUMENTS = shlex.split(tiny_settings().command)[1:-1]  # without the folder that --out names


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Signals that would be handled; this process keeps its own handlers."""
    numbers: list[int] = []
    monkeypatch.setattr(signal, "signal", lambda number, _: numbers.append(number))
    return numbers


def test_a_run_is_finished_scored_and_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    real = offline._progress

    def interrupting(folder: RunFolder, updates: int) -> object:
        tell = real(folder, updates)

        def told(message: Message) -> None:
            tell(message)
            if message == Updated(2):
                raise KeyboardInterrupt

        return told

    monkeypatch.setattr(offline, "_progress", interrupting)
    with pytest.raises(KeyboardInterrupt):
        offline.main([*ARGUMENTS, str(path)])
    monkeypatch.setattr(offline, "_progress", real)
    assert offline.main([*ARGUMENTS, str(path)]) == 0
    said = capsys.readouterr().out
    assert "update 4/4  return_0 " in said
    assert "validation, 100 tasks" in said
    folder = RunFolder(path)
    manifest = json.loads((folder.revisions / "00000004" / "manifest.json").read_bytes())
    assert [score["k"] for score in manifest["validation"]["scores"]] == [0, 1]
    assert manifest["command"] == tiny_settings().command
    assert [update for update, _ in logged(folder)] == [1, 2, 3, 4]
    assert offline.main([*ARGUMENTS, str(path), "--seed", "9"]) == 1
    assert "other settings" in capsys.readouterr().err
    again = tmp_path / "again"
    assert command(["train", *ARGUMENTS, str(again)]) == 0
    assert final_weights(RunFolder(again)) == final_weights(folder)
    assert logged(RunFolder(again)) == logged(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "families/nowhere does not exist"),
        (["navigation-2d", "--set", "nonsense=1"], "settings.nonsense: unknown"),
        (["navigation-2d", "--from", "missing.safetensors"], "missing.safetensors cannot be read"),
        (
            ["gridnavi", "--method", "rl2", "--updates", "2", "--set", "attempts=2", "--from", __file__],
            "settings.attempts: attempts start from fresh weights",
        ),
        (["gridnavi", "--method", "rl2", "--set", f"entropy=1{'0' * 400}"], "settings.entropy: give a finite number"),
    ],
)
def test_mistakes_are_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert offline.main([*arguments, "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_unknown_command_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["fly"]) == 2
    assert "run,train,export" in capsys.readouterr().err


def test_a_run_that_is_older_than_some_settings_is_gone_on_with(tmp_path: Path) -> None:
    """What its method has learned to do since is at its default, and a setting that was renamed is the same."""
    folder = RunFolder(tmp_path / "run")
    folder.create(tiny_settings(order="first"))
    file = json.loads(folder.settings_file.read_bytes())
    for name in ("order", "adapt", "outer", "kl_penalty", "kl_limit"):
        del file["spec"]["settings"][name]
    file["spec"]["settings"]["first_order"] = True
    folder.settings_file.write_text(json.dumps(file))
    offline.prepare(folder, tiny_settings(order="first"))
    with pytest.raises(PreconditionFailed, match="other settings"):
        offline.prepare(folder, tiny_settings(order="first", outer="trpo"))

"""Everything the README tells a person to type, typed; and every number it shows, looked up."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.partition(" #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
SERVE, RUN, TEST = "innerloop serve", "scripts/run", "scripts/test"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "100",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The server that the README starts, on a free port and a folder of its own."""
    folder = tmp_path_factory.mktemp("readme")
    ready = folder / "ready.json"
    command = [*shlex.split(SERVE), "--port", "0", "--data-dir", str(folder / "data"), "--ready-file", str(ready)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 100
        while not ready.exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
        yield {**ENVIRONMENT, "INNERLOOP_ADDRESS": json.loads(ready.read_text())["address"]}
        assert "Traceback" not in (folder / "log").read_text()
    finally:
        process.terminate()
        process.wait(30)


def run(command: list[str], where: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("code", PYTHON, ids=[f"block {i}" for i in range(len(PYTHON))])
def test_python(code: str, tmp_path: Path) -> None:
    out = run([sys.executable, "-c", code], tmp_path, ENVIRONMENT)
    assert "step 2: return" in out


def test_its_policy_comes_out_better_and_runs_offline(tmp_path: Path) -> None:
    out = run([sys.executable, "-c", PYTHON[0]], tmp_path, ENVIRONMENT)
    returns = [float(x) for x in re.findall(r"return +(-?[0-9.]+) -> +(-?[0-9.]+)", out) for x in x]
    assert returns[-1] > returns[0] + 5
    assert "offline: [" in out
    assert len(PYTHON[0].strip().splitlines()) <= 20


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("innerloop ") and c != SERVE])
def test_command(command: str, server: dict[str, str], tmp_path: Path) -> None:
    out = run(shlex.split(command), tmp_path, server)
    assert out.strip()


def test_the_first_command_shows_adaptation(tmp_path: Path) -> None:
    assert RUN in COMMANDS
    picture = tmp_path / "picture.png"
    out = run([str(ROOT / RUN), "--picture", str(picture)], ROOT, ENVIRONMENT)
    assert "act like the served ones" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_second_command_is_what_ci_runs() -> None:
    assert TEST in COMMANDS
    assert TEST in (ROOT / ".ci" / "run").read_text()


def test_nothing_is_left_untyped() -> None:
    typed = {RUN, TEST, SERVE}
    assert all(command in typed or command.startswith("innerloop ") for command in COMMANDS)
    assert SERVE in COMMANDS


def test_the_scores_are_those_of_the_results() -> None:
    results = json.loads((ROOT / "docs" / "results.json").read_text())
    for family, result in results.items():
        row = re.search(rf"^\| `{family}` \|(.*)\|$", README, re.MULTILINE)
        assert row is not None, family
        curve = {score["k"]: score["mean"] for score in result["guarded"]}
        shown = [float(x) for x in re.findall(r"-?[0-9]+\.[0-9]", row[1])]
        bounds = result["references"]
        expected = [*(curve[k] for k in (0, 1, 3, 10)), bounds["memoryless"]["value"], bounds["oracle"]["value"]]
        assert shown == pytest.approx(expected, abs=0.051)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()

"""The committed code is what the pinned compiler makes of protos/, and the contract is in the house style."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": PATH, "PYTHON": sys.executable}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)  # the first time, the compiler's own virtual environment is made
def test_generated_code_is_fresh() -> None:
    done = run("bash", "scripts/protos", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contract_is_lint_free() -> None:
    assert shutil.which("buf", path=PATH), "scripts/test installs buf-bin"
    done = run("buf", "lint", "protos")
    assert done.returncode == 0, done.stdout + done.stderr

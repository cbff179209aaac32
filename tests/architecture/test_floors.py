"""The import contracts in pyproject.toml hold, and each of them notices when it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BREACHES = {
    "upwards": ("server/innerloop_server/actors/pool.py", "import innerloop_server.adaptation.hub", "floors"),
    "between siblings": ("server/innerloop_server/tasks/registry.py", "import innerloop_server.store.store", "floors"),
    "a new room": ("server/innerloop_server/attic.py", "", "floors"),
    "client to server": ("client/innerloop/types.py", "import innerloop_server.domain", "never imports the server"),
    "into the client": ("server/innerloop_server/adaptation/hub.py", "import innerloop.client", "Below service"),
    "grpc below service": ("server/innerloop_server/adaptation/hub.py", "import grpc", "speak gRPC"),
    "a heavy policy": ("client/innerloop/policy/__init__.py", "import rich", "portable policy"),
    "torch at the gateway": ("server/innerloop_server/service/server.py", "import torch", "Torch is for"),
    "a circle": ("server/innerloop_server/store/ids.py", "import innerloop_server.store.store", "circle"),
}


def lint(root: Path) -> str:
    """What import-linter prints for the tree at ``root``, on one line."""
    command = shutil.which("lint-imports", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    assert command is not None
    paths = os.pathsep.join((str(root / "client"), str(root / "server")))
    done = subprocess.run(
        [command, "--no-logo", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    words = " ".join((done.stdout + done.stderr).split())
    assert (done.returncode == 0) == (" 0 broken" in words), words
    return words


def test_the_floors_hold() -> None:
    assert " 0 broken" in lint(ROOT)


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_seen(breach: str, tmp_path: Path) -> None:
    path, line, contract = BREACHES[breach]
    for package in ("client", "server"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / path).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    words = lint(tmp_path)
    assert " 0 broken" not in words
    broken = words.partition("Broken contracts")[2]
    assert contract in (broken or words)

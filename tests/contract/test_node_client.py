"""docs/examples/node: a session without Python. Its transcript in docs/transcript.md is what it prints."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch

from innerloop._server_process import ServerProcess
from innerloop_server.learners.registry import build
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry
from innerloop_server.training.specs import spec_for

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "node"
PROTOS = DOCS.parent / "protos"
INSTALL_SECONDS = 90


@pytest.fixture(scope="module")
def address(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with an untrained learner: what travels is the same."""
    data = tmp_path_factory.mktemp("data")
    with Store.open(data) as store:
        spec = spec_for(registry.get("navigation-2d"), name="untrained", settings={"hidden_sizes": [8]})
        store.put_learner(spec)
        store.add_revision(spec.name, safetensors.torch.save(build(spec).initial_meta(0)), {})
        store.promote(spec.name, 1)
    server = ServerProcess(data, start_timeout=100, options={"device": "cpu", "actors": 0})
    yield server.address
    server.stop()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in a folder of its own, with the packages of its lock file."""
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed")
    root = tmp_path_factory.mktemp("node")
    shutil.copytree(PROTOS, root / "protos")  # the example looks for the contract three folders up
    folder = root / "docs" / "examples" / "node"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the npm registry did not answer within {INSTALL_SECONDS} s")
    if re.search(r"ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ENETUNREACH", done.stderr):
        pytest.skip("the npm registry cannot be reached")
    assert done.returncode == 0, done.stderr
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["node", "adapt.mjs", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def outline(transcript: str) -> list[str]:
    """Who says what under which number, and the fields of each message: what does not differ from run to run."""
    said = re.findall(r"^(client|server) (\d+) (\w+) (\{.*\})$", transcript, flags=re.M)
    sometimes = {"guarded"}  # left away while false
    return [f"{who} {number} {kind} {sorted(json.loads(m).keys() - sometimes)}" for who, number, kind, m in said]


@pytest.mark.npm
def test_a_session_without_python(installed: Path, address: str):
    done = run(installed, address, "learners/untrained")
    assert done.returncode == 0, done.stderr
    assert "sha256 of the weights matches" in done.stdout
    (page,) = re.findall(r"```text\n(# A simulated.*?)```", (DOCS / "transcript.md").read_text(encoding="utf-8"), re.S)
    assert len(outline(page)) > 10
    assert outline(done.stdout) == outline(page)


@pytest.mark.npm
def test_it_says_what_went_wrong(installed: Path, address: str):
    done = run(installed, address, "learners/nobody")
    assert done.returncode == 1
    assert done.stderr.startswith("NOT_FOUND: learners/nobody")


def test_the_lock_file_names_no_registry_and_pins_every_package():
    lock = json.loads((EXAMPLE / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert {"node_modules/@grpc/grpc-js", "node_modules/@grpc/proto-loader"} <= packages.keys()
    assert not [name for name, entry in packages.items() if "resolved" in entry]
    assert not [name for name, entry in packages.items() if not entry["integrity"].startswith("sha512-")]

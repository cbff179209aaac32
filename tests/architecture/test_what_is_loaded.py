"""Each process loads what it needs and nothing heavier: seen in ``sys.modules`` of a Python of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

CLIENT = ("google.protobuf", "grpc", "torch", "gymnasium", "sqlalchemy", "matplotlib", "innerloop_server")
ACTOR = """
import numpy as np
import innerloop_server.actors.actor
from innerloop_server.domain import Task
from innerloop_server.tasks.registry import load_registry

for family in load_registry().families.values():
    env = family.make(Task(family.name, dict(family.sample(np.random.default_rng(0)))))
    env.reset(seed=0)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    env.close()
"""
GATEWAY = """
import asyncio, tempfile
from pathlib import Path
from innerloop_server.app import App
from innerloop_server.settings import Settings

async def main(data):
    app = App(Settings(data_dir=Path(data), port=0, device="cpu", actors=0))
    try:
        await app.start()
    finally:
        await app.close()

with tempfile.TemporaryDirectory() as data:
    asyncio.run(main(data))
"""


def loaded(code: str, watched: tuple[str, ...]) -> set[str]:
    """Which of the watched modules are there after a program has run."""
    probe = f"{code}\nimport sys\nprint('loaded', *[m for m in {watched!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *names = done.stdout.splitlines()[-1].split()
    assert first == "loaded"
    return set(names)


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded("import grpc, gymnasium", CLIENT) >= {"grpc", "gymnasium"}


@pytest.mark.parametrize(
    "code",
    [
        "import innerloop",
        "import innerloop.arrays",
        "import innerloop.policy",
        "from innerloop import Budget, Policy, Step, load_policy",
    ],
)
def test_what_runs_a_policy_loads_no_network(code: str) -> None:
    assert loaded(code, CLIENT) == set()


@pytest.mark.parametrize(
    "code", ["import innerloop; innerloop.connect", "import innerloop.aio", "import innerloop; innerloop.embedded"]
)
def test_a_connected_client_loads_grpc_and_nothing_heavier(code: str) -> None:
    assert loaded(code, CLIENT) == {"google.protobuf", "grpc"}


def test_an_environment_actor_loads_neither_torch_nor_grpc() -> None:
    assert loaded(ACTOR, ("torch", "grpc", "google.protobuf", "sqlalchemy")) == set()


def test_importing_the_gateway_loads_no_torch() -> None:
    assert loaded("import innerloop_server.app", ("torch", "grpc")) == {"grpc"}


def test_the_gateway_serves_without_torch() -> None:
    assert loaded(GATEWAY, ("torch", "mujoco", "matplotlib")) == set()


@pytest.mark.parametrize("room", ["domain", "errors", "settings", "streams", "tasks.registry", "store.store", "logs"])
def test_the_lower_floors_are_light(room: str) -> None:
    assert loaded(f"import innerloop_server.{room}", ("torch", "grpc", "google.protobuf")) == set()

"""docs/examples/stub_client.py: a client that knows the contract alone, with an environment of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest

from innerloop._server_process import ServerProcess
from innerloop_server.domain import Task
from innerloop_server.tasks.registry import Registry

CLIENT = Path(__file__).parents[2] / "docs" / "examples" / "stub_client.py"
GAP = 500.0 - 250.0
"""From the best policy that cannot adapt to the oracle, in cartpole-dynamics."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server as users start it, with its shipped learners."""
    server = ServerProcess(None, start_timeout=100, options={"device": "cpu", "actors": 0})
    yield server.address
    server.stop()


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stub_client", CLIENT)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["stub_client"] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


def run(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CLIENT), "--address", address, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def measured(address: str, *arguments: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(outcome of each task, summary)."""
    done = run(address, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return said["outcomes"], said["summary"]


def test_it_stands_on_the_stubs_alone():
    program = (
        "import runpy, sys\n"
        f"runpy.run_path({str(CLIENT)!r})\n"
        "print(*{m for m in sys.modules if m.startswith('innerloop')}, 'gymnasium' in sys.modules)"
    )
    *ours, has_gymnasium = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert has_gymnasium == "False"
    assert {name for name in ours if not name.startswith("innerloop.v1")} == {"innerloop"}


def test_its_physics_are_those_of_the_family(module: ModuleType, registry: Registry):
    family = registry.get("cartpole-dynamics")
    rng = np.random.default_rng(3)
    for seed in range(20):
        family.parameter_space.seed(seed)
        drawn = {name: np.asarray(value) for name, value in family.parameter_space.sample().items()}
        env: Any = family.make(Task("cartpole-dynamics", drawn))
        start, _ = env.reset(seed=seed)
        assert np.all(np.abs(start) <= 0.05)
        sign = 1.0 if drawn["force_sign"] else -1.0
        constants = module.Constants(
            float(drawn["half_length"]),
            float(drawn["pole_mass"]),
            float(drawn["cart_mass"]),
            sign * float(drawn["force"]),
        )
        carts = module.CartPoles(constants, np.array([env.unwrapped.state, [0, 0, 0.3, 0]]))
        assert_same_episode(env, carts, rng)


def assert_same_episode(env: gymnasium.Env[Any, Any], carts: Any, rng: np.random.Generator) -> None:
    while carts.alive[0]:
        action = int(rng.integers(2))
        fell, cut = carts.step(np.array([0]), np.array([action]))
        seen, _, terminated, truncated, _ = env.step(action)
        np.testing.assert_allclose(carts.observations[0], seen, rtol=1e-5, atol=1e-6)
        assert (fell[0], cut[0]) == (terminated, truncated)


def test_an_episode_is_cut_at_the_horizon(module: ModuleType):
    carts = module.CartPoles(module.Constants(0.5, 0.1, 1.0, 10.0), np.zeros((2, 4)))
    carts.returns[:] = [499, 498]
    fell, cut = carts.step(np.arange(2), np.array([1, 1]))
    assert (fell.tolist(), cut.tolist()) == ([False, False], [True, False])
    assert carts.alive.tolist() == [False, True]


def test_the_interval_is_students(module: ModuleType):
    differences = [1.0, 2.0, 4.0, 5.0, 3.0, 6.0, 2.0, 1.0]  # mean 3, s = sqrt(24/7), t(7, 0.975) = 2.364624
    mean, low, high = module.interval(differences)
    half = 2.364624 * np.sqrt(24 / 7) / np.sqrt(8)
    assert (mean, low, high) == pytest.approx((3.0, 3.0 - half, 3.0 + half), abs=5e-4)


def test_returns_rise_in_its_own_environment(address: str):
    outcomes, summary = measured(address, "--tasks", "3", "--episodes", "30", "--sessions", "3")
    assert len(outcomes) == 3
    for outcome in outcomes:
        before, after_one, _ = outcome["own_returns"]
        assert before < 150 < 300 < after_one
        assert outcome["own"] > 400
        assert outcome["simulated"] > 400
    assert summary["low"] <= summary["difference"] <= summary["high"]


def test_it_says_what_went_wrong(address: str):
    done = run(address, "--learner", "learners/nobody", "--tasks", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("NOT_FOUND: learners/nobody")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_its_scores_are_those_of_simulated_sessions(address: str):
    _, summary = measured(address, "--tasks", "50")
    assert summary["low"] <= 0 <= summary["high"], summary
    assert summary["high"] - summary["low"] < 0.1 * GAP, summary

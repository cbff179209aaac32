"""``pip install .`` alone is a client that works: no torch, no gymnasium, no database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch

import innerloop
from innerloop_server.learners.registry import build
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.specs import spec_for

ROOT = Path(__file__).parents[2]
PROGRAM = '''
import importlib.util
import sys

import innerloop
import numpy as np

ABSENT = ("torch", "gymnasium", "sqlalchemy", "structlog", "matplotlib", "alembic")
assert [name for name in ABSENT if importlib.util.find_spec(name)] == []


class Walk:
    """A point that is paid for going right: reset and step, and no base class."""

    def reset(self, *, seed=None):
        self.t, self.x = 0, np.zeros(2, np.float32)
        return self.x, {}

    def step(self, action):
        self.t, self.x = self.t + 1, self.x + np.asarray(action, np.float32)
        return self.x, float(self.x[0]), False, self.t == 10, {}


address, path = sys.argv[1:]
with innerloop.connect(address) as client:
    assert [family.name for family in client.families()]
    adaptation = client.adapt_env(Walk(), "light", steps=2, episodes_per_step=3, seed=1, progress=False)
    assert [step.number for step in adaptation] == [1, 2]
    policy = adaptation.policy()
    policy.save(path)

offline = innerloop.load_policy(path)
seen = np.array([0.3, -0.2], np.float32)
assert np.array_equal(offline.act(seen, greedy=True), policy.act(seen, greedy=True))

try:
    innerloop.embedded()
except innerloop.errors.ServerNotInstalled as error:
    print(error)
else:
    raise SystemExit("a server without torch")
'''


def run(*command: str | Path, cwd: Path) -> str:
    # a light environment must not see what the one that runs the tests can import
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_light_client_works_by_itself(tmp_path: Path) -> None:
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    constraints = ROOT / "constraints.txt"
    run(sys.executable, *pip, "wheel", ".", "--no-deps", "--wheel-dir", tmp_path, cwd=ROOT)
    (wheel,) = tmp_path.glob("innerloop-*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    run(python, *pip, "install", wheel, "-c", constraints, cwd=tmp_path)

    spec = spec_for(load_registry().get("navigation-2d"), name="light")
    with Store.open(tmp_path / "data") as store:
        store.put_learner(spec)
        store.add_revision(spec.name, safetensors.torch.save(build(spec).initial_meta(0)), {})
        store.promote(spec.name, 1)
    with innerloop.embedded(tmp_path / "data", device="cpu", actors=0) as server:
        said = run(python, "-c", PROGRAM, server.address, tmp_path / "walk.safetensors", cwd=tmp_path)
    assert "innerloop[server]" in said

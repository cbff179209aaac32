"""Families of other people on a real server: an installed package's, a client's, and ours with other options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1]))  # training_support
from training_support import TINY, ended, supervising, tiny_request

import innerloop
from innerloop.cli import main
from innerloop.errors import PermissionDenied, PreconditionFailed
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.intake import TrainerSettings

PACKAGE = Path(__file__).parents[2] / "docs" / "examples" / "my-families"
PAGE = PACKAGE.parents[1] / "families.md"
FAMILY = "pendulum-planets"
SMALL = {**TINY, "updates": 1}
REASON = "ModuleNotFoundError: No module named 'a_simulator_that_nobody_has'"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the package in it, installed by pip, without the network; on the path of all processes."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    command = [*pip, "--no-build-isolation", "--no-deps", "--target", str(folder), str(PACKAGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(folder)
        patched.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        yield folder


async def train(data: Path) -> None:
    """One update of a learner, by a trainer process and an environment actor of its own."""
    settings = TrainerSettings(device="cpu", actors=1, actor_slots=8)
    with Store.open(data) as store:
        async with supervising(store, settings=settings) as supervisor:
            training = await supervisor.start(tiny_request(family=FAMILY, settings=SMALL), "local")
            record = await ended(supervisor, training.id)
            assert (record.state, record.error, record.update) == ("done", "", 1)
        assert store.get_learner(f"{FAMILY}-maml").champion == 1


async def test_the_families_of_an_installed_package_are_served(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_registry().broken == {"half-finished": REASON}
    await train(tmp_path / "data")
    with innerloop.embedded(tmp_path / "data", device="cpu", actors=1, allow_env=["CartPole-v1"]) as client:
        found = {family.name: family for family in client.families()}
        assert {"families/navigation-2d", f"families/{FAMILY}"} <= set(found)
        assert found["families/half-finished"].broken_reason == REASON
        assert found[f"families/{FAMILY}"].simulators == ("actors",)
        monkeypatch.setenv("INNERLOOP_ADDRESS", client.options.address)
        shown = CliRunner().invoke(main, ["families"]).output
        row = next(line.split() for line in shown.splitlines() if line.startswith(FAMILY))
        assert (row[-1], row[1:7]) == ("ready", ["3", "numbers", "1", "number", "200", "1"])
        assert f"half-finished is broken: {REASON}" in shown

        (task,) = client.sample_tasks(FAMILY, seed=3)
        assert 3.0 <= task.parameters["g"] <= 25.0
        adaptation = client.adapt(FAMILY, task, steps=1, episodes_per_step=2)
        assert adaptation.opened.simulator == "actors"
        assert [step.number for step in adaptation] == [1]
        assert adaptation.policy().act([1.0, 0.0, 0.0]).shape == (1,)
        plan: dict[str, Any] = {"tasks": 2, "steps": 1, "episodes_per_step": 2, "evaluation_episodes": 2}
        scores = client.evaluate(FAMILY, **plan).result().scores
        assert [score.k for score in scores] == [0, 1]
        assert all(-200 * 17 < score.mean < 0 for score in scores)

        (block,) = re.findall(r"```python\n(family = client.define_family.*?)```", PAGE.read_text(), re.DOTALL)
        exec(compile(block, str(PAGE), "exec"), {"client": client})
        assert client.family("windy-cart-poles").horizon == 200


@pytest.mark.slow
def test_a_family_that_a_client_defines_outlives_the_server(tmp_path: Path) -> None:
    hidden = {"gravity": (5.0, 15.0), "force_mag": (5.0, 15.0)}
    asked: dict[str, Any] = {"parameters": hidden, "apply": "attributes", "horizon": 5}
    task = {"gravity": 9.8, "force_mag": 10.0}
    with innerloop.embedded(tmp_path, device="cpu", actors=1, allow_env=["Pendulum-*", "CartPole-v1"]) as client:
        with pytest.raises(PermissionDenied, match="--allow-env Acrobot-v1"):
            client.define_family("swings", "Acrobot-v1", **asked)
        family = client.define_family("cart-poles", "CartPole-v1", **asked)
        # the engine, its actors and the trainer have started before, or start now: all must find it
        assert client.train("cart-poles", settings=SMALL).wait().state == "done"
        first = client.adapt("cart-poles", task, steps=2, episodes_per_step=2, seed=5)
        hashes = [step.state_hash for step in first]
        with pytest.raises(PreconditionFailed, match="learners/cart-poles-maml") as caught:
            client.delete_family("cart-poles")
        assert caught.value.reason == "FAMILY_IN_USE"
    with innerloop.embedded(tmp_path, device="cpu", actors=1, allow_env=["CartPole-v1"]) as client:
        assert client.family("cart-poles") == family
        again = client.adapt("cart-poles", task, steps=2, episodes_per_step=2, seed=5)
        assert [step.state_hash for step in again] == hashes
        client.define_family("planets", "CartPole-v1", {"gravity": (1.0, 20.0)}, apply="attributes", horizon=9)
        client.delete_family("planets")
        assert "families/planets" not in {found.name for found in client.families()}


def test_a_family_with_other_options_is_trained_and_adapted_by_its_name(tmp_path: Path) -> None:
    name = "bernoulli-bandit.arms-3"
    with innerloop.embedded(tmp_path, device="cpu", actors=1) as client:
        assert client.family(name).action_space == innerloop.Discrete(3)
        arms = client.family(name).options[0]
        assert (arms.name, arms.value, arms.default_value) == ("arms", "3", "5")
        training = client.train(name, settings=SMALL).wait()
        assert (training.state, training.learner) == ("done", "learners/bernoulli-bandit-arms-3-maml")
        (task,) = client.sample_tasks(name)
        assert task.name == f"families/{name}/tasks/test-0-0"
        assert client.learner(name).family == f"families/{name}"
        for simulator in ("batch", "actors"):
            adaptation = client.adapt(name, task, steps=1, episodes_per_step=2, simulator=simulator)
            assert adaptation.result().step == 1
            assert adaptation.opened.task == task
        plan: dict[str, Any] = {"tasks": 2, "steps": 1, "episodes_per_step": 2, "evaluation_episodes": 2}
        result = client.evaluate(name, **plan).result()
        assert result.scores[0].family == f"families/{name}"
        assert client.scores(family=name)[0].family == f"families/{name}"

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from training_support import FAMILY, TINY, tiny_request, tiny_settings

from innerloop_server.domain import Simulator
from innerloop_server.errors import InvalidField, PreconditionFailed
from innerloop_server.learners import registry as methods
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.registry import Registry, load_registry
from innerloop_server.tasks.sampling import parameter_bytes
from innerloop_server.training.offline import _parser, _settings
from innerloop_server.training.requests import LARGEST_TASKS, TrainingRequest, differing_settings, plan
from innerloop_server.training.run import Schedule
from innerloop_server.training.specs import learner_id, preset

REGISTRY = load_registry()
NAVIGATION = REGISTRY.get(FAMILY)


def test_defaults_come_from_the_familys_configuration() -> None:
    run = plan(TrainingRequest(FAMILY), NAVIGATION)
    assert (run.spec.name, run.simulator, run.schedule) == ("navigation-2d-maml", Simulator.BATCH, Schedule())
    assert run.spec.settings["tasks_per_update"] == 40
    assert run.spec.settings["clip"] == 0.2  # every setting is written down, defaults too
    assert run.updates == run.spec.settings["updates"] > 0


def test_updates_may_be_given_beside_the_settings() -> None:
    assert plan(tiny_request(updates=7), NAVIGATION).updates == 7
    assert plan(tiny_request(settings={"updates": 5}), NAVIGATION).updates == 5


def test_large_tasks_are_fewer_in_an_update() -> None:
    family = REGISTRY.get("tabular-mdp.states-50.actions-50")

    def planned(tasks: int) -> int:
        settings = {"tasks_per_update": tasks, "episodes_per_step": 1, "inner_steps": 1}
        return plan(TrainingRequest(family.name, settings=settings), family).spec.settings["tasks_per_update"]

    most = LARGEST_TASKS // parameter_bytes(family)
    assert planned(most) == most
    with pytest.raises(InvalidField, match=rf"settings\.tasks_per_update: is {most + 1}; .* give at most {most}"):
        planned(most + 1)


@pytest.mark.parametrize(
    ("settings", "field", "advice"),
    [
        ({"nonsense": 1}, "settings.nonsense", "unknown; there are hidden_sizes, "),
        ({"nonsense": 1}, "settings.nonsense", "checkpoint_every, revision_every"),
        ({"checkpoint_every": True}, "settings.checkpoint_every", "integer"),
        ({"revision_every": -1}, "settings.revision_every", "at least 0"),
        ({"inner_steps": 0}, "settings.inner_steps", "at least 1"),
        ({"episodes_per_step": 10**6}, "settings.tasks_per_update", "too large"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, Any], field: str, advice: str) -> None:
    with pytest.raises(InvalidField) as refused:
        plan(tiny_request(settings=settings), NAVIGATION)
    assert refused.value.field == field
    assert advice in refused.value.advice


def test_too_many_updates_and_a_simulator_that_is_not_there() -> None:
    with pytest.raises(InvalidField, match="updates"):
        plan(tiny_request(updates=10**7), NAVIGATION)
    cheetah = REGISTRY.get("halfcheetah-velocity")
    with pytest.raises(InvalidField, match="runs on actors"):
        plan(TrainingRequest(cheetah.name, simulator=Simulator.BATCH), cheetah)


def test_a_learner_that_exists_keeps_all_that_sessions_read() -> None:
    base = tiny_settings().spec
    again = plan(replace(tiny_request(), settings={"learning_rate": 0.1, "updates": 2}), NAVIGATION, base)
    assert again.spec.settings["hidden_sizes"] == TINY["hidden_sizes"]
    assert again.spec.settings["learning_rate"] == 0.1
    assert differing_settings(again.spec, base) == []
    with pytest.raises(InvalidField, match=r"settings\.discount: is 0\.99 for learner"):
        plan(tiny_request(settings={"discount": 0.5}), NAVIGATION, base)
    with pytest.raises(PreconditionFailed, match="choose another name"):
        plan(TrainingRequest("cartpole-dynamics", learner=base.name), REGISTRY.get("cartpole-dynamics"), base)


def test_every_inner_setting_counts_as_different() -> None:
    base = tiny_settings().spec
    settings = methods.settings_of(base).to_json()
    outer = methods.get("maml").outer
    assert outer < settings.keys()
    changed = {"hidden_sizes": [5], "rates": "fixed", "adapt": "head", "initial_log_std": 0.25}
    for name in settings.keys() - outer:
        other = replace(
            base, settings={**settings, name: changed.get(name, 0.25 if isinstance(settings[name], float) else 2)}
        )
        if settings[name] != other.settings[name]:
            assert differing_settings(other, base) == [name]


def test_a_setting_that_this_family_cannot_have_is_refused_before_anything_starts() -> None:
    settings = {"outer": "trpo"}
    assert plan(tiny_request(settings=settings), NAVIGATION).spec.settings["outer"] == "trpo"
    with pytest.raises(InvalidField, match="no returns") as raised:
        plan(TrainingRequest("sinusoid", settings=settings), REGISTRY.get("sinusoid"))
    assert raised.value.field == "settings.outer"


def test_a_learner_of_before_order_was_called_so_can_be_trained_on() -> None:
    base = tiny_settings().spec
    new = {"order", "adapt", "outer", "kl_penalty", "kl_limit"}
    settings = {name: value for name, value in base.settings.items() if name not in new}
    older = replace(base, settings={**settings, "first_order": True})
    again = plan(tiny_request(settings={"learning_rate": 0.1}), NAVIGATION, older)
    assert again.spec.settings == {**base.settings, "order": "first", "learning_rate": 0.1}
    assert plan(tiny_request(settings={"order": "second"}), NAVIGATION, older).spec.settings["order"] == "second"


def test_the_command_of_a_run_plans_the_same_run() -> None:
    run = tiny_settings(learning_rate=0.125)
    words = shlex.split(run.command)
    assert words[0] == "scripts/train"
    again = _settings(_parser().parse_args(words[1:]), REGISTRY)
    assert again.spec == run.spec
    assert (again.seed, again.simulator) == (run.seed, run.simulator)


def test_planning_needs_no_torch_and_no_grpc() -> None:
    code = (
        "import sys, json; from innerloop_server.tasks.registry import load_registry\n"
        "from innerloop_server.training import supervisor\n"
        "from innerloop_server.training.requests import TrainingRequest, plan\n"
        "plan(TrainingRequest('navigation-2d'), load_registry().get('navigation-2d'))\n"
        "print(json.dumps([m for m in ('torch', 'grpc', 'google.protobuf') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == []


def test_a_family_with_options_has_a_learner_and_settings_of_its_own() -> None:
    family = Registry({"bernoulli-bandit": BernoulliBandit()}).get("bernoulli-bandit.arms-3.pulls-7")
    run = plan(TrainingRequest(family.name), family)
    assert (run.spec.name, run.spec.family) == ("bernoulli-bandit-arms-3-pulls-7-maml", family.name)
    assert shlex.split(run.command)[:2] == ["scripts/train", "bernoulli-bandit.arms-3.pulls-7"]
    assert learner_id("metaworld-ml1.task-Push_V3", "maml") == "metaworld-ml1-task-push-v3-maml"
    assert preset("maml", "navigation-2d.some-option") == preset("maml", "navigation-2d") != preset("maml", "another")

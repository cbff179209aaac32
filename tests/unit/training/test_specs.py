from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from innerloop_server.domain import Supervision
from innerloop_server.errors import InvalidField
from innerloop_server.learners import registry
from innerloop_server.learners.maml import Maml
from innerloop_server.learners.maml_settings import MamlSettings
from innerloop_server.tasks.families.pendulum_dynamics import PendulumDynamics
from innerloop_server.tasks.families.sinusoid import Sinusoid
from innerloop_server.training import specs


def test_a_spec_takes_shapes_from_the_family_and_settings_from_the_preset() -> None:
    family = PendulumDynamics()
    spec = specs.spec_for(family)
    assert spec.name == "pendulum-dynamics-maml"
    assert (spec.horizon, spec.baseline, spec.action_scale) == (200, family.baseline, family.action_scale)
    assert spec.settings["discount"] == family.discount
    assert spec.settings["inner_steps"] == specs.preset("maml", "pendulum-dynamics")["inner_steps"]


def test_the_callers_settings_win() -> None:
    spec = specs.spec_for(PendulumDynamics(), name="mine", settings={"inner_steps": 7, "discount": 0.5})
    assert spec.name == "mine"
    learner = registry.build(spec)
    assert isinstance(learner, Maml)
    settings = learner.settings
    assert (settings.inner_steps, settings.discount) == (7, 0.5)


def test_every_preset_is_valid() -> None:
    files = [file for file in (specs.CONFIGS / "maml").iterdir() if file.name.endswith(".toml")]
    assert len(files) >= 4
    for file in files:
        MamlSettings.from_json(specs.preset("maml", file.name.removesuffix(".toml")))


def test_an_unknown_family_takes_the_default() -> None:
    assert specs.preset("maml", "somebody-elses") == specs.preset("maml", "default")


def test_a_learner_of_a_supervised_family_knows_it() -> None:
    assert specs.spec_for(Sinusoid()).supervision is Supervision.REGRESSION
    assert specs.spec_for(PendulumDynamics()).supervision is None


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(InvalidField, match="sarsa") as raised:
        specs.spec_for(PendulumDynamics(), "sarsa")
    assert raised.value.field == "method"
    with pytest.raises(InvalidField):
        registry.build(dataclasses.replace(specs.spec_for(PendulumDynamics()), method="sarsa"))


def test_a_name_with_options_takes_the_preset_of_its_last_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "maml").mkdir()
    for number, name in enumerate(["f", "f.b-2", "f.a-1.b-2", "default"]):
        (tmp_path / "maml" / f"{name}.toml").write_text(f"inner_steps = {number}")
    monkeypatch.setattr(specs, "CONFIGS", tmp_path)
    names = ["f", "f.b-2", "f.a-1.b-2", "f.a-3.b-2", "f.a-1", "f.b-2.c-3", "g.b-2"]
    assert [specs.preset("maml", name)["inner_steps"] for name in names] == [0, 1, 2, 1, 0, 0, 3]

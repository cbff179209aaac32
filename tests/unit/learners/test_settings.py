from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest

from innerloop_server.domain import LearnerSpec, Supervision
from innerloop_server.errors import InvalidField
from innerloop_server.learners import registry
from innerloop_server.learners.maml import Maml
from innerloop_server.learners.maml_settings import MamlSettings
from innerloop_server.learners.reptile_settings import ReptileSettings

MakeSpec = Callable[..., LearnerSpec]


def test_settings_survive_json() -> None:
    settings = MamlSettings(hidden_sizes=(7, 5), rates="fixed", order="first", adapt="head", outer="trpo")
    assert MamlSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert MamlSettings.from_json({}) == MamlSettings()


def test_json_writes_whole_floats_as_integers() -> None:
    assert MamlSettings.from_json({"outer_lambda": 1, "initial_log_std": 0}).initial_log_std == 0.0


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("hiden_sizes", [8], "unknown"),
        ("hidden_sizes", [8, 0], "4 widths of 1 to 1024"),
        ("hidden_sizes", [2000], "4 widths of 1 to 1024"),
        ("hidden_sizes", [8] * 5, "4 widths of 1 to 1024"),
        ("epochs", 101, "at most 100"),
        ("inner_steps", 101, "at most 100"),
        ("hidden_sizes", 8, "a list of integers"),
        ("hidden_sizes", [8.5], "a list of integers"),
        ("inner_steps", 0, "at least 1"),
        ("inner_steps", 1.5, "an integer"),
        ("inner_steps", True, "an integer"),
        ("rates", "both", "fixed, learned"),
        ("rates", 3, "a string"),
        ("initial_rate", 0, "positive"),
        ("initial_rate", float("nan"), "finite"),
        ("initial_rate", "0.1", "finite"),
        ("learning_rate", -1.0, "positive"),
        ("gradient_clip", -1.0, "at least 0"),
        ("discount", 1.1, "from 0 to 1"),
        ("first_order", 1, "true or false"),
        ("order", "third", "second, first"),
        ("order", True, "a string"),
        ("adapt", "body", "all, head"),
        ("outer", "sac", "ppo, promp, trpo"),
        ("kl_limit", 0.0, "positive"),
        ("initial_log_std", 21, "from -20 to 20"),
        ("last_layer_scale", 0, "positive number of at most 1000"),
        ("learning_rate", 10**400, "finite"),
        ("kl_penalty", -1.0, "at least 0"),
    ],
)
def test_a_wrong_setting_is_named(make_spec: MakeSpec, name: str, value: object, advice: str) -> None:
    with pytest.raises(InvalidField, match=advice) as raised:
        Maml(make_spec(**{name: value}))
    assert raised.value.field == f"settings.{name}"


def test_registry(make_spec: MakeSpec) -> None:
    assert isinstance(registry.build(make_spec()), Maml)
    with pytest.raises(InvalidField, match="use one of maml") as raised:
        registry.build(dataclasses.replace(make_spec(), method="no-such-method"))
    assert raised.value.field == "method"


@pytest.mark.parametrize(("first_order", "order"), [(True, "first"), (False, "second")])
def test_stored_settings_that_know_only_the_older_name_of_order(first_order: bool, order: str) -> None:
    assert MamlSettings.from_json({"first_order": first_order}).order == order
    assert MamlSettings.from_json({"first_order": first_order}) == MamlSettings(order=order)
    assert MamlSettings.from_json({"first_order": first_order, "order": "first"}).order == "first"


@pytest.mark.parametrize("outer", ["promp", "trpo"])
def test_right_answers_have_no_use_for_an_outer_loop_of_returns(make_spec: MakeSpec, outer: str) -> None:
    spec = dataclasses.replace(make_spec(outer=outer), supervision=Supervision.REGRESSION)
    for check in (registry.settings_of, registry.build):
        with pytest.raises(InvalidField, match="no returns") as raised:
            check(spec)
        assert raised.value.field == "settings.outer"


def test_reptiles_settings_survive_json() -> None:
    settings = ReptileSettings(hidden_sizes=(7, 5), optimiser="adam", rate=0.02)
    assert ReptileSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert ReptileSettings.from_json({}) == ReptileSettings()


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("order", "first", "unknown; reptile has"),
        ("hidden_sizes", [2000], "4 widths of 1 to 1024"),
        ("inner_steps", 101, "at most 100"),
        ("updates", 0, "at least 1"),
        ("rate", 0, "positive"),
        ("outer_step", 1.5, "at most 1"),
        ("outer_step", 0, "positive"),
        ("inner_lambda", 2, "from 0 to 1"),
        ("optimiser", "adamw", "adam, sgd"),
    ],
)
def test_a_wrong_setting_of_reptile_is_named(name: str, value: object, advice: str) -> None:
    with pytest.raises(InvalidField, match=advice) as raised:
        ReptileSettings.from_json({name: value})
    assert raised.value.field == f"settings.{name}"

from __future__ import annotations

import doctest
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import innerloop_server.tasks.options as options
from innerloop_server.errors import InvalidField, NotFound, PreconditionFailed
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.options import configured_name, read_options, split_name
from innerloop_server.tasks.registry import KEPT, Registry
from innerloop_server.tasks.visible import VisibleFamily

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)


class Moody(Navigation2D):
    """Takes its option, or what it takes for one."""

    options: ClassVar[Mapping[str, int | str]] = {"mood": "calm"}
    name = "moody"

    def __init__(self, mood: str = "calm") -> None:
        if mood == "bad":
            raise RuntimeError("not today")
        self.name = "moody" if mood == "forgetful" else configured_name("moody", self.options, {"mood": mood})


@pytest.fixture
def two() -> Registry:
    return Registry({"bernoulli-bandit": BernoulliBandit(), "moody": Moody()}, {"gone": "ImportError: gone"})


def test_the_examples_in_the_documentation() -> None:
    assert doctest.testmod(options).failed == 0


@given(st.dictionaries(NAMES, TEXTS, max_size=4), st.data())
def test_a_name_gives_back_what_was_chosen(defaults: dict[str, str], data: Any) -> None:
    chosen = {name: data.draw(TEXTS) for name in defaults}
    base, texts = split_name(configured_name("some-family", defaults, chosen))
    assert base == "some-family"
    assert read_options(base, defaults, texts) == chosen
    assert texts == {name: value for name, value in chosen.items() if value != defaults[name]}


def test_the_registry_makes_what_a_name_says(two: Registry) -> None:
    family = two.get("bernoulli-bandit.arms-3")
    assert isinstance(family, BernoulliBandit)
    assert (family.arms, family.pulls, family.name) == (3, 10, "bernoulli-bandit.arms-3")
    assert two.get("bernoulli-bandit.arms-3") is family
    assert two.names() == ("bernoulli-bandit", "moody")


@pytest.mark.parametrize(
    ("name", "true_name"),
    [
        ("bernoulli-bandit.arms-5", "bernoulli-bandit"),
        ("bernoulli-bandit.pulls-7.arms-3", "bernoulli-bandit.arms-3.pulls-7"),
        ("bernoulli-bandit.arms-3.pulls-10", "bernoulli-bandit.arms-3"),
        ("moody.mood-gay", "moody.mood-gay"),
    ],
)
def test_a_family_has_one_true_name(two: Registry, name: str, true_name: str) -> None:
    assert two.get(name).name == true_name
    assert two.get(name) is two.get(true_name)


@pytest.mark.parametrize(
    ("name", "field", "advice"),
    [
        ("bernoulli-bandit.arms-1", "options.arms", "1 is out of range"),
        ("bernoulli-bandit.arms-many", "options.arms", "'many' is not a whole number"),
        ("bernoulli-bandit.arms-05", "options.arms", "'05' is not a whole number"),
        ("bernoulli-bandit.legs-2", "options.legs", "unknown; bernoulli-bandit has arms, pulls"),
        ("bernoulli-bandit.arms", "family", "'arms' is no option"),
        ("bernoulli-bandit.", "family", "'' is no option"),
        ("bernoulli-bandit.arms-3.arms-4", "family", "option arms comes twice"),
    ],
)
def test_options_that_cannot_be(two: Registry, name: str, field: str, advice: str) -> None:
    with pytest.raises(InvalidField) as caught:
        two.get(name)
    assert caught.value.field == field
    assert advice in caught.value.advice
    assert two.find(name) is None


def test_options_of_what_is_not_there(two: Registry) -> None:
    with pytest.raises(NotFound, match="there are: bernoulli-bandit, moody"):
        two.get("poker.players-3")
    with pytest.raises(PreconditionFailed, match="family gone did not load: ImportError: gone"):
        two.get("gone.arms-3")


@pytest.mark.parametrize(("mood", "reason"), [("bad", "RuntimeError: not today"), ("forgetful", "calls itself moody")])
def test_a_constructor_that_fails_is_its_familys_affair(two: Registry, mood: str, reason: str) -> None:
    with pytest.raises(PreconditionFailed, match=reason) as caught:
        two.get(f"moody.mood-{mood}")
    assert caught.value.reason == "FAMILY_BROKEN"


def test_callers_cannot_fill_the_memory_with_names(two: Registry) -> None:
    for arms in range(2, KEPT + 20):
        two.get(f"bernoulli-bandit.arms-{arms}")
    assert len(two._configured) == KEPT
    assert two.get("bernoulli-bandit.arms-2").name == "bernoulli-bandit.arms-2"


@pytest.mark.parametrize("options", ["arms-3.parameters-shown", "parameters-shown.pulls-10.arms-3"])
def test_any_family_shows_its_parameters_for_the_asking(two: Registry, options: str) -> None:
    shown = two.get(f"bernoulli-bandit.{options}")
    assert isinstance(shown, VisibleFamily)
    assert shown.hidden is two.get("bernoulli-bandit.arms-3")
    assert (shown.name, shown.observation_space.shape) == ("bernoulli-bandit.arms-3.parameters-shown", (1 + 3,))
    assert two.get("bernoulli-bandit.parameters-shown").name == "bernoulli-bandit.parameters-shown"
    with pytest.raises(InvalidField, match="unknown"):
        two.get("bernoulli-bandit.parameters-half")

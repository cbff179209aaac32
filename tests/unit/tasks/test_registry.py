from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from innerloop_server.errors import NotFound, PreconditionFailed
from innerloop_server.tasks.families.halfcheetah_velocity import HalfCheetahVelocity
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.family import Extra
from innerloop_server.tasks.registry import GROUP, Registry, load_registry

OURS = "innerloop_server.tasks.families"


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


def test_the_shipped_families_are_installed_as_a_third_partys_would_be(registry: Registry) -> None:
    assert {"cartpole-dynamics", "halfcheetah-velocity", "navigation-2d", "pendulum-dynamics"} <= set(registry.names())
    assert not registry.broken
    for name in registry.names():
        assert registry.get(name).name == name


def test_an_unknown_name_is_told_what_there_is() -> None:
    registry = Registry({"navigation-2d": Navigation2D()})
    assert registry.names() == ("navigation-2d",)
    with pytest.raises(NotFound, match="families/navigation-3d does not exist; there are: navigation-2d"):
        registry.get("navigation-3d")


def test_broken_families_are_reported_by_name_and_stop_no_other() -> None:
    registry = load_registry(
        [
            entry("gone", "no_such_package.families:Gone"),
            entry("no-class", f"{OURS}.navigation_2d:NoSuchClass"),
            entry("abstract", "innerloop_server.tasks.family:Family"),
            entry("not-a-family", "builtins:dict"),
            entry("misnamed", f"{OURS}.pendulum_dynamics:PendulumDynamics"),
            entry("navigation-2d", f"{OURS}.navigation_2d:Navigation2D"),
            entry("navigation-2d", "somebody.elses:Navigation"),
        ]
    )
    assert registry.names() == ("navigation-2d",)
    assert isinstance(registry.get("navigation-2d"), Navigation2D)
    reasons = dict(registry.broken)
    assert reasons["gone"] == "ModuleNotFoundError: No module named 'no_such_package'"
    assert reasons["no-class"].startswith("AttributeError")
    assert "abstract" in reasons["abstract"]
    assert "made a dict, not a Family" in reasons["not-a-family"]
    assert "called misnamed, the family pendulum-dynamics" in reasons["misnamed"]
    assert "already provides navigation-2d" in reasons["navigation-2d (somebody.elses:Navigation)"]
    with pytest.raises(PreconditionFailed, match="family gone did not load: ModuleNotFoundError") as caught:
        registry.get("gone")
    assert caught.value.reason == "FAMILY_BROKEN"


@pytest.mark.parametrize("ending", ["sys.exit(3)", "sys.exit('not like this')", "raise SystemExit"])
def test_a_module_that_exits_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    (tmp_path / "a_script.py").write_text(f"import sys\n{ending}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_script", raising=False)
    registry = load_registry(
        [entry("script", "a_script:Family"), entry("navigation-2d", f"{OURS}.navigation_2d:Navigation2D")]
    )
    assert registry.names() == ("navigation-2d",)
    assert registry.broken["script"].startswith("SystemExit")


def test_an_interrupt_is_no_broken_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        load_registry([entry("script", "interrupted:Family")])


def test_a_missing_extra_comes_with_the_command_that_installs_it() -> None:
    class Without(HalfCheetahVelocity):
        extra = Extra("mujoco", ("no_such_module",))

    class ThirdParty(Navigation2D):
        extra = Extra("sim", ("json", "no_such_module"), distribution="somebodys-families")

    for family, hint in ((Without(), "innerloop[mujoco]"), (ThirdParty(), "somebodys-families[sim]")):
        assert family.extra.missing == ("no_such_module",)
        assert family.extra.hint == f"pip install '{hint}'"

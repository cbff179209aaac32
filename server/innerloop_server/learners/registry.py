"""Learning methods by name. A new method is a file and a line here.

Importing this brings no torch, so that the gateway can check settings; building a learner does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from innerloop_server.domain import Adaptation, LearnerSpec, Simulator
from innerloop_server.errors import InvalidField
from innerloop_server.learners import (
    maml_settings,
    meta_dqn_settings,
    pearl_settings,
    ppo_settings,
    prototype_settings,
    reptile_settings,
    rl2_settings,
    scratch_settings,
    varibad_settings,
)
from innerloop_server.learners.maml_settings import MamlSettings
from innerloop_server.learners.meta_dqn_settings import MetaDqnSettings
from innerloop_server.learners.pearl_settings import PearlSettings
from innerloop_server.learners.ppo_settings import PpoSettings
from innerloop_server.learners.prototype_settings import PrototypeSettings
from innerloop_server.learners.reptile_settings import ReptileSettings
from innerloop_server.learners.rl2_settings import Rl2Settings
from innerloop_server.learners.scratch_settings import ScratchSettings
from innerloop_server.learners.varibad_settings import VaribadSettings

if TYPE_CHECKING:
    from innerloop_server.learners.trainable import TrainableLearner


class MethodSettings(Protocol):
    """Checked settings of a method, and what they say about its learners."""

    @property
    def inner_steps(self) -> int:
        """As ``Learner.inner_steps``."""
        ...

    @property
    def episodes_per_step(self) -> int:
        """As ``Learner.episodes_per_step``."""
        ...

    @property
    def updates(self) -> int:
        """As ``TrainableLearner.updates``."""
        ...

    @property
    def tasks_per_update(self) -> int:
        """As ``TrainableLearner.tasks_per_update``."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        ...


@dataclass(frozen=True)
class Method:
    """A learning method."""

    settings: Callable[[Mapping[str, Any]], MethodSettings]
    """Reads and checks JSON values; raises ``InvalidField`` naming ``settings.<name>``."""
    outer: frozenset[str]
    """Names of settings that only training reads."""
    learner: str
    """``module:class``; the class takes a ``LearnerSpec``."""
    check_fits: Callable[[LearnerSpec], None] = lambda _: None
    """Checks settings that not every family can have; raises as ``settings``."""
    adaptation: Adaptation = Adaptation.UPDATE
    """As ``Learner.adaptation`` of the class."""
    simulators: frozenset[Simulator] = frozenset(Simulator)
    """What it can be trained on."""
    guarded: bool = True
    """Whether sessions that do not say have a guard, where they may. An inference is no gradient step: that episodes
    went worse after it is no reason to know less."""
    told: bool = False
    """Whether its learners are bound to the family that shows its parameters (``tasks/visible``)."""


_PPO = Method(PpoSettings.from_json, ppo_settings.OUTER, "innerloop_server.learners.ppo:Ppo", ppo_settings.check_fits)

METHODS: Mapping[str, Method] = {
    "maml": Method(
        MamlSettings.from_json, maml_settings.OUTER, "innerloop_server.learners.maml:Maml", maml_settings.check_fits
    ),
    "meta-dqn": Method(
        MetaDqnSettings.from_json,
        meta_dqn_settings.OUTER,
        "innerloop_server.learners.meta_dqn:MetaDqn",
        meta_dqn_settings.check_fits,
        Adaptation.MEMORY,
        frozenset({Simulator.BATCH}),
    ),
    "multitask": _PPO,
    "oracle": replace(_PPO, told=True),
    "pearl": Method(
        PearlSettings.from_json,
        pearl_settings.OUTER,
        "innerloop_server.learners.pearl:Pearl",
        pearl_settings.check_fits,
        guarded=False,
    ),
    "prototype": Method(
        PrototypeSettings.from_json,
        prototype_settings.OUTER,
        "innerloop_server.learners.prototype:Prototype",
        prototype_settings.check_fits,
    ),
    "reptile": Method(ReptileSettings.from_json, reptile_settings.OUTER, "innerloop_server.learners.reptile:Reptile"),
    "rl2": Method(
        Rl2Settings.from_json,
        rl2_settings.OUTER,
        "innerloop_server.learners.rl2:Rl2",
        rl2_settings.check_fits,
        Adaptation.MEMORY,
    ),
    "scratch": Method(ScratchSettings.from_json, scratch_settings.OUTER, "innerloop_server.learners.scratch:Scratch"),
    "varibad": Method(
        VaribadSettings.from_json,
        varibad_settings.OUTER,
        "innerloop_server.learners.varibad:Varibad",
        varibad_settings.check_fits,
        Adaptation.MEMORY,
    ),
}
"""By name."""


def get(name: str) -> Method:
    """The method of that name.

    Raises:
        InvalidField: ``method`` is unknown.
    """
    if name not in METHODS:
        raise InvalidField("method", f"{name!r} is unknown; use one of {', '.join(METHODS)}")
    return METHODS[name]


def remembers(spec: LearnerSpec) -> bool:
    """Whether the method adapts by acting, so that an episode is a step.

    Raises:
        InvalidField: the method is unknown (``method``).
    """
    return get(spec.method).adaptation is Adaptation.MEMORY


def settings_of(spec: LearnerSpec) -> MethodSettings:
    """The checked settings of a learner, defaults filled in.

    Raises:
        InvalidField: the method is unknown (``method``) or a setting cannot be (``settings.<name>``).
    """
    method = get(spec.method)
    method.check_fits(spec)
    return method.settings(spec.settings)


def build(spec: LearnerSpec) -> TrainableLearner:
    """The learner that ``spec`` describes.

    Raises:
        InvalidField: the method is unknown (``method``) or a setting cannot be (``settings.<field>``).
    """
    module, _, name = get(spec.method).learner.partition(":")
    make = cast("Callable[[LearnerSpec], TrainableLearner]", getattr(importlib.import_module(module), name))
    return make(spec)

"""Learning methods by name. A new method is a file and a line here.

Importing this brings no torch, so that the gateway can check settings; building a learner does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners import maml_settings
from innerloop_server.learners.maml_settings import MamlSettings

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


METHODS: Mapping[str, Method] = {
    "maml": Method(MamlSettings.from_json, maml_settings.OUTER, "innerloop_server.learners.maml:Maml"),
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


def settings_of(spec: LearnerSpec) -> MethodSettings:
    """The checked settings of a learner, defaults filled in.

    Raises:
        InvalidField: the method is unknown (``method``) or a setting cannot be (``settings.<name>``).
    """
    return get(spec.method).settings(spec.settings)


def build(spec: LearnerSpec) -> TrainableLearner:
    """The learner that ``spec`` describes.

    Raises:
        InvalidField: the method is unknown (``method``) or a setting cannot be (``settings.<field>``).
    """
    module, _, name = get(spec.method).learner.partition(":")
    make = cast("Callable[[LearnerSpec], TrainableLearner]", getattr(importlib.import_module(module), name))
    return make(spec)

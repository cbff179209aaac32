"""Which families there are. They arrive by entry point, ours like anybody's::

[project.entry-points."innerloop.task_families"]
my-family = "my_package.my_module:MyFamily"
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from innerloop_server.errors import NotFound, PreconditionFailed
from innerloop_server.tasks.family import Family

GROUP = "innerloop.task_families"


@dataclass(frozen=True)
class Registry:
    """The families of this installation. A value: build one from a mapping in a test."""

    families: Mapping[str, Family]
    """Name -> family, for all that loaded. One whose extra is missing is here too: it can be described and
    sampled, and ``make`` says what to install."""
    broken: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Name -> why it did not load."""

    def names(self) -> tuple[str, ...]:
        """Names of all families that loaded, sorted."""
        return tuple(sorted(self.families))

    def get(self, name: str) -> Family:
        """The family of that name.

        Raises:
            NotFound: there is none; the error lists those there are.
            PreconditionFailed: it is installed but did not load; the error says why.
        """
        if name in self.families:
            return self.families[name]
        if name in self.broken:
            raise PreconditionFailed(
                f"family {name} did not load: {self.broken[name]}", reason="FAMILY_BROKEN", facts={"family": name}
            )
        raise NotFound(f"families/{name}", f"there are: {', '.join(self.names()) or 'none'}")

    def missing_extras(self) -> dict[str, str]:
        """Name -> what to run, for each family that lacks its optional dependency."""
        return {
            name: family.extra.hint
            for name, family in self.families.items()
            if family.extra is not None and family.extra.missing
        }


def load_registry(entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> Registry:
    """Load every family that is installed. One that fails is reported in ``broken`` and stops no other.

    Args:
        entry_points: instead of those installed under ``innerloop.task_families``. Each names a ``Family``
            subclass without constructor arguments (or any callable that returns a family).
    """
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=GROUP)
    families: dict[str, Family] = {}
    broken: dict[str, str] = {}
    for entry_point in entry_points:
        name = entry_point.name
        if name in families or name in broken:
            broken[f"{name} ({entry_point.value})"] = f"another distribution already provides {name}"
            continue
        try:
            families[name] = _load(entry_point)
        except Exception as error:  # whatever a third party's import raises is its reason, not our failure
            broken[name] = f"{type(error).__name__}: {error}"
    return Registry(MappingProxyType(families), MappingProxyType(broken))


def _load(entry_point: importlib.metadata.EntryPoint) -> Family:
    family = entry_point.load()()
    if not isinstance(family, Family):
        raise TypeError(f"{entry_point.value} made a {type(family).__name__}, not a Family")
    if family.name != entry_point.name:
        raise ValueError(f"the entry point is called {entry_point.name}, the family {family.name}")
    return family

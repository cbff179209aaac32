"""Which families there are. They arrive by entry point, ours like anybody's::

    [project.entry-points."innerloop.task_families"]
    my-family = "my_package.my_module:MyFamily"

Or by definition: a client named an environment (:mod:`~innerloop_server.tasks.defined`).
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from innerloop_server.errors import InnerloopError, NotFound, PreconditionFailed
from innerloop_server.tasks.defined import Definitions
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.options import configured_name, read_options, split_name
from innerloop_server.tasks.visible import OPTION, SHOWN, VisibleFamily

GROUP = "innerloop.task_families"
KEPT = 256
"""Families with other than default options that are kept once they were made; any caller may name another."""


@dataclass(frozen=True)
class Registry:
    """The families of this installation, and those defined on it. Build one from a mapping in a test."""

    families: Mapping[str, Family]
    """Name -> family, for all installed ones that loaded. One whose extra is missing is here too: it can be described
    and sampled, and ``make`` says what to install."""
    broken: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Name -> why it did not load, of installed ones."""
    definitions: Definitions | None = None
    """Where defined families are found."""
    binding: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Held by whoever binds a learner to a family, and by whoever deletes one that no learner is bound to."""
    _configured: dict[str, Family] = field(default_factory=dict, init=False, repr=False, compare=False)

    def names(self) -> tuple[str, ...]:
        """Names of all families that can be had, options left at their defaults, sorted."""
        return tuple(sorted({*self.families, *(n for n in self._defined() if not isinstance(self._find(n), str))}))

    def reasons(self) -> dict[str, str]:
        """Name -> why it cannot be had, of installed and of defined families."""
        names = self.definitions.names() if self.definitions else []
        hidden = [name for name in names if name in self.families or name in self.broken]
        found = {name: self._find(name) for name in names if name not in hidden}
        defined = {name: reason for name, reason in found.items() if isinstance(reason, str)}
        return {
            **self.broken,
            **defined,
            **{f"{name} (defined)": f"an installed package provides {name}" for name in hidden},
        }

    def get(self, name: str) -> Family:
        """The family of that name; ``bernoulli-bandit.arms-10`` is one with other than default options, and
        ``cartpole-dynamics.parameters-shown`` one that shows its parameters, as any family can.

        A name that spells out a default, or options in another order, gives the family under its one true name.

        Raises:
            NotFound: there is none; the error lists those there are.
            InvalidField: an option that it does not have, or does not take.
            PreconditionFailed: it is there but did not load; the error says why.
        """
        if name in self.families:
            return self.families[name]
        if name in self.broken:
            raise _failed(name, f"did not load: {self.broken[name]}")
        base, dot, _ = name.partition(".")
        if dot and (base in self.families or base in self.broken):
            return self._with_options(name)
        found = self._find(name)
        if isinstance(found, str):
            raise _failed(name, f"did not load: {found}")
        if found is None:
            raise NotFound(f"families/{name}", f"there are: {', '.join(self.names()) or 'none'}")
        return found

    def find(self, name: str) -> Family | None:
        """The family of that name, or ``None`` for whatever reason it cannot be had."""
        try:
            return self.get(name)
        except InnerloopError:
            return None

    def _with_options(self, name: str) -> Family:
        base, texts = split_name(name)
        family = self.get(base)
        if texts.get(OPTION) == SHOWN and OPTION not in family.options:
            hidden = ".".join([base, *(f"{key}-{text}" for key, text in texts.items() if key != OPTION)])
            return VisibleFamily(self.get(hidden))
        chosen = read_options(base, family.options, texts)
        full = configured_name(base, family.options, chosen)
        if full == base:
            return family
        if (made := self._configured.get(full)) is None:
            try:
                made = family.configured(chosen)
            except InnerloopError:
                raise
            except (Exception, SystemExit) as error:  # a third party's constructor is its own affair
                raise _failed(full, f"cannot be made: {type(error).__name__}: {error}") from error
            if made.name != full:
                raise _failed(full, f"cannot be made: it calls itself {made.name}")
            while len(self._configured) >= KEPT:
                self._configured.pop(next(iter(self._configured)), None)
            self._configured[full] = made
        return made

    def _defined(self) -> list[str]:
        """Names of defined families that no installed one hides."""
        names = self.definitions.names() if self.definitions else []
        return [name for name in names if name not in self.families and name not in self.broken]

    def _find(self, name: str) -> Family | str | None:
        return self.definitions.get(name) if self.definitions else None


def load_registry(
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None, definitions: Definitions | None = None
) -> Registry:
    """Load every family that is installed. One that fails is reported in ``broken`` and stops no other.

    Args:
        entry_points: instead of those installed under ``innerloop.task_families``. Each names a ``Family``
            subclass without constructor arguments (or any callable that returns a family).
        definitions: instead of those that the environment names.
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
        # whatever a third party's import raises is its reason, not our failure; a script at its top may exit
        except (Exception, SystemExit) as error:
            broken[name] = f"{type(error).__name__}: {error}"
    definitions = definitions or Definitions.from_environment()
    return Registry(MappingProxyType(families), MappingProxyType(broken), definitions)


def _load(entry_point: importlib.metadata.EntryPoint) -> Family:
    family = entry_point.load()()
    if not isinstance(family, Family):
        raise TypeError(f"{entry_point.value} made a {type(family).__name__}, not a Family")
    if family.name != entry_point.name:
        raise ValueError(f"the entry point is called {entry_point.name}, the family {family.name}")
    return family


def _failed(name: str, why: str) -> PreconditionFailed:
    return PreconditionFailed(f"family {name} {why}", reason="FAMILY_BROKEN", facts={"family": name})

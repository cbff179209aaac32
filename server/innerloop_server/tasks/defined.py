"""Families that clients defined, as every process of a server finds them: one JSON file each, in one folder.

The gateway writes the files (``service/definitions``). The engine, its actors and the trainer are told the folder, and
what the operator allows, by environment variables; a name that is new to them is looked up when it is asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from innerloop_server.errors import InnerloopError
from innerloop_server.tasks.definition import DefinedFamily, FamilyDefinition, is_allowed

DIRECTORY = "INNERLOOP_FAMILIES_DIR"
ALLOWED = "INNERLOOP_ALLOWED_ENVS"
"""Patterns, separated by commas."""


@dataclass(frozen=True)
class Definitions:
    """The definitions in a folder. What was read is kept: a definition does not change while it is there."""

    directory: Path
    allowed: tuple[str, ...] = ()
    """Patterns of environments that the operator lets clients name (:func:`is_allowed`)."""
    _read: dict[str, DefinedFamily] = field(default_factory=dict, init=False, repr=False, compare=False)

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Definitions | None:
        """Those that a server told its processes of; ``None`` outside of one."""
        directory = environment.get(DIRECTORY, "")
        allowed = environment.get(ALLOWED, "")
        return Definitions(Path(directory), tuple(allowed.split(",")) if allowed else ()) if directory else None

    def to_environment(self) -> dict[str, str]:
        """The variables that tell processes started from here."""
        return {DIRECTORY: str(self.directory), ALLOWED: ",".join(self.allowed)}

    def path(self, name: str) -> Path:
        """Where the definition of that name is kept."""
        return self.directory / f"{name}.json"

    def names(self) -> list[str]:
        """Of all there are, the broken ones too, sorted."""
        return sorted(path.stem for path in self.directory.glob("*.json")) if self.directory.is_dir() else []

    def get(self, name: str) -> DefinedFamily | str | None:
        """The family of that name, or why it cannot be used, or ``None`` where there is none.

        Args:
            name: an id, without a slash.
        """
        if name in self._read:
            return self._read[name]
        try:
            definition = FamilyDefinition.from_json(json.loads(self.path(name).read_bytes()))
            if definition.name != name:
                return f"{self.path(name).name} defines {definition.name}"
            if not is_allowed(definition.env_id, self.allowed):
                return f"its environment is not allowed here; start the server with --allow-env {definition.env_id}"
            return self._read.setdefault(name, DefinedFamily(definition))
        except FileNotFoundError:
            return None
        except (OSError, KeyError, TypeError, ValueError, InnerloopError) as error:
            return f"{self.path(name).name} cannot be read: {type(error).__name__}: {error}"

    def forget(self, name: str) -> None:
        """Read it anew when it is asked for again: its file is gone."""
        self._read.pop(name, None)

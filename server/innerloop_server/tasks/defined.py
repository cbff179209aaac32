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

from innerloop_server.errors import InvalidField, say
from innerloop_server.tasks.definition import DefinedFamily, FamilyDefinition, is_allowed, is_name

DIRECTORY = "INNERLOOP_FAMILIES_DIR"
ALLOWED = "INNERLOOP_ALLOWED_ENVS"
"""Patterns, separated by commas."""
_LONGEST = 500
"""Characters of what is wrong with a file that are told."""


@dataclass(frozen=True)
class Definitions:
    """The definitions in a folder. What was read is kept: a definition does not change while it is there. A file that
    cannot be used is read anew each time, so that one that is repaired works at once.
    """

    directory: Path
    allowed: tuple[str, ...] = ()
    """Patterns of environments that the operator lets clients name (:func:`is_allowed`)."""
    _read: dict[str, DefinedFamily] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the patterns.

        Raises:
            InvalidField: one holds a comma, which would part it for the processes that are told.
        """
        for pattern in self.allowed:
            if "," in pattern:
                raise InvalidField("allowed_environments", f"{pattern!r} holds a comma; give each pattern by itself")

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
        """Of all there are, the broken ones too, sorted. A file that is called like no family is none of ours."""
        if not self.directory.is_dir():
            return []
        return sorted(path.stem for path in self.directory.glob("*.json") if is_name(path.stem))

    def get(self, name: str) -> DefinedFamily | str | None:
        """The family of that name, or why it cannot be used, or ``None`` where there is none.

        Args:
            name: anything; what no definition can be called is not looked for on the disk.
        """
        if not is_name(name):
            return None
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
        except Exception as error:  # a file that somebody else wrote, or half of one, may be wrong in any way
            # what the file says may hold halves of characters, which no message carries
            told = say(error)[:_LONGEST].encode("utf-8", "backslashreplace").decode()
            return f"{self.path(name).name} cannot be read: {told}"

    def forget(self, name: str) -> None:
        """Read it anew when it is asked for again: its file is gone."""
        self._read.pop(name, None)

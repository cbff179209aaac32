"""What a supervised trainer tells its supervisor: one JSON line a message, on its standard output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Updated:
    """An update is in the metric log, where its metrics are read."""

    update: int


@dataclass(frozen=True)
class Checkpointed:
    """All updates up to this one are durable."""

    update: int


@dataclass(frozen=True)
class Revised:
    """A candidate revision lies in the run's folder. Said again after a restart, for every one that is there."""

    update: int


@dataclass(frozen=True)
class Paused:
    """Stopped as it was told to, with a checkpoint."""

    update: int


@dataclass(frozen=True)
class Done:
    """All updates are made and durable."""

    update: int


@dataclass(frozen=True)
class Failed:
    """Stopped by an error that would come again; the last checkpoint is good."""

    message: str


Message = Updated | Checkpointed | Revised | Paused | Done | Failed

_KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind for kind in (Updated, Checkpointed, Revised, Paused, Done, Failed)
}


def encode(message: Message) -> bytes:
    """A message as a line."""
    return (json.dumps({"kind": type(message).__name__.lower(), **asdict(message)}) + "\n").encode()


def decode(line: bytes) -> Message:
    """Undo :func:`encode`.

    Raises:
        ValueError: not a message.
    """
    try:
        value = json.loads(line)
        return _KINDS[value.pop("kind")](**value)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a trainer's message: {line[:80]!r}") from error

"""Checkpoints: the whole state of a training after an update, in one file named by the update and its content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from innerloop_server.training.files import write_durably

KEPT = 2
"""Two, so that a damaged newest one costs time and not the training."""
_SUFFIX = ".safetensors"


def save(directory: Path, update: int, state: bytes) -> Path:
    """Write a checkpoint, durable on return; all but the newest :data:`KEPT` are removed.

    Args:
        directory: of the run's checkpoints.
        update: updates behind the state.
        state: as ``outer_loop.to_bytes`` gives it.

    Raises:
        OSError: the disk is full or failing; older checkpoints are untouched.
    """
    path = directory / f"{update:08d}.{_hash(state)}{_SUFFIX}"
    write_durably(path, state)
    for old in newest_first(directory)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def load(directory: Path) -> bytes | None:
    """The newest checkpoint that holds what its name says; ``None`` if there is none."""
    for path in newest_first(directory):
        state = path.read_bytes()
        if path.name.split(".")[1] == _hash(state):
            return state
    return None


def newest_first(directory: Path) -> list[Path]:
    """The checkpoints' files."""
    return sorted(directory.glob(f"[0-9]*{_SUFFIX}"), reverse=True)


def _hash(state: bytes) -> str:
    return hashlib.sha256(state).hexdigest()[:16]

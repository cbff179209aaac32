"""Candidate revisions: meta-parameters in a run's folder, with how they came to be, until a store takes them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from innerloop_server.errors import DataLoss
from innerloop_server.store.codec import spec_to_json
from innerloop_server.training.files import sync_directory, write_durably
from innerloop_server.training.run import RunFolder, RunSettings

META = "meta.safetensors"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Candidate:
    """A revision that no store has taken yet."""

    update: int
    path: Path
    """Of the meta-parameters."""
    hash: str
    """SHA-256 of that file."""
    manifest: Mapping[str, Any]


def build_manifest(
    settings: RunSettings,
    code: str,
    weights: bytes,
    update: int,
    environment_steps: int,
    wall_clock: Mapping[str, float],
) -> dict[str, Any]:
    """How meta-parameters came to be, as JSON values; validation scores are added by whoever measures them.

    Args:
        settings: of the run.
        code: the commit that trains, as :func:`commit` said when it began.
        weights: safetensors bytes of the meta-parameters.
        update: updates behind them.
        environment_steps: taken in those updates.
        wall_clock: the columns ``metrics.WALL_CLOCK`` so far.
    """
    return {
        "spec": spec_to_json(settings.spec),
        "seed": settings.seed,
        "simulator": settings.simulator.value,
        "generator": settings.generator,
        "device": settings.device,
        "update": update,
        "updates": settings.updates,
        "environment_steps": environment_steps,
        **wall_clock,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "training": settings.training,
        "continue_from": settings.continue_from,
        "command": settings.command,
        "commit": code,
        "versions": versions(),
    }


def write(folder: RunFolder, update: int, weights: bytes, manifest: Mapping[str, Any]) -> Candidate:
    """Put a candidate into the run's folder, whole or not at all; one of the same update is replaced.

    Raises:
        OSError: the disk is full or failing.
    """
    target = folder.revisions / f"{update:08d}"
    temporary = folder.revisions / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    write_durably(temporary / META, weights)
    write_durably(temporary / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)
    sync_directory(folder.revisions)
    return read(folder, update)


def read(folder: RunFolder, update: int) -> Candidate:
    """The candidate of an update.

    Raises:
        DataLoss: missing, or its weights do not match its manifest.
    """
    directory = folder.revisions / f"{update:08d}"
    try:
        weights = (directory / META).read_bytes()
        manifest = json.loads((directory / MANIFEST).read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise DataLoss(f"{directory} holds no candidate revision") from error
    digest = hashlib.sha256(weights).hexdigest()
    if digest != manifest.get("weights_sha256"):
        raise DataLoss(f"{directory / META} does not match its manifest")
    return Candidate(update, directory / META, digest, manifest)


def updates_of(folder: RunFolder, up_to: int) -> list[int]:
    """Updates that have a candidate, in order, as far as ``up_to``."""
    found = (int(path.name) for path in folder.revisions.glob("[0-9]*") if path.is_dir())
    return sorted(update for update in found if update <= up_to)


@cache
def versions() -> dict[str, str]:
    """Of what the bits of a training depend on."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("innerloop", "numpy", "torch")},
    }


def commit() -> str:
    """The commit of this package's checkout, ``-dirty`` where files differ from it; empty outside a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""

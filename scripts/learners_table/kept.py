"""What was trained for the table and stays with the project: a folder a cell, that says all there is to say of it.

::

    manifest.json       what was trained: command, commit, seed, steps, seconds, settings, hash of the weights
    meta.safetensors    the weights
    scores.npz          what they scored: ``returns`` [M, K + 1] float32, ``plan`` (JSON) and ``weights_sha256``

Runs with their checkpoints, logs and curves lie elsewhere and need not be kept. A cell whose settings have changed
since it was trained counts as not trained: the table is of what ``innerloop train`` does now. So does one whose
manifest cannot be read or whose weights are not those of its manifest; scores that cannot be read are none.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from innerloop.arrays import Array
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.evaluation.plan import Plan
from innerloop_server.learners import registry as methods
from innerloop_server.store.codec import spec_from_json
from innerloop_server.training.candidates import MANIFEST, META
from innerloop_server.training.files import write_durably
from innerloop_server.training.run import RunFolder

SCORES = "scores.npz"


@dataclass(frozen=True)
class Kept:
    """A cell's folder. Only paths and what they hold; nothing is cached."""

    folder: Path

    def manifest(self) -> dict[str, Any] | None:
        """What was trained; ``None``: nothing that can be read."""
        try:
            return dict(json.loads((self.folder / MANIFEST).read_bytes()))
        except (FileNotFoundError, ValueError):
            return None

    def holds(self, spec: LearnerSpec) -> bool:
        """Whether it was trained with the settings that ``spec`` has, defaults filled in."""
        manifest = self.manifest()
        if manifest is None or manifest["weights_sha256"] != self.digest():
            return False
        return alike(spec_from_json(manifest["spec"]), spec)

    def digest(self) -> str:
        """The hash of the weights as they are on disk; empty where there are none."""
        file = self.folder / META
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""

    def returns(self, plan: Plan) -> Array | None:
        """What these weights scored by ``plan``, [M, K + 1]; ``None``: nothing yet."""
        try:
            with np.load(io.BytesIO((self.folder / SCORES).read_bytes())) as stored:
                known = (str(stored["plan"]), str(stored["weights_sha256"]))
                return stored["returns"] if known == (_text(plan), self.digest()) else None
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None

    def take(self, run: Path) -> None:
        """Take over the revision of a finished run; scores of other weights go.

        Raises:
            SystemExit: it is not finished.
        """
        last = revision(run)
        if last is None:
            raise SystemExit(f"{run} is not finished")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / SCORES).unlink(missing_ok=True)
        # The manifest last: its presence says that the weights are there.
        for name in (META, MANIFEST):
            write_durably(self.folder / name, (last / name).read_bytes())

    def note(self, plan: Plan, returns: Array) -> None:
        """Keep what the weights scored."""
        data = io.BytesIO()
        scored = np.asarray(returns, np.float32)
        np.savez_compressed(data, returns=scored, plan=_text(plan), weights_sha256=self.digest())
        write_durably(self.folder / SCORES, data.getvalue())


def revision(run: Path) -> Path | None:
    """The folder of a finished run's revision; ``None``: it is not finished."""
    folder = RunFolder(run)
    if not folder.settings_file.exists():
        return None
    last = folder.revisions / f"{folder.settings().updates:08d}"
    return last if (last / MANIFEST).exists() else None


def alike(one: LearnerSpec, other: LearnerSpec) -> bool:
    """Whether two learners are the same method for the same family with the same settings, defaults filled in."""
    try:
        settings = [methods.settings_of(spec).to_json() for spec in (one, other)]
    except InvalidField:  # a setting that there is no longer
        return False
    return (one.family, one.method, settings[0]) == (other.family, other.method, settings[1])


def _text(plan: Plan) -> str:
    return json.dumps(plan.to_json(), sort_keys=True)

"""What was trained for the table and stays with the project: a folder a cell, that says all there is to say of it.

::

    manifest.json       what was trained: command, commit, seed, steps, seconds, settings, hash of the weights
    meta.safetensors    the weights
    scores.npz          what they scored: ``returns`` [M, K + 1] float32, ``plan`` (JSON) and ``weights_sha256``

Runs with their checkpoints, logs and curves lie elsewhere and need not be kept. A cell whose settings have changed
since it was trained counts as not trained: the table is of what ``innerloop train`` does now.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        """What was trained; ``None``: nothing."""
        file = self.folder / MANIFEST
        return dict(json.loads(file.read_bytes())) if file.exists() else None

    def holds(self, spec: LearnerSpec) -> bool:
        """Whether it was trained with the settings that ``spec`` has, defaults filled in."""
        manifest = self.manifest()
        if manifest is None:
            return False
        trained = spec_from_json(manifest["spec"])
        try:
            return (trained.family, trained.method, _settings(trained)) == (spec.family, spec.method, _settings(spec))
        except InvalidField:  # a setting that there is no longer
            return False

    def digest(self) -> str:
        """The hash of the weights as they are on disk."""
        return hashlib.sha256((self.folder / META).read_bytes()).hexdigest()

    def returns(self, plan: Plan) -> Array | None:
        """What these weights scored by ``plan``, [M, K + 1]; ``None``: nothing yet."""
        file = self.folder / SCORES
        if self.manifest() is None or not file.exists():
            return None
        with np.load(file) as stored:
            known = (str(stored["plan"]), str(stored["weights_sha256"]))
            return stored["returns"] if known == (_text(plan), self.digest()) else None

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


def _settings(spec: LearnerSpec) -> dict[str, Any]:
    return dict(methods.settings_of(spec).to_json())


def _text(plan: Plan) -> str:
    return json.dumps(plan.to_json(), sort_keys=True)

"""Shipped learners: package data that is copied into the store, so that the first run of a server is useful.

``zoo/<learner>/`` holds ``meta.safetensors`` and the ``manifest.json`` of the run that made it, validation scores
and reproducing command included. ``scripts/export-zoo RUN`` puts a run's last revision there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from innerloop_server import zoo
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import DataLoss, NotFound, PreconditionFailed
from innerloop_server.store.codec import spec_from_json
from innerloop_server.store.pages import PageRequest
from innerloop_server.store.records import LearnerRecord, RevisionRecord
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry
from innerloop_server.training import candidates
from innerloop_server.training.requests import differing_settings
from innerloop_server.training.run import RunFolder

ZOO = Path(zoo.__path__[0])
"""Where this package's shipped learners lie."""
_log = structlog.get_logger()

SHIPPED = "shipped"
"""Key of a stored manifest that is true for revisions from the zoo."""


@dataclass(frozen=True)
class Shipped:
    """A learner of the zoo."""

    spec: LearnerSpec
    weights: bytes
    hash: str
    """SHA-256 of the weights."""
    manifest: dict[str, Any]


def shipped(directory: Path = ZOO) -> Iterator[Shipped]:
    """The learners of a zoo, by name.

    Raises:
        DataLoss: weights that do not match their manifest.
    """
    for manifest_file in sorted(directory.glob(f"*/{candidates.MANIFEST}")):
        weights_file = manifest_file.with_name(candidates.META)
        manifest = json.loads(manifest_file.read_bytes())
        weights = weights_file.read_bytes()
        digest = hashlib.sha256(weights).hexdigest()
        if digest != manifest["weights_sha256"]:
            raise DataLoss(f"{weights_file} does not match its manifest; install the package again")
        yield Shipped(spec_from_json(manifest["spec"]), weights, digest, manifest)


def install_zoo(store: Store, registry: Registry, directory: Path = ZOO) -> list[RevisionRecord]:
    """Bring the zoo's learners into a store. Blocks; call it again at every start: what is there stays as it is.

    A learner that is new is made, owned by the server, with its shipped revision as champion. One that is there gets a
    revision more where the shipped weights are new to it, which becomes champion if the present one was shipped too:
    what somebody trained or promoted here is never displaced. Left out, with a warning, are learners of families that
    this installation lacks, and those whose name another learner has.

    Args:
        store: of the server.
        registry: of its families.
        directory: of the zoo.

    Returns:
        The revisions that were added.

    Raises:
        DataLoss: the package's files are damaged.
    """
    added = []
    for item in shipped(directory):
        learner = _learner(store, registry, item.spec)
        if isinstance(learner, str):
            _log.warning("shipped learner left out", learner=item.spec.name, reason=learner)
            continue
        revisions = list(_revisions(store, learner.id))
        if any(revision.blob == item.hash for revision in revisions):
            continue
        champion = next((revision for revision in revisions if revision.number == learner.champion), None)
        revision = store.add_revision(learner.id, item.weights, {**item.manifest, SHIPPED: True})
        if champion is None or champion.manifest.get(SHIPPED):
            store.promote(learner.id, revision.number)
        added.append(store.get_revision(learner.id, revision.number))
    return added


def export(run: RunFolder, directory: Path = ZOO) -> Path:
    """Put the last candidate of a finished run into a zoo, over an older one of the same learner.

    Returns:
        The learner's folder.

    Raises:
        PreconditionFailed: the run is not finished, or its result was not scored.
        DataLoss: the run's files are damaged.
    """
    settings = run.settings()
    if candidates.updates_of(run, settings.updates)[-1:] != [settings.updates]:
        raise PreconditionFailed(f"{run.path} is not finished; run its command again to go on: {settings.command}")
    candidate = candidates.read(run, settings.updates)
    if "validation" not in candidate.manifest:
        raise PreconditionFailed(f"{run.path} has no validation scores; run its command again: {settings.command}")
    target = directory / settings.spec.name
    target.mkdir(exist_ok=True)
    for name in (candidates.META, candidates.MANIFEST):
        shutil.copyfile(candidate.path.with_name(name), target / name)
    return target


def _learner(store: Store, registry: Registry, spec: LearnerSpec) -> LearnerRecord | str:
    """The server's own learner of that name, made if there is none; or why it cannot be had."""
    if registry.find(spec.family) is None:
        return f"family {spec.family} is not installed"
    try:
        learner = store.get_learner(spec.name)
    except NotFound:
        return store.put_learner(spec)
    if learner.owner:
        return f"{learner.owner} has a learner of that name"
    if differing := differing_settings(spec, learner.spec):
        return f"the learner of that name here has other {', '.join(differing)}"
    return learner


def _revisions(store: Store, learner_id: str) -> Iterator[RevisionRecord]:
    token = ""
    while True:
        page = store.list_revisions(learner_id, PageRequest(token=token))
        yield from page.items
        if not page.next_token:
            return
        token = page.next_token


def main(arguments: list[str] | None = None) -> int:
    """``scripts/export-zoo``; its exit status."""
    parser = argparse.ArgumentParser(prog="scripts/export-zoo", description=export.__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run, as scripts/train --out wrote it")
    parser.add_argument("--zoo", type=Path, default=ZOO)
    options = parser.parse_args(arguments)
    try:
        target = export(RunFolder(options.run), options.zoo)
    except (PreconditionFailed, DataLoss) as error:
        print(f"scripts/export-zoo: {error.message}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    print(target)  # noqa: T201
    return 0

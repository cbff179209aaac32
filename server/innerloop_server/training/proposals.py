"""What the generator of a training would propose next, read from its last checkpoint. Imports no torch."""

from __future__ import annotations

import safetensors
import safetensors.numpy

from innerloop.arrays import Arrays
from innerloop_server.domain import Task
from innerloop_server.errors import DataLoss, InvalidField, PreconditionFailed
from innerloop_server.store.store import Store
from innerloop_server.tasks.family import Family
from innerloop_server.training import checkpoints, generators, packed
from innerloop_server.training.run import RunFolder, RunSettings


class TrainingProposals:
    """Looks into the trainings of a store. Blocks on the disk."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def next(self, training_id: str, generator: str, family: Family, count: int) -> tuple[Task, ...]:
        """A proposal of ``count`` tasks, such as the training's generator would make now: with as many as the training
        takes an update, its very next ones. Asking changes nothing, so asking again gives the same until the training
        writes its next checkpoint.

        Args:
            training_id: of the training.
            generator: its generator's name, as the caller has it.
            family: its family, as the caller has it.
            count: how many.

        Raises:
            NotFound: there is no such training.
            InvalidField: it is of another family (``family``), or has another generator (``generator``).
            PreconditionFailed: ``NO_CHECKPOINT``, it has not come to its first checkpoint.
            DataLoss: its checkpoint cannot be read.
        """
        record = self._store.get_training(training_id)
        run = RunSettings.from_json(dict(record.settings["run"]))
        if run.spec.family != family.name:
            raise InvalidField("family", f"trainings/{training_id} trains on {run.spec.family}")
        if run.generator != generator:
            raise InvalidField("generator", f"trainings/{training_id} uses {run.generator}")
        saved = checkpoints.load(RunFolder(self._store.training_dir(training_id)).checkpoints)
        if saved is None:
            raise PreconditionFailed(
                f"trainings/{training_id} has written no checkpoint yet; try again later", reason="NO_CHECKPOINT"
            )
        proposal, _ = generators.build(generator, family, run.seed).propose(_state(saved), count)
        return proposal.tasks


def _state(checkpoint: bytes) -> Arrays:
    """The generator's part of a checkpoint (``outer_loop.to_bytes``)."""
    try:
        arrays = safetensors.numpy.load(checkpoint)
    except safetensors.SafetensorError as error:
        raise DataLoss("a training's checkpoint cannot be read") from error
    return packed.part(arrays, "generator")

"""What the supervisor asks of the store: trainings found, made and laid out. Everything here blocks on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from innerloop_server.errors import Exhausted, NotFound
from innerloop_server.store.pages import PageRequest
from innerloop_server.store.records import LearnerRecord, TrainingRecord, TrainingState
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry
from innerloop_server.training.requests import TrainingRequest, plan
from innerloop_server.training.run import RunFolder, RunSettings


@dataclass(frozen=True)
class TrainerSettings:
    """How this server runs trainers."""

    device: str = "cpu"
    """As in ``Settings.device``."""
    actors: int = 2
    actor_slots: int = 256
    trainings_per_owner: int = 4
    """Running ones; waiting counts as running."""


class Intake:
    """Turns requests into trainings that a trainer can be started on."""

    def __init__(self, store: Store, registry: Registry, settings: TrainerSettings) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings

    def create(self, request: TrainingRequest, owner: str, permit: Callable[[LearnerRecord], None]) -> TrainingRecord:
        """Note a training, and make its learner if there is none.

        Raises:
            NotFound, InvalidField, PreconditionFailed, Exhausted: as ``TrainingSupervisor.start``.
        """
        with self._registry.binding:  # until its learner is in the store, nobody may take the family away
            return self._create(request, owner, permit)

    def _create(self, request: TrainingRequest, owner: str, permit: Callable[[LearnerRecord], None]) -> TrainingRecord:
        family = self._registry.get(request.bound_to)
        if family.extra is not None:
            family.extra.require(family.name)
        learner = self._learner(request.learner_id)
        bases = []
        if learner is not None:
            permit(learner)
            bases.append(learner.spec)
        if request.continue_from is not None:
            source, number = request.continue_from
            self._store.get_revision(source, number)
            bases.append(self._store.get_learner(source).spec)
        run = plan(request, family, *bases)
        self._check_quota(owner)
        if learner is None:
            self._store.put_learner(run.spec, owner)
        own = self._settings
        run = replace(run, device=own.device, actors=own.actors, actor_slots=own.actor_slots)
        settings = {"run": run.to_json(), "request_id": request.request_id}
        return self._store.create_training(run.spec.name, settings, run.seed, run.updates, owner)

    def asked_before(self, request_id: str, owner: str) -> TrainingRecord | None:
        """The training that the owner's earlier request of that id made; ``None`` for an empty id."""
        if not request_id:
            return None
        mine = (record for record in self.all(owner) if record.owner == owner)
        return next((record for record in mine if record.settings.get("request_id") == request_id), None)

    def all(self, owner: str | None = None, state: TrainingState | None = None) -> Iterator[TrainingRecord]:
        """Every training that ``owner`` may read, the newest first."""
        token = ""
        while True:
            page = self._store.list_trainings(owner, PageRequest(token=token), state=state)
            yield from page.items
            if not page.next_token:
                return
            token = page.next_token

    def lay_out(self, training_id: str) -> RunFolder:
        """The run's folder; made of the record if it is not there, which a crash may also have been the reason of."""
        record = self._store.get_training(training_id)
        folder = RunFolder(self._store.training_dir(training_id))
        run = replace(RunSettings.from_json(dict(record.settings["run"])), training=training_id)
        initial = None
        if run.continue_from:
            _, learner, _, number = run.continue_from.split("/")
            initial = self._store.read_blob(self._store.get_revision(learner, int(number)).blob)
        folder.create(run, initial)
        return folder

    def _learner(self, learner_id: str) -> LearnerRecord | None:
        try:
            return self._store.get_learner(learner_id)
        except NotFound:
            return None

    def _check_quota(self, owner: str) -> None:
        running = sum(record.owner == owner for record in self.all(owner, TrainingState.RUNNING))
        if running >= self._settings.trainings_per_owner:
            raise Exhausted(
                f"{running} trainings of yours run or wait; pause one, or try again when one is done",
                reason="TRAININGS_EXHAUSTED",
                retry_after_seconds=60.0,
            )

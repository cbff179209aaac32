"""Programs for LearnerService."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from innerloop._core import reading, tasks
from innerloop._core.backoff import Backoff
from innerloop._core.calls import PAGE, call, fresh_request_id, pages
from innerloop._core.codec import enum_from_word, struct_to_pb
from innerloop._core.commands import Emit, Program, Receive, Rpc, Sleep, Start, Stop
from innerloop._core.names import default_learner, learner_of, resource, short
from innerloop.errors import NotFound, TrainingFailed, Unavailable
from innerloop.types import Learner, Revision, Training, TrainingMetrics
from innerloop.v1 import learner_pb2 as pb
from innerloop.v1 import task_pb2

LIST_LEARNERS = Rpc("LearnerService", "ListLearners")
GET_LEARNER = Rpc("LearnerService", "GetLearner")
LIST_REVISIONS = Rpc("LearnerService", "ListRevisions")
GET_REVISION = Rpc("LearnerService", "GetRevision")
PROMOTE = Rpc("LearnerService", "PromoteRevision")
ROLL_BACK = Rpc("LearnerService", "RollBackLearner")
START_TRAINING = Rpc("LearnerService", "StartTraining")
PAUSE_TRAINING = Rpc("LearnerService", "PauseTraining")
RESUME_TRAINING = Rpc("LearnerService", "ResumeTraining")
GET_TRAINING = Rpc("LearnerService", "GetTraining")
LIST_TRAININGS = Rpc("LearnerService", "ListTrainings")
FOLLOW_TRAINING = Rpc("LearnerService", "FollowTraining")

DEFAULT_METHOD = "maml"


def learners(family: str) -> Program[list[Learner]]:
    """All learners; of one family when it is named."""
    where = resource("families", family) if family else ""
    return pages(
        LIST_LEARNERS,
        lambda token: pb.ListLearnersRequest(page_size=PAGE, page_token=token, family=where),
        lambda response: map(reading.learner, response.learners),
    )


def learner(name: str) -> Program[Learner]:
    """One learner: by its name, a revision's or a family's."""
    return (yield from resolve(name))[1]


def resolve(name: str) -> Program[tuple[str, Learner]]:
    """What a caller means by a learner: its name, a revision's, or a family's.

    A family means the learner that the server came with; where that is none, or not one, ``{family}-maml``; and where
    there is none of that name its only learner. So training another learner does not change what a family means.

    Returns:
        (resource name to ask the server with: of the learner, or of the revision that was named; the learner).

    Raises:
        NotFound: no such learner, and no learner of a family of that name, or several; says what there is instead.
    """
    family = short(name)
    usual = resource("learners", default_learner(family, DEFAULT_METHOD))
    full = usual if name.startswith("families/") else resource("learners", name)
    found = yield from _look(learner_of(full))
    if isinstance(found, Learner) and not name.startswith("families/"):
        return full, found
    named: list[Learner] = []
    if learner_of(full) == full:  # a revision's name is no family's
        there = found if full == usual else (yield from _look(usual))
        named = [there] if isinstance(there, Learner) else []
    if named and not named[0].owner:
        return named[0].name, named[0]
    known = yield from learners("")
    of_family = [x for x in known if learner_of(full) == full and short(x.family) == family]
    for meant in ([x for x in of_family if not x.owner], named, of_family):
        if len(meant) == 1:
            return meant[0].name, meant[0]
    assert isinstance(found, NotFound)
    raise (yield from _nobody(full, known, found))


def revisions(learner: str) -> Program[list[Revision]]:
    """A learner's revisions, newest first."""
    parent = (yield from resolve(learner))[1].name
    return (
        yield from pages(
            LIST_REVISIONS,
            lambda token: pb.ListRevisionsRequest(parent=parent, page_size=PAGE, page_token=token),
            lambda response: map(reading.revision, response.revisions),
        )
    )


def revision(name: str) -> Program[Revision]:
    """One revision."""
    request = pb.GetRevisionRequest(name=resource("learners", name))
    return call(GET_REVISION, request, lambda response: reading.revision(response.revision))


def promote(revision: str) -> Program[Learner]:
    """Make a revision the champion."""
    request = pb.PromoteRevisionRequest(name=resource("learners", revision))
    return call(PROMOTE, request, lambda response: reading.learner(response.learner))


def roll_back(learner: str) -> Program[Learner]:
    """Make the champion before champion again."""
    request = pb.RollBackLearnerRequest(name=(yield from resolve(learner))[1].name)
    return (yield from call(ROLL_BACK, request, lambda response: reading.learner(response.learner)))


def start_training(
    family: str,
    *,
    method: str,
    learner: str,
    settings: Mapping[str, Any],
    seed: int,
    updates: int,
    simulator: str,
    continue_from: str,
    generator: str,
    request_id: str,
) -> Program[Training]:
    """Start an outer loop."""
    request = pb.StartTrainingRequest(
        learner=resource("learners", learner) if learner else "",
        family=resource("families", family),
        method=method,
        settings=struct_to_pb(settings),
        seed=seed,
        updates=updates,
        simulator=enum_from_word(task_pb2.Simulator, simulator, "simulator"),  # type: ignore[arg-type]
        continue_from=resource("learners", continue_from) if continue_from else "",
        request_id=request_id or fresh_request_id(),
        generator=generator,
    )
    return call(START_TRAINING, request, lambda response: reading.training(response.training))


def pause_training(name: str) -> Program[Training]:
    """Pause at the next update."""
    request = pb.PauseTrainingRequest(name=resource("trainings", name))
    return call(PAUSE_TRAINING, request, lambda response: reading.training(response.training))


def resume_training(name: str) -> Program[Training]:
    """Go on from the checkpoint."""
    request = pb.ResumeTrainingRequest(name=resource("trainings", name))
    return call(RESUME_TRAINING, request, lambda response: reading.training(response.training))


def training(name: str) -> Program[Training]:
    """One training."""
    request = pb.GetTrainingRequest(name=resource("trainings", name))
    return call(GET_TRAINING, request, lambda response: reading.training(response.training))


def trainings() -> Program[list[Training]]:
    """All trainings, newest first."""
    return pages(
        LIST_TRAININGS,
        lambda token: pb.ListTrainingsRequest(page_size=PAGE, page_token=token),
        lambda response: map(reading.training, response.trainings),
    )


def follow_training(name: str, after_update: int, patience: float) -> Program[Training]:
    """Emit :class:`TrainingMetrics` and :class:`Training` values until the training ends or pauses; come back by
    itself after a lost stream.

    Returns:
        The training as it ended.

    Raises:
        TrainingFailed: it failed.
    """
    full = resource("trainings", name)
    seen = after_update
    latest: Training | None = None
    backoff = Backoff(patience)
    while True:
        request = pb.FollowTrainingRequest(name=full, after_update=seen)
        try:
            yield Start(FOLLOW_TRAINING, request, two_way=False)
            while (response := (yield Receive())) is not None:
                backoff.alive()
                if response.WhichOneof("message") == "metrics":
                    values: TrainingMetrics = reading.metrics(response.metrics)
                    if values.update > seen:
                        seen = values.update
                        yield Emit(values)
                else:
                    latest = reading.training(response.training)
                    yield Emit(latest)
            break
        except Unavailable as error:
            yield Stop()
            yield Sleep(backoff.pause(error))
    if latest is None or latest.state == "running":
        latest = yield from training(name)
    if latest.state == "failed":
        raise TrainingFailed(f"{latest.name} failed: {latest.error}", latest)
    return latest


def _get(name: str) -> Program[Learner]:
    return call(GET_LEARNER, pb.GetLearnerRequest(name=name), lambda response: reading.learner(response.learner))


def _look(name: str) -> Program[Learner | NotFound]:
    """As :func:`_get`; the error where there is none."""
    try:
        return (yield from _get(name))
    except NotFound as error:
        return error


def _nobody(full: str, known: Sequence[Learner], error: NotFound) -> Program[NotFound]:
    """The error of a name that none of the ``known`` learners has, with what its author may have meant."""
    name = short(learner_of(full))
    names = [short(x.name) for x in known]
    families = [short(x.name) for x in (yield from tasks.families())]
    if name.partition(".")[0] in families:
        others = [short(x.name) for x in known if short(x.family) == name]
        usual = default_learner(name, DEFAULT_METHOD)
        advice = f"family {name} has no learner {usual}; it has {', '.join(others)}"
        message = advice if others else _untrained(name)
    else:
        there_are = f"there are {', '.join(names)}" if names else "there are no learners yet"
        message = f"learners/{name} does not exist; {there_are}"
        for close in get_close_matches(name, [*families, *names], n=1):
            taught = close in names or any(short(x.family) == close for x in known)
            message += f"; did you mean {close}?" + ("" if taught else f" {_untrained(close)}")
    return NotFound(message, reason=error.reason, facts=error.facts)


def _untrained(family: str) -> str:
    return f"family {family} has no learner yet; train one: innerloop train {family}"

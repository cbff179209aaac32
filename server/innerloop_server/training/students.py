"""Which student a learning method makes, and what plays for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from innerloop_server.actors.pool import ActorPool
from innerloop_server.domain import Simulator
from innerloop_server.learners.pearl import Pearl
from innerloop_server.learners.reptile import Reptile
from innerloop_server.learners.trainable import GradientLearner, TrainableLearner
from innerloop_server.learners.trial_ppo import TrialLearner
from innerloop_server.tasks.family import Family
from innerloop_server.training import trial_actors, trial_collect
from innerloop_server.training.actor_collect import actor_collector
from innerloop_server.training.collect import Collect, batch_collector
from innerloop_server.training.meta_student import MetaStudent
from innerloop_server.training.pearl_student import PearlStudent
from innerloop_server.training.reptile_student import ReptileStudent
from innerloop_server.training.run import RunSettings
from innerloop_server.training.student import Student
from innerloop_server.training.trial_collect import CollectTrials
from innerloop_server.training.trial_student import TrialStudent


@contextmanager
def teaching(settings: RunSettings, family: Family, learner: TrainableLearner) -> Iterator[Student[Any]]:
    """The student that teaches ``learner``, and for as long the actors that play for it.

    Args:
        settings: of the training.
        family: what it plays.
        learner: the method.

    Raises:
        TypeError: no student knows the method.
    """
    device = torch.device(settings.device)
    with _pool(settings) as pool:
        if isinstance(learner, TrialLearner):
            yield TrialStudent(learner, _trials(family, learner, pool, device))
        else:
            yield student_of(learner, _episodes(family, learner, pool, device))


def student_of(learner: TrainableLearner, collect: Collect) -> Student[Any]:
    """The student that teaches ``learner`` from episodes that do not depend on each other.

    Args:
        learner: the method; none with a memory.
        collect: runs the episodes (``collect.batch_collector``, or environment actors).

    Raises:
        TypeError: no student knows the method.
    """
    if isinstance(learner, GradientLearner):
        return MetaStudent(learner, collect)
    if isinstance(learner, Reptile):
        return ReptileStudent(learner, collect)
    if isinstance(learner, Pearl):
        return PearlStudent(learner, collect)
    raise TypeError(f"no student for a {type(learner).__name__}")


@contextmanager
def _pool(settings: RunSettings) -> Iterator[ActorPool | None]:
    """Environment actors, where the training plays on them."""
    if settings.simulator is Simulator.ACTORS:
        with ActorPool(settings.actors, settings.actor_slots) as pool:
            yield pool
    else:
        yield None


def _episodes(family: Family, learner: TrainableLearner, pool: ActorPool | None, device: torch.device) -> Collect:
    if pool is None:
        return batch_collector(family, learner, device)
    return actor_collector(learner, pool, device)


def _trials(family: Family, learner: TrialLearner, pool: ActorPool | None, device: torch.device) -> CollectTrials:
    if pool is None:
        return trial_collect.batch_collector(family, learner, device)
    return trial_actors.actor_collector(learner, pool, device)

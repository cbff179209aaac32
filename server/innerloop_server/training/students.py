"""Which student a learning method makes, and what plays for it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from innerloop_server.actors.pool import ActorPool
from innerloop_server.domain import Simulator
from innerloop_server.learners.meta_dqn import MetaDqn
from innerloop_server.learners.pearl import Pearl
from innerloop_server.learners.ppo import Ppo
from innerloop_server.learners.reptile import Reptile
from innerloop_server.learners.scratch import Scratch
from innerloop_server.learners.trainable import GradientLearner, TrainableLearner
from innerloop_server.learners.trial_ppo import TrialLearner
from innerloop_server.learners.varibad import Varibad
from innerloop_server.tasks.family import Family
from innerloop_server.training import episodes, task_numbers, trial_actors, trial_collect
from innerloop_server.training.actor_collect import actor_collector
from innerloop_server.training.attempts import JUDGED_ON_ACTORS, JUDGED_TASKS, AttemptsStudent
from innerloop_server.training.collect import Collect, batch_collector
from innerloop_server.training.meta_dqn_student import Exploring, MetaDqnStudent
from innerloop_server.training.meta_student import MetaStudent
from innerloop_server.training.pearl_student import PearlStudent
from innerloop_server.training.ppo_student import PpoStudent
from innerloop_server.training.reptile_student import ReptileStudent
from innerloop_server.training.run import RunSettings
from innerloop_server.training.scratch_student import ScratchStudent
from innerloop_server.training.student import Student
from innerloop_server.training.trial_collect import CollectTrials
from innerloop_server.training.trial_student import TrialStudent
from innerloop_server.training.varibad_student import VaribadStudent


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
            tell = functools.partial(task_numbers.of, family)
            collect = _trials(family, learner, pool, device)
            student: TrialStudent | VaribadStudent
            if isinstance(learner, Varibad):
                student = VaribadStudent(learner, collect, tell)
            else:
                student = TrialStudent(learner, collect, tell)
            if learner.settings.attempts == 1:
                yield student
            else:
                judged = JUDGED_TASKS if pool is None else JUDGED_ON_ACTORS
                yield AttemptsStudent(student, _judge(family, learner, pool, device), family, judged)
        elif isinstance(learner, MetaDqn):
            yield MetaDqnStudent(learner, trial_collect.batch_collector(family, Exploring(learner.spec), device))
        elif isinstance(learner, Ppo):
            yield PpoStudent(learner, _of_one_policy(family, pool, device), episodes_per_task=1, anneal=True)
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
    if isinstance(learner, Scratch):
        return ScratchStudent(learner, collect)
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


def _judge(family: Family, learner: TrialLearner, pool: ActorPool | None, device: torch.device) -> CollectTrials:
    if pool is None:
        return trial_collect.batch_collector(family, learner, device, greedy=True)
    return _trials(family, learner, pool, device)


def _of_one_policy(family: Family, pool: ActorPool | None, device: torch.device) -> episodes.Collect:
    if pool is None:
        return episodes.batch_collector(family, device)
    return episodes.actor_collector(pool, device)

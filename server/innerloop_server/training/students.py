"""Which student a learning method makes."""

from __future__ import annotations

from typing import Any

from innerloop_server.learners.pearl import Pearl
from innerloop_server.learners.reptile import Reptile
from innerloop_server.learners.trainable import GradientLearner, TrainableLearner
from innerloop_server.training.collect import Collect
from innerloop_server.training.meta_student import MetaStudent
from innerloop_server.training.pearl_student import PearlStudent
from innerloop_server.training.reptile_student import ReptileStudent
from innerloop_server.training.student import Student


def student_of(learner: TrainableLearner, collect: Collect) -> Student[Any]:
    """The student that teaches ``learner``.

    Args:
        learner: the method.
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

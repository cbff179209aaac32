"""Learning methods by name. A new method is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners.maml import Maml
from innerloop_server.learners.trainable import TrainableLearner

METHODS: Mapping[str, type[TrainableLearner]] = {"maml": Maml}
"""Name of a learning method -> its class, built from a :class:`LearnerSpec`."""


def build(spec: LearnerSpec) -> TrainableLearner:
    """The learner that ``spec`` describes.

    Raises:
        InvalidField: the method is unknown (``method``) or a setting cannot be (``settings.<field>``).
    """
    if spec.method not in METHODS:
        raise InvalidField("method", f"{spec.method!r} is unknown; use one of {', '.join(METHODS)}")
    return METHODS[spec.method](spec)

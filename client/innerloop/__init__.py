"""innerloop: ask a server for a policy that has just learned your task, watch it adapt, and run it anywhere.

    >>> import innerloop
    >>> with innerloop.connect() as client:                                    # doctest: +SKIP
    ...     task = client.sample_tasks("navigation-2d", seed=7)[0]
    ...     adaptation = client.adapt("navigation-2d", task, steps=3)
    ...     for step in adaptation:
    ...         print(step.number, step.pre_return)
    ...     policy = adaptation.policy()

Importing this package loads nothing but this file: each name is fetched when it is first asked for (PEP 562), so
``innerloop.policy`` stays free of grpc, and a robot that only runs a policy never loads a network stack.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerloop import aio, errors
    from innerloop._embedded import EmbeddedClient, embedded
    from innerloop._supervised import SupervisedSession
    from innerloop._version import __version__
    from innerloop.arrays import Box, Discrete
    from innerloop.client import ActStream, Adaptation, Client, EvaluationRun, TrainingRun, connect
    from innerloop.errors import InnerloopError
    from innerloop.policy import Action, Input, Policy, load_policy
    from innerloop.types import (
        Acted,
        Adapted,
        Budget,
        Evaluation,
        Family,
        Learner,
        Opened,
        PolicyInfo,
        Reference,
        Revision,
        Score,
        Session,
        Step,
        Task,
        Training,
        TrainingMetrics,
    )

__all__ = [
    "ActStream",
    "Acted",
    "Action",
    "Adaptation",
    "Adapted",
    "Box",
    "Budget",
    "Client",
    "Discrete",
    "EmbeddedClient",
    "Evaluation",
    "EvaluationRun",
    "Family",
    "InnerloopError",
    "Input",
    "Learner",
    "Opened",
    "Policy",
    "PolicyInfo",
    "Reference",
    "Revision",
    "Score",
    "Session",
    "Step",
    "SupervisedSession",
    "Task",
    "Training",
    "TrainingMetrics",
    "TrainingRun",
    "__version__",
    "aio",
    "connect",
    "embedded",
    "errors",
    "load_policy",
]

_MODULES = frozenset({"aio", "errors"})
_HOMES = {
    "innerloop._version": ("__version__",),
    "innerloop.arrays": ("Box", "Discrete"),
    "innerloop.client": ("ActStream", "Adaptation", "Client", "EvaluationRun", "TrainingRun", "connect"),
    "innerloop._embedded": ("EmbeddedClient", "embedded"),
    "innerloop._supervised": ("SupervisedSession",),
    "innerloop.errors": ("InnerloopError",),
    "innerloop.policy": ("Action", "Input", "Policy", "load_policy"),
    "innerloop.types": (
        "Acted",
        "Adapted",
        "Budget",
        "Evaluation",
        "Family",
        "Learner",
        "Opened",
        "PolicyInfo",
        "Reference",
        "Revision",
        "Score",
        "Session",
        "Step",
        "Task",
        "Training",
        "TrainingMetrics",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"innerloop.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'innerloop' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

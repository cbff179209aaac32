"""The environments one actor holds: where families come from, and reuse of what was expensive to make."""

from __future__ import annotations

import hashlib
import importlib
from collections import OrderedDict
from typing import Any

import gymnasium
import numpy as np

from innerloop.arrays import Arrays
from innerloop_server.domain import Task
from innerloop_server.tasks.registry import Registry

Environment = gymnasium.Env[Any, Any]

INSTALLED = "innerloop_server.tasks.registry:load_registry"
"""The source of the families that are installed."""


def load_source(source: str) -> Registry:
    """What the callable that ``module:callable`` names returns, given nothing.

    Raises:
        Exception: there is no such thing, or whatever it raises.
    """
    module, separator, name = source.partition(":")
    if not separator:
        raise ValueError(f"family source {source!r} is not of the form module:callable")
    registry: Registry = getattr(importlib.import_module(module), name)()
    return registry


def parameters_hash(parameters: Arrays) -> str:
    """SHA-256 over names, dtypes, shapes and bytes: equal for equal parameters."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        array = np.ascontiguousarray(parameters[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


class EnvironmentCache:
    """Lends environments by task and keeps those that came back, the least recently used going first.

    A cached environment is reset with a seed before it is stepped, so a new one would have behaved the same.
    One of a family that says so (``environments_change_task``) becomes any other task of it.
    """

    def __init__(self, source: str, capacity: int) -> None:
        """Args:
        source: of families, see :func:`load_source`; loaded when the first environment is asked for.
        capacity: idle environments kept at most.
        """
        self._source = source
        self._capacity = capacity
        self._registry: Registry | None = None
        self._idle: OrderedDict[int, tuple[str, str, Environment]] = OrderedDict()
        self._serial = 0

    def take(self, name: str, parameters: Arrays, digest: str) -> Environment:
        """An environment of this task, for the caller alone: give it back with ``put``, or close it.

        Args:
            name: of the family.
            parameters: of the task.
            digest: their :func:`parameters_hash`.

        Raises:
            Exception: whatever the source or the family's code raises.
        """
        for key in reversed(self._idle):
            if self._idle[key][:2] == (name, digest):
                return self._idle.pop(key)[2]
        if self._registry is None:
            self._registry = load_source(self._source)
        family = self._registry.get(name)
        if family.environments_change_task:
            for key, (other, _, environment) in self._idle.items():
                if other == name:
                    del self._idle[key]
                    environment.get_wrapper_attr("set_task")(dict(parameters))
                    return environment
        return family.make(Task(name, dict(parameters)))

    def put(self, name: str, digest: str, environment: Environment) -> None:
        """Take back an environment that still works."""
        self._serial += 1
        self._idle[self._serial] = (name, digest, environment)
        while len(self._idle) > self._capacity:
            self._idle.popitem(last=False)[1][2].close()

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.popitem()[1][2].close()

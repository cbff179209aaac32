"""The environments one actor holds: where families come from, and reuse of what was expensive to make."""

from __future__ import annotations

import hashlib
import importlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from innerloop.arrays import Arrays
from innerloop_server.domain import Task
from innerloop_server.tasks.family import Family

Environment = gymnasium.Env[Any, Any]

Lookup = Callable[[str], Family]
"""Name -> family; raises for a name nobody knows."""


def load_lookup(source: str) -> Lookup:
    """The lookup that ``module:callable`` names.

    Raises:
        ValueError, ImportError, AttributeError: there is no such thing.
    """
    module, separator, name = source.partition(":")
    if not separator:
        raise ValueError(f"family source {source!r} is not of the form module:callable")
    lookup: Lookup = getattr(importlib.import_module(module), name)
    return lookup


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
    An environment whose unwrapped self has ``set_task(parameters)`` can become any task of its family.
    """

    def __init__(self, lookup: Lookup, capacity: int) -> None:
        """Args:
        lookup: where families come from.
        capacity: idle environments kept at most.
        """
        self._lookup = lookup
        self._capacity = capacity
        self._families: dict[str, Family] = {}
        self._idle: OrderedDict[int, tuple[str, str, Environment]] = OrderedDict()
        self._serial = 0

    def family(self, name: str) -> Family:
        """The family of that name, built once.

        Raises:
            Exception: whatever the lookup raises for a name nobody knows.
        """
        if name not in self._families:
            self._families[name] = self._lookup(name)
        return self._families[name]

    def take(self, name: str, parameters: Mapping[str, Any]) -> Environment:
        """An environment of this task, for the caller alone. Give it back with ``put``, or close it.

        Raises:
            Exception: whatever the family's code raises.
        """
        digest = parameters_hash(parameters)
        for key in reversed(self._idle):
            if self._idle[key][:2] == (name, digest):
                return self._idle.pop(key)[2]
        for key, (family, _, environment) in self._idle.items():
            if family == name and hasattr(environment.unwrapped, "set_task"):
                del self._idle[key]
                environment.unwrapped.set_task(dict(parameters))
                return environment
        return self.family(name).make(Task(name, dict(parameters)))

    def put(self, name: str, parameters: Mapping[str, Any], environment: Environment) -> None:
        """Take back an environment that still works."""
        self._serial += 1
        self._idle[self._serial] = (name, parameters_hash(parameters), environment)
        while len(self._idle) > self._capacity:
            self._idle.popitem(last=False)[1][2].close()

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.popitem()[1][2].close()

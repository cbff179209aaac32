"""Both drivers under one face, so that a scenario is written once and run through each."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import innerloop
import innerloop.aio
from innerloop.client import ActStream, Adaptation, Client, EvaluationRun, TrainingRun

Scenario = Callable[[Any], Awaitable[Any]]


class Later:
    """The result of a blocking call, awaitable and, where it is an iterator, iterable as the async one would be."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Iterator[Any]:
        return self._value
        yield

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self._value:
            yield item


class Shim:
    """A blocking object that looks like its async twin."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not inspect.ismethod(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Later:
            result = value(*args, **kwargs)
            handle = isinstance(result, Client | Adaptation | TrainingRun | EvaluationRun | ActStream)
            return Later(Shim(result) if handle else result)

        return call

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self._target:
            yield item

    async def __aenter__(self) -> Shim:
        self._target.__enter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._target.__exit__(*error)


def blocking(*args: Any, **kwargs: Any) -> Any:
    return Shim(innerloop.connect(*args, **kwargs))


def asynchronous(*args: Any, **kwargs: Any) -> Any:
    return innerloop.aio.connect(*args, **kwargs)


DRIVERS = {"blocking": blocking, "async": asynchronous}

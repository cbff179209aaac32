"""The async client: the methods of :class:`innerloop.Client`, awaited.

    >>> client = innerloop.aio.connect()                                        # doctest: +SKIP
    >>> async with client:
    ...     (task,) = await client.sample_tasks("navigation-2d", seed=7)
    ...     async for step in await client.adapt("navigation-2d", task, steps=3):
    ...         print(step.number, step.pre_return)

Use a client in the event loop that made it, and one loop a process: grpc.aio does not share.
"""

from __future__ import annotations

from innerloop.aio._client import Client, connect
from innerloop.aio._handles import ActStream, Adaptation, EvaluationRun, TrainingRun
from innerloop.aio._supervised import SupervisedSession

__all__ = ["ActStream", "Adaptation", "Client", "EvaluationRun", "SupervisedSession", "TrainingRun", "connect"]

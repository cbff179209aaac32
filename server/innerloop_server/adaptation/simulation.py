"""Rollouts by environment actors: the slow way to serve a rollout need, one that the core does not wait for."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from innerloop_server.actors.orders import EpisodesFailure, EpisodesOrder
from innerloop_server.actors.pool import ActorPool
from innerloop_server.adaptation import kernels, memory
from innerloop_server.adaptation.inner_loop import RolloutNeed
from innerloop_server.adaptation.rollout import Rollout
from innerloop_server.errors import Exhausted, InnerloopError, Unavailable


class ActorSimulation:
    """Rollout needs that are with the actors, by the key of their session. Owned by the core."""

    def __init__(self, pool: ActorPool) -> None:
        """Args:
        pool: closed together with this.
        """
        self._pool = pool
        self._tickets = itertools.count(1)
        self._keys: dict[int, int] = {}
        """Ticket -> key."""
        self._waiting: deque[EpisodesOrder] = deque()
        """Orders that the pool's backlog had no room for."""

    @property
    def waitables(self) -> Sequence[Any]:
        """What to watch for answers."""
        return self._pool.waitables

    def submit(self, key: int, need: RolloutNeed) -> None:
        """Send a need to the actors; its outcome comes out of :meth:`poll`."""
        task = need.resident.task
        assert task is not None  # a client-owned session never asks for a rollout
        revision = need.resident.revision
        remembers = memory.remembers(revision.learner)
        header, weights = revision.learner.export(revision.meta, memory.own(need.state) if remembers else need.state)
        ticket = next(self._tickets)
        self._keys[ticket] = key
        self._waiting.append(
            EpisodesOrder(
                key=ticket,
                family=task.family,
                parameters=task.parameters,
                header=header,
                weights=weights[0],
                episodes=need.episodes,
                horizon=revision.learner.spec.horizon,
                seed=need.resident.seed,
                step=need.counters[0],
                phase=need.counters[1],
                evaluation=need.evaluation,
                greedy=need.greedy,
                supervision=revision.learner.spec.supervision,
                query=need.evaluation,
                memory=memory.row_of(need.state) if remembers else {},
            )
        )
        self._dispatch()

    def cancel(self, key: int) -> None:
        """Forget a key's orders; their slots are free at once."""
        for ticket in [ticket for ticket, owner in self._keys.items() if owner == key]:
            del self._keys[ticket]
            self._pool.cancel(ticket)
        self._waiting = deque(order for order in self._waiting if order.key in self._keys)

    def poll(self, device: torch.device) -> Iterator[tuple[int, Rollout | InnerloopError, float]]:
        """(key, outcome, seconds of computing) of what has come back."""
        for answer in self._pool.poll():
            key = self._keys.pop(answer.key, None)
            if key is None:
                continue
            if isinstance(answer, EpisodesFailure):
                yield key, _error(answer), 0.0
            else:
                returns = torch.from_numpy(answer.returns).to(device)[None]
                state = memory.rows_to_device(answer.memory, device) if answer.memory else None
                yield key, Rollout(kernels.upload(answer.experience, device), returns, state), answer.seconds
        self._dispatch()

    def occupancy(self) -> tuple[int, int, int]:
        """(slots in use, slots in all, actors restarted so far)."""
        statistics = self._pool.statistics()
        return sum(statistics.slots_used), sum(statistics.slots_total), statistics.restarts

    def close(self) -> None:
        """Stop the actors. Idempotent."""
        self._pool.close()

    def _dispatch(self) -> None:
        while self._waiting:
            try:
                self._pool.submit(self._waiting[0])
            except Exhausted:
                return
            self._waiting.popleft()


def _error(failure: EpisodesFailure) -> InnerloopError:
    if failure.retryable:
        return Unavailable(failure.message)
    return InnerloopError(failure.message, reason="ENVIRONMENT_FAILED")

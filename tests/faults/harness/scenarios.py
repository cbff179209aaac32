"""Which sessions are killed where.

A scenario is one session, killed at one point after the other, each time with the server that took it over; so that
its last policy has survived them all. The count of a point starts anew with each server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.clients import Client, Owner, Simulated
from innerloop.v1 import task_pb2


@dataclass(frozen=True)
class Scenario:
    """One session and its deaths."""

    name: str
    client: Callable[[str], Client]
    """Makes a client, given its name."""
    points: tuple[str, ...]
    actors: int = 0


def _batch(name: str) -> Client:
    return Simulated(name, steps=5)


def _bounded(name: str) -> Client:
    """Guarded, and bounded by 100 episodes: 40 in the first step, 20 in each of the next three."""
    return Simulated(name, steps=9, episodes_per_step=20, guard=True, episodes=100)


def _actors(name: str) -> Client:
    return Simulated(name, steps=4, simulator=task_pb2.SIMULATOR_ACTORS, episodes_per_step=3)


def _rows(name: str) -> Client:
    return Owner(name, steps=3)


def _rows_automatic(name: str) -> Client:
    return Owner(name, steps=3, automatic=True)


def _experience(name: str) -> Client:
    return Owner(name, steps=3, experience=True)


QUICK = (
    Scenario("simulated", _batch, ("answer.before:2", "journal.after:2")),
    Scenario("client-owned", _rows, ("observe:9", "journal.before:1")),
)
"""Run every time."""

THOROUGH = (
    Scenario("simulated again", _batch, ("open.after:1", "journal.before:1", "answer.after:3", "finish.before:1")),
    Scenario("simulated bounded by episodes", _bounded, ("step.computed:2", "journal.after:1", "finish.after:1")),
    Scenario("simulated by actors", _actors, ("step.computed:1", "answer.after:2"), actors=1),
    Scenario("client-owned again", _rows, ("acted:4", "adapt.before:1", "adapt.after:1", "answer.before:18")),
    Scenario("client-owned automatic", _rows_automatic, ("journal.after:1", "finish.after:1")),
    Scenario("client-owned whole episodes", _experience, ("experience:2",)),
)
"""Run with ``--slow``; together with ``QUICK`` they are the twenty."""

"""Programs that hold a session's conversation: watch it, drive it with an environment, come back when the stream is
lost. They emit :class:`Opened` (once for each stream), :class:`Step` and :class:`Adapted`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from innerloop._core import learners
from innerloop._core.backoff import Backoff
from innerloop._core.codec import array_to_pb
from innerloop._core.commands import Emit, Program, Receive, Send, Sleep, Start, Stop, Work
from innerloop._core.environments import Report, Rows, rows_of
from innerloop._core.episodes import Episode, check_local, chunks, collect
from innerloop._core.options import MESSAGE_BYTES
from innerloop._core.protocol import Accepted, Actions, Alive, Event, SessionProtocol
from innerloop._core.sessions import ADAPT
from innerloop.arrays import Array, Box, Discrete, Space
from innerloop.errors import Exhausted, ProtocolError, SpaceMismatch, Unavailable
from innerloop.policy import Policy
from innerloop.types import Adapted, Learner, Opened, Step
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import array_pb2

E = TypeVar("E")

FIRST_PATIENCE = 1.0
"""Seconds of trying before a server that has never answered is said to be away."""
EXPERIENCE_BYTES = MESSAGE_BYTES * 3 // 4
"""Arrays of one ``experience``; the rest of the message cap is for everything around them."""


@dataclass(frozen=True)
class Manners:
    """How a session behaves when things go wrong."""

    patience: float
    """Seconds of trying to come back after a lost stream."""
    wait: bool
    """When the server is full, wait as it says instead of raising."""


def hold(protocol: SessionProtocol, talk: Callable[[], Program[None]], manners: Manners) -> Program[Adapted]:
    """Hold a session's conversation to its end, over as many streams as it takes.

    Args:
        protocol: the session.
        talk: what to say on one stream once it is open. Run anew on each stream.
        manners: how long to try.

    Raises:
        Unavailable: the server stayed away for longer than patience.
        Exhausted: the server is full, and the caller does not want to wait or there is nothing to wait for.
    """
    backoff = Backoff(FIRST_PATIENCE if not protocol.session else manners.patience)
    reached = (-1, -1)
    while protocol.adapted is None:
        try:
            yield Start(ADAPT, protocol.first())
            yield from reply(protocol, Opened)
            if protocol.progress > reached:  # a server that only opens again and again is away all the same
                backoff = Backoff(manners.patience)
                reached = protocol.progress
            yield from talk()
        except Unavailable as error:
            if protocol.session:
                error.facts.setdefault("session", protocol.session)
            yield Stop()
            yield Sleep(backoff.pause(error))
        except Exhausted as error:
            if not manners.wait or error.retry_after_seconds is None:
                raise
            yield Stop()
            yield Sleep(error.retry_after_seconds)
    yield Stop()
    return protocol.adapted


def watch(protocol: SessionProtocol) -> Program[None]:
    """A simulated session: nothing to say."""
    while not protocol.ended:
        yield from receive(protocol)


def observe(protocol: SessionProtocol, rows: Rows) -> Program[None]:
    """A client-owned session whose actions come from the server."""
    if _opened(protocol).episodes_per_step == 0:
        raise ProtocolError("this session adapts on `advance` alone: drive it through the contract itself")
    report: Report = yield Work(rows.start)
    step = protocol.last_step
    while not protocol.ended:
        yield Send(protocol.number(observe_to_pb(step, report)))
        actions = yield from reply(protocol, Actions)
        if actions is None:
            return
        if actions.rows != tuple(report.rows.tolist()):
            raise ProtocolError(f"actions came for rows {actions.rows}, asked were {report.rows.tolist()}")
        step = actions.step
        report = yield Work(_stepping(rows, report.rows, actions.actions))


def experience(protocol: SessionProtocol, rows: Rows, rng: np.random.Generator) -> Program[None]:
    """A client-owned session that acts by itself with the policy that each step carries."""
    while not protocol.ended:
        if protocol.spent:  # do not run episodes that nobody will learn from
            yield from watch(protocol)
            return
        opened = _opened(protocol)
        if protocol.policy is None or opened.episodes_per_step == 0:
            raise ProtocolError("this session was not opened for acting locally: it sends no policies")
        step = protocol.last_step
        episodes: list[Episode] = yield Work(_collecting(rows, protocol.policy, opened.episodes_per_step, rng))
        for chunk in chunks(episodes, EXPERIENCE_BYTES):
            yield Send(protocol.number(experience_to_pb(step, chunk)))
            answer = yield from reply(protocol, (Accepted, Step))
            if answer is None or isinstance(answer, Step):
                break  # episodes that are left are of a state that is gone


def talk_with(protocol: SessionProtocol, rows: Rows, *, local: bool, seed: int | None) -> Callable[[], Program[None]]:
    """How to drive a client-owned session: with actions from the server, or acting locally."""
    if not local:
        return lambda: observe(protocol, rows)
    rng = np.random.default_rng(seed)
    return lambda: experience(protocol, rows, rng)


def talk_later(
    protocol: SessionProtocol, env: Any, *, local: bool, continuing: bool, segment: int
) -> Callable[[], Program[None]]:
    """How to go on with a session that somebody else opened: what it is for is known once it is open."""
    if env is None:
        return lambda: watch(protocol)
    talk: Callable[[], Program[None]] | None = None

    def begin() -> Program[None]:
        nonlocal talk
        if talk is None:
            opened = _opened(protocol)
            rows = rows_of(
                env, opened.observation_space, opened.action_space, seed=None, continuing=continuing, segment=segment
            )
            if local and protocol.policy is not None and protocol.policy.header.remembers:
                check_local(env)
            talk = talk_with(protocol, rows, local=local, seed=None)
        yield from talk()

    return begin


def receive(protocol: SessionProtocol) -> Program[Event]:
    """The next message that is news; what the caller should see is emitted on the way.

    Raises:
        Unavailable: the stream ended before the session did.
    """
    while True:
        if protocol.finish_wanted and protocol.is_open and not protocol.waiting:
            yield Send(protocol.number(pb.Finish()))
        response = yield Receive()
        if response is None:
            raise Unavailable("the stream ended before the session did")
        event = protocol.receive(response)
        if event is None or isinstance(event, Alive):
            continue
        if isinstance(event, Opened | Step | Adapted):
            yield Emit(event)
        return event


def reply(protocol: SessionProtocol, kind: type[E] | tuple[type[E], ...]) -> Program[E | None]:
    """Read until a message of ``kind`` has come; ``None`` when the session ended instead."""
    while not protocol.ended:
        event = yield from receive(protocol)
        if isinstance(event, kind):
            return cast(E, event)
    return None


def fit(
    env_spaces: tuple[Space | str | None, Space | str | None], learner: str
) -> Program[tuple[str, Learner, Space, Space]]:
    """Check that an environment is what a learner was made for.

    Returns:
        (the learner's or revision's resource name, the learner, observation space, action space). Spaces that the
        environment does not name are the learner's.

    Raises:
        SpaceMismatch: it is not; names both and the learners that would fit.
    """
    name, bound = yield from learners.resolve(learner)
    theirs = tuple(own if own is not None else of for own, of in zip(env_spaces, _spaces(bound), strict=True))
    if _same(theirs, bound):
        return name, bound, cast(Space, theirs[0]), cast(Space, theirs[1])
    everyone = yield from learners.learners("")
    fitting = [other.name for other in everyone if _same(theirs, other)]
    environment, wanted = f"{theirs[0]} -> {theirs[1]}", f"{bound.observation_space} -> {bound.action_space}"
    advice = f"these learners would fit: {', '.join(fitting)}" if fitting else "no learner here would fit"
    raise SpaceMismatch(
        f"the environment is {environment}, {bound.name} is for {wanted}; {advice}",
        environment=environment,
        learner=wanted,
        fitting=fitting,
    )


def observe_to_pb(step: int, report: Report) -> pb.Observe:
    """A report of rows as a message. Arrays that say nothing are left out."""
    message = pb.Observe(step=step, row_ids=report.rows.tolist(), observations=array_to_pb(report.observations))
    if report.acted:
        message.rewards.CopyFrom(array_to_pb(report.rewards))
    if report.terminated.any():
        message.terminated.CopyFrom(array_to_pb(report.terminated))
    if report.truncated.any():
        message.truncated.CopyFrom(array_to_pb(report.truncated))
        message.final_observations.CopyFrom(array_to_pb(report.final_observations))
    return message


def experience_to_pb(step: int, episodes: list[Episode]) -> pb.Experience:
    """Episodes as a message, padded with zeros to the longest."""
    longest = max(len(e.rewards) for e in episodes)

    def padded(arrays: list[Array]) -> array_pb2.Array:
        block = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
        for i, array in enumerate(arrays):
            block[i, : len(array)] = array
        return array_to_pb(block)

    terminated = np.array([e.terminated for e in episodes])
    return pb.Experience(
        step=step,
        observations=padded([e.observations for e in episodes]),
        raw_actions=padded([e.raw_actions for e in episodes]),
        rewards=padded([e.rewards for e in episodes]),
        log_probs=padded([e.log_probs for e in episodes]),
        lengths=array_to_pb(np.array([len(e.rewards) for e in episodes], np.int64)),
        terminated=array_to_pb(terminated),
        truncated=array_to_pb(~terminated),
        final_observations=array_to_pb(np.stack([e.final_observation for e in episodes])),
    )


def _stepping(rows: Rows, ids: Array, actions: Array) -> Callable[[], Report]:
    return lambda: rows.step(ids, actions)


def _collecting(rows: Rows, policy: Policy, count: int, rng: np.random.Generator) -> Callable[[], list[Episode]]:
    return lambda: collect(rows, policy, count, rng)


def _opened(protocol: SessionProtocol) -> Opened:
    if protocol.opened is None:
        raise ProtocolError("the session is not open")
    return protocol.opened


def _spaces(learner: Learner) -> tuple[Space, Space]:
    return learner.observation_space, learner.action_space


def _same(theirs: tuple[Any, ...], learner: Learner) -> bool:
    """Same kinds and shapes; bounds may differ, as the contract allows."""
    return all(_alike(own, of) for own, of in zip(theirs, _spaces(learner), strict=True))


def _alike(one: Any, other: Space) -> bool:
    if isinstance(one, Discrete) and isinstance(other, Discrete):
        return one.n == other.n
    return isinstance(one, Box) and isinstance(other, Box) and one.shape == other.shape

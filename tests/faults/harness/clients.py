"""Clients that speak the grammar of ``Adapt`` over the generated stubs, message by message, and that come back.

A client runs until its session has ended or its server is gone (:class:`Lost`); run again on the next server, it goes
on as the contract says: the same ``request_id`` where it was never told of a session, else ``resume``; the unanswered
message again where the server has taken it in, else the episodes since the last durable step.

What was acknowledged is asserted at every return: ``resume`` asks for all steps, and each must have the number and the
state hash that it had.
"""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from harness.drift import ACTIONS, OBSERVATIONS, Drift
from harness.learners import FAMILY, LEARNER
from innerloop.policy import Policy
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import adaptation_pb2_grpc, array_pb2, policy_pb2, policy_pb2_grpc, task_pb2
from innerloop_server.service.convert.arrays import array_from_pb, array_to_pb
from innerloop_server.service.convert.spaces import space_to_pb

CALL_SECONDS = 60.0
ROWS = (7, 3)
WAVES = 2
"""Times that all rows run an episode before an adaptation step."""
SEED = 20_240


class Lost(Exception):
    """The server is gone."""


class Over(Exception):
    """The session has ended, with its policy."""


@dataclass(frozen=True)
class Interruption:
    """Something that happens while a client listens."""

    after: int
    """How many replies it has by then."""
    happens: Callable[[Conversation], None]
    """May raise :class:`Lost`, so that the client gives up at once."""


class Conversation:
    """One stream."""

    def __init__(
        self,
        channel: grpc.Channel,
        first: pb.AdaptRequest,
        interruption: Interruption | None = None,
        seconds: float = CALL_SECONDS,
    ) -> None:
        self._requests: queue.SimpleQueue[pb.AdaptRequest | None] = queue.SimpleQueue()
        self._requests.put(first)
        self._interruption = interruption
        self._heard = 0
        self._ends = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        if seconds < CALL_SECONDS:
            self._ends.add(grpc.StatusCode.DEADLINE_EXCEEDED)
        stub = adaptation_pb2_grpc.AdaptationServiceStub(channel)
        self.channel = channel
        self._replies = stub.Adapt(iter(self._requests.get, None), timeout=seconds)

    def send(self, message: pb.AdaptRequest) -> None:
        self._requests.put(message)

    def receive(self) -> pb.AdaptResponse:
        """The next reply; heartbeats are passed over.

        Raises:
            Lost: the server is gone, or the time is over.
        """
        while True:
            if self._interruption is not None and self._heard == self._interruption.after:
                self._interruption.happens(self)
            try:
                reply: pb.AdaptResponse = next(self._replies)
            except grpc.RpcError as error:
                if error.code() not in self._ends:
                    raise
                raise Lost from error
            if reply.WhichOneof("message") != "heartbeat":
                self._heard += 1
                return reply

    def cancel(self) -> None:
        """End the call, and let go of the thread that sends."""
        self._requests.put(None)
        self._replies.cancel()


@dataclass
class Client:
    """What every client keeps about its session."""

    name: str
    """Also its ``request_id``."""
    steps: int
    session: str = ""
    acknowledged: dict[int, str] = field(default_factory=dict)
    """Step -> state hash."""
    found: int | None = None
    """The durable step that the last :meth:`run` was told of first; ``None``: it was told nothing."""
    next_sequence: int = 0
    """What it was told of its next message then."""
    complete: int = 0
    """Complete episodes that the server still had."""
    known: int = 0
    """Steps that were acknowledged before that."""
    talk: Conversation | None = None
    """The last stream."""
    policy: str = ""
    """SHA-256 of the finished policy's file."""

    def run(self, address: str, interruption: Interruption | None = None, seconds: float = CALL_SECONDS) -> None:
        """Go on until the session has ended.

        Args:
            address: of the server.
            interruption: something to happen on the way.
            seconds: deadline of the stream.

        Raises:
            Lost: the server is gone, or the deadline has passed.
        """
        with grpc.insecure_channel(address) as channel:
            self.run_on(channel, interruption, seconds)

    def run_on(
        self, channel: grpc.Channel, interruption: Interruption | None = None, seconds: float = CALL_SECONDS
    ) -> None:
        """As :meth:`run`, over a channel that there is."""
        self.found = None
        talk = self.talk = Conversation(channel, self._first(), interruption, seconds)
        try:
            opened = talk.receive().opened
            self.known = len(self.acknowledged)
            assert opened.step >= self.known, "an acknowledged step is gone"
            self.session, self.found = opened.session, opened.step
            self.next_sequence, self.complete = opened.next_sequence, opened.episodes_pending
            for number in range(1, opened.step + 1):
                self._acknowledge(talk.receive().step, number)
            self.converse(talk, opened)
        except Over:
            self.policy = _download(channel, self.policy)
        finally:
            talk.cancel()

    def converse(self, talk: Conversation, opened: pb.Opened) -> None:
        """Lead the conversation from ``opened`` on, until ``Over``."""
        raise NotImplementedError

    def opening(self) -> pb.Open:
        """How the session is opened."""
        raise NotImplementedError

    def expect(self, talk: Conversation, kind: str) -> Any:
        """The next reply, which must be of this kind unless it is the end of the session."""
        return self.taken(talk.receive(), kind)

    def taken(self, reply: pb.AdaptResponse, kind: str) -> Any:
        """What a reply says."""
        got = reply.WhichOneof("message")
        if got == "adapted":
            assert reply.adapted.step == len(self.acknowledged)
            self.policy = reply.adapted.policy.name
            raise Over
        assert got == kind
        return getattr(reply, kind)

    def _first(self) -> pb.AdaptRequest:
        if self.session:
            return pb.AdaptRequest(sequence=0, resume=pb.Resume(session=self.session, last_step=0))
        return pb.AdaptRequest(sequence=1, open=self.opening())

    def _open(self, **changes: Any) -> pb.Open:
        return pb.Open(request_id=self.name, learner=f"learners/{LEARNER}", seed=SEED, **changes)

    def _acknowledge(self, step: pb.Step, number: int) -> None:
        assert step.number == number
        assert self.acknowledged.setdefault(number, step.state_hash) == step.state_hash


@dataclass
class Simulated(Client):
    """Watches a session whose episodes the server runs."""

    simulator: task_pb2.Simulator.ValueType = task_pb2.SIMULATOR_BATCH
    episodes_per_step: int = 4
    guard: bool = False
    episodes: int | None = None
    """Bounds the session by its episodes too."""

    def opening(self) -> pb.Open:
        return self._open(
            task=task_pb2.Task(name=f"families/{FAMILY}/tasks/test-5-0"),
            simulator=self.simulator,
            budget=pb.Budget(steps=self.steps, episodes=self.episodes),
            episodes_per_step=self.episodes_per_step,
            guard=self.guard,
        )

    def converse(self, talk: Conversation, opened: pb.Opened) -> None:
        number = opened.step
        while True:
            number += 1
            self._acknowledge(self.expect(talk, "step"), number)


@dataclass
class Owner(Client):
    """Steps its own environments: reports rows (``observe``) or acts by itself and reports whole ``experience``."""

    experience: bool = False
    automatic: bool = False
    """The server adapts when enough episodes are complete, and ends the session by its budget; else the client says
    ``advance`` and ``finish``."""
    sequence: int = 0
    unheard: pb.AdaptRequest | None = None
    """The last message."""
    repeated: int = 0
    """Number of the message that was sent again, whose further replies say nothing new."""

    def opening(self) -> pb.Open:
        return self._open(
            client_environment=pb.ClientEnvironment(
                observation_space=space_to_pb(OBSERVATIONS), action_space=space_to_pb(ACTIONS)
            ),
            budget=pb.Budget(steps=self.steps if self.automatic else None),
            episodes_per_step=WAVES * len(ROWS) if self.automatic else 0,
            policy_in_steps=self.experience,
        )

    def converse(self, talk: Conversation, opened: pb.Opened) -> None:
        self._repeat(talk, opened)
        self.sequence = opened.next_sequence - 1
        policy = Policy.from_bytes(opened.policy_file) if opened.policy_file else None
        complete = opened.episodes_pending
        for number in range(opened.step, self.steps):
            asked = self._sample(talk, number, complete, policy)
            step = self.expect(talk, "step")
            self._acknowledge(step, number + 1)
            if not asked and not self.experience and number + 1 < self.steps:
                assert self.expect(talk, "accepted").episodes_pending == 0
            policy = Policy.from_bytes(step.policy_file) if step.policy_file else None
            complete = 0
        if not self.automatic:
            self._say(talk, finish=pb.Finish())
        self.expect(talk, "adapted")

    def expect(self, talk: Conversation, kind: str) -> Any:
        """As for every client; what else a repeated message is answered is passed over."""
        while True:
            reply = talk.receive()
            if not self.repeated or reply.sequence != self.repeated:
                return self.taken(reply, kind)

    def _repeat(self, talk: Conversation, opened: pb.Opened) -> None:
        """Send again what caused a step unheard: nothing must happen twice."""
        message, self.repeated = self.unheard, 0
        if message is not None and opened.step > self.known and message.sequence < opened.next_sequence:
            talk.send(message)
            step = self.expect(talk, "step")
            assert (step.number, step.state_hash) == (opened.step, self.acknowledged[opened.step])
            self.repeated = message.sequence

    def _sample(self, talk: Conversation, number: int, complete: int, policy: Policy | None) -> bool:
        """Report the episodes that are missing for step ``number + 1``, and see to it that it is taken.

        Returns:
            Whether it took an ``advance``: always, unless the server adapts by itself and did not have them all.
        """
        ask = not self.automatic or complete == WAVES * len(ROWS)
        for first in range(complete, WAVES * len(ROWS), len(ROWS)):
            run = Drift(number, tuple(range(first, first + len(ROWS))))
            if policy is None:
                self._observe(talk, number, run)
            else:
                self._report(talk, number, run, policy, np.random.default_rng((number, first)))
            complete += len(ROWS)
            if not self.automatic or complete < WAVES * len(ROWS):
                assert self.expect(talk, "accepted").episodes_pending == complete
        if ask:
            self._say(talk, advance=pb.Advance())
        return ask

    def _say(self, talk: Conversation, **message: Any) -> None:
        self.sequence += 1
        self.unheard = pb.AdaptRequest(sequence=self.sequence, **message)
        talk.send(self.unheard)

    def _observe(self, talk: Conversation, number: int, run: Drift) -> None:
        """One episode in each row, action by action; the last message reports alone."""
        self._say(talk, observe=pb.Observe(step=number, row_ids=ROWS, observations=array_to_pb(run.observations)))
        ended = False
        while not ended:
            rewards, ended = run.move(_actions(self.expect(talk, "actions").output.actions))
            report = pb.Observe(
                step=number,
                row_ids=ROWS,
                observations=array_to_pb(run.observations),
                rewards=array_to_pb(rewards),
                terminated=array_to_pb(np.full(len(ROWS), ended)),
                report_only=ended,
            )
            self._say(talk, observe=report)

    def _report(self, talk: Conversation, number: int, run: Drift, policy: Policy, rng: np.random.Generator) -> None:
        """One episode in each row by the policy that came with the last step, reported as a whole."""
        seen, raw, rewards, log_probs = [], [], [], []
        ended = False
        while not ended:
            seen.append(run.observations)
            decision = policy.decide(run.observations, rng=rng)
            reward, ended = run.move(decision.environment)
            raw.append(decision.raw)
            rewards.append(reward)
            log_probs.append(decision.log_prob)
        whole = pb.Experience(
            step=number,
            observations=array_to_pb(np.stack(seen, 1)),
            raw_actions=array_to_pb(np.stack(raw, 1).astype(np.float32)),
            rewards=array_to_pb(np.stack(rewards, 1)),
            log_probs=array_to_pb(np.stack(log_probs, 1).astype(np.float32)),
        )
        self._say(talk, experience=whole)


def _actions(message: array_pb2.Array) -> Any:
    return array_from_pb(message, "actions", shape=(len(ROWS), 2))


def _download(channel: grpc.Channel, name: str) -> str:
    digest = hashlib.sha256()
    stub = policy_pb2_grpc.PolicyServiceStub(channel)
    for part in stub.DownloadPolicy(policy_pb2.DownloadPolicyRequest(name=name), timeout=CALL_SECONDS):
        digest.update(part.chunk)
    return digest.hexdigest()


@contextmanager
def lost() -> Iterator[None]:
    """Asserts that the server goes away inside the block."""
    try:
        yield
    except Lost:
        return
    raise AssertionError("the session went on to its end; nothing was lost")

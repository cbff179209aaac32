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
from collections.abc import Iterator
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


class Conversation:
    """One stream."""

    def __init__(self, channel: grpc.Channel, first: pb.AdaptRequest) -> None:
        self._requests: queue.SimpleQueue[pb.AdaptRequest | None] = queue.SimpleQueue()
        self._requests.put(first)
        stub = adaptation_pb2_grpc.AdaptationServiceStub(channel)
        self._replies = stub.Adapt(iter(self._requests.get, None), timeout=CALL_SECONDS)

    def send(self, message: pb.AdaptRequest) -> None:
        self._requests.put(message)

    def receive(self) -> pb.AdaptResponse:
        while True:
            try:
                reply: pb.AdaptResponse = next(self._replies)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                raise Lost from error
            if reply.WhichOneof("message") != "heartbeat":
                return reply

    def close(self) -> None:
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
    policy: str = ""
    """SHA-256 of the finished policy's file."""

    def run(self, address: str) -> None:
        """Go on until the session has ended.

        Raises:
            Lost: the server is gone.
        """
        self.found = None
        with grpc.insecure_channel(address) as channel:
            talk = Conversation(channel, self._first())
            try:
                opened = talk.receive().opened
                assert opened.session
                assert self.session in ("", opened.session)
                assert opened.step >= len(self.acknowledged), "an acknowledged step is gone"
                self.session, self.found = opened.session, opened.step
                for number in range(1, opened.step + 1):
                    self._acknowledge(talk.receive().step, number)
                self.converse(talk, opened)
            except Over:
                self.policy = _download(channel, self.policy)
            finally:
                talk.close()

    def converse(self, talk: Conversation, opened: pb.Opened) -> None:
        """Lead the conversation from ``opened`` on, until ``Over``."""
        raise NotImplementedError

    def opening(self) -> pb.Open:
        """How the session is opened."""
        raise NotImplementedError

    def expect(self, talk: Conversation, kind: str) -> Any:
        """The next reply, which must be of this kind unless it is the end of the session."""
        reply = talk.receive()
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
    unanswered: pb.AdaptRequest | None = None
    sequence: int = 0

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
        assert opened.episodes_pending == 0
        policy = Policy.from_bytes(opened.policy_file) if self.experience else None
        for number in range(opened.step, self.steps):
            for wave in range(WAVES):
                episodes = tuple(wave * len(ROWS) + i for i in range(len(ROWS)))
                run = Drift(number, episodes)
                if policy is None:
                    self._observe(talk, number, run)
                else:
                    self._report(talk, number, run, policy)
                if not self.automatic or wave < WAVES - 1:
                    assert self.expect(talk, "accepted").episodes_pending == (wave + 1) * len(ROWS)
            if not self.automatic:
                self._say(talk, advance=pb.Advance())
            step = self.expect(talk, "step")
            self._acknowledge(step, number + 1)
            if self.automatic and not self.experience and number + 1 < self.steps:
                assert self.expect(talk, "accepted").episodes_pending == 0
            policy = Policy.from_bytes(step.policy_file) if self.experience else None
        if not self.automatic:
            self._say(talk, finish=pb.Finish())
        self.expect(talk, "adapted")

    def _repeat(self, talk: Conversation, opened: pb.Opened) -> None:
        """Send again what was not answered, if the server says that it has taken it in: nothing must happen twice."""
        message = self.unanswered
        if message is not None and message.sequence < opened.next_sequence:
            talk.send(message)
            step = self.expect(talk, "step")
            assert (step.number, step.state_hash) == (opened.step, self.acknowledged[opened.step])

    def _say(self, talk: Conversation, **message: Any) -> None:
        self.sequence += 1
        self.unanswered = pb.AdaptRequest(sequence=self.sequence, **message)
        talk.send(self.unanswered)

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

    def _report(self, talk: Conversation, number: int, run: Drift, policy: Policy) -> None:
        """One episode in each row by the policy that came with the last step, reported as a whole."""
        rng = np.random.default_rng((number, len(ROWS)))
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

"""A conformance-grade fake of ``Adapt``: it checks the grammar of the contract as it answers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fake_answers import SPEAKS, Refusal, learner_message, policy_bytes, policy_message, task_message

from innerloop._core.codec import array_from_pb, array_to_pb
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import policy_pb2, task_pb2


@dataclass
class Faults:
    """What goes wrong on purpose."""

    cut_after: list[int] = field(default_factory=list)
    """For each stream in turn: UNAVAILABLE after so many responses."""
    forget: bool = False
    """A cut is a kill: episodes that were not adapted on are gone, and so are their sequence numbers."""
    twice: bool = False
    """Every reply is sent twice."""
    full: int = 0
    """So many streams are refused with RESOURCE_EXHAUSTED and a hint."""
    hang: bool = False
    """Simulated sessions stop after their first step until they are cancelled."""


@dataclass
class FakeSession:
    """One session, as the server remembers it."""

    name: str
    open: pb.Open
    step: int = 0
    next_sequence: int = 2
    durable_sequence: int = 1
    pending: int = 0
    steps: list[pb.Step] = field(default_factory=list)
    replies: dict[int, list[pb.AdaptResponse]] = field(default_factory=dict)
    adapted: pb.Adapted | None = None
    cancelled: bool = False
    applied: list[int] = field(default_factory=list)
    """Every sequence number that had an effect."""
    returns: list[float] = field(default_factory=list)
    """Returns of all complete episodes."""
    truncations: list[np.ndarray] = field(default_factory=list)
    """Final observations of truncated episodes."""
    terminations: int = 0
    answers: list[float] = field(default_factory=list)
    """Labels of all examples that were adapted on, once for each step."""


class FakeAdaptation:
    """All sessions of a fake server."""

    def __init__(self) -> None:
        self.sessions: dict[str, FakeSession] = {}
        self.violations: list[str] = []
        self.faults = Faults()
        self.streams = 0
        self.live = 0
        self.emptied = threading.Condition()

    def adapt(self, requests: Iterator[pb.AdaptRequest], context: Any) -> Iterator[pb.AdaptResponse]:
        """The rpc."""
        stream, self.streams = self.streams, self.streams + 1
        limit = self.faults.cut_after[stream] if stream < len(self.faults.cut_after) else None
        if self.faults.full > 0:
            self.faults.full -= 1
            raise Refusal("RESOURCE_EXHAUSTED", "STREAMS", "all streams are taken", retry_after=0.01)
        with self.emptied:
            self.live += 1
        session: FakeSession | None = None
        try:
            for sent, (session, response) in enumerate(self._converse(requests, context), start=1):
                for _ in range(2 if self.faults.twice else 1):
                    yield response
                if limit is not None and sent >= limit and session.adapted is None:
                    if self.faults.forget:
                        session.pending, session.next_sequence = 0, session.durable_sequence + 1
                    raise Refusal("UNAVAILABLE", "UNAVAILABLE", "cut on purpose")
        finally:
            with self.emptied:
                self.live -= 1
                self.emptied.notify_all()

    def _converse(
        self, requests: Iterator[pb.AdaptRequest], context: Any
    ) -> Iterator[tuple[FakeSession, pb.AdaptResponse]]:
        session, last_step = self._begin(next(requests))
        yield session, self._opened(session)
        for step in session.steps[last_step:]:
            yield session, pb.AdaptResponse(step=step)
        if session.adapted is not None:
            yield session, pb.AdaptResponse(adapted=session.adapted)
            return
        if session.open.HasField("task"):
            for response in self._simulate(session, requests, context):
                yield session, response
            return
        rows: dict[int, float] = {}
        for request in requests:
            for response in self._answer(session, request, rows):
                yield session, response
            if session.adapted is not None:
                return

    def _begin(self, request: pb.AdaptRequest) -> tuple[FakeSession, int]:
        kind = request.WhichOneof("message")
        if kind == "resume":
            self._expect(request.sequence == 0, f"resume carries sequence {request.sequence}")
            self._expect(request.resume.client_version != "", "resume without client_version")
            session = self.sessions.get(request.resume.session)
            if session is None or session.cancelled:
                raise Refusal("NOT_FOUND", "NOT_FOUND", "no such session", facts={"name": request.resume.session})
            return session, request.resume.last_step
        self._expect(kind == "open" and request.sequence == 1, f"a stream began with {kind} {request.sequence}")
        message = request.open
        self._expect(message.client_version != "", "open without client_version")
        self._expect(message.request_id != "", "open without request_id")
        if message.client_version == "0.0.0":
            raise Refusal("FAILED_PRECONDITION", "VERSION_SKEW", f"this server speaks {SPEAKS}")
        if message.budget.HasField("steps") and message.budget.steps < 1:
            raise Refusal(
                "INVALID_ARGUMENT",
                "INVALID_FIELD",
                "open.budget.steps: at least 1",
                violations=[("open.budget.steps", "at least 1")],
            )
        for session in self.sessions.values():
            if session.open.request_id == message.request_id:
                return session, 0
        learner_message(message.learner.split("/revisions/")[0])
        session = FakeSession(f"sessions/s{len(self.sessions)}", message)
        self.sessions[session.name] = session
        return session, 0

    def _opened(self, session: FakeSession) -> pb.AdaptResponse:
        learner = learner_message(session.open.learner.split("/revisions/")[0])
        opened = pb.Opened(
            session=session.name,
            revision=learner.champion,
            observation_space=learner.observation_space,
            action_space=learner.action_space,
            seed=session.open.seed,
            simulator=task_pb2.SIMULATOR_BATCH if session.open.HasField("task") else 0,
            episodes_per_step=session.open.episodes_per_step or learner.episodes_per_step,
            step=session.step,
            next_sequence=session.next_sequence,
            episodes_pending=session.pending,
            server_version=SPEAKS,
            policy_file=policy_bytes(learner.name, session.step) if session.open.policy_in_steps else b"",
        )
        if session.open.HasField("task"):
            opened.task.CopyFrom(task_message(session.open.task))
        return pb.AdaptResponse(sequence=0 if session.step else 1, opened=opened)

    def _simulate(
        self, session: FakeSession, requests: Iterator[pb.AdaptRequest], context: Any
    ) -> Iterator[pb.AdaptResponse]:
        finish: list[pb.AdaptRequest] = []
        heard = threading.Event()

        def listen() -> None:
            with suppress(Exception):  # the stream was cancelled: grpc's iterator says so by raising
                for request in requests:
                    finish.append(request)
                    heard.set()

        context.add_callback(heard.set)  # a half-close is no reason to stop; the end of the call is
        threading.Thread(target=listen, daemon=True).start()
        while session.adapted is None:
            if session.step < session.open.budget.steps and not finish:
                yield pb.AdaptResponse(step=self._step(session, 0.0))
                yield pb.AdaptResponse(heartbeat=pb.Heartbeat())
                if self.faults.hang:
                    heard.wait(10)
                    if not finish:
                        return
                continue
            if finish:
                self._take_number(session, finish[0])
            reason = pb.END_REASON_FINISHED if finish else pb.END_REASON_BUDGET_STEPS
            yield self._end(session, reason, session.next_sequence - 1 if finish else 0)

    def _answer(
        self, session: FakeSession, request: pb.AdaptRequest, rows: dict[int, float]
    ) -> Iterator[pb.AdaptResponse]:
        kind = request.WhichOneof("message")
        if request.sequence < session.next_sequence:
            yield from session.replies.get(request.sequence, [])
            return
        self._take_number(session, request)
        replies: list[pb.AdaptResponse] = []
        if kind == "observe":
            replies = self._observe(session, request, rows)
        elif kind == "experience":
            replies = self._experience(session, request)
        elif kind == "advance":
            if session.pending == 0:
                raise Refusal("FAILED_PRECONDITION", "NO_EPISODES", "no episode is complete")
            replies = self._advance(session, request.sequence)
        elif kind == "finish":
            replies = [self._end(session, pb.END_REASON_FINISHED, request.sequence)]
        else:
            self._expect(False, f"{kind} came in the middle of a stream")
        session.replies[request.sequence] = replies
        yield from replies

    def _take_number(self, session: FakeSession, request: pb.AdaptRequest) -> None:
        expected = session.next_sequence
        if request.sequence != expected:
            self._expect(False, f"sequence {request.sequence} came, {expected} was expected")
            raise Refusal(
                "FAILED_PRECONDITION",
                "SEQUENCE_GAP",
                f"sequence {request.sequence} came, {expected} was expected; send {expected} next",
                facts={"got": str(request.sequence), "expected": str(expected)},
            )
        session.applied.append(request.sequence)
        session.next_sequence += 1

    def _observe(
        self, session: FakeSession, request: pb.AdaptRequest, rows: dict[int, float]
    ) -> list[pb.AdaptResponse]:
        message = request.observe
        self._fresh_enough(session, message.step)
        ids = list(message.row_ids)
        learner = learner_message(session.open.learner.split("/revisions/")[0])
        observations = array_from_pb(message.observations)
        self._expect(len(set(ids)) == len(ids) > 0, f"row ids {ids}")
        self._expect(len(observations) == len(ids), f"{len(observations)} observations for rows {ids}")
        rewards = array_from_pb(message.rewards) if message.HasField("rewards") else np.zeros(len(ids))
        none = np.zeros(len(ids), bool)
        terminated = array_from_pb(message.terminated) if message.HasField("terminated") else none
        truncated = array_from_pb(message.truncated) if message.HasField("truncated") else none
        self._expect(not (terminated & truncated).any(), "terminated and truncated at once")
        self._expect(not truncated.any() or message.HasField("final_observations"), "truncated without final")
        for i, row in enumerate(ids):
            if row not in rows:
                self._expect(not terminated[i] and not truncated[i], f"row {row} ended before it began")
                rows[row] = 0.0
                continue
            rows[row] += float(rewards[i])
            if terminated[i] or truncated[i]:
                session.pending += 1
                session.returns.append(rows[row])
                session.terminations += bool(terminated[i])
                if truncated[i]:
                    session.truncations.append(array_from_pb(message.final_observations)[i])
                rows[row] = 0.0
        replies = []
        if session.pending >= session.open.episodes_per_step > 0:
            replies = self._advance(session, request.sequence)
        if session.adapted is None:
            discrete = learner.action_space.WhichOneof("kind") == "discrete"
            shape = () if discrete else tuple(learner.action_space.box.shape)
            actions = np.full((len(ids), *shape), 1, np.int64 if discrete else np.float32)
            output = policy_pb2.PolicyOutput(
                actions=array_to_pb(actions),
                raw_actions=array_to_pb(actions),
                log_probs=array_to_pb(np.zeros(len(ids), np.float32)),
            )
            reply = pb.Actions(step=session.step, row_ids=ids, output=output)
            replies.append(pb.AdaptResponse(sequence=request.sequence, actions=reply))
        return replies

    def _experience(self, session: FakeSession, request: pb.AdaptRequest) -> list[pb.AdaptResponse]:
        message = request.experience
        if message.HasField("feedback"):
            return self._examples(session, request)
        self._fresh_enough(session, message.step)
        rewards, lengths = array_from_pb(message.rewards), array_from_pb(message.lengths)
        self._expect(array_from_pb(message.log_probs).shape == rewards.shape, "log_probs and rewards differ in shape")
        self._expect(array_from_pb(message.observations).shape[:2] == rewards.shape, "observations do not fit rewards")
        self._expect(bool((lengths >= 1).all() and lengths.max() == rewards.shape[1]), f"lengths {lengths}")
        session.returns.extend(float(r[:n].sum()) for r, n in zip(rewards, lengths, strict=True))
        session.pending += len(lengths)
        if session.pending >= session.open.episodes_per_step > 0:
            return self._advance(session, request.sequence)
        return [pb.AdaptResponse(sequence=request.sequence, accepted=pb.Accepted(episodes_pending=session.pending))]

    def _examples(self, session: FakeSession, request: pb.AdaptRequest) -> list[pb.AdaptResponse]:
        message = request.experience
        self._expect(0 <= message.step <= session.step, f"examples of step {message.step}")
        shown, answers = array_from_pb(message.observations), array_from_pb(message.feedback)
        self._expect(answers.shape == (len(shown), 1, 1), f"answers of shape {answers.shape}")
        self._expect(answers.dtype == np.float32, f"answers in {answers.dtype}")
        self._expect(shown.shape[1] == 1, f"examples of shape {shown.shape}")
        self._expect(not message.HasField("rewards"), "rewards beside answers")
        session.returns.extend(answers.ravel().tolist())
        session.answers.extend(answers.ravel().tolist())
        session.pending += len(answers)
        return [pb.AdaptResponse(sequence=request.sequence, accepted=pb.Accepted(episodes_pending=session.pending))]

    def _advance(self, session: FakeSession, sequence: int) -> list[pb.AdaptResponse]:
        mean = float(np.mean(session.returns[-session.pending :]))
        replies = [pb.AdaptResponse(sequence=sequence, step=self._step(session, mean))]
        session.pending, session.durable_sequence = 0, sequence
        if session.step == session.open.budget.steps:
            replies.append(self._end(session, pb.END_REASON_BUDGET_STEPS, sequence))
        return replies

    def _step(self, session: FakeSession, pre_return: float) -> pb.Step:
        session.step += 1
        digest = hashlib.sha256(f"{session.open.seed}:{session.step}".encode()).hexdigest()
        learner = session.open.learner.split("/revisions/")[0]
        step = pb.Step(
            number=session.step,
            state_hash=digest,
            pre_return=pre_return or float(session.step),
            post_return=float(session.step + 1) if session.open.HasField("task") else None,
            rate_scale=1.0,
            episodes=session.open.episodes_per_step,
            policy_file=policy_bytes(learner, session.step) if session.open.policy_in_steps else b"",
        )
        session.steps.append(step)
        return step

    def _end(self, session: FakeSession, reason: pb.EndReason, sequence: int) -> pb.AdaptResponse:
        learner = session.open.learner.split("/revisions/")[0]
        policy = policy_message(f"policies/{session.name.removeprefix('sessions/')}", learner, session.step)
        session.adapted = pb.Adapted(policy=policy, end_reason=reason, step=session.step)
        return pb.AdaptResponse(sequence=sequence, adapted=session.adapted)

    def _fresh_enough(self, session: FakeSession, step: int) -> None:
        if not session.step - 1 <= step <= session.step:
            self._expect(False, f"actions of step {step}, the session is at {session.step}")
            raise Refusal(
                "FAILED_PRECONDITION",
                "STALE_STEP",
                f"the actions came from step {step}, the session is at step {session.step}",
                facts={"got": str(step), "current": str(session.step)},
            )

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.violations.append(otherwise)

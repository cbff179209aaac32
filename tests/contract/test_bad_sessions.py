"""Every kind of bad message on an open session: the promised status, field and advice; the session outlives it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
import structlog.testing
from contract_support import adapting, array, call, dialled, serving, teach, told

from innerloop.v1 import adaptation_pb2, array_pb2
from innerloop_server.settings import Settings
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNMET = grpc.StatusCode.FAILED_PRECONDITION
SESSIONS = "innerloop.v1.AdaptationService"
OBSERVATION = np.zeros((1, 2), np.float32)

# What a session is opened with. A point that moves in a plane, owned by the client or simulated; a cart and its pole.
OWNED, SIMULATED, DISCRETE = "owned", "simulated", "discrete"


def box(size: int) -> array_pb2.Space:
    return array_pb2.Space(box={"shape": [size], "low": [-1.0] * size, "high": [1.0] * size})


OPENINGS: dict[str, dict[str, Any]] = {
    OWNED: {
        "learner": "learners/navigation-2d-maml",
        "client_environment": {"observation_space": box(2), "action_space": box(2)},
    },
    SIMULATED: {
        "learner": "learners/navigation-2d-maml",
        "task": {"name": "families/navigation-2d/tasks/test-0-0"},
        "budget": {"steps": 10_000},
    },
    DISCRETE: {
        "learner": "learners/cartpole-dynamics-maml",
        "client_environment": {"observation_space": box(4), "action_space": {"discrete": {"n": 2}}},
    },
}


@dataclass(frozen=True)
class Case:
    kind: str
    message: adaptation_pb2.AdaptRequest | bytes
    code: grpc.StatusCode
    blamed: str
    """The field; of an error that blames none, its reason."""
    advice: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.blamed}-{self.advice}"


def request(sequence: int = 2, **message: Any) -> adaptation_pb2.AdaptRequest:
    return adaptation_pb2.AdaptRequest(sequence=sequence, **message)


def observe(**fields: Any) -> adaptation_pb2.AdaptRequest:
    """A good ``observe`` of one row but for ``fields``; one that is None stays unset."""
    good = {"row_ids": [0], "observations": array(OBSERVATION), **fields}
    return request(observe={name: value for name, value in good.items() if value is not None})


def experience(n: int = 1, t: int = 3, **fields: Any) -> adaptation_pb2.AdaptRequest:
    """A good ``experience`` but for ``fields``."""
    good = {
        "observations": array(np.zeros((n, t, 2))),
        "raw_actions": array(np.zeros((n, t, 2))),
        "rewards": array(np.zeros((n, t))),
        **fields,
    }
    return request(experience={name: value for name, value in good.items() if value is not None})


def flags(*values: bool) -> array_pb2.Array:
    return array(values, np.bool_)


GRAMMAR: list[tuple[adaptation_pb2.AdaptRequest, str, str]] = [
    (request(), "message", "nothing was sent; after opening, send observe"),
    (request(open={"learner": "learners/navigation-2d-maml"}), "message", "open was sent"),
    (request(resume={"session": "sessions/s"}), "message", "resume was sent"),
    (request(0, advance={}), "sequence", "number your messages from opened.next_sequence"),
]
OBSERVES: list[tuple[adaptation_pb2.AdaptRequest, str, str]] = [
    (observe(row_ids=None), "observe.row_ids", "names 0 rows; send 1 to 4096"),
    (observe(row_ids=[1, 1], observations=array(np.zeros((2, 2)))), "observe.row_ids", "names a row twice"),
    (observe(row_ids=[65_536]), "observe.row_ids", "65536 is above 65535"),
    (observe(row_ids=list(range(4_097))), "observe.row_ids", "names 4097 rows"),
    (observe(observations=None), "observe.observations", "is missing"),
    (observe(observations=array([[0.0]])), "observe.observations", "has shape [1, 1]; send [1, 2]"),
    (observe(observations=array(np.zeros((2, 2)))), "observe.observations", "has shape [2, 2]; send [1, 2]"),
    (observe(observations=array([[True, False]], np.bool_)), "observe.observations", "is bool; send float32"),
    (observe(observations=array([[np.nan, 0.0]])), "observe.observations", "not finite at [0, 0]"),
    (observe(observations=array([[0.0, 1e300]], np.float64)), "observe.observations", "not finite in float32"),
    (observe(rewards=array([0.0, 1.0])), "observe.rewards", "has shape [2]; send [1]"),
    (observe(rewards=array([np.inf])), "observe.rewards", "not finite"),
    (observe(terminated=array([1.0])), "observe.terminated", "is float32; send bool"),
    (observe(truncated=flags(True, False)), "observe.truncated", "has shape [2]; send [1]"),
    (observe(truncated=flags(True)), "observe.final_observations", "the observation after the last step"),
    (
        observe(truncated=flags(True), final_observations=array([0.0, 0.0])),
        "observe.final_observations",
        "has shape [2]; send [1, 2]",
    ),
    (observe(trial_end=array([0], np.int64)), "observe.trial_end", "is int64; send bool"),
    (observe(feedback=array([0.0])), "observe.feedback", "takes no labels"),
]
EXPERIENCES: list[tuple[adaptation_pb2.AdaptRequest, str, str]] = [
    (experience(raw_actions=None), "experience.raw_actions", "has no episodes"),
    (experience(raw_actions=array(np.zeros((0, 3, 2)))), "experience.raw_actions", "has no episodes"),
    (experience(raw_actions=array(np.zeros(3))), "experience.raw_actions", "has no episodes"),
    (experience(n=4_097, t=1), "experience.raw_actions", "holds 4097 episodes; send at most 4096"),
    (experience(raw_actions=array(np.zeros((1, 3, 1)))), "experience.raw_actions", "send [1, 3, 2]"),
    (experience(raw_actions=array(np.full((1, 3, 2), np.nan))), "experience.raw_actions", "not finite"),
    (experience(observations=array(np.zeros((1, 2, 2)))), "experience.observations", "send [1, 3, 2]"),
    (experience(rewards=None), "experience.rewards", "is missing"),
    (experience(rewards=array([[0.0, np.nan, 0.0]])), "experience.rewards", "not finite at [0, 1]"),
    (experience(lengths=array([0], np.int64)), "experience.lengths", "not in 1 to 3"),
    (experience(lengths=array([4], np.int64)), "experience.lengths", "not in 1 to 3"),
    (experience(lengths=array([2.0])), "experience.lengths", "is float32; send int64"),
    (experience(terminated=flags(True), truncated=flags(True)), "experience.truncated", "it ends once"),
    (experience(truncated=flags(True)), "experience.final_observations", "the observation after the last step"),
    (experience(log_probs=array([[0.0, 0.0]])), "experience.log_probs", "send [1, 3]"),
    (experience(log_probs=array([[0.0, -np.inf, 0.0]])), "experience.log_probs", "not finite"),
    (experience(feedback=array([0.0])), "experience.feedback", "takes no labels"),
]
MOMENTS: list[tuple[adaptation_pb2.AdaptRequest, str, str]] = [
    (request(3, advance={}), "SEQUENCE_GAP", "sequence 3 came, 2 was expected"),
    (request(2**64 - 1, advance={}), "SEQUENCE_GAP", "2 was expected"),
    (request(1, advance={}), "REPLY_FORGOTTEN", "message 1"),
    (observe(step=1), "STALE_STEP", "came from step 1, the session is at step 0"),
    (observe(step=-(2**63)), "STALE_STEP", "the session is at step 0"),
    (experience(step=2**62), "STALE_STEP", "the session is at step 0"),
    (request(advance={}), "NO_EPISODES", "there is no complete episode"),
]
CASES = [
    *(Case(OWNED, message, INVALID, *rest) for message, *rest in [*GRAMMAR, *OBSERVES, *EXPERIENCES]),
    *(Case(OWNED, message, UNMET, *rest) for message, *rest in MOMENTS),
    *(
        Case(SIMULATED, message, UNMET, "SIMULATED_SESSION", "only finish may be sent")
        for message in (observe(), experience(), request(advance={}))
    ),
    Case(SIMULATED, request(3, finish={}), UNMET, "SEQUENCE_GAP", "2 was expected"),
    Case(SIMULATED, request(open={}), INVALID, "message", "open was sent"),
    *(
        Case(
            DISCRETE,
            experience(observations=array(np.zeros((1, 2, 4))), raw_actions=actions, rewards=array([[0.0, 0.0]])),
            INVALID,
            "experience.raw_actions",
            advice,
        )
        for actions, advice in (
            (array([[0, 2]], np.int64), "send 0 to 1"),
            (array([[-1, 0]], np.int64), "send 0 to 1"),
            (array([[0.0, 1.0]]), "is float32; send int64"),
            (array([[[0], [1]]], np.int64), "send [1, 2]"),
        )
    ),
    # Field 4 (observe) with a length that runs past the end of the message.
    Case(OWNED, b"\x22\xff\xff\xff\x7f", INVALID, "request", "is not a message of this rpc"),
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("data"), port=0)


@pytest.fixture(scope="module")
def store(settings: Settings, registry: Registry) -> Iterator[Store]:
    with Store.open(settings.data_dir) as opened:
        for family in ("navigation-2d", "cartpole-dynamics"):
            teach(opened, registry, family, f"{family}-maml")
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(settings: Settings, store: Store, registry: Registry) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        adapting(settings, store, registry) as sessions,
        serving(settings, [sessions]) as server,
        dialled(server) as opened,
    ):
        yield opened


@asynccontextmanager
async def streaming(channel: grpc.aio.Channel, first: adaptation_pb2.AdaptRequest) -> AsyncIterator[Any]:
    stream = channel.stream_stream(
        f"/{SESSIONS}/Adapt", response_deserializer=adaptation_pb2.AdaptResponse.FromString
    )()
    await stream.write(first.SerializeToString())
    try:
        yield stream
    finally:
        stream.cancel()


async def state(channel: grpc.aio.Channel, session: str) -> adaptation_pb2.Session:
    data = await call(channel, f"{SESSIONS}/GetSession", adaptation_pb2.GetSessionRequest(name=session))
    return adaptation_pb2.GetSessionResponse.FromString(data).session


async def drained(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.asyncio(loop_scope="module")
async def test_bad_message(case: Case, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture) -> None:
    with structlog.testing.capture_logs() as events, caplog.at_level(logging.DEBUG, "grpc"):
        async with streaming(channel, adaptation_pb2.AdaptRequest(sequence=1, open=OPENINGS[case.kind])) as stream:
            session = (await stream.read()).opened.session
            data = case.message if isinstance(case.message, bytes) else case.message.SerializeToString()
            await stream.write(data)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await drained(stream)
        answer = told(caught.value)
        assert answer.code is case.code
        assert (answer.field or answer.reason) == case.blamed
        assert case.advice in (answer.advice or answer.message)
        assert not any("exc_info" in event or "incident" in event for event in events)
        assert not [record for record in caplog.records if record.exc_info]
    async with asyncio.timeout(10):
        while (await state(channel, session)).attached:
            await asyncio.sleep(0.001)
    assert (await state(channel, session)).state == adaptation_pb2.SESSION_STATE_ACTIVE
    wrong = adaptation_pb2.AdaptRequest(resume={"session": session, "last_step": 10_001})
    async with streaming(channel, wrong) as stream:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drained(stream)
        assert told(caught.value).field == "resume.last_step"
    async with streaming(channel, adaptation_pb2.AdaptRequest(resume={"session": session})) as stream:
        opened = (await stream.read()).opened
        assert opened.next_sequence == 2
        await stream.write(request(finish={}).SerializeToString())
        await drained(stream)
    assert (await state(channel, session)).end_reason == adaptation_pb2.END_REASON_FINISHED
    await call(channel, f"{SESSIONS}/CancelSession", adaptation_pb2.CancelSessionRequest(name=session))

"""Labelled examples over the wire: whole or one by one, and what happens to a label that is none."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from contract_support import adapting, array, dialled, serving, told

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import adaptation_pb2_grpc, array_pb2
from innerloop_server.settings import Settings
from innerloop_server.store.store import Store

sys.path.insert(0, str(Path(__file__).parents[1]))  # supervised_support
import supervised_support as toy

BOX = array_pb2.Space(box={"shape": [2], "low": [-2.0] * 2, "high": [2.0] * 2})
OPEN = pb.Open(
    learner="learners/toy-labels-maml",
    client_environment=pb.ClientEnvironment(
        observation_space=BOX, action_space=array_pb2.Space(discrete=array_pb2.DiscreteSpace(n=2))
    ),
)
POINTS = np.array([[1.0, 0.5], [-1.0, -0.5], [0.8, 0.1], [-0.9, 0.3]], np.float32)
LABELS = np.array([0, 1, 0, 1])


@pytest.fixture
async def stub(settings: Settings, store: Store) -> AsyncIterator[Any]:
    of = toy.spec("toy-labels")
    store.put_learner(of)
    store.add_revision(of.name, toy.weights(of), {})
    store.promote(of.name, 1)
    async with (
        adapting(settings, store, toy.registry()) as sessions,
        serving(settings, [sessions]) as server,
        dialled(server) as channel,
    ):
        yield adaptation_pb2_grpc.AdaptationServiceStub(channel)


class Talk:
    """One stream: say something, hear the answer."""

    def __init__(self, stub: Any) -> None:
        self.call = stub.Adapt()

    async def say(self, sequence: int, **message: Any) -> pb.AdaptResponse:
        await self.call.write(pb.AdaptRequest(sequence=sequence, **message))
        response = await asyncio.wait_for(self.call.read(), 30)
        if response is grpc.aio.EOF:
            await self.call  # raises what ended it
        assert isinstance(response, pb.AdaptResponse)
        return response


def labelled(labels: Any, dtype: Any = np.int64) -> pb.Experience:
    answers = array(np.asarray(labels).reshape(len(labels), 1, 1), dtype)
    return pb.Experience(observations=array(POINTS[:, None]), feedback=answers)


async def test_whole_examples_a_wrong_label_and_predictions(stub: Any) -> None:
    talk = Talk(stub)
    opened = (await talk.say(1, open=OPEN)).opened
    assert not opened.guard
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await talk.say(2, experience=labelled([0, 1, 2, 1]))
    why = told(refused.value)
    assert (why.code, why.field) == (grpc.StatusCode.INVALID_ARGUMENT, "experience.feedback")
    assert "holds 2 in row 2; labels are 0 to 1" in why.advice

    talk = Talk(stub)  # the session is as it was
    opened = (await talk.say(0, resume=pb.Resume(session=opened.session))).opened
    assert (opened.next_sequence, opened.episodes_pending) == (2, 0)
    losses = []
    for number in range(20):
        accepted = await talk.say(2 + 2 * number, experience=labelled(LABELS))
        assert accepted.accepted.episodes_pending == 4
        step = (await talk.say(3 + 2 * number, advance=pb.Advance())).step
        assert (step.number, step.episodes) == (number + 1, 4)
        losses.append(step.loss)
    assert losses == sorted(losses, reverse=True)
    assert step.pre_return == 1.0
    asked = pb.Observe(step=20, row_ids=[0, 1, 2, 3], observations=array(POINTS))
    actions = (await talk.say(42, observe=asked)).actions
    said = np.frombuffer(actions.output.actions.data, "<i8")
    assert said.tolist() == LABELS.tolist()
    talk.call.cancel()


async def test_a_missing_answer_is_named(stub: Any) -> None:
    talk = Talk(stub)
    await talk.say(1, open=OPEN)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await talk.say(2, experience=pb.Experience(observations=array(POINTS[:, None])))
    assert (told(refused.value).field, told(refused.value).reason) == ("experience.feedback", "INVALID_FIELD")


async def test_a_guard_is_refused(stub: Any) -> None:
    message = pb.Open()
    message.CopyFrom(OPEN)
    message.guard = True
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await Talk(stub).say(1, open=message)
    assert told(refused.value).field == "open.guard"

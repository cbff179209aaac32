"""The bytes of a few messages, committed: a client of last year sends these, and must be understood."""

from __future__ import annotations

import struct

import pytest
from google.protobuf.message import Message

from innerloop.v1 import adaptation_pb2 as adaptation
from innerloop.v1 import array_pb2, task_pb2

ARRAY = array_pb2.Array(dtype=array_pb2.DTYPE_FLOAT32, shape=[2, 1], data=struct.pack("<2f", 1.0, -2.0))

GOLDEN: dict[str, tuple[Message, str]] = {
    "array": (ARRAY, "080112020201" + "1a08" + "0000803f" + "000000c0"),
    "box": (
        array_pb2.Space(box=array_pb2.BoxSpace(shape=[1], low=[float("-inf")], high=[2.0])),
        "0a17" + "0a0101" + "1208" + "000000000000f0ff" + "1a08" + "0000000000000040",
    ),
    "discrete": (array_pb2.Space(discrete=array_pb2.DiscreteSpace(n=300)), "120308ac02"),
    "task": (task_pb2.Task(name="families/f/tasks/test-0-1"), "0a19" + b"families/f/tasks/test-0-1".hex()),
    "open": (
        adaptation.AdaptRequest(
            sequence=1,
            open=adaptation.Open(
                request_id="r", learner="learners/l", budget=adaptation.Budget(steps=3), seed=0, guard=False
            ),
        ),
        "0801" + "1217" + "0a0172" + "120a" + b"learners/l".hex() + "2a020803" + "3000" + "4800",
    ),
    "resume": (
        adaptation.AdaptRequest(resume=adaptation.Resume(session="sessions/s", last_step=2)),
        "1a0e" + "0a0a" + b"sessions/s".hex() + "1002",
    ),
    "observe": (
        adaptation.AdaptRequest(
            sequence=2, observe=adaptation.Observe(step=1, row_ids=[0, 300], observations=ARRAY, report_only=True)
        ),
        "0802" + "221b" + "0801" + "120300ac02" + "1a10" + ARRAY.SerializeToString().hex() + "5001",
    ),
    "advance": (adaptation.AdaptRequest(sequence=3, advance=adaptation.Advance()), "08033200"),
    "finish": (adaptation.AdaptRequest(sequence=4, finish=adaptation.Finish()), "08043a00"),
    "heartbeat": (adaptation.AdaptResponse(heartbeat=adaptation.Heartbeat()), "2a00"),
    "step": (
        adaptation.AdaptResponse(
            sequence=3, step=adaptation.Step(number=1, pre_return=-2.0, post_return=0.0, guarded=True, rate_scale=0.5)
        ),
        "0803" + "221f" + "0801" + "19" + "00000000000000c0" + "21" + "00" * 8 + "4001" + "49" + "000000000000e03f",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_messages_are_the_committed_bytes(name: str) -> None:
    message, golden = GOLDEN[name]
    assert message.SerializeToString(deterministic=True).hex() == golden
    assert type(message).FromString(bytes.fromhex(golden)) == message


def test_what_a_later_version_adds_is_kept() -> None:
    sent = bytes.fromhex(GOLDEN["advance"][1] + "fa3e0121")  # field 1007, which no version has yet
    assert adaptation.AdaptRequest.FromString(sent).WhichOneof("message") == "advance"
    assert adaptation.AdaptRequest.FromString(sent).SerializeToString(deterministic=True) == sent

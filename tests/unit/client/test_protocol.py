"""The session's state machine, message by message."""

from __future__ import annotations

import numpy as np
import pytest
from fake_answers import FAMILIES, policy_message
from hypothesis import given
from hypothesis import strategies as st

from innerloop._core.codec import array_to_pb, space_to_pb
from innerloop._core.protocol import Actions, Alive, SessionProtocol
from innerloop.errors import ProtocolError
from innerloop.types import Adapted, Opened, Step
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import policy_pb2

SEES, DOES = (space_to_pb(s) for s in FAMILIES["families/cartpole-dynamics"])


def opened(step=0, next_sequence=2, session="sessions/a"):
    body = pb.Opened(session=session, step=step, next_sequence=next_sequence, observation_space=SEES, action_space=DOES)
    return pb.AdaptResponse(opened=body)


def step(number, sequence=0):
    return pb.AdaptResponse(sequence=sequence, step=pb.Step(number=number))


def actions(sequence, at=0):
    output = policy_pb2.PolicyOutput(actions=array_to_pb(np.array([1])))
    return pb.AdaptResponse(sequence=sequence, actions=pb.Actions(step=at, row_ids=[0], output=output))


def adapted(number=1):
    policy = policy_message("policies/p", "learners/cartpole-dynamics-maml", number)
    return pb.AdaptResponse(adapted=pb.Adapted(policy=policy, step=number, end_reason=pb.END_REASON_FINISHED))


def begun(**kwargs):
    protocol = SessionProtocol(open=pb.Open(request_id="r", budget=pb.Budget(steps=2)), version="0.1.0")
    protocol.first()
    protocol.receive(opened(**kwargs))
    return protocol


def test_the_transcript_of_the_contract():
    protocol = SessionProtocol(open=pb.Open(request_id="r", budget=pb.Budget(steps=2)), version="0.1.0")
    first = protocol.first()
    assert (first.sequence, first.WhichOneof("message")) == (1, "open")
    assert isinstance(protocol.receive(opened()), Opened)
    assert protocol.number(pb.Observe(step=0)).sequence == 2
    assert isinstance(protocol.receive(actions(2)), Actions)
    assert protocol.number(pb.Advance()).sequence == 3
    assert isinstance(protocol.receive(step(1, sequence=3)), Step)
    assert protocol.number(pb.Observe(step=1)).sequence == 4

    resume = protocol.first()
    assert resume.sequence == 0
    assert (resume.resume.session, resume.resume.last_step, resume.resume.client_version) == ("sessions/a", 1, "0.1.0")
    protocol.receive(opened(step=1, next_sequence=4))
    assert protocol.number(pb.Observe(step=1)).sequence == 4
    protocol.receive(actions(4, at=1))
    assert protocol.number(pb.Advance()).sequence == 5
    protocol.receive(step(2, sequence=5))
    assert protocol.spent
    assert isinstance(protocol.receive(adapted(2)), Adapted)
    assert protocol.ended


def test_an_open_that_got_no_answer_is_sent_again_as_it_was():
    protocol = SessionProtocol(open=pb.Open(request_id="r"), version="0.1.0")
    assert protocol.first() == protocol.first()


def test_a_second_message_waits_for_the_reply_to_the_first_but_finish_does_not():
    protocol = begun()
    protocol.number(pb.Observe())
    with pytest.raises(ProtocolError, match="waits for its reply"):
        protocol.number(pb.Advance())
    assert protocol.number(pb.Finish()).sequence == 3


def test_an_observe_may_get_a_step_before_its_actions():
    protocol = begun()
    protocol.number(pb.Observe())
    assert isinstance(protocol.receive(step(1, sequence=2)), Step)
    assert protocol.waiting
    assert isinstance(protocol.receive(actions(2, at=1)), Actions)
    assert not protocol.waiting


def test_what_was_seen_before_is_not_news():
    protocol = begun()
    assert protocol.receive(opened()) is None
    assert isinstance(protocol.receive(step(1)), Step)
    assert protocol.receive(step(1)) is None
    protocol.number(pb.Observe())
    protocol.receive(actions(2))
    assert protocol.receive(actions(2)) is None
    protocol.number(pb.Observe())
    assert protocol.receive(actions(2)) is None
    assert isinstance(protocol.receive(actions(3)), Actions)
    protocol.receive(adapted())
    assert protocol.receive(adapted()) is None
    assert protocol.receive(step(2)) is None


def test_heartbeats_and_draining_are_nothing_to_act_on():
    protocol = begun()
    assert protocol.receive(pb.AdaptResponse(heartbeat=pb.Heartbeat())) == Alive()
    assert protocol.receive(pb.AdaptResponse(draining=pb.Draining())) == Alive()


@pytest.mark.parametrize(
    ("breach", "says"),
    [
        (lambda p: p.receive(step(2)), "steps are missing"),
        (lambda p: (p.number(pb.Observe()), p.receive(actions(7))), "2 was the last one sent"),
        (lambda p: p.receive(pb.AdaptResponse()), "update innerloop"),
        (lambda p: (p.first(), p.receive(step(1))), "before opened"),
        (lambda p: (p.first(), p.receive(opened(session="sessions/b"))), "opened sessions/b"),
        (lambda p: (p.first(), p.receive(opened(next_sequence=0))), "no next sequence"),
        (lambda p: (p.first(), p.number(pb.Advance())), "not open"),
        (lambda p: (p.receive(adapted()), p.number(pb.Advance())), "not open"),
    ],
)
def test_what_the_contract_does_not_allow_is_said(breach, says):
    with pytest.raises(ProtocolError, match=says):
        breach(begun())


@given(st.lists(st.sampled_from(["observe", "step", "cut", "beat", "again"]), max_size=40))
def test_numbers_never_skip_and_steps_never_repeat(events):
    """Against a server that does as the contract says, whatever happens in whatever order."""
    protocol, server_next, server_step, told = begun(), 2, 0, []
    last = None
    for event in events:
        if event == "observe":
            request = protocol.number(pb.Observe(step=server_step))
            assert request.sequence == server_next
            server_next += 1
            last = actions(request.sequence, at=server_step)
            assert protocol.receive(last) is not None
        elif event == "step":
            server_step += 1
            protocol.receive(step(server_step))
            told.append(server_step)
        elif event == "cut":
            protocol.number(pb.Observe(step=server_step))  # lost on the way
            assert protocol.first().resume.last_step == server_step
            protocol.receive(opened(step=server_step, next_sequence=server_next))
            for old in range(1, server_step + 1):
                assert protocol.receive(step(old)) is None
        elif event == "beat":
            protocol.receive(pb.AdaptResponse(heartbeat=pb.Heartbeat()))
        elif last is not None:
            assert protocol.receive(last) is None
    assert told == list(range(1, server_step + 1))
    assert protocol.last_step == server_step


def test_the_last_step_says_that_it_was_the_last():
    """Whatever the budget: who acts by itself then plays no episode that nobody will learn from."""
    protocol = SessionProtocol(open=pb.Open(request_id="r", budget=pb.Budget(auto=True)), version="0.1.0")
    protocol.first()
    protocol.receive(opened())
    protocol.receive(step(1))
    assert not protocol.spent
    protocol.receive(pb.AdaptResponse(step=pb.Step(number=2, end_reason=pb.END_REASON_BUDGET_AUTO, expected_gain=0.5)))
    assert protocol.spent

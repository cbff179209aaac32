"""A stream that is left is cancelled by the driver itself, not by whoever collects garbage."""

from __future__ import annotations

import innerloop._blocking
import innerloop.aio._driver
from innerloop._core.commands import Rpc, Start
from innerloop.v1 import adaptation_pb2 as pb


class Call:
    """A call that only counts."""

    cancelled = 0

    def cancel(self):
        self.cancelled += 1


def start(two_way):
    return Start(Rpc("AdaptationService", "Adapt"), pb.AdaptRequest(sequence=1), two_way)


def test_the_blocking_driver_cancels_and_lets_its_sender_end():
    call, sent = Call(), []

    def method(requests, metadata):
        sent.append(requests)
        return call

    stream = innerloop._blocking.Stream(method, start(True), (), "host:1")
    stream.send(pb.AdaptRequest(sequence=2))
    stream.close()
    assert call.cancelled == 1
    assert [r.sequence for r in sent[0]] == [1, 2], "the thread that sends would wait for ever"


def test_the_async_driver_cancels():
    for two_way in (True, False):
        call = Call()
        innerloop.aio._driver.Stream(lambda *request, metadata, call=call: call, start(two_way), (), "").close()
        assert call.cancelled == 1

"""What batching gains, what a session of one pays for it, and what a call costs over a bare gRPC echo.

Two engines run side by side, one that batches and one that serves sessions one by one, and a server beside an echo
with messages of the same sizes. Slices of the two sides are interleaved in one run, and a ratio is the median over
rounds, so that a machine that is busy, or whose clock moves, disturbs both sides alike.
Run it: ``scripts/bench engine [--json]``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import safetensors.torch

import innerloop
from innerloop._core.codec import array_to_pb, space_to_pb
from innerloop.v1 import adaptation_pb2 as adaptation
from innerloop.v1 import adaptation_pb2_grpc, array_pb2, task_pb2, task_pb2_grpc
from innerloop_server.adaptation.client import EngineClient
from innerloop_server.adaptation.orders import Attach, RevisionRef, StepOrder
from innerloop_server.adaptation.process import EngineSettings
from innerloop_server.domain import LearnerSpec, Simulator, Split
from innerloop_server.learners.registry import build
from innerloop_server.store.store import Store
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training.specs import spec_for

FAMILY = "navigation-2d"
STEPS = 3
"""Adaptation steps of a session: what the shipped learners were trained for."""
EPISODES = {"small": 1, "standard": 20}
"""Episodes an adaptation step; one of ``navigation-2d`` is 100 samples."""
WAVES = {
    ("small", 1): 6,
    ("small", 8): 2,
    ("small", 64): 1,
    ("standard", 1): 6,
    ("standard", 8): 2,
    ("standard", 64): 1,
}
"""Fresh sessions, one after the other, in a slice."""
CALLS = 200
"""In a slice."""


@dataclass(frozen=True)
class Throughput:
    """Session-steps a second: medians over the rounds, and the median of their ratios."""

    step: str
    episodes_per_step: int
    sessions: int
    batching: float
    one_by_one: float
    ratio: float
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Latency:
    """Microseconds a call, one after the other: medians over the rounds, and the median of their ratios."""

    call: str
    request_bytes: int
    response_bytes: int
    server: float
    echo: float
    ratio: float
    ratios: tuple[float, ...]


Slice = Callable[[], Awaitable[float]]


async def paired(first: Slice, second: Slice, rounds: int) -> tuple[float, float, tuple[float, ...]]:
    """Medians of both, and the ratio first / second of each round.

    A round is first, second, second, first: whether a slice comes early or late says nothing about its side.
    """
    await first()
    await second()
    pairs = []
    for _ in range(rounds):
        a, b = await first(), await second()
        b, a = (b + await second()) / 2, (a + await first()) / 2
        pairs.append((a, b))
    firsts, seconds = zip(*pairs, strict=True)
    return statistics.median(firsts), statistics.median(seconds), tuple(a / b for a, b in pairs)


# -- the engine -------------------------------------------------------------------------------------------------------


def untrained(family: Family) -> tuple[LearnerSpec, bytes]:
    """A learner and its initial meta-parameters as safetensors: what they are does not matter for speed."""
    spec = spec_for(family, name="bench")
    return spec, safetensors.torch.save(build(spec).initial_meta(0))


def in_a_file(spec: LearnerSpec, weights: bytes, folder: Path) -> RevisionRef:
    """A revision as a store would hand it to the engine."""
    name = hashlib.sha256(weights).hexdigest()
    (folder / name).write_bytes(weights)
    return RevisionRef(f"learners/{spec.name}/revisions/1", name, str(folder / name), spec)


@contextlib.asynccontextmanager
async def engine(*, batching: bool) -> AsyncIterator[EngineClient]:
    """An engine process of its own on the CPU."""
    client = EngineClient(EngineSettings("cpu", device_rows=256, batching=batching, actors=0, actor_slots=1))
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def session_steps_per_second(
    client: EngineClient, *, revision: RevisionRef, family: Family, episodes: int, sessions: int, waves: int
) -> float:
    """Fresh sessions of different tasks, all at once, ``STEPS`` steps each, each step with what is journaled."""

    async def run(key: int) -> None:
        for number in range(1, STEPS + 1):
            await client.step(StepOrder(key, number))

    seconds = 0.0
    for _ in range(waves):
        keys = [client.new_key() for _ in range(sessions)]
        for i, key in enumerate(keys):
            task = sample_task(family, 0, Split.TEST, i)
            await client.attach(Attach(key, revision, i, episodes, False, task, Simulator.BATCH))
        began = time.perf_counter()
        await asyncio.gather(*(run(key) for key in keys))
        seconds += time.perf_counter() - began
        for key in keys:
            client.detach(key)
    return waves * sessions * STEPS / seconds


async def engine_figures(rounds: int) -> list[Throughput]:
    """The table of :class:`Throughput`."""
    family = load_registry().get(FAMILY)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        revision = in_a_file(*untrained(family), Path(folder))
        async with engine(batching=True) as batching, engine(batching=False) as one_by_one:
            for (step, sessions), waves in WAVES.items():
                measure = functools.partial(
                    session_steps_per_second,
                    revision=revision,
                    family=family,
                    episodes=EPISODES[step],
                    sessions=sessions,
                    waves=waves,
                )
                on, off, ratios = await paired(lambda: measure(batching), lambda: measure(one_by_one), rounds)  # noqa: B023
                ratio = statistics.median(ratios)
                figures.append(Throughput(step, EPISODES[step], sessions, on, off, ratio, ratios))
    return figures


# -- calls ------------------------------------------------------------------------------------------------------------


def echo_main(pipe: Connection[Any, Any], response_bytes: dict[str, int]) -> None:
    """Body of the echo's process: bytes in, that many bytes out, and nothing else."""
    asyncio.run(_echo(pipe, {method: bytes(size) for method, size in response_bytes.items()}))


async def _echo(pipe: Connection[Any, Any], responses: dict[str, bytes]) -> None:
    async def unary(request: bytes, _: Any) -> bytes:
        del request
        return responses["unary"]

    async def stream(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for _request in requests:
            yield responses["stream"]

    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        "unary": grpc.unary_unary_rpc_method_handler(unary),
        "stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", handlers),))
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await asyncio.to_thread(pipe.poll, None)  # until the parent closes its end
    await server.stop(None)


@contextlib.contextmanager
def echo(response_bytes: dict[str, int]) -> Any:
    """The address of an echo in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=echo_main, args=(theirs, response_bytes))
    process.start()
    theirs.close()
    try:
        yield f"127.0.0.1:{ours.recv()}"
    finally:
        ours.close()
        process.join()


class Observing:
    """One environment's side of an ``Adapt`` stream: a row, episodes of 200 steps, never an adaptation."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: Any = adaptation_pb2_grpc.AdaptationServiceStub(channel).Adapt()
        self._sequence = 1
        self._steps = 0
        self.request = adaptation.AdaptRequest()
        self.response = adaptation.AdaptResponse()

    async def open(self, family: Family) -> None:
        """Open a session that a client owns the environment of."""
        environment = adaptation.ClientEnvironment(
            observation_space=space_to_pb(family.observation_space), action_space=space_to_pb(family.action_space)
        )
        opening = adaptation.Open(
            learner="learners/bench",
            client_environment=environment,
            budget=adaptation.Budget(steps=1),
            episodes_per_step=1_000,
            seed=0,
        )
        await self._call.write(adaptation.AdaptRequest(sequence=1, open=opening))
        self._sequence = (await self._call.read()).opened.next_sequence

    async def ask(self) -> None:
        """Report one step, and get the next action."""
        ended = self._steps % 100 == 99
        self.request = adaptation.AdaptRequest(
            sequence=self._sequence,
            observe=adaptation.Observe(
                row_ids=[0],
                observations=_array([[0.5, -0.5]], np.float32),
                rewards=_array([-1.0], np.float32),
                terminated=_array([ended], np.bool_),
                truncated=_array([False], np.bool_),
            ),
        )
        await self._call.write(self.request)
        self.response = await self._call.read()
        while self.response.HasField("heartbeat"):  # on its own clock, between answers
            self.response = await self._call.read()
        if not self.response.HasField("actions"):
            raise SystemExit(f"wanted actions, got {self.response}")
        self._sequence += 1
        self._steps += 1

    def close(self) -> None:
        """Leave the stream."""
        self._call.cancel()


def _array(values: list[Any], dtype: Any) -> array_pb2.Array:
    return array_to_pb(np.array(values, dtype))


def timed(ask: Callable[[], Awaitable[object]]) -> Slice:
    """Microseconds a call over a slice of calls, one after the other."""

    async def run() -> float:
        began = time.perf_counter()
        for _ in range(CALLS):
            await ask()
        return (time.perf_counter() - began) / CALLS * 1e6

    return run


async def call_figures(rounds: int) -> list[Latency]:
    """The table of :class:`Latency`."""
    family = load_registry().get(FAMILY)
    async with contextlib.AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        spec, weights = untrained(family)
        with Store.open(data) as store:
            store.put_learner(spec)
            store.add_revision(spec.name, weights, {})
            store.promote(spec.name, 1)
        server = stack.enter_context(innerloop.embedded(data, device="cpu", actors=0))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        tasks = task_pb2_grpc.TaskServiceStub(channel)
        request = task_pb2.GetTaskRequest(name=f"families/{FAMILY}/tasks/test-0-0")
        response = await tasks.GetTask(request)
        row = Observing(channel)
        stack.callback(row.close)
        await row.open(family)
        await row.ask()

        unary_sizes = (request.ByteSize(), response.ByteSize())
        stream_sizes = (row.request.ByteSize(), row.response.ByteSize())
        address = stack.enter_context(echo({"unary": unary_sizes[1], "stream": stream_sizes[1]}))
        bare = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        unary: Any = bare.unary_unary("/Echo/unary")
        stream: Any = bare.stream_stream("/Echo/stream")()
        stack.callback(stream.cancel)

        async def get_task() -> None:
            await tasks.GetTask(request)

        async def unary_echo() -> None:
            await unary(bytes(unary_sizes[0]))

        async def stream_echo() -> None:
            await stream.write(bytes(stream_sizes[0]))
            await stream.read()

        figures = []
        for call, sizes, ours, theirs in (
            ("GetTask, unary", unary_sizes, get_task, unary_echo),
            ("observe -> actions, one row", stream_sizes, row.ask, stream_echo),
        ):
            served, floor, ratios = await paired(timed(ours), timed(theirs), rounds)
            figures.append(Latency(call, *sizes, served, floor, statistics.median(ratios), ratios))
        return figures


def main() -> None:
    """Print the tables, or JSON for programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of four slices a line")
    arguments = parser.parse_args()

    steps = asyncio.run(engine_figures(arguments.rounds))
    calls = asyncio.run(call_figures(arguments.rounds))
    if arguments.json:
        machine = {"cores": os.cpu_count(), "load_average": os.getloadavg()}
        print(
            json.dumps({"machine": machine, "engine": [*map(asdict, steps)], "calls": [*map(asdict, calls)]}, indent=2)
        )
        return
    print(f"{FAMILY}, session-steps a second (ratio: median over rounds)")
    print(f"{'step':<10}{'episodes':>9}{'sessions':>10}{'batching':>11}{'one by one':>12}{'ratio':>8}")
    for s in steps:
        print(
            f"{s.step:<10}{s.episodes_per_step:>9}{s.sessions:>10}{s.batching:>11,.1f}{s.one_by_one:>12,.1f}{s.ratio:>8.2f}"
        )
    print(f"\n{'microseconds a call':<30}{'bytes':>12}{'server':>10}{'echo':>10}{'ratio':>8}")
    for c in calls:
        size = f"{c.request_bytes}/{c.response_bytes}"
        print(f"{c.call:<30}{size:>12}{c.server:>10,.0f}{c.echo:>10,.0f}{c.ratio:>8.2f}")


if __name__ == "__main__":
    main()

"""A client with nothing of ours but the contract: grpcio, numpy and the generated stubs.

It has cart-poles of its own (the equations below, not the server's), each with another pole, cart and motor, and the
motor may be wired backwards. For every task it

1. adapts over a client-owned session: many rows of its own environment in one ``observe``, actions back, ``advance``
   after every batch of complete episodes;
2. lets the server adapt to the same task in its own simulator, for comparison;
3. measures both finished policies on the same fresh episodes of its own cart-poles, through ``PolicyService.Act``.

    python docs/examples/stub_client.py --address 127.0.0.1:50551 --tasks 50

The session's protocol is in docs/protocol.md. A client in another language does what this one does, line by line.
"""
# ruff: noqa: T201 - an example prints

from __future__ import annotations

import argparse
import json
import math
import queue
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from innerloop.v1 import adaptation_pb2, adaptation_pb2_grpc, array_pb2, policy_pb2, policy_pb2_grpc, task_pb2
from innerloop.v1 import task_pb2_grpc as task_grpc

Floats = NDArray[np.float64]

HORIZON = 500
STEPS = 3
EPISODES_PER_STEP = 20
KEEPALIVE = [("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 20_000)]


# -- arrays on the wire: dtype, shape, little-endian row-major bytes -------------------------------------------------

_TO_WIRE = {"float32": array_pb2.DTYPE_FLOAT32, "bool": array_pb2.DTYPE_BOOL}
_FROM_WIRE = {
    array_pb2.DTYPE_FLOAT32: "<f4",
    array_pb2.DTYPE_FLOAT64: "<f8",
    array_pb2.DTYPE_INT32: "<i4",
    array_pb2.DTYPE_INT64: "<i8",
}


def to_wire(values: Any, dtype: str = "float32") -> array_pb2.Array:
    """An array as a message."""
    array = np.asarray(values, dtype)
    return array_pb2.Array(dtype=_TO_WIRE[dtype], shape=array.shape, data=array.tobytes())


def from_wire(message: array_pb2.Array) -> NDArray[Any]:
    """A message as an array."""
    return np.frombuffer(message.data, _FROM_WIRE[message.dtype]).reshape(tuple(message.shape))


# -- the environment: ours, the server never sees it -----------------------------------------------------------------


@dataclass(frozen=True)
class Constants:
    """What differs from cart-pole to cart-pole, and what no policy is shown."""

    half_length: float
    """Of the pole, in metres."""
    pole_mass: float
    """In kilograms."""
    cart_mass: float
    """In kilograms."""
    force: float
    """Of action 1, in newtons; action 0 pushes the other way. Negative: the motor is wired backwards."""

    @staticmethod
    def of(task: task_pb2.Task) -> Constants:
        """The constants of a task that the server drew."""
        value = {name: float(from_wire(array)) for name, array in task.parameters.items()}
        sign = 1.0 if value["force_sign"] else -1.0
        return Constants(value["half_length"], value["pole_mass"], value["cart_mass"], sign * value["force"])


class CartPoles:
    """Cart-poles side by side, all with the same constants, one episode each.

    The equations of motion are those of Barto, Sutton and Anderson (1983), "Neuronlike adaptive elements that can solve
    difficult learning control problems", appendix, without friction, in Euler steps of 20 ms::

        theta'' = (g sin(theta) - cos(theta) (F + m l theta'^2 sin(theta)) / (m_c + m))
                  / (l (4/3 - m cos(theta)^2 / (m_c + m)))
        x''     = (F + m l (theta'^2 sin(theta) - theta'' cos(theta))) / (m_c + m)

    An episode ends when the cart leaves 2.4 m or the pole leaves 12 degrees, and is cut after 500 steps. Each step is
    worth 1.
    """

    def __init__(self, constants: Constants, start: Floats) -> None:
        """Args:
        constants: of all of them.
        start: [N, 4] position, velocity, angle and angular velocity.
        """
        self._constants = constants
        self._state = start.copy()
        self.alive = np.ones(len(start), bool)
        """[N] episodes that go on."""
        self.returns = np.zeros(len(start))
        """[N] steps so far."""

    @staticmethod
    def starts(n: int, rng: np.random.Generator) -> Floats:
        """[N, 4] near the middle, near upright, nearly at rest."""
        return rng.uniform(-0.05, 0.05, (n, 4))

    @property
    def observations(self) -> Floats:
        """[N, 4]."""
        return self._state

    def step(self, rows: NDArray[np.intp], actions: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Step some of them.

        Returns:
            Whether each of these rows fell ([R] ``terminated``), and was cut by the time limit ([R] ``truncated``).
        """
        c, dt = self._constants, 0.02
        x, x_dot, theta, theta_dot = self._state[rows].T
        force = np.where(actions == 1, c.force, -c.force)
        sin, cos, mass = np.sin(theta), np.cos(theta), c.cart_mass + c.pole_mass
        centrifugal = c.pole_mass * c.half_length * theta_dot**2 * sin
        theta_acc = (9.8 * sin - cos * (force + centrifugal) / mass) / (
            c.half_length * (4 / 3 - c.pole_mass * cos**2 / mass)
        )
        x_acc = (force + centrifugal - c.pole_mass * c.half_length * theta_acc * cos) / mass
        self._state[rows] = np.stack(
            (x + dt * x_dot, x_dot + dt * x_acc, theta + dt * theta_dot, theta_dot + dt * theta_acc), -1
        )
        self.returns[rows] += 1
        fell = (np.abs(self._state[rows, 0]) > 2.4) | (np.abs(self._state[rows, 2]) > math.radians(12))
        cut = ~fell & (self.returns[rows] >= HORIZON)
        self.alive[rows] = ~(fell | cut)
        return fell, cut


# -- the session -----------------------------------------------------------------------------------------------------


class Session:
    """One ``Adapt`` stream: numbers what we say and picks out what we wait for."""

    def __init__(self, stub: adaptation_pb2_grpc.AdaptationServiceStub, opening: adaptation_pb2.Open) -> None:
        self._outgoing: queue.SimpleQueue[adaptation_pb2.AdaptRequest | None] = queue.SimpleQueue()
        self._sequence = 0
        self._call = stub.Adapt(iter(self._outgoing.get, None))
        self.send(open=opening)
        self.opened = self.receive("opened")

    def send(self, **message: Any) -> None:
        """Say something: ``send(advance=Advance())``."""
        self._sequence += 1
        self._outgoing.put(adaptation_pb2.AdaptRequest(sequence=self._sequence, **message))

    def receive(self, kind: str) -> Any:
        """The next message of this kind. Heartbeats, and a warning that the server is going away, are passed over."""
        for response in self._call:
            said = response.WhichOneof("message")
            if said == kind:
                return getattr(response, kind)
            if said not in ("heartbeat", "draining"):
                raise RuntimeError(f"the server said {said} where {kind} was due")
        raise RuntimeError(f"the stream ended before {kind}")

    def close(self) -> None:
        """Let go of the stream. It does not end the session; ``finish``, a budget, or its lease does."""
        self._outgoing.put(None)
        self._call.cancel()


def play(session: Session, step: int, carts: CartPoles) -> None:
    """One episode in every row, actions from the server.

    Rows whose episode has ended drop out, so that a batch is exactly one episode a row. Taking the first twenty to
    end, with rows starting over, would prefer short episodes, and the last ones would span an update.
    """
    rows = np.arange(len(carts.alive))
    session.send(
        observe=adaptation_pb2.Observe(
            step=step, row_ids=rows.tolist(), observations=to_wire(carts.observations, "float32")
        )
    )
    while len(rows):
        actions = from_wire(session.receive("actions").output.actions)
        fell, cut = carts.step(rows, actions)
        ended = fell | cut
        if ended.any():  # their last reward, with no wish for another action
            session.send(observe=_report(step, carts, rows[ended], fell[ended], cut[ended], report_only=True))
        rows, going = rows[~ended], np.zeros(int((~ended).sum()), bool)
        if len(rows):  # sent before the answer to the report is read: one round trip a step
            session.send(observe=_report(step, carts, rows, going, going, report_only=False))
        if ended.any():
            session.receive("accepted")


def _report(
    step: int,
    carts: CartPoles,
    rows: NDArray[np.intp],
    fell: NDArray[np.bool_],
    cut: NDArray[np.bool_],
    *,
    report_only: bool,
) -> adaptation_pb2.Observe:
    observations = to_wire(carts.observations[rows])
    return adaptation_pb2.Observe(
        step=step,
        row_ids=rows.tolist(),
        observations=observations,
        rewards=to_wire(np.ones(len(rows))),
        terminated=to_wire(fell, "bool"),
        truncated=to_wire(cut, "bool"),
        final_observations=observations if cut.any() else None,
        report_only=report_only,
    )


@dataclass(frozen=True)
class Server:
    """The services that we use."""

    tasks: task_grpc.TaskServiceStub
    adaptation: adaptation_pb2_grpc.AdaptationServiceStub
    policies: policy_pb2_grpc.PolicyServiceStub

    @staticmethod
    def at(channel: grpc.Channel) -> Server:
        """Their stubs on a channel."""
        return Server(
            task_grpc.TaskServiceStub(channel),
            adaptation_pb2_grpc.AdaptationServiceStub(channel),
            policy_pb2_grpc.PolicyServiceStub(channel),
        )


def adapt_own(server: Server, learner: str, constants: Constants, seed: int) -> tuple[str, list[float]]:
    """Adapt to our own cart-poles.

    Returns:
        (name of the policy, mean return of the episodes before each step).
    """
    low, high = [-math.inf] * 4, [math.inf] * 4
    environment = adaptation_pb2.ClientEnvironment(
        observation_space=array_pb2.Space(box=array_pb2.BoxSpace(shape=[4], low=low, high=high)),
        action_space=array_pb2.Space(discrete=array_pb2.DiscreteSpace(n=2)),
    )
    opening = adaptation_pb2.Open(
        learner=learner, client_environment=environment, budget=adaptation_pb2.Budget(steps=STEPS), seed=seed
    )
    rng = np.random.default_rng(seed)
    session = Session(server.adaptation, opening)
    try:
        returns = []
        for step in range(STEPS):
            play(session, step, CartPoles(constants, CartPoles.starts(EPISODES_PER_STEP, rng)))
            session.send(advance=adaptation_pb2.Advance())
            returns.append(session.receive("step").pre_return)
        return session.receive("adapted").policy.name, returns
    finally:
        session.close()


def adapt_simulated(server: Server, learner: str, task: task_pb2.Task, seed: int) -> tuple[str, list[float]]:
    """Let the server adapt in its own simulator, with as many episodes; returns the same as :func:`adapt_own`."""
    opening = adaptation_pb2.Open(
        learner=learner,
        task=task_pb2.Task(name=task.name),
        budget=adaptation_pb2.Budget(steps=STEPS),
        episodes_per_step=EPISODES_PER_STEP,
        seed=seed,
    )
    session = Session(server.adaptation, opening)
    try:
        returns = [session.receive("step").pre_return for _ in range(STEPS)]
        return session.receive("adapted").policy.name, returns
    finally:
        session.close()


def measure(server: Server, policy: str, constants: Constants, start: Floats, seed: int) -> float:
    """Mean return of a finished policy over fresh episodes of our cart-poles, actions sampled by the server."""
    carts = CartPoles(constants, start)
    for t in range(HORIZON):
        rows = np.flatnonzero(carts.alive)
        if not len(rows):
            break
        seen = policy_pb2.PolicyInput(observations=to_wire(carts.observations[rows]))
        request = policy_pb2.ActRequest(policy=policy, input=seen, seed=seed * HORIZON + t)
        carts.step(rows, from_wire(server.policies.Act(request, timeout=60).output.actions))
    return float(carts.returns.mean())


# -- the comparison --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """One task."""

    task: str
    force: float
    """Of action 1, in newtons: the hidden sign that matters most."""
    own: float
    """Mean return of the policy that adapted to our cart-poles."""
    simulated: float
    """Mean return of the policy that adapted in the server's simulator, measured on the same episodes."""
    own_returns: list[float]
    """Mean return of the episodes that each step learned from: before any step, after one, after two."""
    simulated_returns: list[float]
    """The same in the server's simulator."""


def compare(server: Server, learner: str, task: task_pb2.Task, seed: int, episodes: int) -> Outcome:
    """Adapt twice to one task and measure both policies on the same fresh episodes."""
    constants = Constants.of(task)
    own, own_returns = adapt_own(server, learner, constants, seed)
    simulated, simulated_returns = adapt_simulated(server, learner, task, seed)
    start = CartPoles.starts(episodes, np.random.default_rng([seed, 1]))
    return Outcome(
        task.name,
        constants.force,
        own=measure(server, own, constants, start, seed),
        simulated=measure(server, simulated, constants, start, seed),
        own_returns=own_returns,
        simulated_returns=simulated_returns,
    )


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high): Student's 95 % interval of the mean of n differences (quantile by Cornish and Fisher)."""
    n = len(differences)
    mean = float(np.mean(differences))
    if n < 2:
        return mean, -math.inf, math.inf
    z, v = NormalDist().inv_cdf(0.975), n - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    half = t * float(np.std(differences, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The means, and the paired difference with its interval."""
    mean, low, high = interval([outcome.own - outcome.simulated for outcome in outcomes])
    return {
        "own": float(np.mean([outcome.own for outcome in outcomes])),
        "simulated": float(np.mean([outcome.simulated for outcome in outcomes])),
        "difference": mean,
        "low": low,
        "high": high,
        "own_returns": np.mean([outcome.own_returns for outcome in outcomes], 0).tolist(),
        "simulated_returns": np.mean([outcome.simulated_returns for outcome in outcomes], 0).tolist(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(description="Adapt to cart-poles of our own, with grpcio and the stubs alone.")
    parser.add_argument("--address", default="127.0.0.1:50551")
    parser.add_argument("--learner", default="learners/cartpole-dynamics-maml")
    parser.add_argument("--tasks", type=int, default=10, help="test tasks to adapt to")
    parser.add_argument("--episodes", type=int, default=200, help="fresh episodes that each policy is measured on")
    parser.add_argument("--sessions", type=int, default=8, help="tasks under way at once")
    parser.add_argument("--seed", type=int, default=7, help="of the tasks and of everything drawn")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with grpc.insecure_channel(options.address, KEEPALIVE) as channel, ThreadPoolExecutor(options.sessions) as pool:
        server = Server.at(channel)
        request = task_pb2.SampleTasksRequest(
            family="families/cartpole-dynamics", split=task_pb2.SPLIT_TEST, seed=options.seed, count=options.tasks
        )
        try:
            tasks = server.tasks.SampleTasks(request, timeout=30).tasks
            seeds = range(options.seed * 10_000, options.seed * 10_000 + len(tasks))
            outcomes = list(
                pool.map(
                    lambda task, seed: compare(server, options.learner, task, seed, options.episodes), tasks, seeds
                )
            )
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    total = {**summary(outcomes), "seconds": time.monotonic() - began}
    if options.json:
        print(json.dumps({"outcomes": [asdict(outcome) for outcome in outcomes], "summary": total}))
    else:
        print_table(outcomes, total)
    return 0


def print_table(outcomes: Sequence[Outcome], total: Mapping[str, Any]) -> None:
    """For people."""
    print(f"{'task':<42} {'force':>7} {'before':>7} {'own':>7} {'simulated':>9} {'difference':>10}")
    for o in outcomes:
        scores = f"{o.own_returns[0]:7.1f} {o.own:7.1f} {o.simulated:9.1f} {o.own - o.simulated:10.1f}"
        print(f"{o.task:<42} {o.force:7.1f} {scores}")
    scores = f"{total['own_returns'][0]:7.1f} {total['own']:7.1f} {total['simulated']:9.1f} {total['difference']:10.2f}"
    print(f"{'mean':<42} {'':7} {scores}  95 % interval {total['low']:.2f} to {total['high']:.2f}")
    for name in ("own", "simulated"):
        curve = ", ".join(f"{value:.1f}" for value in total[f"{name}_returns"])
        print(f"mean return of the episodes that each step learned from, {name}: {curve}")
    print(f"{len(outcomes)} tasks in {total['seconds']:.0f} s")


if __name__ == "__main__":
    sys.exit(main())

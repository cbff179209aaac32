"""The engine's core: residents, their orders, and the loop that serves them. Synchronous, single-threaded, one owner.

``submit`` takes requests, ``run`` serves one batch and gives the answers that are ready: schedule, execute, update.
Whoever owns the core (``process`` or ``local``) calls them in turn and sleeps on ``waitables`` when ``idle``.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from innerloop_server.adaptation import kernels, memory, replay, residents, states
from innerloop_server.adaptation.inner_loop import (
    ActNeed,
    AdaptNeed,
    LoadedRevision,
    Need,
    Outcome,
    Replay,
    ReplayNeed,
    Resident,
    RolloutNeed,
    Step,
    Taken,
    client_step,
    keep_step,
)
from innerloop_server.adaptation.measures import measure
from innerloop_server.adaptation.orders import (
    ActOrder,
    AdaptOrder,
    Answer,
    Attach,
    Detach,
    Exported,
    ExportOrder,
    Failed,
    KeepOrder,
    Occupancy,
    Order,
    Priority,
    Replayed,
    ReplayOrder,
    Request,
    RevisionRef,
    RolledOut,
    RolloutOrder,
    StepOrder,
    Stepped,
)
from innerloop_server.adaptation.revisions import load
from innerloop_server.adaptation.rollout import Rollout
from innerloop_server.adaptation.scheduler import Ready, choose
from innerloop_server.adaptation.simulation import ActorSimulation
from innerloop_server.domain import Simulator
from innerloop_server.errors import Exhausted, InnerloopError
from innerloop_server.tasks.registry import Registry

if TYPE_CHECKING:
    from innerloop_server.actors.pool import ActorPool

IDLE_REVISIONS = 16
"""Revisions that stay on the device when nobody uses them."""


@dataclass
class _Running:
    """An order that is being carried out."""

    order: Order
    need: Need
    step: Step | None
    """The generator, where the order is a step."""
    arrival: int
    seconds: float = 0.0
    """Of computing, so far: the order's share of its batches."""
    away: bool = False
    """Its rollout is with the actors."""


@dataclass
class _Seat:
    """A key: its resident and its orders, oldest first."""

    resident: Resident
    priority: Priority
    orders: deque[Order]
    running: _Running | None = None


class EngineCore:
    """Residents and their orders on one device."""

    def __init__(
        self,
        registry: Registry,
        device: torch.device,
        *,
        device_rows: int,
        batching: bool = True,
        actors: ActorPool | None = None,
    ) -> None:
        """Args:
        registry: where families are looked up.
        device: where states live and are computed.
        device_rows: resident states at most.
        batching: False serves needs one at a time (for benchmarks).
        actors: runs the episodes of ``simulator=actors``; without it such orders fail.
        """
        self._registry = registry
        self._device = device
        self._device_rows = device_rows
        self._batching = batching
        self._simulation = ActorSimulation(actors) if actors is not None else None
        self._seats: dict[int, _Seat] = {}
        self._revisions: OrderedDict[tuple[str, str], LoadedRevision] = OrderedDict()
        self._answers: list[Answer] = []
        self._arrivals = 0
        self._ticks = 0
        self._batched = 0

    @property
    def idle(self) -> bool:
        """Nothing to do before a request or an actor says something."""
        return not self._answers and not any(s.running and not s.running.away for s in self._seats.values())

    @property
    def waitables(self) -> Sequence[Any]:
        """What ``multiprocessing.connection.wait`` should watch for the actors."""
        return self._simulation.waitables if self._simulation else ()

    def submit(self, request: Request) -> None:
        """Take a request. Its answer comes out of a later :meth:`run`."""
        if isinstance(request, Attach):
            self._attach(request)
        elif isinstance(request, Detach):
            self._detach(request.key)
        elif (seat := self._seats.get(request.key)) is not None:
            seat.orders.append(request)
            self._start_next(seat)
        else:
            self._answers.append(Failed(request.key, f"key {request.key} is not attached", "UNAVAILABLE"))

    def run(self) -> list[Answer]:
        """Serve one batch; give all the answers that are ready."""
        self._collect_from_actors()
        ready = [
            Ready(
                key,
                Priority.ACT if isinstance(seat.running.need, ActNeed) else seat.priority,
                seat.running.arrival,
                kernels.group_key(seat.running.need),
                kernels.weight(seat.running.need),
            )
            for key, seat in self._seats.items()
            if seat.running and not seat.running.away
        ]
        batch = [(n.key, self._seats[n.key]) for n in choose(ready, kernels.STEPS_IN_A_BATCH, self._batching)]
        if batch:
            self._serve(batch)
        answers, self._answers = self._answers, []
        return answers

    def occupancy(self) -> Occupancy:
        """What is held now."""
        used, limit, restarts = self._simulation.occupancy() if self._simulation else (0, 0, 0)
        return Occupancy(
            device_rows=len(self._seats),
            device_rows_limit=self._device_rows,
            actor_slots=used,
            actor_slots_limit=limit,
            pending=sum(len(seat.orders) + (seat.running is not None) for seat in self._seats.values()),
            ticks=self._ticks,
            batched=self._batched,
            actor_restarts=restarts,
        )

    def close(self) -> None:
        """Stop the actors. Idempotent."""
        if self._simulation:
            self._simulation.close()

    # -- residents ------------------------------------------------------------------------------------------------

    def _attach(self, order: Attach) -> None:
        if len(self._seats) >= self._device_rows:
            message = f"all {self._device_rows} device rows are taken; try again when a session has ended"
            self._answers.append(Failed(order.key, message, "EXHAUSTED"))
            return
        try:
            resident = residents.resident_of(order, self._revision(order.revision), self._device)
        except InnerloopError as error:
            self._answers.append(Failed(order.key, error.message, error.reason))
            return
        self._seats[order.key] = _Seat(resident, order.priority, deque())
        self._answers.append(residents.attached(order.key, resident))

    def _detach(self, key: int) -> None:
        if self._seats.pop(key, None) is not None and self._simulation:
            self._simulation.cancel(key)

    def _revision(self, ref: RevisionRef) -> LoadedRevision:
        revision = self._revisions.get(ref.key)
        if revision is None:
            revision = load(ref, self._device)
            self._revisions[ref.key] = revision
            used = {seat.resident.revision.ref.key for seat in self._seats.values()} | {ref.key}
            idle = [key for key in self._revisions if key not in used]
            for key in idle[: max(0, len(self._revisions) - IDLE_REVISIONS)]:
                del self._revisions[key]
        self._revisions.move_to_end(ref.key)
        return revision

    # -- orders ---------------------------------------------------------------------------------------------------

    def _start_next(self, seat: _Seat) -> None:
        """Begin the oldest order, if none is running."""
        while seat.running is None and seat.orders:
            order = seat.orders.popleft()
            resident = seat.resident
            self._arrivals += 1
            if isinstance(order, ExportOrder):
                self._answers.append(Exported(order.key, residents.policy_file(resident), resident.number))
            elif isinstance(order, ActOrder):
                need: Need = ActNeed(resident, order.observations, order.counters, order.memory)
                seat.running = _Running(order, need, None, self._arrivals)
            elif isinstance(order, ReplayOrder):
                need = replay.need_of(order, resident, self._device)
                seat.running = _Running(order, need, None, self._arrivals)
            elif isinstance(order, RolloutOrder):
                need = RolloutNeed(
                    resident, resident.state, order.episodes, (order.k, 0), evaluation=True, greedy=order.greedy
                )
                seat.running = _Running(order, need, None, self._arrivals)
            elif order.number != resident.number + 1:
                message = f"step {order.number} was ordered at step {resident.number}"
                self._answers.append(Failed(order.key, message, "FAILED_PRECONDITION"))
            elif isinstance(order, KeepOrder):
                state = memory.named(order.rows, self._device)
                taken = keep_step(resident, state, order.returns, order.entropy, held=order.held)
                self._finish_step(seat, _Running(order, _NOTHING, None, self._arrivals), taken)
            elif isinstance(order, AdaptOrder):
                episodes, returns = kernels.reported(order, resident, self._device)
                self._advance(
                    seat, _Running(order, _NOTHING, client_step(resident, episodes, returns), self._arrivals), None
                )
            else:
                self._advance(seat, _Running(order, _NOTHING, residents.step_of(resident, order), self._arrivals), None)

    def _advance(self, seat: _Seat, running: _Running, outcome: Outcome | None) -> None:
        """Send a step the outcome of its need; it comes to its next need, or to its end."""
        assert running.step is not None
        try:
            running.need = next(running.step) if outcome is None else running.step.send(outcome)
        except StopIteration as end:
            seat.running = None
            self._finish_step(seat, running, end.value)
        else:
            self._arrivals += 1
            running.arrival = self._arrivals
            seat.running = running

    def _finish_step(self, seat: _Seat, running: _Running, taken: Taken) -> None:
        order = running.order
        assert isinstance(order, StepOrder | AdaptOrder | KeepOrder)
        resident = taken.resident
        if not states.is_finite(resident.state):
            message = "the update gave weights that are not finite, its episodes are dropped; check rewards and answers"
            self._answers.append(Failed(order.key, message, "DIVERGED"))
            self._start_next(seat)
            return
        seat.resident = resident
        journaled = not isinstance(order, StepOrder) or order.snapshot
        self._answers.append(
            Stepped(
                key=order.key,
                number=resident.number,
                state_hash=states.state_hash(resident.state) if journaled else "",
                pre_return=taken.pre_return,
                post_return=taken.post_return,
                guarded=taken.guarded,
                rate_scale=resident.guard.rate_scale,
                episodes=taken.episodes,
                seconds=running.seconds,
                metrics={**taken.metrics, **residents.uncertainty(resident)} if journaled else taken.metrics,
                snapshot=residents.snapshot(resident) if journaled else b"",
                policy=residents.policy_file(resident) if order.policy else b"",
            )
        )
        self._start_next(seat)

    # -- one batch ------------------------------------------------------------------------------------------------

    def _serve(self, batch: Sequence[tuple[int, _Seat]]) -> None:
        """Compute one batch and hand out its outcomes; if it fails, each alone, so that only the culprit suffers."""
        started = time.perf_counter()
        try:
            outcomes = self._compute(
                [seat.running.need for _, seat in batch if seat.running], [key for key, _ in batch]
            )
        except Exception as error:  # whatever a family or a method raises belongs to its session, not to the engine
            if len(batch) > 1:
                for one in batch:
                    self._serve([one])
            else:
                self._fail(batch[0][0], batch[0][1], error)
            return
        if outcomes is None:
            return
        self._ticks += 1
        self._batched += len(batch)
        share = (time.perf_counter() - started) / len(batch)
        for (_, seat), outcome in zip(batch, outcomes, strict=True):
            running = seat.running
            assert running is not None
            running.seconds += share
            self._deliver(seat, running, outcome)

    def _compute(self, needs: Sequence[Need], keys: Sequence[int]) -> Sequence[Any] | None:
        first = needs[0]
        if isinstance(first, AdaptNeed):
            return kernels.adapt([need for need in needs if isinstance(need, AdaptNeed)])
        if isinstance(first, ReplayNeed):
            return replay.replay([need for need in needs if isinstance(need, ReplayNeed)])
        if isinstance(first, ActNeed):
            return kernels.act([need for need in needs if isinstance(need, ActNeed)], keys)
        rollouts = [need for need in needs if isinstance(need, RolloutNeed)]
        if first.resident.simulator is Simulator.ACTORS:
            self._send_to_actors(rollouts, keys)
            return None
        assert first.resident.task is not None
        return kernels.roll_out(rollouts, self._registry.get(first.resident.task.family), self._device)

    def _deliver(self, seat: _Seat, running: _Running, outcome: Any) -> None:
        if running.step is not None:
            self._advance(seat, running, outcome)
            return
        seat.running = None
        if isinstance(running.order, RolloutOrder):
            returns = outcome.returns.detach().cpu().numpy().reshape(-1)
            episodes = kernels.to_host(outcome.experience) if running.order.trajectories else None
            self._answers.append(RolledOut(running.order.key, returns, episodes, self._measure(seat.resident, outcome)))
        elif isinstance(outcome, Replay):
            shown = memory.rows_to_host(outcome.state)
            self._answers.append(Replayed(running.order.key, shown, outcome.entropies))
        else:
            self._answers.append(outcome)
        self._start_next(seat)

    def _measure(self, resident: Resident, outcome: Rollout) -> dict[str, float]:
        assert resident.task is not None  # a client-owned session never asks for a rollout
        known = self._registry.get(resident.task.family).knows_success
        return measure(outcome.experience, resident.revision.learner.spec.supervision, knows_success=known)

    def _fail(self, key: int, seat: _Seat, error: Exception) -> None:
        seat.running = None
        if isinstance(error, InnerloopError):
            self._answers.append(Failed(key, error.message, error.reason))
        else:
            self._answers.append(Failed(key, f"{type(error).__name__}: {error}", "INTERNAL"))
        self._start_next(seat)

    # -- actors ---------------------------------------------------------------------------------------------------

    def _send_to_actors(self, needs: Sequence[RolloutNeed], keys: Sequence[int]) -> None:
        if self._simulation is None:
            raise Exhausted("this engine has no environment actors", retry_after_seconds=None)
        for need, key in zip(needs, keys, strict=True):
            running = self._seats[key].running
            assert running is not None
            self._simulation.submit(key, need)
            running.away = True

    def _collect_from_actors(self) -> None:
        if self._simulation is None:
            return
        for key, outcome, seconds in self._simulation.poll(self._device):
            seat = self._seats.get(key)
            if seat is None or seat.running is None:
                continue  # detached meanwhile
            seat.running.away = False
            seat.running.seconds += seconds
            if isinstance(outcome, InnerloopError):
                self._fail(key, seat, outcome)
            else:
                self._deliver(seat, seat.running, outcome)


_NOTHING: Any = None
"""The need of a step that has not come to its first one."""

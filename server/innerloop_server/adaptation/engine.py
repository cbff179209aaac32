"""The engine as everybody above it sees it: an asynchronous interface over ``orders``.

Two implementations: ``client.EngineClient`` (the engine's own process, for the gateway) and ``local.LocalEngine`` (in
this process, for the trainer, scripts and tests). Both batch what is asked for in the same iteration of the event loop.
"""

from __future__ import annotations

from typing import Protocol

from innerloop_server.adaptation.orders import (
    Acted,
    ActOrder,
    AdaptOrder,
    Attach,
    Attached,
    Exported,
    ExportOrder,
    KeepOrder,
    Occupancy,
    Replayed,
    ReplayOrder,
    RolledOut,
    RolloutOrder,
    StepOrder,
    Stepped,
)


class Engine(Protocol):
    """Runs orders. Every coroutine raises ``Exhausted``, ``Unavailable`` or ``InnerloopError`` for a ``Failed``."""

    def new_key(self) -> int:
        """A key that was never used."""
        ...

    async def attach(self, order: Attach) -> Attached:
        """Make a state resident; ``Exhausted`` when the device is full."""
        ...

    def detach(self, key: int) -> None:
        """Free everything a key holds, at once. Whoever waits on it gets ``Unavailable``. Unknown keys are fine."""
        ...

    async def step(self, order: StepOrder) -> Stepped:
        """One adaptation step of a simulated session."""
        ...

    async def adapt(self, order: AdaptOrder) -> Stepped:
        """One adaptation step on a client's own episodes."""
        ...

    async def keep(self, order: KeepOrder) -> Stepped:
        """A step of a session whose rows remember."""
        ...

    async def act(self, order: ActOrder) -> Acted:
        """Actions for a client's rows."""
        ...

    async def replay(self, order: ReplayOrder) -> Replayed:
        """Whole episodes shown to a row that remembers."""
        ...

    async def rollout(self, order: RolloutOrder) -> RolledOut:
        """Fresh evaluation episodes."""
        ...

    async def export(self, order: ExportOrder) -> Exported:
        """The portable policy of a state."""
        ...

    async def occupancy(self) -> Occupancy:
        """What the engine holds."""
        ...

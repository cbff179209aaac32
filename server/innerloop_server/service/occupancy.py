"""What sessions hold, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from innerloop_server.adaptation.orders import Occupancy


class OccupancyGauges:
    """Gauges of the engine and its sessions, on a server's own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"innerloop_{name}", what, registry=registry)

        self._sessions = gauge("sessions_attached", "Sessions with a stream")
        self._rows = gauge("device_rows", "Adaptation states resident on the device")
        self._slots = gauge("actor_slots", "Environments that run for somebody now")
        self._pending = gauge("engine_orders_pending", "Orders that the engine has not answered")
        self._ticks = gauge("engine_ticks", "Batches computed since the engine started")
        self._batched = gauge("engine_batched", "Needs served in those batches")
        self._restarts = gauge("actor_restarts", "Environment actors that were replaced")

    def set(self, occupancy: Occupancy, attached: int) -> None:
        """Show what is held now."""
        self._sessions.set(attached)
        self._rows.set(occupancy.device_rows)
        self._slots.set(occupancy.actor_slots)
        self._pending.set(occupancy.pending)
        self._ticks.set(occupancy.ticks)
        self._batched.set(occupancy.batched)
        self._restarts.set(occupancy.actor_restarts)

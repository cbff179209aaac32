"""The gRPC server: the gate, the servicers, health, reflection and the admin port, joined and bound."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import grpc
import grpc.aio
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from innerloop.v1 import (
    adaptation_pb2,
    adaptation_pb2_grpc,
    evaluation_pb2,
    evaluation_pb2_grpc,
    learner_pb2,
    learner_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
)
from innerloop_server.errors import PreconditionFailed
from innerloop_server.service import admin, layers
from innerloop_server.service.address import require_safe_address, server_credentials, target
from innerloop_server.service.interceptors import Gate
from innerloop_server.service.metrics import Metrics
from innerloop_server.settings import Limits, Settings

_SERVICES: tuple[tuple[type, Any, str], ...] = tuple(
    (
        getattr(module, f"{descriptor.name}Servicer"),
        getattr(module, f"add_{descriptor.name}Servicer_to_server"),
        descriptor.full_name,
    )
    for module, descriptor in (
        (task_pb2_grpc, task_pb2.DESCRIPTOR.services_by_name["TaskService"]),
        (adaptation_pb2_grpc, adaptation_pb2.DESCRIPTOR.services_by_name["AdaptationService"]),
        (policy_pb2_grpc, policy_pb2.DESCRIPTOR.services_by_name["PolicyService"]),
        (evaluation_pb2_grpc, evaluation_pb2.DESCRIPTOR.services_by_name["EvaluationService"]),
        (learner_pb2_grpc, learner_pb2.DESCRIPTOR.services_by_name["LearnerService"]),
    )
)
"""(generated base class, what adds one to a server, full name) of every service of the contract."""


class Server:
    """One server. Made and used within one event loop; may be started once."""

    def __init__(self, settings: Settings, servicers: Sequence[object]) -> None:
        """Check the settings; nothing is bound yet.

        Args:
            settings: addresses, tokens, certificates, limits.
            servicers: instances of the generated servicer classes, each at most once.

        Raises:
            InvalidField: ``INSECURE_ADDRESS``.
            TypeError: a servicer is of no service of the contract.
        """
        require_safe_address(settings)
        self._settings = settings
        self._services = [(*_service_of(servicer), servicer) for servicer in servicers]
        self.version = version("innerloop")
        self.metrics = Metrics()
        self._health = health.aio.HealthServicer()
        self._serving = False
        self._admin = admin.AdminServer(self.metrics.registry, lambda: self._serving)
        self._grpc: grpc.aio.Server | None = None
        self._channelz: grpc.aio.Server | None = None
        self.port = 0
        """Where the contract is served; 0 until started."""
        self.admin_port: int | None = None
        """Metrics and liveness over HTTP; ``None``: off."""
        self.channelz_port: int | None = None
        """gRPC channelz on loopback, the port after the admin port; ``None``: off."""

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            InvalidField: a certificate or key cannot be used.
            PreconditionFailed: ``PORT_TAKEN``.
        """
        try:
            await self._bind()
        except BaseException:
            await self.stop(0)
            raise
        self._serving = True
        for name in ("", *(name for _, name, _ in self._services)):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Tell health checks, for good, to send callers elsewhere. Calls are still served."""
        self._serving = False
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, give those under way ``grace_seconds``, then cancel them. Idempotent."""
        self._serving = False
        for server in (self._grpc, self._channelz):
            if server is not None:
                await server.stop(grace_seconds)
        self._admin.stop()

    async def wait_closed(self) -> None:
        """Wait until the server has stopped."""
        if self._grpc is not None:
            await self._grpc.wait_for_termination()

    async def _bind(self) -> None:
        settings = self._settings
        self._grpc = grpc.aio.server(interceptors=[self._gate()], options=_options(settings))
        for add, _, servicer in self._services:
            add(servicer, self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        names = [name for _, name, _ in self._services]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._grpc)
        credentials = None if settings.tls is None else server_credentials(settings.tls)
        self.port = _listen(self._grpc, settings.host, settings.port, credentials)
        if settings.admin_port is not None:
            self.admin_port = self._admin.start(settings.admin_port)
            self._channelz = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            channelz.add_channelz_servicer(self._channelz)
            wanted = settings.admin_port + 1 if settings.admin_port else 0
            self.channelz_port = _listen(self._channelz, admin.HOST, wanted, None)
            await self._channelz.start()
        await self._grpc.start()

    def _gate(self) -> Gate:
        settings = self._settings
        outermost_first = (
            layers.request_log,
            layers.measured(self.metrics),
            layers.translated(self.version),
            layers.shaken_hands(self.version),
            layers.authenticated(settings.tokens),
            layers.StreamQuota(settings.limits.streams),
        )
        return Gate(outermost_first, settings.limits.message_bytes)


def _service_of(servicer: object) -> tuple[Any, str]:
    for base, add, name in _SERVICES:
        if isinstance(servicer, base):
            return add, name
    raise TypeError(f"{type(servicer).__name__} serves no service of the contract")


def _options(settings: Settings) -> list[tuple[str, int]]:
    limits: Limits = settings.limits
    return [
        # The gate answers messages over the limit with a typed error; the transport cuts off what is far over it.
        ("grpc.max_receive_message_length", 2 * limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        # Streams over the quota are refused with a hint; over this number they would wait without a word.
        ("grpc.max_concurrent_streams", 2 * limits.streams + 256),
        # Two servers on one port would share its callers at random.
        ("grpc.so_reuseport", 0),
        # A dead client is noticed within 80 s. Clients may ping every 30 s, calls or none, give or take some jitter.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 25_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 25_000),
        ("grpc.enable_channelz", int(settings.admin_port is not None)),
    ]


def _listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
    address = target(host, port)
    try:
        bound = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
    except RuntimeError:
        bound = 0
    if not bound:
        raise PreconditionFailed(
            f"{address} cannot be opened; is another server running there? Choose another port, or 0 for any",
            reason="PORT_TAKEN",
            facts={"address": address},
        )
    return bound

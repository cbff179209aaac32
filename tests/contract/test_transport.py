"""Where the server listens, and with which credentials; health, draining and the admin port."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from contract_support import call, dialled, serving
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from innerloop.v1 import task_pb2
from innerloop_server.errors import InvalidField, PreconditionFailed
from innerloop_server.service.server import Server
from innerloop_server.settings import Settings, Tls

RPC = "innerloop.v1.TaskService/GetFamily"
FAMILY = task_pb2.GetFamilyRequest(name="families/navigation-2d")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> Tls:
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    return Tls(tmp_path / "certificate.pem", tmp_path / "key.pem")


def secure(server: Server, authority: trustme.CA, client: trustme.LeafCert | None = None) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        client.private_key_pem.bytes() if client else None,
        client.cert_chain_pems[0].bytes() if client else None,
    )
    return grpc.aio.secure_channel(f"localhost:{server.port}", credentials)


async def test_tls(settings: Settings, servicers: Any, tls: Tls, authority: trustme.CA) -> None:
    async with serving(replace(settings, tls=tls), servicers) as server:
        async with secure(server, authority) as channel:
            assert await call(channel, RPC, FAMILY)
        async with dialled(server) as channel:
            await _unavailable(channel)
        async with secure(server, trustme.CA()) as channel:
            await _unavailable(channel)


async def test_mutual_tls(settings: Settings, servicers: Any, tls: Tls, authority: trustme.CA, tmp_path: Path) -> None:
    clients = trustme.CA()
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    mutual = replace(tls, client_ca=tmp_path / "clients.pem")
    async with serving(replace(settings, tls=mutual), servicers) as server:
        async with secure(server, authority, clients.issue_cert("robot@example.org")) as channel:
            assert await call(channel, RPC, FAMILY)
        for stranger in (None, trustme.CA().issue_cert("robot@example.org")):
            async with secure(server, authority, stranger) as channel:
                await _unavailable(channel)


def test_unusable_certificates_are_named(settings: Settings, tls: Tls, tmp_path: Path) -> None:
    (tmp_path / "garbage.pem").write_text("garbage")
    for wrong, field in (
        (replace(tls, key=tmp_path / "none.pem"), "tls.certificate"),
        (replace(tls, certificate=tmp_path / "garbage.pem"), "tls.certificate"),
        (replace(tls, client_ca=tmp_path / "garbage.pem"), "tls.client_ca"),
    ):
        server = Server(replace(settings, tls=wrong), [])
        with pytest.raises(InvalidField) as caught:
            asyncio.run(server.start())
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("host", "given", "missing"),
    [
        ("0.0.0.0", {}, "TLS (tls) and tokens (tokens) are"),
        ("::", {}, "TLS (tls) and tokens"),
        ("192.0.2.7", {"tokens": {"t": "Ann"}}, "and TLS (tls) are"),
        ("robots.example.org", {"tls": Tls(Path("c"), Path("k"))}, "and tokens (tokens) are"),
    ],
)
def test_others_are_not_served_in_the_clear(settings: Settings, host: str, given: Any, missing: str) -> None:
    with pytest.raises(InvalidField) as caught:
        Server(replace(settings, host=host, **given), [])
    assert caught.value.field == "host"
    assert caught.value.reason == "INSECURE_ADDRESS"
    assert missing in caught.value.advice
    Server(replace(settings, host=host, insecure=True, **given), [])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "::1", "[::1]"])
def test_loopback_needs_nothing(settings: Settings, host: str) -> None:
    Server(replace(settings, host=host), [])


async def test_a_taken_port_is_said(settings: Settings, servicers: Any, server: Server) -> None:
    with pytest.raises(PreconditionFailed) as caught:
        await Server(replace(settings, port=server.port), servicers).start()
    assert caught.value.reason == "PORT_TAKEN"
    with pytest.raises(PreconditionFailed) as caught:
        await Server(replace(settings, admin_port=server.port), servicers).start()
    assert caught.value.reason == "PORT_TAKEN"


async def test_health_follows_draining(server: Server, channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="innerloop.v1.PolicyService"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    await server.drain()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()
    for service in ("", "innerloop.v1.TaskService"):
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await call(channel, RPC, FAMILY)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="innerloop.v1.Nothing"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_admin_port(settings: Settings, servicers: Any) -> None:
    async with serving(replace(settings, admin_port=0), servicers) as server, dialled(server) as channel:
        assert await call(channel, RPC, FAMILY)
        await _counted(server)
        status, text = await asyncio.to_thread(_get, server, "/metrics")
        assert status == 200
        assert f'innerloop_requests_total{{code="OK",rpc="{RPC}"}} 1.0' in text
        assert await asyncio.to_thread(_get, server, "/healthz") == (200, "ok\n")
        assert (await asyncio.to_thread(_get, server, "/etc/passwd"))[0] == 404
        await server.drain()
        assert await asyncio.to_thread(_get, server, "/healthz") == (503, "draining\n")


async def test_channelz_is_on_the_admin_side_alone(settings: Settings, servicers: Any) -> None:
    async with serving(replace(settings, admin_port=0), servicers) as server, dialled(server) as channel:
        assert await call(channel, RPC, FAMILY)
        request = channelz_pb2.GetServersRequest()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.channelz_port}") as admin:
            reply = await channelz_pb2_grpc.ChannelzStub(admin).GetServers(request)
            assert sum(one.data.calls_succeeded for one in reply.server) >= 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channelz_pb2_grpc.ChannelzStub(channel).GetServers(request)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_servicers_of_no_service_are_refused(settings: Settings) -> None:
    with pytest.raises(TypeError, match="object serves no service"):
        Server(settings, [object()])


async def _counted(server: Server) -> None:
    """The server's side of a call ends a moment after the client's; nothing tells the client when."""
    async with asyncio.timeout(10):
        while not server.metrics.registry.get_sample_value("innerloop_requests_total", {"rpc": RPC, "code": "OK"}):
            await asyncio.sleep(0.005)


async def _unavailable(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, RPC, FAMILY, timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def _get(server: Server, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.admin_port}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()

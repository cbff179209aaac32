from __future__ import annotations

import json
import socket

import pytest
import trustme
from fake_server import FakeServer

import innerloop
from innerloop import errors
from innerloop._core.options import ConnectOptions, is_loopback, service_config


def test_address_and_token_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("INNERLOOP_ADDRESS", "localhost:1")
    monkeypatch.setenv("INNERLOOP_TOKEN", "secret")
    with innerloop.connect() as client:
        assert (client.options.address, client.options.token) == ("localhost:1", "secret")
        assert "secret" not in repr(client.options)
    with innerloop.connect("localhost:2", "other") as client:
        assert (client.options.address, client.options.token) == ("localhost:2", "other")
    monkeypatch.delenv("INNERLOOP_ADDRESS")
    monkeypatch.delenv("INNERLOOP_TOKEN")
    with innerloop.connect() as client:
        assert (client.options.address, client.options.token) == ("127.0.0.1:50551", "")


def test_a_token_does_not_travel_in_the_clear():
    with pytest.raises(ValueError, match="in the clear"):
        innerloop.connect("robots.example:50551", "secret")
    innerloop.connect("robots.example:50551", "secret", insecure=True).close()
    innerloop.connect("robots.example:50551", "secret", tls=True).close()


def test_half_a_certificate_is_refused(tmp_path):
    with pytest.raises(ValueError, match="both cert and key"):
        innerloop.connect(cert=tmp_path / "cert.pem")
    (tmp_path / "ca.pem").write_text("x")
    with pytest.raises(ValueError, match="for TLS"):
        innerloop.connect(tls=False, ca=tmp_path / "ca.pem")


def test_certificates_become_credentials(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    with innerloop.connect(
        "localhost:1", ca=tmp_path / "ca.pem", cert=tmp_path / "cert.pem", key=tmp_path / "key.pem"
    ) as client:
        assert client.options.tls
        assert client.options.credentials() is not None
    assert ConnectOptions("localhost:1").credentials() is None


@pytest.mark.parametrize(
    ("address", "stays"),
    [
        ("127.0.0.1:5", True),
        ("localhost:5", True),
        ("[::1]:5", True),
        ("ipv4:127.0.0.1:5", True),
        ("dns:///localhost:5", True),
        ("unix:/tmp/socket", True),
        ("10.0.0.1:5", False),
        ("example.org:5", False),
    ],
)
def test_loopback(address, stays):
    assert is_loopback(address) is stays


def test_only_unavailable_is_retried_and_only_where_that_is_harmless():
    retried, left = json.loads(service_config())["methodConfig"]
    assert retried["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert {n["method"] for n in left["name"]} == {
        *("Adapt", "ActStream", "RollBackLearner", "DeletePolicy", "DeleteFamily"),
    }
    assert "retryPolicy" not in left


def test_version_and_token_go_with_every_call():
    server = FakeServer(token="secret")
    with innerloop.connect(server.address, "secret") as client:
        client.adapt("navigation-2d", {"goal": [0.0, 0.0]}, steps=1).policy()
    assert server.calls[-2:] == ["Adapt", "DownloadPolicy"]
    for metadata in server.metadata:
        assert metadata["authorization"] == "Bearer secret"
        assert metadata["x-innerloop-version"] == innerloop.__version__
    with innerloop.connect(server.address) as client, pytest.raises(errors.Unauthenticated, match="Bearer"):
        client.families()
    server.stop()


def test_a_deadline_is_a_deadline():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with innerloop.connect(address, timeout=0.1) as client, pytest.raises(errors.DeadlineExceeded):
            client.families()

"""How a channel is set up, the same for both drivers: where to, with which credentials, keepalive and retries."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

DEFAULT_ADDRESS = "127.0.0.1:50551"
MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest message, either way; the server's limit is the same."""
KEEPALIVE_MS = 60_000
"""A ping a minute on a silent connection. The server allows one every 30 s; more would get GOAWAY."""

# Calls that do more on the second try than on the first are left to the caller; Adapt resumes by its own rules.
_NOT_RETRIED = (
    ("AdaptationService", "Adapt"),
    ("LearnerService", "RollBackLearner"),
    ("PolicyService", "ActStream"),
    ("PolicyService", "DeletePolicy"),
    ("TaskService", "DeleteFamily"),
)
_SERVICES = ("TaskService", "AdaptationService", "PolicyService", "EvaluationService", "LearnerService")


@dataclass(frozen=True)
class ConnectOptions:
    """Everything ``connect`` settles before a channel is made."""

    address: str
    token: str = field(default="", repr=False)
    tls: bool = False
    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    timeout: float | None = 60.0
    """Deadline of a unary call in seconds; ``None``: none."""
    patience: float = 60.0
    """Seconds that a session goes on trying to come back after its stream was lost."""
    wait: bool = False
    """When the server is full, wait as long as it says and try again, instead of raising ``Exhausted``."""

    @staticmethod
    def resolve(
        address: str | None,
        token: str | None,
        *,
        tls: bool | None,
        ca: str | os.PathLike[str] | None,
        cert: str | os.PathLike[str] | None,
        key: str | os.PathLike[str] | None,
        insecure: bool,
        timeout: float | None,
        patience: float,
        wait: bool,
    ) -> ConnectOptions:
        """Fill in what was left out from the environment, and refuse what cannot be safe.

        Raises:
            ValueError: half a client certificate, or a token that would travel in the clear to another machine.
            OSError: a certificate or key file cannot be read.
        """
        where = address or os.environ.get("INNERLOOP_ADDRESS") or DEFAULT_ADDRESS
        who = token if token is not None else os.environ.get("INNERLOOP_TOKEN", "")
        if (cert is None) != (key is None):
            raise ValueError("a client certificate needs both cert and key")
        secure = tls if tls is not None else ca is not None or cert is not None
        if not secure and (ca is not None or cert is not None):
            raise ValueError("ca, cert and key are for TLS; leave tls=False out")
        if who and not secure and not insecure and not is_loopback(where):
            raise ValueError(
                f"the token would travel to {where} in the clear; give ca=... or tls=True, "
                "or insecure=True where the network itself is private"
            )
        return ConnectOptions(
            address=where,
            token=who,
            tls=secure,
            ca=Path(ca).read_bytes() if ca is not None else None,
            cert=Path(cert).read_bytes() if cert is not None else None,
            key=Path(key).read_bytes() if key is not None else None,
            timeout=timeout,
            patience=patience,
            wait=wait,
        )

    def credentials(self) -> grpc.ChannelCredentials | None:
        """TLS credentials; ``None`` for a connection in the clear."""
        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)

    def metadata(self, version: str) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        pairs = [("x-innerloop-version", version)]
        if self.token:
            pairs.append(("authorization", f"Bearer {self.token}"))
        return tuple(pairs)


def channel_options() -> Sequence[tuple[str, Any]]:
    """Options of every channel."""
    return (
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", service_config()),
    )


def service_config() -> str:
    """The published retry policy: UNAVAILABLE alone, four tries, where a second try does no more than the first."""
    retry = {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps(
        {
            "methodConfig": [
                {"name": [{"service": f"innerloop.v1.{s}"} for s in _SERVICES], "retryPolicy": retry},
                {"name": [{"service": f"innerloop.v1.{s}", "method": m} for s, m in _NOT_RETRIED]},
            ]
        }
    )


def is_loopback(address: str) -> bool:
    """Whether an address stays on this machine."""
    if address.startswith("unix:"):
        return True
    host = address.removeprefix("ipv4:").removeprefix("ipv6:").removeprefix("dns:").rsplit(":", 1)[0].strip("[]/")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Which versions of client and server understand each other."""

from __future__ import annotations

import re

from innerloop_server.errors import InvalidField, PreconditionFailed

VERSION_KEY = "x-innerloop-version"
"""Metadata key: the client's version in what it sends, the server's in what comes back."""

_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})([.+a-z0-9-]{0,64})")


def require_compatible(client: str, server: str, field: str) -> None:
    """Refuse a client that speaks another contract: of another major version, or another minor one while that is 0.

    Args:
        client: its version, such as ``0.1.0``; empty (a client that is not ours) passes.
        server: ours.
        field: where the client said so.

    Raises:
        InvalidField: no version.
        PreconditionFailed: ``VERSION_SKEW``; both versions are in its facts.
    """
    if not client:
        return
    if _contract(client, field) != _contract(server, "version"):
        raise PreconditionFailed(
            f"client {client} and server {server} speak different contracts; install innerloop=={server}",
            reason="VERSION_SKEW",
            facts={"client": client, "server": server},
        )


def _contract(version: str, field: str) -> tuple[int, int]:
    match = _VERSION.fullmatch(version)
    if match is None:
        raise InvalidField(field, f"{version[:80]!r} is no version; send one such as 0.1.0, or none")
    major, minor = int(match[1]), int(match[2])
    return (major, minor) if major == 0 else (major, 0)

"""Who is calling. The gate says it, servicers ask."""

from __future__ import annotations

from contextvars import ContextVar

LOCAL = "local"
"""Everybody, on a server without tokens."""

# Every rpc is served by a task of its own, so what one sets no other sees.
_PRINCIPAL: ContextVar[str] = ContextVar("innerloop_principal")


def principal() -> str:
    """The principal of the rpc that is being served.

    Raises:
        LookupError: no rpc is being served here, or the gate does not stand before this server.
    """
    return _PRINCIPAL.get()


def set_principal(name: str) -> None:
    """Say who is calling, for the rest of this task and those it starts."""
    _PRINCIPAL.set(name)

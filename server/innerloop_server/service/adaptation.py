"""AdaptationService: the stream of a session, and what may be done to sessions from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from innerloop.v1 import adaptation_pb2, adaptation_pb2_grpc
from innerloop_server.adaptation.hub import Ended, SessionHub
from innerloop_server.adaptation.messages import Opened
from innerloop_server.adaptation.session import LiveSession
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.service.convert.names import SESSION
from innerloop_server.service.convert.paging import page_request
from innerloop_server.service.convert.sessions import (
    check_spaces,
    client_message_from_pb,
    open_from_pb,
    opened_to_pb,
    server_message_to_pb,
    session_to_pb,
)
from innerloop_server.service.handshake import require_compatible
from innerloop_server.service.principal import principal
from innerloop_server.settings import Settings
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry

Context = grpc.aio.ServicerContext[Any, Any]
Requests = AsyncIterator[adaptation_pb2.AdaptRequest]


class AdaptationServicer(adaptation_pb2_grpc.AdaptationServiceServicer):
    """Serves the sessions of a hub."""

    def __init__(self, hub: SessionHub, store: Store, registry: Registry, settings: Settings, version: str) -> None:
        self._hub = hub
        self._store = store
        self._registry = registry
        self._settings = settings
        self._version = version

    async def Adapt(self, request_iterator: Requests, context: Context) -> AsyncIterator[adaptation_pb2.AdaptResponse]:
        """One session over one stream; the grammar is in the contract."""
        session, spec = await self._begin(await _first(request_iterator))
        if isinstance(session, Ended):
            for message in session.messages:
                yield opened_to_pb(message, spec) if isinstance(message, Opened) else server_message_to_pb(message)
            return
        reader = asyncio.create_task(self._read(session, request_iterator))
        try:
            async for message in session.messages(self._settings.heartbeat_seconds):
                yield opened_to_pb(message, spec) if isinstance(message, Opened) else server_message_to_pb(message)
        finally:
            reader.cancel()
            # Shielded: the row and the slots must be given back even if this call is cancelled once more.
            await asyncio.shield(self._hub.leave(session))

    async def GetSession(
        self, request: adaptation_pb2.GetSessionRequest, context: Context
    ) -> adaptation_pb2.GetSessionResponse:
        """A session of the caller's."""
        session_id = SESSION.parse(request.name, "name")
        record = await asyncio.to_thread(self._store.get_session, session_id, principal())
        return adaptation_pb2.GetSessionResponse(session=session_to_pb(record, self._hub.is_attached(session_id)))

    async def ListSessions(
        self, request: adaptation_pb2.ListSessionsRequest, context: Context
    ) -> adaptation_pb2.ListSessionsResponse:
        """The caller's sessions, newest first."""
        page = await asyncio.to_thread(self._store.list_sessions, principal(), page_request(request))
        return adaptation_pb2.ListSessionsResponse(
            sessions=[session_to_pb(record, self._hub.is_attached(record.id)) for record in page.items],
            next_page_token=page.next_token,
        )

    async def CancelSession(
        self, request: adaptation_pb2.CancelSessionRequest, context: Context
    ) -> adaptation_pb2.CancelSessionResponse:
        """End a session with nothing."""
        record = await self._hub.cancel(principal(), SESSION.parse(request.name, "name"))
        return adaptation_pb2.CancelSessionResponse(session=session_to_pb(record, attached=False))

    async def _begin(self, first: adaptation_pb2.AdaptRequest) -> tuple[LiveSession | Ended, LearnerSpec]:
        """Open or resume, as the first message says."""
        kind = first.WhichOneof("message")
        if kind == "open":
            if first.sequence != 1:
                raise InvalidField("sequence", f"open carries {first.sequence}; it is message 1")
            message = open_from_pb(first.open, self._registry)
            if message.task is None:
                ref = await self._hub.revision(message.learner, message.revision)
                check_spaces(first.open.client_environment, ref.spec)
            session = await self._hub.open(principal(), message)
        elif kind == "resume":
            require_compatible(first.resume.client_version, self._version, "resume.client_version")
            if first.resume.last_step < 0:
                raise InvalidField("resume.last_step", f"{first.resume.last_step} is negative; give 0 or more")
            session_id = SESSION.parse(first.resume.session, "resume.session")
            session = await self._hub.resume(principal(), session_id, first.resume.last_step)
        else:
            raise InvalidField("message", f"{kind or 'nothing'} came first; begin with open or resume")
        if isinstance(session, LiveSession):
            return session, session.spec
        opened = session.messages[0]
        assert isinstance(opened, Opened)
        learner = await asyncio.to_thread(self._store.get_learner, opened.record.learner_id)
        return session, learner.spec

    async def _read(self, session: LiveSession, requests: Requests) -> None:
        """Feed the session, message by message: the next is read when the last is answered."""
        try:
            async for request in requests:
                await session.receive(client_message_from_pb(request, session.spec, self._settings.limits))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            session.fail(error)


async def _first(requests: Requests) -> adaptation_pb2.AdaptRequest:
    async for request in requests:
        return request
    raise InvalidField("message", "the stream ended before its first message; begin with open or resume")

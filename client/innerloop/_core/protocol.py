"""The ``Adapt`` stream's grammar as a state machine: what to say first, what number the next message carries, what a
message from the server means. Pure: it is handed messages and hands out messages.
"""

from __future__ import annotations

from dataclasses import dataclass

from innerloop._core import reading
from innerloop._core.codec import array_from_pb
from innerloop.arrays import Array
from innerloop.errors import ProtocolError
from innerloop.policy import Policy
from innerloop.types import Adapted, Opened, Step
from innerloop.v1 import adaptation_pb2 as pb


@dataclass(frozen=True)
class Actions:
    """What to do in the rows of an ``observe``."""

    step: int
    """The step whose state chose them."""
    rows: tuple[int, ...]
    actions: Array
    """[R, *action_shape]."""


@dataclass(frozen=True)
class Accepted:
    """Experience was taken in."""

    episodes_pending: int


@dataclass(frozen=True)
class Alive:
    """A heartbeat, or word that the server is going away: nothing to do but to read on."""


Event = Opened | Step | Adapted | Actions | Accepted | Alive
Message = pb.Observe | pb.Experience | pb.Advance | pb.Finish

_FIELD_OF: dict[type[Message], str] = {
    pb.Observe: "observe",
    pb.Experience: "experience",
    pb.Advance: "advance",
    pb.Finish: "finish",
}
# Which replies close the request that is waited for. `observe` may get a step before its actions.
_CLOSES: dict[str, tuple[type, ...]] = {
    "observe": (Actions,),
    "experience": (Accepted, Step),
    "advance": (Step,),
    "finish": (),
}


class SessionProtocol:
    """One session's side of the conversation, over however many streams it takes.

    Attributes:
        session: its resource name; empty until the server has opened it.
        last_step: the last step that was handed out.
        opened: what the server said when the present stream began.
        adapted: how the session ended; ``None`` while it goes on.
        policy: the newest policy that came along, where ``policy_in_steps`` asked for it.
        finish_wanted: the caller wants the session to end.
    """

    def __init__(
        self, *, open: pb.Open | None = None, session: str = "", last_step: int = 0, version: str = ""
    ) -> None:
        """Either ``open`` for a new session, or ``session`` to come back to one whose step ``last_step`` was seen."""
        self._open = open
        self._version = version
        self._awaited: tuple[int, str] | None = None
        self._next = 1
        self._fresh = True
        self._last = False
        self.session = session
        self.last_step = last_step
        self.opened: Opened | None = None
        self.adapted: Adapted | None = None
        self.policy: Policy | None = None
        self.finish_wanted = False

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self.adapted is not None

    @property
    def spent(self) -> bool:
        """A budget was reached, and the end is on its way: the last step said so, or the budget of steps does."""
        budget = self._open.budget if self._open is not None else pb.Budget()
        return self._last or (budget.HasField("steps") and self.last_step >= budget.steps)

    @property
    def waiting(self) -> bool:
        """A message was sent whose reply has not come."""
        return self._awaited is not None

    @property
    def is_open(self) -> bool:
        """The server has opened the session on the present stream, and it has not ended."""
        return not self._fresh and not self.ended

    @property
    def progress(self) -> tuple[int, int]:
        """(the last step that was seen, the number of the next message): grows while the session gets on."""
        return self.last_step, self._next

    def first(self) -> pb.AdaptRequest:
        """What a new stream begins with: ``open``, or ``resume`` once the session has a name.

        An ``open`` that got no answer is sent again as it was: its request id leads to the session that it made.
        """
        self._fresh = True
        self._awaited = None
        if self.session:
            resume = pb.Resume(session=self.session, last_step=self.last_step, client_version=self._version)
            return pb.AdaptRequest(resume=resume)
        return pb.AdaptRequest(sequence=1, open=self._open)

    def number(self, message: Message) -> pb.AdaptRequest:
        """A message with its sequence number.

        Raises:
            ProtocolError: another message still waits for its reply, or the session is not open.
        """
        if not self.is_open:
            raise ProtocolError("the session is not open")
        field = _FIELD_OF[type(message)]
        if self.waiting and field != "finish":
            raise ProtocolError(f"message {self._awaited} still waits for its reply")
        request = pb.AdaptRequest(sequence=self._next, **{field: message})  # type: ignore[arg-type]
        self._awaited = (self._next, field)
        self._next += 1
        return request

    def receive(self, response: pb.AdaptResponse) -> Event | None:
        """What a message means; ``None`` for one that was seen before.

        Raises:
            ProtocolError: the contract does not allow it here.
        """
        event = _read(response)
        if isinstance(event, Alive):
            return event
        if isinstance(event, Opened):
            return self._take_opened(event)
        if self._fresh:
            raise ProtocolError(f"the server sent {response.WhichOneof('message')} before opened")
        if self.ended:
            return None
        if isinstance(event, Step):
            if event.number <= self.last_step:
                return None
            if event.number != self.last_step + 1:
                raise ProtocolError(f"step {event.number} came after step {self.last_step}: steps are missing")
            self.last_step = event.number
            self._last = bool(event.end_reason)
            self.policy = event.policy or self.policy
        elif isinstance(event, Adapted):
            self.adapted = event
            self._awaited = None
            return event
        elif self._awaited is None or response.sequence < self._awaited[0]:
            return None  # the reply to a message that has been answered: a duplicate
        elif response.sequence > self._awaited[0]:
            raise ProtocolError(
                f"a reply to message {response.sequence} came; {self._awaited[0]} was the last one sent"
            )
        if self._awaited and response.sequence == self._awaited[0] and isinstance(event, _CLOSES[self._awaited[1]]):
            self._awaited = None
        return event

    def _take_opened(self, event: Opened) -> Opened | None:
        if not self._fresh:
            return None
        if self.session and event.session != self.session:
            raise ProtocolError(f"{self.session} was asked for, the server opened {event.session}")
        if event.next_sequence < 1:
            raise ProtocolError("opened names no next sequence number")
        self._fresh = False
        self.session = event.session
        self._next = event.next_sequence
        self.opened = event
        self.policy = event.policy or self.policy
        return event


def _read(response: pb.AdaptResponse) -> Event:
    match response.WhichOneof("message"):
        case "opened":
            return reading.opened(response.opened)
        case "actions":
            reply = response.actions
            actions = array_from_pb(reply.output.actions)
            return Actions(step=reply.step, rows=tuple(reply.row_ids), actions=actions)
        case "step":
            return reading.step(response.step)
        case "accepted":
            return Accepted(response.accepted.episodes_pending)
        case "adapted":
            return reading.adapted(response.adapted)
        case "heartbeat" | "draining":
            return Alive()
        case _:
            raise ProtocolError("the server sent a message that this client does not know; update innerloop")

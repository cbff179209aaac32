"""Everything the server raises on purpose. ``service/status`` is the one place that turns these into gRPC.

::

    InnerloopError
    ├── InvalidField        the caller sent something that cannot be: names the field, says what to do
    ├── NotFound            no such resource, or not yours
    ├── AlreadyExists       the id is taken
    ├── PreconditionFailed  right request, wrong moment (a sequence gap, a stale step, a finished session)
    │   ├── SequenceGap
    │   └── StaleStep
    ├── Exhausted           a quota, a full queue, a full disk: try later, with a hint when
    ├── Unavailable         a process died or is restarting: retry, sessions are durable
    ├── PermissionDenied
    ├── Unauthenticated
    └── DataLoss            bytes on disk that do not match their hash
"""

from __future__ import annotations

from collections.abc import Mapping


class InnerloopError(Exception):
    """Root of the tree.

    Attributes:
        reason: UPPER_SNAKE_CASE, stable, for programs (``google.rpc.ErrorInfo.reason``).
        facts: what the error is about, as text (``ErrorInfo.metadata``).
    """

    reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, facts: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.facts: dict[str, str] = dict(facts or {})


def say(error: BaseException) -> str:
    """What went wrong, in a line for people: our own message, or the type and the words of a foreign error."""
    return error.message if isinstance(error, InnerloopError) else f"{type(error).__name__}: {error}"


class InvalidField(InnerloopError):
    """A field of the request cannot be what it is.

    Attributes:
        field: path of the field in the request, such as ``open.budget.steps``.
    """

    reason = "INVALID_FIELD"

    def __init__(
        self, field: str, advice: str, *, reason: str | None = None, facts: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{field}: {advice}", reason=reason, facts={"field": field, **(facts or {})})
        self.field = field
        self.advice = advice


class NotFound(InnerloopError):
    """No such resource, or one that belongs to somebody else (the two are told apart to nobody)."""

    reason = "NOT_FOUND"

    def __init__(self, name: str, advice: str = "") -> None:
        super().__init__(f"{name} does not exist{'; ' + advice if advice else ''}", facts={"name": name})
        self.name = name


class AlreadyExists(InnerloopError):
    """The id is taken by another resource."""

    reason = "ALREADY_EXISTS"


class PreconditionFailed(InnerloopError):
    """The request is right, the moment is not."""

    reason = "FAILED_PRECONDITION"


class SequenceGap(PreconditionFailed):
    """A client message skipped a sequence number."""

    reason = "SEQUENCE_GAP"

    def __init__(self, got: int, expected: int) -> None:
        super().__init__(
            f"sequence {got} came, {expected} was expected; send {expected} next",
            facts={"got": str(got), "expected": str(expected)},
        )
        self.got = got
        self.expected = expected


class StaleStep(PreconditionFailed):
    """Experience produced by a state that is no longer the session's."""

    reason = "STALE_STEP"

    def __init__(self, got: int, current: int) -> None:
        super().__init__(
            f"the actions came from step {got}, the session is at step {current}; act with the state of step "
            f"{current}, or send log_probs for a lag of one",
            facts={"got": str(got), "current": str(current)},
        )
        self.got = got
        self.current = current


class Exhausted(InnerloopError):
    """A quota, a queue or the disk is full.

    Attributes:
        retry_after_seconds: when trying again makes sense; ``None`` when it does not without somebody acting.
    """

    reason = "EXHAUSTED"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        retry_after_seconds: float | None = 1.0,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, facts=facts)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(InnerloopError):
    """A process died or is restarting. Durable sessions resume."""

    reason = "UNAVAILABLE"


class PermissionDenied(InnerloopError):
    """The principal may not do this."""

    reason = "PERMISSION_DENIED"


class Unauthenticated(InnerloopError):
    """No token, or one nobody has."""

    reason = "UNAUTHENTICATED"


class DataLoss(InnerloopError):
    """Bytes on disk that do not match their hash."""

    reason = "DATA_LOSS"

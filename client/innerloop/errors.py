"""Everything the client raises on purpose. ``_core/status`` is the one place that turns gRPC into these.

::

    InnerloopError
    ├── RequestRefused          the server looked at the request and said no; asking again will not help
    │   ├── InvalidRequest      something in it cannot be: .violations says which fields, and why
    │   ├── NotFound            no such resource, or not yours
    │   ├── AlreadyExists       the id is taken
    │   ├── PreconditionFailed  right request, wrong moment
    │   │   ├── SequenceGap     .got, .expected
    │   │   ├── StaleStep       .got, .current
    │   │   ├── NoEpisodes      an advance without a complete episode
    │   │   └── VersionSkew     client and server speak different contracts
    │   ├── PermissionDenied
    │   ├── Unauthenticated     no token, or one nobody has
    │   └── Unimplemented       the server is older than this client
    ├── Exhausted               a quota or a queue is full: .retry_after_seconds
    ├── Unavailable             the server cannot be reached; the only one that is retried by itself
    ├── DeadlineExceeded
    ├── Cancelled
    ├── ServerError             the server failed: a fault of its own
    ├── ProtocolError           the server said something that the contract does not allow
    ├── SpaceMismatch           an environment that the learner was not made for: .environment, .learner, .fitting
    ├── SessionEnded            the session ended without a policy: .end_reason
    ├── TrainingFailed          .training
    ├── EvaluationFailed        .evaluation
    ├── ServerNotInstalled      there is no server in this Python: .install says what to type
    └── ServerFailed            an embedded server died or never became ready: .log_tail

Every one carries ``message`` (a sentence with advice), ``reason`` (stable, UPPER_SNAKE_CASE, for programs) and
``facts`` (what it is about, as text).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from innerloop.types import Evaluation, Training


class InnerloopError(Exception):
    """Root of the tree.

    Attributes:
        message: what happened and what to do, for people.
        reason: UPPER_SNAKE_CASE, stable, for programs (``google.rpc.ErrorInfo.reason`` where a server said it).
        facts: what it is about, as text (``ErrorInfo.metadata``).
    """

    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, reason: str = "", facts: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.facts: dict[str, str] = dict(facts or {})

    def _number(self, fact: str) -> int | None:
        text = self.facts.get(fact, "")
        return int(text) if text.lstrip("-").isdigit() else None


class RequestRefused(InnerloopError):
    """The server looked at the request and said no. The same request will be refused again."""

    default_reason = "REFUSED"


@dataclass(frozen=True)
class Violation:
    """One field that cannot be what it is."""

    field: str
    """Path of the field in the request, such as ``open.budget.steps``."""
    description: str
    """What is wrong with it and what would do."""


class InvalidRequest(RequestRefused):
    """A field of the request cannot be what it is.

    Attributes:
        violations: which fields, and why; empty when the server named none.
    """

    default_reason = "INVALID_FIELD"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        facts: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message, reason=reason, facts=facts)
        self.violations = tuple(violations)

    @property
    def field(self) -> str:
        """The first field that is named; empty when none is."""
        return self.violations[0].field if self.violations else self.facts.get("field", "")


class NotFound(RequestRefused):
    """No such resource, or one that belongs to somebody else (the server does not tell which)."""

    default_reason = "NOT_FOUND"

    @property
    def name(self) -> str:
        """The resource name that was not found; empty when the server did not say."""
        return self.facts.get("name", "")


class AlreadyExists(RequestRefused):
    """The id is taken by another resource."""

    default_reason = "ALREADY_EXISTS"


class PreconditionFailed(RequestRefused):
    """The request is right, the moment is not."""

    default_reason = "FAILED_PRECONDITION"


class SequenceGap(PreconditionFailed):
    """A message skipped a sequence number."""

    default_reason = "SEQUENCE_GAP"

    @property
    def got(self) -> int | None:
        """The number that was sent."""
        return self._number("got")

    @property
    def expected(self) -> int | None:
        """The number that the server waits for."""
        return self._number("expected")


class StaleStep(PreconditionFailed):
    """Experience from a state that is no longer the session's."""

    default_reason = "STALE_STEP"

    @property
    def got(self) -> int | None:
        """The step whose state chose the actions."""
        return self._number("got")

    @property
    def current(self) -> int | None:
        """The step that the session is at."""
        return self._number("current")


class NoEpisodes(PreconditionFailed):
    """An adaptation step was asked for and no episode is complete."""

    default_reason = "NO_EPISODES"


class VersionSkew(PreconditionFailed):
    """Client and server speak different contracts: update the older one."""

    default_reason = "VERSION_SKEW"


class PermissionDenied(RequestRefused):
    """This principal may not do this."""

    default_reason = "PERMISSION_DENIED"


class Unauthenticated(RequestRefused):
    """No token, or one that nobody has."""

    default_reason = "UNAUTHENTICATED"


class Unimplemented(RequestRefused):
    """The server does not know this call: it is older than the client."""

    default_reason = "UNIMPLEMENTED"


class Exhausted(InnerloopError):
    """A quota, a queue or the disk is full.

    Attributes:
        retry_after_seconds: when trying again makes sense; ``None`` when it does not without somebody acting.
    """

    default_reason = "EXHAUSTED"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        facts: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, reason=reason, facts=facts)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(InnerloopError):
    """The server cannot be reached, or is going away. Sessions are durable: resume them when it is back."""

    default_reason = "UNAVAILABLE"


class DeadlineExceeded(InnerloopError):
    """The time that the caller gave ran out."""

    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(InnerloopError):
    """The call was cancelled, here or on the server."""

    default_reason = "CANCELLED"


class ServerError(InnerloopError):
    """The server failed: a fault of its own, worth a report."""

    default_reason = "INTERNAL"


class ProtocolError(InnerloopError):
    """The server said something that the contract does not allow."""

    default_reason = "PROTOCOL"


class SpaceMismatch(InnerloopError):
    """An environment whose spaces are not those of the learner.

    Attributes:
        environment: the environment's spaces, as text.
        learner: the learner's spaces, as text.
        fitting: resource names of the learners that would fit.
    """

    default_reason = "SPACE_MISMATCH"

    def __init__(self, message: str, *, environment: str, learner: str, fitting: Sequence[str]) -> None:
        super().__init__(message, facts={"environment": environment, "learner": learner, "fitting": ", ".join(fitting)})
        self.environment = environment
        self.learner = learner
        self.fitting = tuple(fitting)


class SessionEnded(InnerloopError):
    """The session ended without a policy.

    Attributes:
        end_reason: ``cancelled`` or ``lease_expired``; empty when the client left it.
    """

    default_reason = "SESSION_ENDED"

    def __init__(self, message: str, *, end_reason: str = "") -> None:
        super().__init__(message, facts={"end_reason": end_reason})
        self.end_reason = end_reason


class TrainingFailed(InnerloopError):
    """A training failed. Resume it from its checkpoint when the cause is gone.

    Attributes:
        training: the training as it ended.
    """

    default_reason = "TRAINING_FAILED"

    def __init__(self, message: str, training: Training) -> None:
        super().__init__(message, facts={"name": training.name})
        self.training = training


class EvaluationFailed(InnerloopError):
    """An evaluation failed or was cancelled.

    Attributes:
        evaluation: the evaluation as it ended.
    """

    default_reason = "EVALUATION_FAILED"

    def __init__(self, message: str, evaluation: Evaluation) -> None:
        super().__init__(message, facts={"name": evaluation.name})
        self.evaluation = evaluation


class ServerNotInstalled(InnerloopError):
    """There is no server in this Python.

    Attributes:
        install: what to type.
    """

    default_reason = "SERVER_NOT_INSTALLED"

    def __init__(self, missing: str) -> None:
        self.install = "pip install 'innerloop[server]'"
        super().__init__(
            f"the server cannot be started here: the module {missing} is missing; {self.install}",
            facts={"missing": missing, "install": self.install},
        )


class ServerFailed(InnerloopError):
    """An embedded server died, or did not become ready in time.

    Attributes:
        log_tail: the last lines of its log.
    """

    default_reason = "SERVER_FAILED"

    def __init__(self, message: str, *, log_tail: str, log_path: str = "") -> None:
        super().__init__(f"{message}\n{log_tail}" if log_tail else message, facts={"log": log_path})
        self.log_tail = log_tail

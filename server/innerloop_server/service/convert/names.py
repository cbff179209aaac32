"""Resource names: ``families/f``, ``learners/l/revisions/3``, ``sessions/s`` and so on.

>>> SESSION.parse("sessions/s1", "name")
's1'
>>> SESSION.format("s1")
'sessions/s1'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from innerloop_server.errors import InvalidField

LONGEST = 512
"""Characters of a resource name."""
_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_REVISION = re.compile(rf"learners/({_ID})/revisions/([1-9][0-9]{{0,17}})")
_LEARNER_ID = re.compile(r"[a-z0-9-]{1,63}")
_REQUEST_ID = re.compile(r"[a-zA-Z0-9._-]{1,128}")


@dataclass(frozen=True)
class Collection:
    """A kind of resource whose names are ``{plural}/{id}``."""

    plural: str
    singular: str

    def parse(self, name: str, field: str) -> str:
        """The id in a resource name.

        Raises:
            InvalidField: the name is empty or has another form.
        """
        match = re.fullmatch(rf"{self.plural}/({_ID})", name) if len(name) <= LONGEST else None
        if match is None:
            raise InvalidField(field, f"{_quoted(name)}; write {self.plural}/{self.singular.upper()}")
        return match[1]

    def format(self, resource_id: str) -> str:
        """The resource name of an id; empty for an empty one."""
        return f"{self.plural}/{resource_id}" if resource_id else ""


FAMILY = Collection("families", "family")
LEARNER = Collection("learners", "learner")
SESSION = Collection("sessions", "session")
POLICY = Collection("policies", "policy")
EVALUATION = Collection("evaluations", "evaluation")
TRAINING = Collection("trainings", "training")


def parse_revision(name: str, field: str) -> tuple[str, int]:
    """(learner id, number) in ``learners/{learner}/revisions/{number}``.

    Raises:
        InvalidField: the name is empty or has another form.
    """
    match = _REVISION.fullmatch(name) if len(name) <= LONGEST else None
    if match is None:
        raise InvalidField(field, f"{_quoted(name)}; write learners/LEARNER/revisions/NUMBER")
    return match[1], int(match[2])


def format_revision(learner_id: str, number: int) -> str:
    """``learners/{learner}/revisions/{number}``."""
    return f"learners/{learner_id}/revisions/{number}"


def parse_learner_or_revision(name: str, field: str) -> tuple[str, int | None]:
    """(learner id, number), the number ``None`` where the name is a learner's own.

    Raises:
        InvalidField: neither form.
    """
    if "/revisions/" in name:
        return parse_revision(name, field)
    try:
        return LEARNER.parse(name, field), None
    except InvalidField as error:
        advice = f"{error.advice}, or learners/LEARNER/revisions/NUMBER"
        raise InvalidField(field, advice) from None


def new_learner_id(name: str, field: str) -> str:
    """The id of a learner that may be made now: 1 to 63 characters of [a-z0-9-].

    Raises:
        InvalidField: another form.
    """
    learner_id = LEARNER.parse(name, field)
    if _LEARNER_ID.fullmatch(learner_id) is None:
        raise InvalidField(field, f"{_quoted(name)}; use 1 to 63 characters of [a-z0-9-] after learners/")
    return learner_id


def request_id(value: str, field: str = "request_id") -> str:
    """A client's own id for a request, or empty.

    Raises:
        InvalidField: too long, or characters outside [a-zA-Z0-9._-].
    """
    if value and _REQUEST_ID.fullmatch(value) is None:
        raise InvalidField(field, f"{_quoted(value)}; use 1 to 128 characters of [a-zA-Z0-9._-], or leave it empty")
    return value


def _quoted(name: str) -> str:
    if not name:
        return "is missing"
    return f"{name[:80]!r}{'...' if len(name) > 80 else ''} is not of the right form"

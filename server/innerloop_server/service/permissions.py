"""Who may change a learner: its owner, and operators."""

from __future__ import annotations

from dataclasses import dataclass

from innerloop_server.errors import PermissionDenied
from innerloop_server.service.principal import LOCAL
from innerloop_server.settings import Settings


@dataclass(frozen=True)
class Permissions:
    """The rule, as a value."""

    operators: frozenset[str]
    """Principals that may change anybody's learners, the server's own among them."""

    @staticmethod
    def of(settings: Settings) -> Permissions:
        """As the server is configured; without tokens everybody is ``local``, and ``local`` is an operator."""
        return Permissions(frozenset(settings.operators if settings.tokens else (LOCAL,)))

    def allows(self, principal: str, owner: str) -> bool:
        """Whether ``principal`` may change what ``owner`` (empty: the server itself) owns."""
        return principal in self.operators or (owner != "" and principal == owner)

    def require(self, principal: str, owner: str, name: str) -> None:
        """Let the owner of a thing and operators pass.

        Args:
            principal: who asks.
            owner: of the thing; empty: the server itself.
            name: of the thing, for the error.

        Raises:
            PermissionDenied: somebody else asks.
        """
        if self.allows(principal, owner):
            return
        whose = f"belongs to {owner}" if owner else "is the server's own"
        raise PermissionDenied(
            f"{name} {whose}; only its owner or an operator may train, promote or roll back. Train one of your own: "
            "give learner another name, and continue_from this one's revision",
            facts={"name": name},
        )

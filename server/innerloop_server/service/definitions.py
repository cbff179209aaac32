"""Families that clients define: what may be, what is kept, and when it may go."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

from innerloop_server.errors import AlreadyExists, Exhausted, NotFound, PermissionDenied, PreconditionFailed
from innerloop_server.service.convert.names import FAMILY, LEARNER
from innerloop_server.service.permissions import Permissions
from innerloop_server.settings import Limits
from innerloop_server.store.failures import translated
from innerloop_server.store.pages import PageRequest
from innerloop_server.store.store import Store
from innerloop_server.tasks.defined import Definitions
from innerloop_server.tasks.definition import DefinedFamily, FamilyDefinition, is_allowed
from innerloop_server.tasks.probing import probed
from innerloop_server.tasks.registry import Registry
from innerloop_server.training.files import sync_directory, write_durably

LOOKS = 2
"""Environments that are looked at side by side at most, each in a process of its own."""


class FamilyDefiner:
    """Writes the definitions that a registry reads. Use it from one event loop."""

    def __init__(self, registry: Registry, store: Store, permissions: Permissions, limits: Limits) -> None:
        """Args:
        registry: one with definitions; without them nothing can be defined.
        store: where learners are looked for.
        permissions: who may delete.
        limits: how many families one principal may define.
        """
        self._registry = registry
        self._definitions = registry.definitions
        self._store = store
        self._permissions = permissions
        self._limits = limits
        self._changing = asyncio.Lock()
        self._looking = asyncio.Semaphore(LOOKS)

    async def define(self, wanted: FamilyDefinition) -> DefinedFamily:
        """Make a family, durably. Looks at its environment first, in another process.

        Args:
            wanted: without spaces.

        Raises:
            PermissionDenied: the operator has not allowed the environment.
            AlreadyExists: the name is taken, by anything but this owner's very same definition.
            Exhausted: the owner has defined too many, or the disk is full.
            InvalidField: the environment is none that a family can be made of.
        """
        definitions = self._allowing(wanted.env_id)
        if (same := self._taken(wanted, definitions)) is not None:
            return same
        self._check_quota(wanted.owner, definitions)
        async with self._looking:
            definition = replace(await probed(wanted), created_at=time.time())
        async with self._changing:
            if (same := self._taken(wanted, definitions)) is not None:
                return same
            self._check_quota(wanted.owner, definitions)
            return await asyncio.to_thread(self._keep, definition, definitions)

    async def delete(self, name: str, principal: str) -> None:
        """Forget a defined family, and its learners that never got a revision, with their trainings.

        Args:
            name: an id.
            principal: who asks.

        Raises:
            NotFound: there is none.
            PermissionDenied: somebody else defined it.
            PreconditionFailed: it is installed, or a learner of it has a revision or a training that runs.
        """
        async with self._changing:
            await asyncio.to_thread(self._delete, name, principal)

    def _allowing(self, env_id: str) -> Definitions:
        if self._definitions is None or not is_allowed(env_id, self._definitions.allowed):
            raise PermissionDenied(
                f"env_id: {env_id} may not be used on this server; its operator can allow it: innerloop serve "
                f"--allow-env {env_id}",
                reason="ENVIRONMENT_NOT_ALLOWED",
                facts={"env_id": env_id},
            )
        return self._definitions

    def _taken(self, wanted: FamilyDefinition, definitions: Definitions) -> DefinedFamily | None:
        """The family that is this very definition; ``None`` where the name is free."""
        name = wanted.name
        known = definitions.get(name)
        installed = name in self._registry.families or name in self._registry.broken
        if known is None and not installed:
            return None
        if isinstance(known, DefinedFamily) and not installed:
            there = known.definition
            if (there.owner, there.asked) == (wanted.owner, wanted.asked):
                return known
        whose = "installed" if installed else "defined, differently or by somebody else"
        raise AlreadyExists(
            f"{FAMILY.format(name)} is {whose}; choose another name", facts={"name": FAMILY.format(name)}
        )

    def _check_quota(self, owner: str, definitions: Definitions) -> None:
        found = (definitions.get(name) for name in definitions.names())
        own = sum(isinstance(family, DefinedFamily) and family.definition.owner == owner for family in found)
        if own >= self._limits.families_per_owner:
            raise Exhausted(
                f"{own} families of yours are defined; delete one first",
                reason="FAMILIES_EXHAUSTED",
                retry_after_seconds=None,
            )

    @staticmethod
    def _keep(definition: FamilyDefinition, definitions: Definitions) -> DefinedFamily:
        data = json.dumps(definition.to_json(), indent=2, allow_nan=False).encode() + b"\n"
        with translated():
            definitions.directory.mkdir(parents=True, exist_ok=True)
            write_durably(definitions.path(definition.name), data)
        kept = definitions.get(definition.name)
        assert isinstance(kept, DefinedFamily), kept
        return kept

    def _delete(self, name: str, principal: str) -> None:
        resource = FAMILY.format(name)
        if name in self._registry.families or name in self._registry.broken:
            raise PreconditionFailed(f"{resource} is installed; uninstall its package where the server runs")
        found = self._definitions.get(name) if self._definitions else None
        if found is None or self._definitions is None:
            raise NotFound(resource)
        # nobody can read who defined a damaged one, so that is for operators
        owner = found.definition.owner if isinstance(found, DefinedFamily) else ""
        if not self._permissions.allows(principal, owner):
            raise PermissionDenied(f"{resource} is not yours; who defined it or an operator may delete it")
        with self._registry.binding:
            # the learners first: whoever defined the name anew would find those of another family under it
            if learners := self._store.forget_learners(self._learners(name)).in_use:
                told = [LEARNER.format(learner) for learner in learners]
                raise PreconditionFailed(
                    f"{resource} has {', '.join(told)}, and what was or is being learned rests on it",
                    reason="FAMILY_IN_USE",
                    facts={"name": resource, "learner": told[0]},
                )
            with translated():
                self._definitions.path(name).unlink(missing_ok=True)
                sync_directory(self._definitions.directory)
            self._definitions.forget(name)

    def _learners(self, family: str) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            page = self._store.list_learners(None, PageRequest(token=token))
            found += [record.id for record in page.items if record.spec.family == family]
            if not page.next_token:
                return found
            token = page.next_token

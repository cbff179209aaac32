"""Policies that were acted with lately, ready to act again."""

from __future__ import annotations

from collections import OrderedDict

from innerloop.policy import Policy


class PolicyCache:
    """Policies by content hash, the least recently used dropped first. One thread of control at a time.

    A hash stands for its bytes for ever, so nothing here goes stale; who may act with them is asked elsewhere.
    """

    def __init__(self, most_bytes: int = 256 * 1024 * 1024) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[Policy, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, digest: str) -> Policy | None:
        """The policy whose file has this hash, if it is here."""
        found = self._kept.get(digest)
        if found is None:
            return None
        self._kept.move_to_end(digest)
        return found[0]

    def put(self, digest: str, policy: Policy) -> None:
        """Keep a policy. One larger than the whole cache is not kept."""
        size = sum(array.nbytes for array in policy.weights.values())
        if digest in self._kept or size > self._most_bytes:
            return
        self._kept[digest] = (policy, size)
        self._bytes += size
        while self._bytes > self._most_bytes:
            _, (_, freed) = self._kept.popitem(last=False)
            self._bytes -= freed

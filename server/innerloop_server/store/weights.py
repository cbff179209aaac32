"""Weights by their content hash, for those who hold a record that names one."""

from __future__ import annotations

from pathlib import Path

from innerloop_server.store.room import Room


class Weights(Room):
    """Safetensors bytes, without owners: whoever may read the record may read its blob."""

    def put_blob(self, data: bytes) -> str:
        """Keep safetensors bytes; their SHA-256. Unless a record refers to it within the grace period, it is collected.

        Raises:
            ValueError: not safetensors.
        """
        return self._blobs.put(data)

    def read_blob(self, digest: str) -> bytes:
        """The bytes of a revision's or policy's ``blob``, checked.

        Raises:
            DataLoss: missing or damaged.
        """
        return self._blobs.get(digest)

    def blob_path(self, digest: str) -> Path:
        """Where those bytes lie, for a process that reads and checks them itself (the engine)."""
        return self._blobs.path(digest)

"""Weights as files named by their content: ``blobs/ab/abcd...ef.safetensors``.

A file is complete and on disk before it has its name, so a name never stands for half a file, and the same weights are
stored once. Reading checks the content against the name.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from innerloop_server.errors import DataLoss
from innerloop_server.store.failures import translated

SUFFIX = ".safetensors"


class Blobs:
    """The blobs under one directory, which it makes. Threads may share it."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._temporary = directory / "tmp"
        self._clock = clock
        # Between "is it there, and fresh?" and "use it" or "remove it" nobody else may act.
        self._lock = threading.Lock()
        with translated():
            self._temporary.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> str:
        """Keep ``data`` and return its SHA-256 in hexadecimal. Durable on return; a blob that is there is not written
        again, but counts as just written.

        Raises:
            ValueError: not safetensors.
            Exhausted: ``DISK_FULL``.
        """
        if not is_safetensors(data):
            raise ValueError("a blob must be safetensors bytes")
        digest = hashlib.sha256(data).hexdigest()
        if not self._keep(digest, data):
            with translated():
                self._write(digest, data)
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes whose SHA-256 is ``digest``.

        Raises:
            DataLoss: the file is missing, or holds something else.
        """
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError as error:
            raise _lost(digest, "is missing") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise _lost(digest, "does not hold what its name says")
        return data

    def remove_unreferenced(self, referenced: Collection[str], before: float) -> list[int]:
        """Remove blobs that are not in ``referenced`` and were last put before ``before`` (Unix seconds), and temporary
        files a crash left behind. The sizes of what was removed, in bytes.

        Safe beside ``put``: whoever is about to refer to a blob has put it just now, so it is too young.
        """
        sizes = []
        for path in list(self._files()):
            if path.name.removesuffix(SUFFIX) in referenced:
                continue
            with self._lock:
                sizes += _remove_if_older(path, before)
        for path in list(self._temporary.iterdir()):
            _remove_if_older(path, before)
        return sizes

    def count(self) -> int:
        """How many blobs there are."""
        return sum(1 for _ in self._files())

    def path(self, digest: str) -> Path:
        """Where a blob lies, or would."""
        return self._directory / digest[:2] / f"{digest}{SUFFIX}"

    def _files(self) -> Iterator[Path]:
        return self._directory.glob(f"??/*{SUFFIX}")

    def _keep(self, digest: str, data: bytes) -> bool:
        """Whether the blob is there and sound; if so it is made young. A damaged one is written anew."""
        path = self.path(digest)
        with self._lock:
            try:
                if path.read_bytes() != data:
                    return False
            except FileNotFoundError:
                return False
            now = self._clock()
            os.utime(path, (now, now))
            return True

    def _write(self, digest: str, data: bytes) -> None:
        path, temporary = self.path(digest), self._temporary / f"{digest}.{secrets.token_hex(4)}"
        now = self._clock()
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.utime(file.fileno(), (now, now))
                os.fsync(file.fileno())
            path.parent.mkdir(exist_ok=True)
            with self._lock:
                temporary.replace(path)
            _sync_directory(path.parent)
            _sync_directory(self._directory)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def is_safetensors(data: bytes) -> bool:
    """Whether ``data`` starts as a safetensors file does: the header's length in 8 little-endian bytes, then that much
    JSON object. Keeps anything else, a pickle above all, out of the store at no cost.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 + length or data[8:9] != b"{":
        return False
    try:
        json.loads(data[8 : 8 + length])
    except ValueError:
        return False
    return True


def _remove_if_older(path: Path, before: float) -> list[int]:
    """The size of the file if it was removed, else nothing; a file that was renamed away meanwhile is left in peace."""
    try:
        status = path.stat()
        if status.st_mtime >= before:
            return []
        path.unlink()
    except FileNotFoundError:
        return []
    return [status.st_size]


def _sync_directory(directory: Path) -> None:
    # A rename is durable only once the directory is.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lost(digest: str, what: str) -> DataLoss:
    return DataLoss(f"blob {digest} {what}; restore it from a backup", reason="BLOB_DAMAGED", facts={"blob": digest})

"""One server a data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from innerloop_server.errors import PreconditionFailed


class DirectoryLock:
    """An exclusive lock on ``directory/LOCK``, held until ``release`` or the end of the process, however it ends.

    The file stays when the lock is released: removing it would let two later servers lock two different files.

    Raises:
        PreconditionFailed: ``DATA_DIR_IN_USE``; another server holds it.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / "LOCK", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise PreconditionFailed(
                f"{directory} is in use by the server with process id {holder or 'unknown'}; "
                "stop that server or choose another data directory",
                reason="DATA_DIR_IN_USE",
                facts={"data_dir": str(directory), "pid": holder},
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next server in; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

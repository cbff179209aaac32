"""Named points at which a test may have this process killed, to prove that nothing acknowledged is lost.

``INNERLOOP_FAULT=name:n`` kills the process (SIGKILL, no cleanup) the n-th time it passes the point ``name``, after
writing a line about it to ``INNERLOOP_FAULT_LOG``. Without the variable a point is one dictionary look-up.
"""

from __future__ import annotations

import os
import signal


def _armed() -> tuple[str, int]:
    name, _, count = os.environ.get("INNERLOOP_FAULT", "").partition(":")
    return name, int(count or 1)


_NAME, _COUNT = _armed()
_passed = 0


def point(name: str) -> None:
    """Die here if it is this point's turn."""
    global _passed
    if name != _NAME:
        return
    _passed += 1
    if _passed == _COUNT:
        log = os.environ.get("INNERLOOP_FAULT_LOG")
        if log:
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{name}:{_passed} pid {os.getpid()}\n")
        os.kill(os.getpid(), signal.SIGKILL)

"""The command line: ``innerloop serve | families | tasks | adapt | evaluate | train | ...``."""

from __future__ import annotations

import sys

__all__ = ["main"]

try:  # these imports take most of a short command's time, so this is where an early Ctrl-C lands
    from innerloop.cli.group import main
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    raise SystemExit(130) from None

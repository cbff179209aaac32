"""``python -m innerloop_server.training COMMAND ...``: ``run`` a supervised trainer, ``train`` without a server, or
``export`` a run to the zoo.

They start here, and not as modules of their own, because a spawned actor imports its parent's main module again unless
that is called ``__main__``: so actors stay without torch.
"""

from __future__ import annotations

import importlib
import sys

COMMANDS = {"run": "trainer", "train": "offline", "export": "zoo"}


def main(arguments: list[str]) -> int:
    """The exit status of the command that the first argument names."""
    name, *rest = arguments or [""]
    if name not in COMMANDS:
        print(f"usage: python -m innerloop_server.training {{{','.join(COMMANDS)}}} ...", file=sys.stderr)  # noqa: T201
        return 2
    module = importlib.import_module(f"innerloop_server.training.{COMMANDS[name]}")
    status: int = module.main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

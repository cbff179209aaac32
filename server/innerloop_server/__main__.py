"""``python -m innerloop_server``: serve."""

from __future__ import annotations

import asyncio
import sys

from innerloop_server import logs
from innerloop_server.arguments import parse
from innerloop_server.errors import InnerloopError


def main() -> int:
    """Serve until told to stop. Exit status 1, and one line that says what to do, when that cannot be."""
    arguments = parse()
    logs.configure(arguments.settings.log_format)
    # Imported late, so that --help answers at once.
    from innerloop_server.app import serve

    try:
        asyncio.run(serve(arguments.settings, arguments.ready_file))
    except InnerloopError as error:
        print(f"innerloop serve: {error.message}", file=sys.stderr)  # noqa: T201  the one line a person needs
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

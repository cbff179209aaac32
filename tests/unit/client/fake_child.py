"""Stands in for ``python -m innerloop_server`` as a child process: serves, dies, or never becomes ready."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from fake_server import FakeServer


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode")
    for name in ("host", "port", "data-dir", "parent-pid", "ready-file", "device"):
        parser.add_argument(f"--{name}")
    args = parser.parse_args()
    sys.stdout.write("hello from the child\n")
    sys.stdout.flush()
    if args.mode == "dies":
        sys.stderr.write("the disk is full\n")
        return 3
    stopped = threading.Event()
    if args.mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    if args.mode != "never":
        server = FakeServer()
        Path(args.data_dir, "arguments.json").write_text(json.dumps({**vars(args), "ppid": os.getppid()}))
        ready = Path(args.ready_file)
        ready.write_text('{"addre')  # half written: the reader must wait for the rest
        ready.write_text(json.dumps({"address": server.address, "admin": None}))
    stopped.wait()
    Path(args.data_dir, "drained").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())

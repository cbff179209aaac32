"""Other people's code in a process of its own: it has a virtual environment of its own too."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class PeerProcess:
    """A script that answers one JSON object a line with another."""

    def __init__(self, python: Path, script: Path, environment: Mapping[str, str] | None = None) -> None:
        """Args:
        python: the interpreter of its virtual environment.
        script: what runs.
        environment: variables over ours.
        """
        self._script = script
        self._process = subprocess.Popen(
            [python, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """What it answers; ``error`` says what went wrong there.

        Raises:
            RuntimeError: it died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._script} ended with {self._process.wait(10)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_server import FakeServer

import innerloop


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake server; the test fails if the client broke the grammar of the contract."""
    fake = FakeServer()
    yield fake
    assert fake.idle(), "an Adapt stream was left open"
    fake.stop()
    assert fake.violations == []


@pytest.fixture
def client(server: FakeServer) -> Iterator[innerloop.Client]:
    with innerloop.connect(server.address, patience=5) as client:
        yield client

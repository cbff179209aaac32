from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # contract_support
from contract_support import dialled, serving, task_servicer

from innerloop_server.service.policies import PolicyServicer
from innerloop_server.service.server import Server
from innerloop_server.settings import Settings
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry, load_registry


@pytest.fixture(scope="session")
def registry() -> Registry:
    loaded = load_registry()
    return replace(loaded, broken={"broken-family": "ImportError: no module named nowhere"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", port=0)


@pytest.fixture
def servicers(registry: Registry, store: Store, settings: Settings) -> Sequence[object]:
    return [task_servicer(registry, store, settings), PolicyServicer(store, settings.limits)]


@pytest.fixture
async def server(settings: Settings, servicers: Sequence[object]) -> AsyncIterator[Server]:
    async with serving(settings, servicers) as running:
        yield running


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with dialled(server) as opened:
        yield opened

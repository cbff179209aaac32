from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from innerloop_server.tasks.registry import Registry, load_registry


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_registry()

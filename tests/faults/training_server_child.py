"""A server with one training, to be killed: prints the training's id, then the number of each update."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # training_support
from training_support import supervising, tiny_request

from innerloop_server.store.store import Store
from innerloop_server.training.metrics import UpdateMetrics


async def main(data_dir: Path) -> None:
    with Store.open(data_dir) as store:
        async with supervising(store) as supervisor:
            record = await supervisor.start(tiny_request(settings={"updates": 8, "checkpoint_every": 3}), "ann")
            print(record.id, flush=True)  # noqa: T201 - read by the test
            async for news in supervisor.follow(record.id):
                if isinstance(news, UpdateMetrics):
                    print(news.update, flush=True)  # noqa: T201 - read by the test


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

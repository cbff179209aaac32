"""The code in docs/client.md runs, block by block, in one namespace."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import fake_answers

from innerloop.arrays import Box, Discrete

PAGE = Path(__file__).parents[3] / "docs" / "client.md"


async def test_the_page_runs(server, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("INNERLOOP_ADDRESS", server.address)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(fake_answers.FAMILIES, "families/digits", (Box.of(0, 1, (64,)), Discrete(2)))
    monkeypatch.setitem(fake_answers.LEARNERS, "learners/digits-maml", "families/digits")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert len(blocks) == 8
    space: dict[str, object] = {"__name__": "page"}

    def run() -> None:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), space)

    await asyncio.to_thread(run)  # a thread of its own: the page calls asyncio.run
    assert "NOT_FOUND families/nowhere" in capsys.readouterr().out
    assert (tmp_path / "policy.safetensors").exists()

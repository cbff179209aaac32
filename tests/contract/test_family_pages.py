"""The pages of the families say what the code says, and their examples run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from innerloop_server.tasks.registry import load_registry

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "families").glob("*.md"))


def test_the_pages_are_fresh() -> None:
    ran = subprocess.run(
        [sys.executable, "scripts/family_pages.py", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_example_of_a_page_runs(page: Path) -> None:
    family = load_registry().get(page.stem)
    if family.extra is not None and family.extra.missing:
        pytest.skip(f"needs {family.extra.hint}")
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert family.observation_space.shape == getattr(names["observation"], "shape", ())

"""scripts/trials_page: what whole trials scored, and how it was trained, on one page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import safetensors.torch

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
import trials_page

from innerloop_server.learners.registry import build
from innerloop_server.store.codec import spec_to_json
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.specs import spec_for

SMALL = {"encoder_sizes": [4], "memory_size": 4, "hidden_sizes": [4]}


def a_run(folder: Path, family: str, seed: int) -> Path:
    """An untrained revision, as if it were a training's."""
    spec = spec_for(load_registry().get(family), "rl2", settings=SMALL)
    folder.mkdir(parents=True)
    (folder / "meta.safetensors").write_bytes(safetensors.torch.save(build(spec).initial_meta(seed)))
    manifest = {
        "spec": spec_to_json(spec),
        "seed": seed,
        "command": f"scripts/train {family} --method rl2 --seed {seed}",
        "commit": "0123456789abcdef",
        "updates": 7,
        "environment_steps": 1_500_000,
        "wall_seconds": 71.0,
        "cpu_seconds": 70.0,
        "weights_sha256": "f" * 64,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["trials_page", *map(str, arguments)])
    assert trials_page.main() == 0


def test_a_training_stands_on_the_page_once_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (a_run(tmp_path / f"run-{seed}", "gridnavi", seed) for seed in (0, 1))
    run(monkeypatch, first, "--docs", tmp_path)
    run(monkeypatch, first, second, "--docs", tmp_path)
    text = (tmp_path / "results-trials.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| rl2 | ")]
    assert [line.split(" | ")[1] for line in lines] == ["0", "1"]
    assert "all tasks" in lines[0]
    assert "| bayes-optimum | 37.21 |" in text
    run(monkeypatch, "--docs", tmp_path)
    assert (tmp_path / "results-trials.md").read_text() == text


def test_the_table_of_the_paper_has_nine_settings_and_honest_blanks() -> None:
    means = {"bernoulli-bandit.arms-10.pulls-100": [80.0, 81.5], "bernoulli-bandit": [6.6]}
    entries = [{"family": f, "method": "rl2", "mean": mean} for f, values in means.items() for mean in values]
    rows = [line for line in trials_page.of_bandits(entries) if line.startswith(("| 1", "| 5"))]
    assert len(rows) == 9
    assert "80.00 / 81.50" in next(row for row in rows if row.startswith("| 100 | 10 |"))
    assert next(row for row in rows if row.startswith("| 10 | 5 | 6.660 |")).endswith("| 6.600 | 99.10% |")
    assert next(row for row in rows if row.startswith("| 500 | 50 |")).endswith("|  |  |")


@pytest.mark.parametrize(("value", "shown"), [(6.66, "6.660"), (78.123, "78.12"), (-182.07, "-182.1"), (0.5, "0.500")])
def test_four_figures(value: float, shown: str) -> None:
    assert f"{value:.{trials_page.digits(value)}f}" == shown

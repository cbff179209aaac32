"""scripts/curves: the log of a training as a picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
import curves


def test_a_point_is_the_mean_of_the_last_updates() -> None:
    assert curves.smoothed([1.0, 3.0, 5.0, 7.0], 2).tolist() == [1, 2, 4, 6]
    assert curves.smoothed([1.0, 3.0], 10).tolist() == [1, 2]


def test_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"update": i, "return_0": -9.0, "return_1": float(i), "environment_steps": 1e5} for i in range(3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    picture = tmp_path / "curve.png"
    monkeypatch.setattr(sys, "argv", ["curves", str(tmp_path), str(picture)])
    assert curves.main() == 0
    assert picture.read_bytes().startswith(b"\x89PNG")

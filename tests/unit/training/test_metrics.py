from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.errors import DataLoss
from innerloop_server.training import checkpoints
from innerloop_server.training.files import write_durably
from innerloop_server.training.metrics import MetricsLog, MetricsReader, UpdateMetrics


def line(update: int, value: float = 0.5, wall: float = 1.0) -> UpdateMetrics:
    return UpdateMetrics(update, {"loss": value, "wall_seconds": wall, "cpu_seconds": wall})


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda s: s != "update"), st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_a_line_reads_back_to_the_bit(values: dict[str, float]) -> None:
    metrics = UpdateMetrics(3, values)
    text = metrics.to_line()
    assert text.count(b"\n") == 1
    again = UpdateMetrics.from_line(text)
    assert again == metrics
    assert [math.copysign(1, v) for v in again.values.values()] == [math.copysign(1, v) for v in values.values()]


def test_wall_clock_is_told_apart() -> None:
    assert line(1, wall=1.0).reproducible == line(1, wall=2.0).reproducible == {"loss": 0.5}


@pytest.mark.parametrize("text", [b"", b"[]\n", b'{"loss": 1}\n', b'{"update": 1, "loss": "x"}\n', b'{"update": 1'])
def test_a_damaged_line_is_refused(text: bytes) -> None:
    with pytest.raises(DataLoss):
        UpdateMetrics.from_line(text)


def test_not_a_number_is_never_written(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "log", 0) as log, pytest.raises(ValueError, match="JSON"):
        log.append(line(1, math.nan))


def test_a_reader_takes_whole_lines_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = MetricsReader(path, after_update=1)
    assert list(reader.read()) == []
    path.write_bytes(line(1).to_line() + line(2).to_line() + line(3).to_line()[:10])
    assert list(reader.read()) == [line(2)]
    with path.open("ab") as file:
        file.write(line(3).to_line()[10:])
    assert list(reader.read()) == [line(3)]
    assert list(reader.read()) == []


def test_a_reader_sees_every_update_once_over_two_resumes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = MetricsReader(path)
    seen: list[int] = []
    for start, end, wall in ((0, 4, 1.0), (2, 6, 22.0), (4, 5, 3.0), (0, 8, 4.4444)):
        with MetricsLog(path, start) as log:
            for update in range(start + 1, end + 1):
                log.append(line(update, wall=wall))
                seen += [metrics.update for metrics in reader.read()]
    assert seen == list(range(1, 9))


def test_cutting_back_keeps_what_the_checkpoint_is_behind(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with MetricsLog(path, 0) as log:
        for update in (1, 2, 3):
            log.append(line(update))
        log.sync()
    with MetricsLog(path, 2) as log:
        assert log.last == line(2)
    assert path.read_bytes() == line(1).to_line() + line(2).to_line()
    with pytest.raises(DataLoss, match="updates 1 to 3"):
        MetricsLog(path, 3)


def test_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path) is None
    paths = [checkpoints.save(tmp_path, update, b"state %d" % update) for update in (9, 10, 100)]
    assert [path.exists() for path in paths] == [False, True, True]
    assert checkpoints.load(tmp_path) == b"state 100"
    paths[2].write_bytes(b"state 1oo")
    assert checkpoints.load(tmp_path) == b"state 10"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]

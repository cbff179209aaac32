"""``scripts/bench learners``: the statistics by hand, the plan, the page, and jobs that are stopped."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

SCRIPTS = Path(__file__).parents[3] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmarks import learners as command_line  # noqa: E402 - found by the path above
from learners_table import jobs, page, results  # noqa: E402
from learners_table.intervals import seed_interval, trial_returns  # noqa: E402
from learners_table.kept import Kept  # noqa: E402
from learners_table.plan import Cell, Entry, Table, read  # noqa: E402

from innerloop_server.domain import Split  # noqa: E402
from innerloop_server.evaluation.plan import fixed_plan  # noqa: E402
from innerloop_server.evaluation.scores import interquartile_mean  # noqa: E402
from innerloop_server.learners.registry import remembers  # noqa: E402
from innerloop_server.store.codec import spec_to_json  # noqa: E402
from innerloop_server.tasks.registry import load_registry  # noqa: E402
from innerloop_server.training.requests import TrainingRequest, plan  # noqa: E402
from innerloop_server.training.run import RunFolder  # noqa: E402

REGISTRY = load_registry()


def test_interquartile_means_of_odd_sizes_by_hand() -> None:
    # Of five values the middle half is 2.5 of them: all of the third, three quarters of its neighbours.
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0, -50.0])) == pytest.approx((0.75 * 1 + 2 + 0.75 * 3) / 2.5)
    # Of three, 1.5: the middle one, and a quarter of each other.
    assert interquartile_mean(np.array([0.0, 6.0, 1.0])) == pytest.approx((0.25 * 0 + 1 + 0.25 * 6) / 1.5)
    assert interquartile_mean(np.array([7.0])) == 7.0


def test_an_interval_over_seeds_by_hand() -> None:
    # Two seeds that are the same on all tasks: a resample is one of them alone (a quarter each) or both.
    scores = np.array([[0.0] * 4, [8.0] * 4])
    low, high = seed_interval(scores, np.random.default_rng(0))
    assert (low, high) == (0.0, 8.0)
    # Seeds that score alike leave no doubt about the seed, however much the tasks differ.
    same = np.tile([0.0, 1.0, 2.0, 90.0], (3, 1))
    assert seed_interval(same, np.random.default_rng(0)) == (1.5, 1.5)
    assert all(math.isnan(end) for end in seed_interval(scores[:1], np.random.default_rng(0)))


def test_a_seed_is_drawn_whole() -> None:
    """Drawn task by task, a hundred tasks would average the seeds out."""
    scores = np.repeat([[0.0], [1.0], [2.0]], 100, axis=1)
    low, high = seed_interval(scores, np.random.default_rng(0))
    assert (low, high) == (0.0, 2.0)


@given(st.integers(2, 5), st.integers(1, 9), st.integers(0, 2**16))
def test_an_interval_lies_within_the_seeds(seeds: int, tasks: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(seeds, tasks))
    low, high = seed_interval(scores, np.random.default_rng(1), resamples=200)
    assert scores.min() - 1e-12 <= low <= high <= scores.max() + 1e-12


def test_a_trial_is_played_by_the_newest_policy_by_hand() -> None:
    returns = np.array([[[1.0, 10.0, 100.0]]])
    assert trial_returns(returns, (0, 1, 2), 4).tolist() == [[1 + 10 + 100 + 100]]
    assert trial_returns(returns, (0, 2, 20), 4).tolist() == [[1 + 1 + 10 + 10]]
    assert trial_returns(returns[..., :1], (0,), 4).tolist() == [[4.0]]


def test_every_cell_can_be_trained_and_is_scored_on_the_fixed_tasks() -> None:
    table = read()
    assert len(table.seeds) >= 3
    assert set(table.entries) == {"bernoulli-bandit", "gridnavi", "navigation-2d", "cartpole-dynamics"}
    assert len({cell.folder for cell in table.cells}) == len(table.cells)
    for cell in table.cells:
        if cell.seed != table.seeds[0]:
            continue
        wanted = TrainingRequest(cell.family, cell.entry.method, settings=cell.entry.settings)
        made = plan(wanted, REGISTRY.get(cell.bound_to))
        assert made.spec.family == cell.bound_to
        scored, fixed = table.plan(cell, REGISTRY), fixed_plan(REGISTRY.get(cell.family))
        assert (scored.split, scored.task_seed, scored.seed) == (Split.TEST, fixed.task_seed, fixed.seed)
        assert not scored.greedy
        enough = remembers(made.spec) or scored.episodes_per_step == fixed.episodes_per_step
        assert scored.guard == (cell.entry.adapts and enough)
        assert cell.entry.consumed[-1] == scored.steps * scored.episodes_per_step


def test_the_first_cells_compare_all_methods() -> None:
    table = read()
    first = table.cells[: len(table.cells) // len(table.seeds)]
    assert {cell.seed for cell in first} == {table.seeds[0]}
    assert {(cell.family, cell.entry.label) for cell in first} == {
        (family, entry.label) for family, entries in table.entries.items() for entry in entries
    }


def test_the_quick_plan_is_three_methods_and_two_seeds() -> None:
    table = read(quick=True)
    assert len(table.seeds) == 2
    assert {cell.entry.label for cell in table.cells} == {"multitask", "maml", "rl2"}
    assert all(cell.updates > 0 for cell in table.cells)
    assert "--updates 40" in next(c for c in table.cells if c.entry.label == "rl2").command(Path("var"))


def scored(table, family: str, entry: Entry) -> dict:
    manifest = dict.fromkeys(results.OF_TRAINING, 0) | {
        "command": "scripts/train x",
        "commit": "c0ffee",
        "weights_sha256": "ab",
    }
    k = np.arange(entry.steps + 1.0)
    runs = [results.Stored(seed, manifest, np.tile(k + seed, (21, 1))) for seed in (0, 1, 2)]
    return results.row(REGISTRY.get(family), entry, runs)


def test_rows_and_the_page() -> None:
    table = read()
    rows = {entry.label: scored(table, "gridnavi", entry) for entry in table.entries["gridnavi"]}
    # Seeds differ by one: the pooled middle half is the middle seed and a quarter of each of its neighbours.
    assert rows["maml"]["points"][1]["episodes"] == 20
    assert rows["maml"]["points"][1]["iqm"] == pytest.approx(2.0)
    assert [rows["maml"]["points"][1][end] for end in ("low", "high")] == [1.0, 3.0]
    assert rows["rl2"]["trial"]["mean"] == pytest.approx(0 + 1 + 2 + 3 + 4 * 1)
    assert rows["maml"]["trial"]["mean"] == pytest.approx(4 * 1)

    one = replace(table, entries={"gridnavi": table.entries["gridnavi"]})
    found = json.loads(json.dumps(results.gather(one, Path("nowhere"), REGISTRY)))
    assert all(not row["runs"] for family in found["families"].values() for row in family["rows"])
    assert "| rl2 | 0 | - |" in page.page(found)
    found["families"]["gridnavi"]["rows"] = [{**row, "gap_closed": {}} for row in rows.values()]
    text = page.page(found)
    maml = next(line for line in text.splitlines() if line.startswith("| maml | 3 | **1.00**"))
    assert maml.split(" | ")[3] == "·"  # no policy of one episode
    assert "**2.00**<br>1.00 .. 3.00" in maml
    assert next(line for line in text.splitlines() if line.startswith("| multitask | 3")).split(" | ")[3] == "="
    assert "| bayes-optimum | 37.21 | trial |" in text


def finished(out: Path, table: Table, weights: bytes) -> Cell:
    """A cell, and a run of it that ended with ``weights``."""
    cell = next(one for one in table.cells if one.entry.label == "rl2")
    settings = plan(TrainingRequest(cell.family, cell.entry.method, updates=cell.updates), REGISTRY.get(cell.bound_to))
    run = RunFolder(out / cell.folder)
    run.create(settings)
    last = run.revisions / f"{cell.updates:08d}"
    last.mkdir()
    (last / "meta.safetensors").write_bytes(weights)
    manifest = dict.fromkeys(results.OF_TRAINING, 0) | {
        "spec": spec_to_json(settings.spec),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "command": "scripts/train x",
    }
    (last / "manifest.json").write_text(json.dumps(manifest))
    return cell


def test_what_is_kept_is_neither_trained_nor_scored_again(tmp_path: Path) -> None:
    table, out, kept = read(quick=True), tmp_path / "runs", tmp_path / "kept"
    cell = finished(out, table, b"weights")
    scored_on, one = table.plan(cell, REGISTRY), Kept(kept / cell.folder)

    def left(*, train: bool = True) -> list[list[str]]:
        job = command_line.job(cell, table, out, kept, REGISTRY, train=train)
        return [] if job is None else [list(words) for words in job.commands]

    assert [words[2] for words in left()] == ["learners_table.scoring"]
    assert left()[0][-2:] == ["--run", str(out / cell.folder)]
    one.take(out / cell.folder)
    assert "--run" not in left()[0]
    assert one.returns(scored_on) is None
    one.note(scored_on, np.array([[1.0, 2.0]]))
    assert left() == []
    found = results.read(table, cell, kept, REGISTRY)
    assert found is not None
    assert found.returns.tolist() == [[1.0, 2.0]]
    # It needs no run any more.
    shutil.rmtree(out)
    assert left() == []
    # Another plan: scored again, and shown nowhere until then.
    assert one.returns(replace(scored_on, seed=scored_on.seed + 1)) is None
    # Scores that cannot be read are none.
    scores = (one.folder / "scores.npz").read_bytes()
    (one.folder / "scores.npz").write_bytes(scores[:40])
    assert [words[2] for words in left()] == ["learners_table.scoring"]
    (one.folder / "scores.npz").write_bytes(scores)
    assert left() == []
    # Other weights than those of its manifest, or a manifest that cannot be read: trained again.
    (one.folder / "meta.safetensors").write_bytes(b"others")
    assert left(train=False) == []
    assert results.read(table, cell, kept, REGISTRY) is None
    assert [words[2] for words in left()] == ["innerloop_server.training", "learners_table.scoring"]
    (one.folder / "meta.safetensors").write_bytes(b"weights")
    assert left() == []
    (one.folder / "manifest.json").write_text("{")
    assert [words[2] for words in left()] == ["innerloop_server.training", "learners_table.scoring"]


def test_a_cell_whose_settings_have_changed_is_trained_again(tmp_path: Path) -> None:
    table, out, kept = read(quick=True), tmp_path / "runs", tmp_path / "kept"
    cell = finished(out, table, b"weights")
    one = Kept(kept / cell.folder)
    one.take(out / cell.folder)
    one.note(table.plan(cell, REGISTRY), np.array([[1.0, 2.0]]))
    other = replace(cell, entry=replace(cell.entry, settings={"clip": 0.1}))
    assert command_line.job(other, table, out, kept, REGISTRY, train=False) is None
    for aside in ("old-1", "old-2"):  # what the folder holds would stand in its way, and is not thrown away
        job = command_line.job(other, table, out, kept, REGISTRY, train=True)
        assert job is not None
        assert [words[2] for words in job.commands] == ["innerloop_server.training", "learners_table.scoring"]
        assert not (out / cell.folder).exists()
        assert (out / f"{cell.folder}.{aside}" / "settings.json").exists()
        finished(out, table, b"weights")
    (out / cell.folder / "settings.json").write_text("{")
    assert command_line.job(cell, table, out, tmp_path / "nothing", REGISTRY, train=False) is None
    assert command_line.job(cell, table, out, tmp_path / "nothing", REGISTRY, train=True) is not None
    assert not (out / cell.folder).exists()
    assert results.read(table, other, kept, REGISTRY) is None
    # One that was trained with a setting that there is no longer.
    manifest = one.manifest()
    assert manifest is not None
    manifest["spec"]["settings"]["gone"] = 1
    (one.folder / "manifest.json").write_text(json.dumps(manifest))
    assert not one.holds(cell.spec(REGISTRY))


def test_nothing_is_taken_from_a_run_that_is_not_finished(tmp_path: Path) -> None:
    table, out = read(quick=True), tmp_path / "runs"
    cell = finished(out, table, b"weights")
    shutil.rmtree(out / cell.folder / "revisions")
    with pytest.raises(SystemExit, match="not finished"):
        Kept(tmp_path / "kept").take(out / cell.folder)
    assert not (tmp_path / "kept").exists()


def test_the_gap_is_closed_by_means_an_episode() -> None:
    entry = next(entry for entry in read().entries["gridnavi"] if entry.label == "rl2")
    family = REGISTRY.get("gridnavi")
    shown = scored(None, "gridnavi", entry)
    known = results.references(family)
    # A trial is 4 episodes: memoryless -3.0667, oracle 44.2857.
    assert results._gap_closed(shown, known, family)["0"] == pytest.approx(
        (1 + 3.066666 / 4) / ((44.285714 + 3.066666) / 4), rel=1e-5
    )


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    assert page.between(text, "new\n") == f"before\n{page.BEGIN}\n\nnew\n\n{page.END}\nafter\n"
    with pytest.raises(ValueError, match="results: begin"):
        page.between("nothing", "new")


def command(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_jobs_run_in_order_and_a_failure_stops_its_own_alone(tmp_path: Path) -> None:
    write = "import pathlib, sys; pathlib.Path({!r}).write_text('x')"
    good = jobs.Job("good", (command("print(1)"), command(write.format(str(tmp_path / "b")))), tmp_path / "good.log")
    bad = jobs.Job(
        "bad", (command("raise SystemExit(3)"), command(write.format(str(tmp_path / "c")))), tmp_path / "bad"
    )
    said: list[str] = []
    assert jobs.run([bad, good], 2, time.monotonic() + 60, said.append) == {"bad": 3, "good": 0}
    assert (tmp_path / "b").exists()
    assert not (tmp_path / "c").exists()
    assert (tmp_path / "good.log").read_text() == "1\n"
    assert sorted(said) == [f"bad: failed, see {tmp_path / 'bad'}", "good: done"]


def test_at_the_deadline_what_runs_is_asked_to_stop(tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys, time\n"
        f"stop = lambda *_: (pathlib.Path({str(tmp_path / 'asked')!r}).touch(), sys.exit(130))\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "time.sleep(60)"
    )

    class Until(float):
        """A deadline that passes once the job is ready."""

        def __gt__(self, now: object) -> bool:
            return not (tmp_path / "ready").exists()

        def __le__(self, now: object) -> bool:
            return (tmp_path / "ready").exists()

    long = jobs.Job("long", (command(code),), tmp_path / "log")
    assert jobs.run([long, long], 1, Until(), lambda _: None) == {}
    assert (tmp_path / "asked").exists()

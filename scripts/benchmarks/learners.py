"""All learning methods in one table: trains what is missing, scores what is stored, writes the page.

Every training is a run of ``scripts/train`` in --out, which a kill does not hurt: the same command goes on with it.
Cells come seed by seed, so that what there is after an interruption compares all methods. What was trained is kept with
its scores in --kept, which is part of the project; it is trained again only where its settings have changed, and scored
again only where weights or plan have. A cell that failed says so, and stops no other.

Run it: ``scripts/bench learners [--quick] [--hours H]``. ``--hours 0`` trains nothing. --quick: three methods, two
seeds, two families, a few updates, ten minutes of two cores; it says whether everything runs, and nothing about the
methods.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from itertools import count
from pathlib import Path

from learners_table import jobs, page, picture, results
from learners_table.kept import Kept, alike, revision
from learners_table.plan import Cell, Table, read

from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InnerloopError
from innerloop_server.tasks.registry import Registry, load_registry
from innerloop_server.training.offline import INTERRUPTED
from innerloop_server.training.run import RunFolder

STEM = "results-learners"
CHOOSING = "choosing.md"


def job(cell: Cell, table: Table, out: Path, kept: Path, registry: Registry, *, train: bool) -> jobs.Job | None:
    """What is left to do for a cell; ``None``: nothing. A run that would stand in its way is moved aside."""
    run, one, plan = out / cell.folder, Kept(kept / cell.folder), table.plan(cell, registry)
    trained = one.holds(cell.spec(registry))
    if trained and one.returns(plan) is not None:
        return None
    scoring = (sys.executable, "-m", "learners_table.scoring", str(one.folder), json.dumps(plan.to_json()))
    take = (*scoring, "--run", str(run))
    training = (sys.executable, "-m", "innerloop_server.training", "train", *cell.training(out))
    if trained:
        commands: tuple[tuple[str, ...], ...] = (scoring,)
    elif (same := _is_run_of(run, cell.spec(registry))) and revision(run) is not None:
        commands = (take,)
    elif train:
        if run.exists() and not same:
            aside = _aside(run)
            run.rename(aside)
            _say(f"{cell.folder}: what {run} held has other settings, or cannot be read; it is in {aside} now")
        commands = (training, take)
    else:
        return None
    return jobs.Job(str(cell.folder), commands, out / f"{cell.folder}.log")


def _is_run_of(run: Path, spec: LearnerSpec) -> bool:
    """Whether a folder holds a run of this learner, finished or not."""
    try:
        return RunFolder(run).settings_file.exists() and alike(RunFolder(run).settings().spec, spec)
    except InnerloopError:
        return False


def _aside(run: Path) -> Path:
    """A name beside the run's that is free."""
    return next(to for n in count(1) if not (to := run.with_name(f"{run.name}.old-{n}")).exists())


def write(table: Table, kept: Path, docs: Path, registry: Registry) -> None:
    """The page, its numbers, its picture, and the summary on the page about choosing where there is one."""
    found = results.gather(table, kept, registry)
    docs.mkdir(parents=True, exist_ok=True)
    (docs / f"{STEM}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    drawn = picture.draw(found, docs / f"{STEM}.png")
    (docs / f"{STEM}.md").write_text(page.page(found, f"{STEM}.png" if drawn else ""), encoding="utf-8")
    choosing = docs / CHOOSING
    if choosing.exists():
        text = page.between(choosing.read_text(encoding="utf-8"), page.summary(found))
        choosing.write_text(text, encoding="utf-8")


def main() -> int:
    """Run what is missing, then write the page; 1 if a cell failed, 130 if it was stopped."""
    parser = argparse.ArgumentParser(prog="scripts/bench learners", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small version in minutes")
    parser.add_argument("--hours", type=float, default=8.0, help="start nothing after this, and stop what runs")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once, of one thread each")
    parser.add_argument("--out", type=Path, help="where runs are kept; var/bench-learners when left out")
    parser.add_argument(
        "--kept",
        type=Path,
        help="where weights and scores are kept; docs/learners when left out, with --quick in --out",
    )
    parser.add_argument(
        "--record", type=Path, help="folder of the page; docs when left out, with --quick that of --out"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the page")
    options = parser.parse_args()
    table, registry = read(quick=options.quick), load_registry()
    out = options.out or Path("var/bench-learners-quick" if options.quick else "var/bench-learners")
    kept = options.kept or (out / "kept" if options.quick else Path("docs/learners"))
    docs = options.record or (out if options.quick else Path("docs"))
    train = options.hours > 0
    deadline = time.monotonic() + 3600 * (options.hours if train else 1.0)
    wanted = (job(cell, table, out, kept, registry, train=train) for cell in table.cells)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or its children would outlive it
    try:
        ended = jobs.run((one for one in wanted if one is not None), options.jobs, deadline, _say)
        status = int(any(ended.values()))
    except KeyboardInterrupt:
        _say("stopped; the same command goes on from here")
        status = INTERRUPTED
    write(table, kept, docs, registry)
    print((docs / f"{STEM}{'.json' if options.json else '.md'}").read_text(encoding="utf-8"))
    return status


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

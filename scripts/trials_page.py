"""Score trainings of learners that remember on whole trials, and keep what came out in docs/results-trials.{json,md}.

    python scripts/trials_page.py [RUN ...] [--docs FOLDER]

Each RUN is a revision's folder. It is scored on the test tasks that server/innerloop_server/evaluation/trials.toml
fixes, greedy, and stands on the page from then on: one entry a training, named by the command that trained it, so that
a training anew takes the place of the one before. Without a RUN the page is written anew from what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from trials import PLAN, planned, score

from innerloop_server.domain import Reference, ReturnUnit, Split
from innerloop_server.evaluation.references.catalog import references
from innerloop_server.evaluation.scores import comparable, gap_closed
from innerloop_server.learners.registry import build
from innerloop_server.store.codec import spec_from_json
from innerloop_server.tasks.registry import load_registry

STEM = "results-trials"
OF_TRAINING = ("seed", "command", "commit", "updates", "environment_steps", "wall_seconds", "cpu_seconds")
OPTIMA = ("bayes-optimum", "gittins", "oracle")
"""References that say how good a trial can be, the tightest first."""
PULLS, ARMS = (10, 100, 500), (5, 10, 50)
PAPER = {
    (10, 5): (6.7, 6.6),
    (10, 10): (6.7, 6.7),
    (10, 50): (6.8, 6.7),
    (100, 5): (78.7, 79.1),
    (100, 10): (83.5, 83.5),
    (100, 50): (84.9, 85.1),
    (500, 5): (401.6, 408.1),
    (500, 10): (432.5, 432.4),
    (500, 50): (438.9, 442.6),
}
"""(pulls, arms) -> what RL2 (Duan et al. 2016, table 1) and SNAIL (Mishra et al. 2018, table 1) report."""
INTRODUCTION = """\
# Results on whole trials

Learners that remember, scored on whole trials of unseen test tasks: the undiscounted return of a trial from an empty
memory, greedy, and its 95 % interval over trials. How many trials, of which tasks and with which seeds was fixed in
`server/innerloop_server/evaluation/{plan}` before any of these was scored. Every seed that was run to its end with the
settings that its command names is here, whatever came of it; what was tried with other settings was scored on
validation tasks, and [the notes](results.md) say what. Seconds are of training, on one core of two that other trainings
shared. Written by `python scripts/trials_page.py`; `results-trials.json` holds every number."""
BANDITS = """\
## Bernoulli bandits: all settings of the RL2 paper

Pulls and arms; the exact optimum where it was computed, else the Gittins index policy's; what the papers report, to one
decimal; ours, the mean of each seed. Blank: not trained.

| pulls | arms | optimum or Gittins | RL2, paper | SNAIL, paper | rl2, each seed | share of the optimum |
|---|---|---|---|---|---|---|"""


def main() -> int:
    """Score, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the page and its numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = options.docs / f"{STEM}.json"
    kept = {one["command"]: one for one in json.loads(file.read_text())} if file.exists() else {}
    for run in options.runs:
        one = entry(run)
        print(f"{one['command']}: {one['mean']:.4f}", file=sys.stderr, flush=True)
        kept[one["command"]] = one
    in_order = sorted(kept.values(), key=lambda one: (one["family"], one["method"], one["command"]))
    file.write_text(json.dumps(in_order, indent=1) + "\n", encoding="utf-8")
    (options.docs / f"{STEM}.md").write_text(page(in_order), encoding="utf-8")
    return 0


def entry(run: Path) -> dict[str, Any]:
    """Score a run: what it scored, and how it was trained."""
    manifest = json.loads((run / "manifest.json").read_text())
    spec = spec_from_json(manifest["spec"])
    family = load_registry().get(spec.family)
    meta = safetensors.torch.load_file(run / "meta.safetensors")
    result = score(family, build(spec), meta, Split.TEST, planned(spec.family), greedy=True)
    training = {name: manifest[name] for name in OF_TRAINING}
    scored_on = f"{platform.machine()}, {os.cpu_count()} cores"
    scored = {"family": spec.family, "method": spec.method, "scored_on": scored_on, **asdict(result)}
    return {**scored, **training, "weights_sha256": manifest["weights_sha256"]}


def page(entries: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    lines = [INTRODUCTION.format(plan=PLAN.name)]
    bandits = [one for one in entries if one["family"].partition(".")[0] == "bernoulli-bandit"]
    if bandits:
        lines += ["", *of_bandits(bandits)]
    for family in dict.fromkeys(one["family"] for one in entries):
        lines += ["", *of_family(family, [one for one in entries if one["family"] == family])]
    return "\n".join(lines) + "\n"


def of_bandits(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of the RL2 paper, beside what is possible."""
    lines = [BANDITS]
    for pulls in PULLS:
        for arms in ARMS:
            name = _bandit(pulls, arms)
            ours = [one["mean"] for one in entries if one["family"] == name and one["method"] == "rl2"]
            best = optimum(references(load_registry().get(name)))
            paper, snail = PAPER[pulls, arms]
            shown = " / ".join(f"{mean:.{digits(mean)}f}" for mean in ours)
            share = f"{sum(ours) / len(ours) / best.value:.2%}" if ours and best else ""
            known = f"{best.value:.{digits(best.value)}f}" if best else ""
            lines.append(f"| {pulls} | {arms} | {known} | {paper} | {snail} | {shown} | {share} |")
    return lines


def of_family(family: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Its references and its trainings."""
    registered = load_registry().get(family)
    every, listed = references(registered), registered.enumerate(Split.TEST) or ()
    unit = ReturnUnit.TRIAL if comparable(every, ReturnUnit.TRIAL) else ReturnUnit.EPISODE
    lines = [f"## {family}", "", f"{entries[0]['trials']} trials.", ""]
    lines += [
        "| method | seed | return of a trial | 95 % interval | last episode | gap closed | steps | CPU s | weights |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for one in entries:
        mean, last, margin = one["mean"], one["episodes"][-1], 1.96 * one["standard_error"]
        closed = gap_closed(mean if unit is ReturnUnit.TRIAL else last, every, unit)
        places = digits(mean)
        shown = (
            f"{mean - margin:.{places}f} .. {mean + margin:.{places}f}" if one["trials"] > len(listed) else "all tasks"
        )
        lines.append(
            f"| {one['method']} | {one['seed']} | **{mean:.{places}f}** | {shown} | {last:.{digits(last)}f} | "
            f"{'' if closed is None else f'{closed:.1%}'} | {one['environment_steps'] / 1e6:.1f} M | "
            f"{one['cpu_seconds']:.0f} | `{one['weights_sha256'][:16]}` |"
        )
    lines += ["", f"| reference, of {'a trial' if unit is ReturnUnit.TRIAL else 'an episode'} | value |", "|---|---|"]
    lines += [f"| {one.name} | {one.value:.{digits(one.value)}f} |" for one in comparable(every, unit)]
    lines += ["", "Trained by", ""]
    lines += [f"* `{one['command']}` (commit `{one['commit'][:12]}`, {one['wall_seconds']:.0f} s)" for one in entries]
    return lines


def optimum(known: Sequence[Reference]) -> Reference | None:
    """The tightest of those that say how good a trial can be."""
    by_name = {reference.name: reference for reference in comparable(known, ReturnUnit.TRIAL)}
    return next((by_name[name] for name in OPTIMA if name in by_name), None)


def digits(value: float) -> int:
    """Decimals to show: four figures."""
    return max(0, 3 - len(str(int(abs(value))))) + 1


def _bandit(pulls: int, arms: int) -> str:
    parts = ["bernoulli-bandit", *([f"arms-{arms}"] if arms != ARMS[0] else [])]
    return ".".join([*parts, *([f"pulls-{pulls}"] if pulls != PULLS[0] else [])])


if __name__ == "__main__":
    sys.exit(main())

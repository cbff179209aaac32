"""The results as Markdown: the page of the table, and the summary on the page about choosing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Values = Mapping[str, Any]
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
"""Around what the script writes on a page that is otherwise written by hand."""
SUMMARISED = (0, 1, 3, 10, 20, 60, 200)
"""Episodes consumed that the summary shows."""
NONE, SAME, NOT_YET = "·", "=", "-"


def page(results: Values, picture: str = "") -> str:
    """The whole page.

    Args:
        results: of ``results.gather``.
        picture: file of the curves, beside the page.
    """
    machine = results["machine"]
    lines = [
        "# All methods, one table",
        "",
        "Every learning method on the same families, trained with the same seeds and scored by the same evaluator",
        "on the same fixed, unseen test tasks: final scores, never a peak. Written by `scripts/bench learners`",
        f"({machine['architecture']}, {machine['processor'] or 'unknown processor'}, {machine['cores']} cores; one",
        "thread a run); `results-learners.json` beside this page has every number. What is trained, and on what it is",
        "scored, stands in `scripts/learners_table/plan.toml`: actions are sampled, and pages whose",
        "policies are greedy have slightly higher numbers. How to read it: [choose a method](choosing.md).",
        "",
        "Columns are *episodes of the task consumed*, the unit that all methods share. A cell is the interquartile",
        "mean of the next episode's return over all tasks and seeds, and below it the 95 % bootstrap interval over",
        "seeds, drawn whole: with three of them it all but spans the worst and the best.",
        f"`{NONE}` does not apply: the method has no policy of that age, because it learns from whole steps of",
        f"several episodes, or because its row ends before. `{SAME}` it does not adapt. `{NOT_YET}` not scored yet.",
        "References are means, so read *mean* beside them; *trial* is the mean of the sum over a trial, each episode",
        "played by the newest policy that the episodes before it made.",
        "",
        *([f"![Return against episodes consumed, by method, one panel a family]({picture})", ""] if picture else []),
    ]
    for name, family in results["families"].items():
        lines += [*_family(name, family, results["episodes"]), ""]
    return "\n".join(lines)


def _family(name: str, family: Values, episodes: Sequence[int]) -> list[str]:
    plan, trial = family["evaluation"], family["episodes_per_trial"]
    ages = {point["episodes"] for row in family["rows"] for point in row["points"]}
    columns = [n for n in episodes if n in ages]
    last = ["mean of the last", *(["trial"] if trial > 1 else [])]
    heads = ["method", "seeds", *map(str, columns), *last, "million steps", "CPU s", "wall s"]
    lines = [
        f"## {name}",
        "",
        f"{plan['tasks']} tasks of the {plan['split']} stream (seed {plan['task_seed']}), "
        f"{plan['evaluation_episodes']} fresh episodes at each age, seed {plan['seed']}."
        + (f" A trial is {trial} episodes." if trial > 1 else ""),
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    lines += ["| " + " | ".join(_row(row, columns, trial)) + " |" for row in family["rows"]]
    lines += ["", "| reference | mean | of | source |", "|---|---|---|---|"]
    lines += [f"| {r['name']} | {r['value']:.2f} | {r['unit']} | {r['source']} |" for r in family["references"]]
    lines += ["", "| method | trained by (first seed) | updates | commit | weights |", "|---|---|---|---|---|"]
    for row in family["rows"]:
        for run in row["runs"][:1]:
            lines.append(
                f"| {row['label']} | `{run['command']}` | {run['updates']} | `{run['commit'][:12]}` | "
                f"`{run['weights_sha256'][:12]}` |"
            )
    return lines


def _row(row: Values, columns: Sequence[int], trial: int) -> list[str]:
    extra = 2 if trial > 1 else 1
    if not row["runs"]:
        return [row["label"], "0", *[NOT_YET] * (len(columns) + extra + 3)]
    at = {point["episodes"]: point for point in row["points"]}
    missing = NONE if row["adapts"] else SAME
    last = [f"{row['points'][-1]['mean']:.2f}", *([f"{row['trial']['mean']:.2f}"] if trial > 1 else [])]
    cost = [_mean(row, "environment_steps") / 1e6, _mean(row, "cpu_seconds"), _mean(row, "wall_seconds")]
    return [
        row["label"],
        str(len(row["runs"])),
        *(_cell(at[n]) if n in at else missing for n in columns),
        *last,
        f"{cost[0]:.2f}",
        f"{cost[1]:.0f}",
        f"{cost[2]:.0f}",
    ]


def _cell(point: Values) -> str:
    if point["low"] is None:
        return f"{point['iqm']:.2f}"
    return f"**{point['iqm']:.2f}**<br>{point['low']:.2f} .. {point['high']:.2f}"


def _mean(row: Values, name: str) -> float:
    return sum(float(run[name]) for run in row["runs"]) / len(row["runs"])


def summary(results: Values) -> str:
    """How much of the gap between the memoryless and the oracle reference each method closes, family by family."""
    families = results["families"]
    labels = dict.fromkeys(row["label"] for family in families.values() for row in family["rows"])
    lines = []
    for name, family in families.items():
        rows = {row["label"]: row for row in family["rows"] if row["runs"] and row["gap_closed"]}
        columns = [n for n in SUMMARISED if any(str(n) in row["gap_closed"] for row in rows.values())]
        if not columns:
            continue
        lines += [
            f"`{name}`, share of the gap closed after so many episodes of the task:",
            "",
            "| method | " + " | ".join(map(str, columns)) + " | million steps of training |",
            "|---" * (len(columns) + 2) + "|",
        ]
        for label in labels:
            if label in rows:
                row = rows[label]
                closed = row["gap_closed"]
                missing = NONE if row["adapts"] else SAME
                cells = [f"{closed[str(n)]:.0%}" if str(n) in closed else missing for n in columns]
                steps = f"{_mean(row, 'environment_steps') / 1e6:.2f}"
                lines.append("| " + " | ".join([label, *cells, steps]) + " |")
        lines.append("")
    return "\n".join(lines or ["Nothing is scored yet: `scripts/bench learners` fills this in.", ""])


def between(text: str, written: str) -> str:
    """``text`` with what stands between the marks replaced.

    Raises:
        ValueError: it has no marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{written.strip()}\n\n{END}{after}"

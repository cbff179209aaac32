"""The results as curves: return against episodes of the task consumed, a panel a family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = 2
STYLES = {
    "multitask": ("0.5", ":"),
    "oracle": ("0.0", ":"),
    "scratch": ("0.5", "-"),
    "rl2": ("tab:orange", "-"),
    "rl2-transformer": ("#8c510a", "-"),
    "varibad": ("tab:purple", "-"),
    "pearl": ("#e377c2", "-"),
    "meta-dqn": ("tab:red", "-"),
    "maml": ("tab:blue", "-"),
    "maml-fixed-rates": ("#74add1", "-"),
    "maml-first-order": ("#1f3b99", "--"),
    "maml-head": ("tab:cyan", "--"),
    "maml-promp": ("#1b7837", "-"),
    "maml-trpo": ("#7fbf7b", "--"),
    "reptile": ("tab:olive", "-"),
}
"""Colour and line of each label, kin in kindred colours; a label that is not here is black."""


def draw(results: Mapping[str, Any], target: Path) -> bool:
    """Draw all scored rows.

    Args:
        results: of ``results.gather``.
        target: the PNG.

    Returns:
        Whether there was anything to draw.
    """
    if not any(row["points"] for family in results["families"].values() for row in family["rows"]):
        return False
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    families = results["families"]
    lines = -(-len(families) // COLUMNS)
    figure, grid = pyplot.subplots(lines, COLUMNS, figsize=(12.5, 4.4 * lines), squeeze=False)
    panels = grid.ravel()
    for axes in panels[len(families) :]:
        axes.set_visible(False)
    for axes, (name, family) in zip(panels, families.items(), strict=False):
        for row in family["rows"]:
            if row["points"]:
                _row(axes, row)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=0)
        ticks = (0, 1, 3, 10, 30, 100, 300)
        axes.set_xticks(ticks, map(str, ticks))
        axes.set(title=name, xlabel="episodes of the task consumed", ylabel="return, interquartile mean")
        axes.minorticks_off()
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    order = [label for label in STYLES if label in handles] + [label for label in handles if label not in STYLES]
    figure.legend([handles[label] for label in order], order, loc="center right", frameon=False)
    figure.tight_layout(rect=(0, 0, 0.86, 1))
    figure.savefig(target, dpi=100)
    pyplot.close(figure)
    return True


def _row(axes: Any, row: Mapping[str, Any]) -> None:
    points, label = row["points"], row["label"]
    colour, line = STYLES.get(label, ("black", "-"))
    x, y = ([point[key] for point in points] for key in ("episodes", "iqm"))
    if not row["adapts"]:
        axes.axhline(y[0], color=colour, linewidth=1.4, linestyle=line, label=label)
        return
    # Where a step takes many episodes there is no policy between the first and the second point.
    first = 1 if len(x) > 1 and x[1] > 1 else 0
    axes.plot(x[: first + 1], y[: first + 1], color=colour, linewidth=0.7, alpha=0.5, marker=".")
    axes.plot(x[first:], y[first:], color=colour, linestyle=line, marker=".", label=label)
    if points[0]["low"] is not None:
        low, high = ([point[key] for point in points[first:]] for key in ("low", "high"))
        axes.fill_between(x[first:], low, high, color=colour, alpha=0.15, linewidth=0)

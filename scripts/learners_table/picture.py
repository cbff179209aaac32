"""The results as curves: return against episodes of the task consumed, a panel a family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
    figure, panels = pyplot.subplots(1, len(families), figsize=(4.6 * len(families), 4.4), squeeze=False)
    colours = pyplot.get_cmap("tab20")
    labels = list(dict.fromkeys(row["label"] for family in families.values() for row in family["rows"]))
    for axes, (name, family) in zip(panels[0], families.items(), strict=True):
        for row in family["rows"]:
            points = row["points"]
            if not points:
                continue
            colour = colours(labels.index(row["label"]) % 20)
            x, y = ([point[key] for point in points] for key in ("episodes", "iqm"))
            if not row["adapts"]:
                axes.axhline(y[0], color=colour, linewidth=1.2, linestyle=":", label=row["label"])
                continue
            axes.plot(x, y, color=colour, marker=".", label=row["label"])
            if points[0]["low"] is not None:
                low, high = ([point[key] for point in points] for key in ("low", "high"))
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xscale("symlog", linthresh=1)
        axes.set(title=name, xlabel="episodes of the task consumed")
    panels[0][0].set_ylabel("return, interquartile mean")
    handles = {
        label: handle for axes in panels[0] for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=7, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(target, dpi=110)
    pyplot.close(figure)
    return True

"""What a training did, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, takewhile
from typing import Any

from innerloop.types import Revision, Training, TrainingMetrics


def update_line(metrics: TrainingMetrics, updates: int) -> str:
    """``update 1/5: return -64.1 -> -59.9 -> -55.6 (314 k steps)``: mean returns after 0, 1, ... inner steps.

    Args:
        metrics: of one update of the outer loop.
        updates: how many the training makes; 0: unknown.
    """
    values = metrics.values
    returns = [f"{values[f'return_{k}']:.1f}" for k in takewhile(lambda k: f"return_{k}" in values, count())]
    line = f"update {metrics.update}{f'/{updates}' if updates else ''}"
    if returns:
        line += f": return {' -> '.join(returns)}"
    if "environment_steps" in values:
        line += f" ({_thousands(values['environment_steps'])} steps)"
    return line


def made_by(training: Training, revisions: Sequence[Revision]) -> Revision | None:
    """The newest revision that a training made.

    Args:
        training: which one.
        revisions: of its learner, newest first.
    """
    own = training.name.rpartition("/")[2]
    return next((revision for revision in revisions if revision.manifest.get("training") == own), None)


def verdict(revision: Revision) -> str:
    """How a revision did against the champion of its day, from its manifest."""
    number = revision.name.rpartition("/")[2]
    promotion: dict[str, Any] = dict(revision.manifest.get("promotion") or {})
    champion, difference = promotion.get("champion"), promotion.get("difference")
    if not promotion:
        return f"revision {number}: not compared with a champion"
    if champion is None:
        compared = "nothing to compare it with"
    elif difference is None:
        compared = str(promotion.get("reason"))
    else:
        tasks = dict(dict(revision.manifest.get("validation") or {}).get("protocol") or {}).get("tasks")
        on = f" on {tasks:g} validation tasks" if tasks else " on the validation tasks"
        words = f"{'better' if difference > 0 else 'worse'} than revision {champion:g} by {abs(difference):.3g}"
        compared = f"{words if difference else f'as good as revision {champion:g}'}{on}"
    # who was promoted by hand since then does not change what this comparison came to
    outcome = "it is the champion now" if promotion.get("promote") else f"the champion stays revision {champion:g}"
    return f"revision {number}: {compared}; {outcome}"


def _thousands(number: float) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.0f} k" if number >= 1e3 else f"{number:.0f}"

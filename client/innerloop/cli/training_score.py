"""The score that moves while one watches a training."""

from __future__ import annotations

from collections import deque
from itertools import count, takewhile

from innerloop.types import TrainingMetrics

UPDATES = 10
"""The newest ones that a live score is the mean of: single updates meet easy and hard tasks."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 20


class LiveScore:
    """The mean return of training tasks after the last adaptation step, over the newest updates, and how it got there.
    Of learners that remember, the mean return of whole trials.
    """

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=UPDATES)
        self._past: list[float] = []
        self._name = ""

    def add(self, metrics: TrainingMetrics) -> None:
        """Take in an update; one that knows no return changes nothing."""
        values = metrics.values
        last = max(takewhile(lambda k: f"return_{k}" in values, count()), default=None)
        if "return_trial" in values:
            self._name, newest = "trial", values["return_trial"]
        elif last is not None:
            self._name, newest = f"after {last} step{'' if last == 1 else 's'}", values[f"return_{last}"]
        else:
            return
        self._newest.append(newest)
        self._past.append(sum(self._newest) / len(self._newest))

    def __str__(self) -> str:
        """``return after 3 steps -5.31 ▁▄▆▇█``; nothing before the first update."""
        return f"return {self._name} {self._past[-1]:.2f} {sparkline(self._past)}" if self._past else ""


def sparkline(values: list[float], width: int = _WIDTH) -> str:
    """Values as one line of blocks, from their lowest to their highest; of more than ``width``, evenly spaced ones, the
    last among them.
    """
    n = len(values)
    shown = values if n <= width else [values[(i + 1) * n // width - 1] for i in range(width)]
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    return "".join(_BLOCKS[min(int((value - low) / span * len(_BLOCKS)), len(_BLOCKS) - 1)] for value in shown)

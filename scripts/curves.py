"""Draw the learning curve of a training: returns of its own training tasks against environment steps.

    python scripts/curves.py RUN PICTURE [--smooth N]

RUN is the folder of scripts/train. Every ``return_*`` of its log is a line, the mean of the last N updates.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt


def main() -> int:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--smooth", type=int, default=10, metavar="N", help="updates that a point is the mean of")
    options = parser.parse_args()
    rows = [json.loads(line) for line in (options.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = np.array(list(itertools.accumulate(row["environment_steps"] for row in rows))) / 1e6
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    names = [name for name in rows[0] if name.startswith("return_")]
    if "return_trial" in names and len(names) == 2:
        names.remove("return_trial")  # a trial of one episode is that episode
    for name in names:
        ax.plot(steps, smoothed([row[name] for row in rows], options.smooth), label=name)
    ax.set(xlabel="environment steps, millions", ylabel=f"return, mean of {options.smooth} updates")
    ax.legend()
    figure.savefig(options.picture, dpi=110)
    return 0


def smoothed(values: list[float], n: int) -> np.ndarray:
    """The mean of each value and the n - 1 before it, as far as there are any."""
    sums = np.cumsum([0.0, *values])
    at = np.arange(1, len(values) + 1)
    means: np.ndarray = (sums[at] - sums[np.maximum(at - n, 0)]) / np.minimum(at, n)
    return means


if __name__ == "__main__":
    sys.exit(main())

"""What evaluation episodes say beside their returns: numbers that are computed where the episodes are.

Importing this brings no torch: the evaluator shares its names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from innerloop.arrays import Array
from innerloop_server.domain import Experience, Supervision

if TYPE_CHECKING:
    import torch

ACCURACY, CROSS_ENTROPY, MSE, SUCCESS = "accuracy", "cross_entropy", "mse", "success"
UNCERTAINTY = "uncertainty"
"""Of a step: entropy in nats of what the method believes about the task after it (``Learner.uncertainty``)."""
VARIANCE = "variance"
"""Of a task's targets around their own mean, mean over their dimensions: what ``mse`` is a share of."""


def measure(
    experience: Experience[torch.Tensor], supervision: Supervision | None, *, knows_success: bool
) -> dict[str, float]:
    """Means over one task's episodes, in float64 on the host, so that company and device order cannot change them.

    Args:
        experience: B = 1.
        supervision: of the family.
        knows_success: the family's environments say it.

    Returns:
        ``accuracy`` and ``cross_entropy`` (nats) of a classification; ``mse`` and ``variance`` of a regression;
        ``success``, the share of episodes, where it is known.
    """
    found: dict[str, float] = {}
    if supervision is not None:  # an episode is one step, and its reward what became of the example
        reward = _host(experience.rewards).mean()
        if supervision is Supervision.CLASSIFICATION:
            found |= {ACCURACY: float(reward), CROSS_ENTROPY: -float(_host(experience.log_probs).mean())}
        else:
            targets = _host(experience.feedback)[0, :, 0]
            found |= {MSE: -float(reward), VARIANCE: float(targets.var(0).mean())}
    if knows_success:
        found[SUCCESS] = float(_host(experience.success).mean())
    return found


def _host(x: torch.Tensor) -> Array:
    return x.detach().cpu().numpy().astype(np.float64)

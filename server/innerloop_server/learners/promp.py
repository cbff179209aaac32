"""ProMP (Rothfuss et al. 2019, https://arxiv.org/abs/1810.06784): MAML that keeps near the policies that sampled.

Its meta-loss (equation 12) is the clipped surrogate of the adapted policies on their own episodes, differentiated
through ratio-form inner steps, plus a small multiple of how far the policies *before* each inner step have gone from
those that sampled. The clip holds in place what comes after adaptation, the penalty what comes before, so several Adam
steps may use the same episodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.objectives import masked_mean


def mean_kl(
    old: Sequence[Gaussian | Categorical], new: Sequence[Gaussian | Categorical], masks: Sequence[torch.Tensor]
) -> torch.Tensor:
    """KL(old || new), mean over each task's real steps, then over tasks, then over the pairs.

    Args:
        old: the policies that sampled, one an inner step, leading dimensions [B, N, T].
        new: what became of them.
        masks: [B, N, T] bool each.
    """
    pairs = zip(old, new, masks, strict=True)
    return torch.stack([masked_mean(one.kl(other), mask).mean() for one, other, mask in pairs]).mean()

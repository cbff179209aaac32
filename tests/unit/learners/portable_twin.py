"""A learner that remembers and the portable policy that it exports, side by side through a trial."""

from __future__ import annotations

import numpy as np
import torch

from innerloop import policy
from innerloop.arrays import Array, Discrete, Space
from innerloop.policy import Policy
from innerloop_server.learners.learner import Input, Learner, Tensors

ROWS, STEPS = 5, 12


def seen_of(space: Space, rng: np.random.Generator, *lead: int) -> Array:
    """Observations or raw actions, [*lead, *shape]."""
    if isinstance(space, Discrete):
        return rng.integers(0, space.n, lead)
    return rng.standard_normal((*lead, *space.shape)).astype(np.float32)


def assert_same_trial(portable: Policy, learner: Learner, meta: Tensors, *, rtol: float = 1e-7) -> None:
    """Both look at the same: log-probabilities and memories agree to 1e-5. Episodes end, and trials do: of row 0 once,
    of row 1 never, of row 2 at every step, of the others by chance.
    """
    rng, space = np.random.default_rng(0), portable.header.observation_space
    memory, state = portable.begin(ROWS), learner.begin(meta, 1, ROWS)
    now = seen_of(space, rng, ROWS)
    told, seen = policy.Input(now), Input(torch.from_numpy(now)[None])
    for t in range(STEPS):
        decided = portable.decide(told, memory=memory, rng=rng)
        memory = dict(decided.memory)
        distribution, state = learner.act(meta, state, seen)
        raw = torch.from_numpy(decided.raw)[None]
        np.testing.assert_allclose(distribution.log_prob(raw)[0], decided.log_prob, atol=1e-5, rtol=rtol)
        for name, array in state.items():
            np.testing.assert_allclose(array[0], memory[name], atol=1e-5, err_msg=name)
        now, reward = seen_of(space, rng, ROWS), rng.random(ROWS).astype(np.float32)
        terminated, truncated, end = rng.random(ROWS) < 0.3, np.full(ROWS, t == 3), rng.random(ROWS) < 0.2
        end[:3] = t == 5, False, True
        told = policy.Input(now, decided.raw, reward, terminated, truncated, end)
        rest = (torch.from_numpy(part)[None] for part in (reward, terminated, truncated, end))
        seen = Input(torch.from_numpy(now)[None], raw, *rest)

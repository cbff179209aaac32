"""What VariBAD believes on ``gridnavi``, beside the posterior: nothing where one has been, the same everywhere else.

Of a belief that learned by itself, from searches that do not depend on it. They are many: of two thousand it learns
which goals happened to be theirs (a tenth more often than others), however long it looks at them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from innerloop_server.learners import varibad_networks as nets
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.learners.varibad import Draws, Varibad, of_belief
from innerloop_server.tasks.families.gridnavi import ELSEWHERE, GOALS, MOVES, ON_GOAL, SIZE
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training import optimiser
from innerloop_server.training.specs import spec_for

STEPS = 28
PATH = [(x, y if x % 2 == 0 else SIZE - 1 - y) for x in range(SIZE) for y in range(SIZE)]
STAYS = 0.1
SEARCHES = 21_000
LATENTS = 256
CELLS = torch.tensor([SIZE * x + y for x, y in GOALS])


def searches(goals: np.ndarray, rng: np.random.Generator) -> TrialRecord:
    """Walks over every cell, row by row, which stay now and then, and do not stop at the goal."""
    rows = len(goals)
    seen, led = np.zeros((2, STEPS, rows, 2))
    actions = np.zeros((STEPS, rows), np.int64)
    for row in range(rows):
        at = 0
        for t in range(STEPS):
            after = min(at + int(rng.random() >= STAYS), len(PATH) - 1)
            seen[t, row], led[t, row] = PATH[at], PATH[after]
            actions[t, row] = MOVES.index((PATH[after][0] - PATH[at][0], PATH[after][1] - PATH[at][1]))
            at = after
    there = torch.from_numpy((led == np.array(GOALS)[goals]).all(-1))
    none = torch.zeros(STEPS, rows, dtype=torch.bool)
    last = none.clone()
    last[-1] = True
    return TrialRecord(
        observations=torch.from_numpy(seen).float(),
        outcomes=torch.from_numpy(led).float(),
        actions=torch.from_numpy(actions),
        log_probs=torch.zeros(STEPS, rows),
        rewards=torch.where(there, ON_GOAL, ELSEWHERE),
        terminated=none,
        truncated=last,
        trial_end=last,
        success=there,
        episode=torch.zeros(STEPS, rows, dtype=torch.int64),
        real=~none,
    )


def taught(learner: Varibad, steps: int, rate: float) -> dict[str, torch.Tensor]:
    """Meta-parameters after so many steps of the bound, which are all that learns here."""
    meta = learner.initial_meta(0)
    weights = of_belief(meta)
    adam, rng = optimiser.start(weights), np.random.default_rng(1)
    pool = searches(rng.integers(0, len(GOALS), SEARCHES), rng)
    for step in range(steps):
        trials = pool.of(torch.from_numpy(rng.integers(0, SEARCHES, 128)))
        noise = torch.from_numpy(rng.standard_normal((STEPS, 128, learner.settings.latent), np.float32))
        draws = Draws(torch.from_numpy(rng.random((STEPS, 128))), noise, torch.zeros(1, 128).double())
        leaves = optimiser.leaves(weights)
        loss, _ = learner.bound_loss({**meta, **leaves}, trials, draws)
        weights, adam, _ = optimiser.descend(loss, leaves, adam, rate * (1 - step / steps), 1.0)
    return {**meta, **weights}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_decoder_knows_where_the_goal_can_still_be() -> None:
    family = load_registry().get("gridnavi")
    changed = {"decoder": "goal", "decoder_sizes": [64, 64], "kl_weight": 3e-4}
    settings = {**spec_for(family, "varibad").settings, **changed}
    learner = Varibad(spec_for(family, "varibad", settings=settings))
    meta = taught(learner, 4_500, 4e-3)
    trials = searches(np.arange(len(GOALS)), np.random.default_rng(99))
    beliefs = learner.beliefs(meta, trials)
    drawn = torch.randn(LATENTS, STEPS, len(GOALS), learner.settings.latent, generator=torch.Generator().manual_seed(0))
    latents = beliefs.mean + torch.exp(0.5 * beliefs.log_variance) * drawn
    mass = torch.softmax(nets.decode(meta, latents), -1).mean(0)[..., CELLS]
    mass = mass / mass.sum(-1, keepdim=True)
    been, shares, found = [], [], []
    for row in range(len(GOALS)):
        cells = nets.state_index(learner.header, trials.outcomes[:, row])
        for t in range(STEPS):
            visited = torch.isin(CELLS, cells[:t])
            if bool(visited[row]):
                found.append(float(mass[t, row, row]))
            else:
                been.append(float(mass[t, row, visited].sum()))
                shares += (mass[t, row, ~visited] * (~visited).sum()).tolist()
    assert np.mean(been) < 0.01, np.mean(been)
    assert max(abs(share - 1) for share in shares) < 0.2, (min(shares), max(shares))
    assert np.mean(found) > 0.99, np.mean(found)

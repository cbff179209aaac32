"""What evaluations say beside the return: accuracy, cross-entropy, error, R2, success."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.measures import measure
from innerloop_server.domain import Experience, Reference, ReturnUnit, Split, Supervision
from innerloop_server.errors import InvalidField
from innerloop_server.evaluation.plan import draw_tasks, make_plan
from innerloop_server.evaluation.protocol import evaluate
from innerloop_server.evaluation.scores import comparable, gap_closed, metrics

sys.path.insert(0, str(Path(__file__).parents[2]))  # supervised_support
import supervised_support as toy


def test_means_over_tasks() -> None:
    found = metrics([{"accuracy": 1.0, "cross_entropy": 0.25}, {"accuracy": 0.5, "cross_entropy": 0.75}])
    assert found == {"accuracy": 0.75, "cross_entropy": 0.5}
    assert metrics([]) == metrics([{}, {}]) == {}


def test_r2_weighs_tasks_by_how_much_they_vary() -> None:
    """A task that hardly varies and is missed by its whole variance a hundred times over does not own the score."""
    steep, flat = {"mse": 1.0, "variance": 9.99}, {"mse": 1.0, "variance": 0.01}
    assert metrics([steep, flat]) == pytest.approx({"mse": 1.0, "r2": 1 - 2 / 10})
    assert metrics([{"mse": 0.0, "variance": 3.0}])["r2"] == 1
    assert metrics([{"mse": 0.5, "variance": 0.0}]) == {"mse": 0.5}  # there is nothing to explain


def episodes(rewards: list[float], log_probs: list[float], answers: list[list[float]]) -> Experience[torch.Tensor]:
    n = len(rewards)
    nothing = torch.zeros(1, n)
    return Experience(
        observations=torch.zeros(1, n, 1, 1),
        actions=torch.zeros(1, n, 1, 1),
        rewards=torch.tensor(rewards).reshape(1, n, 1),
        log_probs=torch.tensor(log_probs).reshape(1, n, 1),
        lengths=torch.ones(1, n, dtype=torch.int64),
        bootstrap=nothing.bool(),
        final_observations=nothing,
        time_offset=nothing.long(),
        feedback=torch.tensor(answers).reshape(1, n, 1, -1),
        success=torch.tensor([[i % 4 == 0 for i in range(n)]]),
    )


def test_measures_by_hand() -> None:
    played = episodes([1.0, 0.0, 1.0, 1.0], [-0.5, -2.0, -0.25, -0.25], [[0.0], [1.0], [0.0], [1.0]])
    found = measure(played, Supervision.CLASSIFICATION, knows_success=False)
    assert found == {"accuracy": 0.75, "cross_entropy": 0.75}
    # Targets (0, 0), (2, 6): variances 1 and 9 around their means, 5 on average.
    found = measure(
        episodes([-1.0, -3.0], [0.0, 0.0], [[0.0, 0.0], [2.0, 6.0]]), Supervision.REGRESSION, knows_success=True
    )
    assert found == {"mse": 2.0, "variance": 5.0, "success": 0.5}
    assert measure(played, None, knows_success=True) == {"success": 0.25}
    assert measure(played, None, knows_success=False) == {}


def test_a_score_of_episodes_is_not_read_against_sums_over_trials() -> None:
    trial = [Reference(name, value, "", ReturnUnit.TRIAL) for name, value in (("memoryless", 0.0), ("oracle", 8.0))]
    episode = [replace(reference, unit=ReturnUnit.EPISODE) for reference in trial]
    assert gap_closed(4.0, episode) == 0.5
    assert gap_closed(4.0, trial) is None
    assert gap_closed(4.0, [episode[0], trial[1]]) is None
    assert comparable([*trial, *episode]) == tuple(episode)
    assert comparable([*trial, *episode], ReturnUnit.TRIAL) == tuple(trial)
    assert gap_closed(6.0, [*episode, *trial], ReturnUnit.TRIAL) == 0.75
    assert gap_closed(6.0, episode, ReturnUnit.TRIAL) is None


def test_plans_of_supervised_families_have_no_guard() -> None:
    family = toy.FAMILIES["toy-labels"]
    assert not make_plan(family, Split.TEST).guard
    assert not make_plan(family, Split.TEST, episodes_per_step=100, guard=False).guard
    with pytest.raises(InvalidField, match="no guard") as refused:
        make_plan(family, Split.TEST, guard=True)
    assert refused.value.field == "plan.guard"


@pytest.mark.parametrize(("name", "expected"), [("toy-labels", "accuracy"), ("toy-line", "mse")])
async def test_the_protocol_measures_fresh_queries(name: str, expected: str, tmp_path: Path) -> None:
    engine = LocalEngine(EngineCore(toy.registry(), torch.device("cpu"), device_rows=8))
    ref = toy.revision(tmp_path, toy.spec(name))
    plan = make_plan(toy.FAMILIES[name], Split.TEST, tasks=5, steps=2, episodes_per_step=6, evaluation_episodes=20)
    tasks = draw_tasks(toy.FAMILIES[name], plan)
    result = await evaluate(engine, plan, tasks, ref, trajectories=5, chunk=3)
    assert [score.k for score in result.scores] == [0, 1, 2]
    for k, score in enumerate(result.scores):
        sign = 1 if name == "toy-labels" else -1
        assert score.metrics[expected] == pytest.approx(sign * score.mean, rel=1e-6)
        assert "success" not in score.metrics
        if name == "toy-line":
            played = [result.trajectories[task, k] for task in range(5)]
            variance = np.mean([one.feedback[0, :, 0].astype(np.float64).var(0).mean() for one in played])
            assert score.metrics["r2"] == pytest.approx(1 - score.metrics["mse"] / variance)
    first, last = result.scores[0].metrics, result.scores[2].metrics
    loss = "cross_entropy" if name == "toy-labels" else "mse"
    assert last[loss] < first[loss]
    # The same plan gives the same scores, whoever is resident together.
    again = await evaluate(engine, plan, tasks, ref)
    assert again.scores == result.scores
    engine.close()

"""The bandit's references against enumeration, published numbers, and the family's own environment."""

from __future__ import annotations

import itertools
import json
import math
import runpy
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from innerloop_server.domain import Reference, ReturnUnit, Split
from innerloop_server.errors import InvalidField
from innerloop_server.evaluation.references.bandit_optimum import bayes_optimum
from innerloop_server.evaluation.references.bandit_strategies import (
    Gittins,
    SmoothedUcb,
    Strategy,
    at_random,
    greedy,
    simulate,
    thompson,
    ucb1,
)
from innerloop_server.evaluation.references.bandits import bandit_references, measure_bandit
from innerloop_server.evaluation.references.catalog import ZOO, references
from innerloop_server.evaluation.references.gittins import fitting_discount, gittins_indices
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.sampling import sample_task, stack_parameters
from innerloop_server.tasks.trials import Trials

RNG = np.random.default_rng(0)
SCRIPT = Path(__file__).parents[3] / "scripts" / "reference_values.py"


# the exact optimum


def best_by_brute_force(arms: int, pulls: int) -> Fraction:
    """The best of all deterministic policies, each a table from what was paid so far to an arm, by exact integration
    over the arms' probabilities: the integral of p^s (1 - p)^f is s! f! / (s + f + 1)!.
    """
    histories = [paid for n in range(pulls) for paid in itertools.product((0, 1), repeat=n)]

    def expected(policy: dict[tuple[int, ...], int]) -> Fraction:
        total = Fraction(0)
        for paid in itertools.product((0, 1), repeat=pulls):
            counts = [[0, 0] for _ in range(arms)]
            for n, reward in enumerate(paid):
                counts[policy[paid[:n]]][1 - reward] += 1
            chance = math.prod(
                Fraction(math.factorial(s) * math.factorial(f), math.factorial(s + f + 1)) for s, f in counts
            )
            total += chance * sum(paid)
        return total

    choices: Iterator[tuple[int, ...]] = itertools.product(range(arms), repeat=len(histories))
    return max(expected(dict(zip(histories, choice, strict=True))) for choice in choices)


@pytest.mark.parametrize(("arms", "pulls"), [(1, 3), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3)])
def test_the_optimum_is_the_best_of_all_policies(arms: int, pulls: int) -> None:
    assert bayes_optimum(arms, pulls) == pytest.approx(float(best_by_brute_force(arms, pulls)), abs=1e-14)


def test_the_optimum_by_hand() -> None:
    """One arm: 1/2 a pull. Two arms, two pulls: stay after a success (2/3), change after a failure (1/2)."""
    assert bayes_optimum(1, 7) == pytest.approx(3.5, abs=1e-12)
    assert bayes_optimum(2, 2) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3 + 1 / 2 * 1 / 2, abs=1e-12)


@pytest.mark.parametrize(("arms", "value"), [(5, 6.6600), (10, 6.7140), (50, 6.7140)])
def test_the_optimum_of_ten_pulls(arms: int, value: float) -> None:
    assert bayes_optimum(arms, 10) == pytest.approx(value, abs=1e-4)


def test_more_arms_than_pulls_are_no_use() -> None:
    assert bayes_optimum(7, 7) == bayes_optimum(8, 7) > bayes_optimum(6, 7) > bayes_optimum(5, 7)


# Gittins indices


def test_the_published_indices() -> None:
    """Gittins, Glazebrook and Weber (2011), the table for discount 0.9, prior Beta(1, 1)."""
    indices = gittins_indices(10, 0.9)
    published = [[0.7029, 0.5001, 0.3796], [0.8001, 0.6346, 0.5163], [0.8452, 0.7072, 0.6010]]
    np.testing.assert_allclose(indices[:3, :3], published, atol=1e-4)


def test_the_index_is_what_restarting_is_worth() -> None:
    """Katehakis and Veinott (1987): the index of a state is (1 - discount) times the value of playing one arm that may
    be put back into that state before any pull. Another algorithm, with nothing in common but the arm.
    """
    discount, depth = 0.8, 60
    indices = gittins_indices(4, discount)
    for s, f in ((0, 0), (2, 0), (1, 2)):
        pulled = np.arange(depth)
        mean = [(s + 1 + np.arange(m + 1)) / (s + f + 2 + m) for m in pulled]
        value = [np.zeros(m + 1) for m in range(depth + 1)]  # after m more pulls, with 0 .. m more successes
        for _ in range(400):
            go = [p + discount * (p * v[1:] + (1 - p) * v[:-1]) for p, v in zip(mean, value[1:], strict=True)]
            new = [np.maximum(g, go[0][0]) for g in go]
            new.append(np.full(depth + 1, go[0][0]))
            done = max(float(np.abs(a - b).max()) for a, b in zip(new, value, strict=True)) < 1e-12
            value = new
            if done:
                break
        assert indices[s, f] == pytest.approx((1 - discount) * value[0][0], abs=1e-5)


def test_indices_reward_success_and_exploring() -> None:
    indices = gittins_indices(20, 0.95)
    s, f = (n.ravel() for n in np.indices((19, 19)))
    s, f = s[s + f < 19], f[s + f < 19]
    assert np.all(indices[s + 1, f] > indices[s, f])
    assert np.all(indices[s, f + 1] < indices[s, f])
    assert np.all(indices[s, f] > (s + 1) / (s + f + 2))
    assert np.isnan(indices[19, 1])


def test_without_a_future_the_index_is_the_mean() -> None:
    assert gittins_indices(1, 0.0)[0, 0] == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(("pulls", "discount"), [(1, 0.0), (10, 0.9), (100, 0.98), (500, 0.995)])
def test_the_discount_fits_the_pulls(pulls: int, discount: float) -> None:
    assert fitting_discount(pulls) == pytest.approx(discount, abs=1e-12)
    assert fitting_discount(pulls) < fitting_discount(pulls + 1) < 1


# strategies


COUNTS = (np.array([[0, 3, 1, 0]]), np.array([[0, 1, 1, 2]]))
"""One trial after eight pulls of four arms: never pulled, 3 of 4, 1 of 2, 0 of 2."""


@pytest.mark.parametrize(
    ("strategy", "scores"),
    [
        (at_random, [0, 0, 0, 0]),
        (greedy, [1 / 2, 4 / 6, 2 / 4, 1 / 4]),
        (
            ucb1,
            [
                math.inf,
                3 / 4 + math.sqrt(2 * math.log(8) / 4),
                1 / 2 + math.sqrt(2 * math.log(8) / 2),
                0 + math.sqrt(2 * math.log(8) / 2),
            ],
        ),
        (
            SmoothedUcb(0.02),
            [
                1 / 2 + math.sqrt(0.04 * math.log(9)),
                4 / 6 + math.sqrt(0.04 * math.log(9) / 5),
                2 / 4 + math.sqrt(0.04 * math.log(9) / 3),
                1 / 4 + math.sqrt(0.04 * math.log(9) / 3),
            ],
        ),
    ],
)
def test_scores_by_hand(strategy: Strategy, scores: list[float]) -> None:
    np.testing.assert_allclose(strategy(*COUNTS, RNG), [scores], atol=1e-12)


def test_thompson_draws_from_the_posterior() -> None:
    successes, failures = (np.repeat(counts, 20_000, 0) for counts in COUNTS)
    drawn = thompson(successes, failures, np.random.default_rng(1))
    a, b = COUNTS[0][0] + 1, COUNTS[1][0] + 1
    deviation = np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    np.testing.assert_allclose(drawn.mean(0), a / (a + b), atol=4 * deviation.max() / math.sqrt(20_000))
    np.testing.assert_allclose(drawn.std(0), deviation, rtol=0.05)


@pytest.mark.parametrize(
    ("arms", "strategy", "mean"),
    [
        (5, at_random, 5.0),
        (5, greedy, 6.619),
        (5, thompson, 5.834),
        (5, ucb1, 5.671),
        (5, SmoothedUcb(0.02), 6.627),
        (10, ucb1, 5.0),
    ],
)
def test_strategies_of_ten_pulls(arms: int, strategy: Strategy, mean: float) -> None:
    """The means are of 200,000 trials of another program, with a standard error of 0.005; ours have 0.007."""
    got, error = simulate(strategy, arms, 10, 100_000, seed=3)
    assert got == pytest.approx(mean, abs=0.025)
    assert 0.004 < error < 0.008
    assert got < bayes_optimum(arms, 10) + 4 * error


@pytest.mark.parametrize(("arms", "mean"), [(5, 6.649), (10, 6.699)])
def test_gittins_of_ten_pulls(arms: int, mean: float) -> None:
    got, error = simulate(Gittins(10), arms, 10, 100_000, seed=3)
    assert got == pytest.approx(mean, abs=0.025)
    assert simulate(greedy, arms, 10, 100_000, seed=3)[0] < got < bayes_optimum(arms, 10) + 4 * error


def test_gittins_of_a_hundred_pulls() -> None:
    """Fewer trials than the reproduction below: the interval is its own."""
    mean, error = simulate(Gittins(100), 5, 100, 2_000, seed=3)
    assert mean == pytest.approx(78.70, abs=3 * math.hypot(error, 0.11))
    assert mean > simulate(greedy, 5, 100, 2_000, seed=3)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pulls", "arms", "gittins", "others"),
    [
        (100, 5, 78.70, {greedy: 75.8, thompson: 74.96, ucb1: 65.97}),
        (100, 10, 83.62, {greedy: 79.2, thompson: 77.15, ucb1: 63.47, SmoothedUcb(0.02): 83.40}),
    ],
)
def test_a_hundred_pulls_in_full(pulls: int, arms: int, gittins: float, others: dict[Strategy, float]) -> None:
    for strategy, published in {Gittins(pulls): gittins, **others}.items():
        assert simulate(strategy, arms, pulls, 20_000, seed=0)[0] == pytest.approx(published, abs=0.4)
    assert simulate(Gittins(pulls), arms, pulls, 20_000, seed=0)[0] == pytest.approx(gittins, abs=0.3)


def test_the_same_seed_gives_the_same_trials_and_pairs_the_strategies() -> None:
    assert simulate(thompson, 3, 5, 100, seed=1) == simulate(thompson, 3, 5, 100, seed=1)
    assert simulate(thompson, 3, 5, 100, seed=1) != simulate(thompson, 3, 5, 100, seed=2)

    def first(successes: np.ndarray, failures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.broadcast_to([1.0, 0.0], successes.shape)

    def likewise(successes: np.ndarray, failures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rng.random(len(successes))
        return first(successes, failures, rng)

    assert simulate(first, 2, 6, 50, seed=1) == simulate(likewise, 2, 6, 50, seed=1)


def test_the_environment_pays_what_was_simulated() -> None:
    """Greedy, and the oracle, in the family's own batch, over whole trials."""
    family = BernoulliBandit(3, 8)
    tasks, copies = 300, 20
    parameters = stack_parameters([sample_task(family, 0, Split.TEST, i) for i in range(tasks)])
    trials = Trials.of(family, parameters, torch.device("cpu"))
    rng = np.random.default_rng(0)
    for strategy in (greedy, "oracle"):
        counts = np.zeros((2, tasks * copies, 3), np.int64)
        rows = np.arange(tasks * copies)
        state, _ = trials.begin(torch.zeros(tasks, copies, 0, dtype=torch.float64))
        for _ in range(trials.steps):
            if strategy == "oracle":
                arm = np.repeat(parameters["probabilities"].argmax(-1), copies)
            else:
                arm = (greedy(counts[0], counts[1], rng) + 1e-9 * rng.random((tasks * copies, 3))).argmax(-1)
            uniforms = torch.tensor(rng.random((tasks, copies, 1)))
            state, step = trials.step(state, torch.tensor(arm.reshape(tasks, copies)), uniforms)
            paid = step.reward.numpy().ravel().astype(np.int64)
            counts[1 - paid, rows, arm] += 1
        assert step.trial_end.all()
        per_task = counts[0].sum(-1).reshape(tasks, copies).mean(-1)
        mean, error = per_task.mean(), per_task.std() / math.sqrt(tasks)
        if strategy == "oracle":
            (want,) = (r.value for r in bandit_references(family) if r.name == "oracle")
            assert want == 6.0
        else:
            want = simulate(greedy, 3, 8, 50_000, seed=1)[0]
        assert mean == pytest.approx(want, abs=4 * error)


# the catalog


def test_exact_numbers_are_known_at_once() -> None:
    found = {r.name: r for r in bandit_references(BernoulliBandit())}
    assert list(found) == ["bayes-optimum", "oracle", "memoryless", "random"]
    assert {r.unit for r in found.values()} == {ReturnUnit.TRIAL}
    assert found["bayes-optimum"].value == pytest.approx(6.66, abs=1e-4)
    assert found["random"].value == found["memoryless"].value == 5.0
    assert found["oracle"].value == pytest.approx(10 * 5 / 6)
    assert "bayes-optimum" not in {r.name for r in bandit_references(BernoulliBandit(pulls=100))}
    assert bandit_references(Navigation2D()) == ()


def test_stored_values_come_after_exact_and_before_trained_ones(tmp_path: Path) -> None:
    family = BernoulliBandit(arms=3, pulls=4)
    entries = {
        "memoryless": {"value": -1.0, "source": "trained", "weights": "m.safetensors", "unit": "trial"},
        "trained": {"value": 1.0, "source": "ppo", "weights": "t.safetensors"},
        "gittins": {"value": 2.0, "source": "simulated", "unit": "trial"},
    }
    (tmp_path / f"{family.name}.json").write_text(json.dumps({"family": family.name, "references": entries}))
    assert references(family, tmp_path) == (
        *bandit_references(family),
        Reference("gittins", 2.0, "simulated", ReturnUnit.TRIAL),
        Reference("trained", 1.0, "ppo", ReturnUnit.EPISODE),
    )


def test_measuring_gives_every_strategy_its_error() -> None:
    measured = measure_bandit(BernoulliBandit(arms=3, pulls=12), samples=400, seed=0)
    assert list(measured) == [
        "bayes-optimum",
        "gittins",
        "smoothed-ucb",
        "posterior-mean-greedy",
        "thompson",
        "ucb1",
    ]
    optimum = measured.pop("bayes-optimum")
    assert (optimum.standard_error, optimum.samples) == (0, 0)
    for entry in measured.values():
        assert entry.samples == 400
        assert entry.unit is ReturnUnit.TRIAL
        assert 6.0 - 4 * entry.standard_error < entry.value < optimum.value + 4 * entry.standard_error
    with pytest.raises(InvalidField, match="no bernoulli-bandit"):
        measure_bandit(Navigation2D(), None, 0)


def test_the_script_keeps_what_it_measured_and_what_was_trained(tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    family = BernoulliBandit(arms=3, pulls=4)
    file = tmp_path / f"{family.name}.json"
    trained = {"value": 1.0, "source": "ppo", "weights": "t.safetensors"}
    old = {"value": 0.0, "source": "an older measurement"}
    file.write_text(json.dumps({"test": {"tasks": 3}, "references": {"trained": trained, "gittins": old}}))
    assert script["write"](family, 300, 5, tmp_path) == file
    kept = json.loads(file.read_text())
    assert (kept["family"], kept["test"]) == (family.name, {"tasks": 3})
    assert kept["references"]["trained"] == trained
    gittins = kept["references"]["gittins"]
    assert gittins["command"] == f"scripts/references {family.name} --seed 5 --samples 300"
    assert (gittins["value"], gittins["standard_error"]) == simulate(Gittins(4), 3, 4, 300, seed=5)
    assert Reference("gittins", gittins["value"], gittins["source"], ReturnUnit.TRIAL) in references(family, tmp_path)


@pytest.mark.parametrize(("pulls", "arms"), list(itertools.product((10, 100, 500), (5, 10, 50))))
def test_the_sizes_of_the_rl2_paper_are_stored(pulls: int, arms: int) -> None:
    family = BernoulliBandit(arms, pulls)
    stored = json.loads((ZOO / f"{family.name}.json").read_text())["references"]
    found = {r.name: r.value for r in references(family)}
    assert stored["gittins"]["command"] == f"scripts/references {family.name} --seed {stored['gittins']['seed']}"
    error = 4 * stored["gittins"]["standard_error"]
    assert found["random"] < found["gittins"] < found["oracle"]
    assert found["gittins"] < found.get("bayes-optimum", found["oracle"]) + error
    # What a few trials of the same code say.
    mean, deviation = simulate(greedy, arms, pulls, 200, seed=9)
    assert mean == pytest.approx(found["posterior-mean-greedy"], abs=4 * deviation)

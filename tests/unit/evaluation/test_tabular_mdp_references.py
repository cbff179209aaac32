from __future__ import annotations

import itertools
import json

import gymnasium
import numpy as np
import pytest

from innerloop_server.domain import ReturnUnit, Split
from innerloop_server.errors import InvalidField
from innerloop_server.evaluation.references.catalog import ZOO, references
from innerloop_server.evaluation.references.planning import evaluate, plan
from innerloop_server.evaluation.references.tabular_mdps import (
    STRATEGIES,
    Belief,
    MDPs,
    measure_tabular_mdp,
    memoryless_return,
    oracle,
    posterior_mean,
    posterior_sample,
    sample,
    simulate,
    tabular_mdp_references,
)
from innerloop_server.tasks.families.gridnavi import GridNavi
from innerloop_server.tasks.families.tabular_mdp import HORIZON, TabularMDP
from innerloop_server.tasks.sampling import sample_task

FAMILY = TabularMDP()
PUBLISHED = {"oracle": 218.6, "psrl": 134.0, "posterior-mean": 150.5}
"""Ten episodes; measured once on 400 MDPs, standard error about 1.3."""


def test_a_plan_by_hand() -> None:
    """Two states. Action 0 stays, action 1 swaps. Staying in state 0 pays 1, in state 1 pays 3, swapping costs 1."""
    stay, swap = np.eye(2), np.eye(2)[::-1]
    transitions = np.stack([stay, swap], 1)[None]
    rewards = np.array([[[1.0, -1.0], [3.0, -1.0]]])
    for horizon, values, first in [(1, [1, 3], [0, 0]), (2, [2, 6], [0, 0]), (3, [5, 9], [1, 0])]:
        actions, value = plan(transitions, rewards, horizon)
        assert value.tolist() == [values]
        assert actions[0, 0].tolist() == first
        assert evaluate(transitions, rewards, actions).tolist() == [values]


def test_no_policy_of_state_and_time_beats_the_plan() -> None:
    """By trying them all: 2 states, 2 actions, 3 steps, 64 policies, for 20 MDPs at once."""
    mdps = sample(TabularMDP(2, 2), 20, np.random.default_rng(0))
    _, values = plan(mdps.transitions, mdps.rewards, 3)
    tried = [
        evaluate(mdps.transitions, mdps.rewards, np.broadcast_to(np.reshape(choice, (3, 2)), (20, 3, 2)))
        for choice in itertools.product(range(2), repeat=6)
    ]
    np.testing.assert_allclose(np.max(tried, 0), values, atol=1e-12)


def test_a_belief_by_hand() -> None:
    """State 0, action 0 was tried three times: to state 1 twice and to state 0 once, for 2 + 4 + 6."""
    moves = np.zeros((1, 2, 1, 2))
    moves[0, 0, 0] = [1, 2]
    belief = Belief(moves, np.array([[[12.0], [0.0]]]))
    transitions, rewards = posterior_mean(belief, np.random.default_rng(0))
    np.testing.assert_allclose(transitions[0, :, 0], [[2 / 5, 3 / 5], [1 / 2, 1 / 2]])
    np.testing.assert_allclose(rewards[0, :, 0], [(1 + 12) / 4, 1.0])
    many = Belief(np.broadcast_to(moves, (20_000, 2, 1, 2)), np.broadcast_to(belief.paid, (20_000, 2, 1)))
    transitions, rewards = posterior_sample(many, np.random.default_rng(0))
    # Beta(2, 3): mean 0.4, variance 0.04; Normal(3.25, 1/4) and Normal(1, 1)
    assert transitions[:, 0, 0, 0].mean() == pytest.approx(0.4, abs=5 * 0.2 / np.sqrt(20_000))
    assert transitions[:, 0, 0, 0].var() == pytest.approx(0.04, rel=0.05)
    np.testing.assert_allclose(rewards[:, :, 0].mean(0), [3.25, 1.0], atol=5 / np.sqrt(20_000))
    np.testing.assert_allclose(rewards[:, :, 0].std(0), [0.5, 1.0], rtol=0.03)
    np.testing.assert_allclose(transitions.sum(-1), 1)


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_simulated_is_the_environment(name: str) -> None:
    """The same strategy in the family's own environment, fed the same uniform numbers, earns the same to rounding."""
    tasks = [sample_task(FAMILY, 0, Split.TEST, i) for i in range(3)]
    mdps = MDPs(*(np.stack([t.parameters[key] for t in tasks]) for key in ("transitions", "rewards")))
    uniforms = np.stack([gymnasium.utils.seeding.np_random(i)[0].random((4, HORIZON, 2)) for i in range(3)])
    strategy = STRATEGIES[name][1]
    returns = simulate(strategy, mdps, uniforms, np.random.default_rng(5))

    envs = [FAMILY.make(task) for task in tasks]
    moves, paid = np.zeros((3, 10, 5, 10)), np.zeros((3, 10, 5))
    rng = np.random.default_rng(5)
    for episode in range(4):
        actions, _ = plan(*strategy(Belief(moves, paid), rng), HORIZON)
        for i, env in enumerate(envs):
            state, _ = env.reset(seed=i if episode == 0 else None)
            total = 0.0
            for t in range(HORIZON):
                action = actions[i, t, state]
                after, reward, *_ = env.step(action)
                moves[i, state, action, after] += 1
                paid[i, state, action] += float(reward)
                total += float(reward)
                state = after
            assert returns[i, episode] == pytest.approx(total, abs=1e-9)


def test_ten_episodes_earn_what_was_published() -> None:
    """Within three standard errors of a run over 400 MDPs; and paired, the planner is better than PSRL beyond doubt."""
    measured = measure_tabular_mdp(FAMILY, 400, 0)
    for name, published in PUBLISHED.items():
        assert measured[name].samples == 400
        assert measured[name].unit is ReturnUnit.TRIAL
        assert 0.9 < measured[name].standard_error < 1.6
        assert measured[name].value == pytest.approx(published, abs=3 * measured[name].standard_error)


def test_all_are_scored_on_the_same_mdps() -> None:
    rng = np.random.default_rng(1)
    mdps = sample(FAMILY, 200, rng)
    uniforms = rng.random((200, 10, HORIZON, 2))
    best = 10 * oracle(mdps)
    greedy = simulate(posterior_mean, mdps, uniforms, rng).sum(1)
    psrl = simulate(posterior_sample, mdps, uniforms, rng).sum(1)
    assert np.corrcoef(best, greedy)[0, 1] > 0.3
    paired = (greedy - psrl).std() / np.sqrt(200)
    apart = np.hypot(greedy.std(), psrl.std()) / np.sqrt(200)
    assert paired < 0.8 * apart
    assert (greedy - psrl).mean() > 5 * paired


def test_without_memory_nothing_beats_the_prior_mean() -> None:
    """A policy of state and time, drawn at random, and the uniform one: 100 a trial, over many MDPs."""
    mdps = sample(FAMILY, 4_000, np.random.default_rng(2))
    fixed = np.random.default_rng(3).integers(5, size=(HORIZON, 10))
    returns = 10 * evaluate(mdps.transitions, mdps.rewards, np.broadcast_to(fixed, (4_000, HORIZON, 10)))[:, 0]
    assert memoryless_return(10) == 100.0
    assert returns.mean() == pytest.approx(100.0, abs=4 * returns.std() / np.sqrt(4_000))


def test_other_sizes_come_from_the_same_code() -> None:
    small = measure_tabular_mdp(TabularMDP(states=3, actions=2, episodes=4), 300, 0)
    assert memoryless_return(4) < small["psrl"].value < small["oracle"].value
    longer = measure_tabular_mdp(TabularMDP(states=3, actions=2, episodes=40), 300, 0)
    regret = {n: 1 - m["psrl"].value / m["oracle"].value for n, m in ((4, small), (40, longer))}
    assert 0 < regret[40] < 0.5 * regret[4]


def test_a_family_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidField, match="gridnavi is no tabular-mdp"):
        measure_tabular_mdp(GridNavi(), 10, 0)
    assert tabular_mdp_references(GridNavi()) == ()


def test_listed_are_the_exact_and_the_stored_ones() -> None:
    found = {reference.name: reference for reference in references(FAMILY)}
    assert set(found) == {"oracle", "psrl", "posterior-mean", "random", "memoryless"}
    assert {reference.unit for reference in found.values()} == {ReturnUnit.TRIAL}
    assert found["random"].value == found["memoryless"].value == 100.0
    for name, published in PUBLISHED.items():
        assert found[name].value == pytest.approx(published, abs=3 * 1.3)


@pytest.mark.parametrize(("episodes", "oracle_value", "psrl", "mean"), [
    (25, 547.1, 404.9, 426.4),
    (50, 1085.2, 895.9, 889.7),
    (75, 1638.6, 1417.0, 1379.4),
    (100, 2181.9, 1945.4, 1850.4),
])  # fmt: skip
def test_longer_trials_are_stored_with_how_they_were_measured(
    episodes: int, oracle_value: float, psrl: float, mean: float
) -> None:
    """Against runs over 400 MDPs of their own: within three of their standard errors, which grow with the trial."""
    family = TabularMDP(episodes=episodes)
    stored = json.loads((ZOO / f"{family.name}.json").read_text())["references"]
    for name, published in (("oracle", oracle_value), ("psrl", psrl), ("posterior-mean", mean)):
        entry = stored[name]
        assert entry["samples"] == 4_000
        assert entry["command"] == f"scripts/references {family.name} --seed 0"
        of_400 = entry["standard_error"] * np.sqrt(10)
        assert entry["value"] == pytest.approx(published, abs=3 * of_400)


@pytest.mark.slow
def test_the_stored_values_come_out_again() -> None:
    stored = json.loads((ZOO / f"{FAMILY.name}.json").read_text())["references"]
    for name, measured in measure_tabular_mdp(FAMILY, None, 0).items():
        assert measured.value == pytest.approx(stored[name]["value"], abs=1e-6)

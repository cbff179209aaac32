from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.learners import q_targets

REWARDS = torch.tensor([1.0, 2.0, 4.0, 8.0])
VALUES = torch.tensor([10.0, 20.0, 30.0, 40.0])
NONE, ALL = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("n", "want"), [(1, [11, 17, 24, 40]), (2, [9.5, 14, 24, 40]), (3, [8, 14, 24, 40]), (9, [8, 14, 24, 40])]
)
def test_targets_by_hand(n: int, want: list[float]) -> None:
    """Half a reward a step later: 1 + 20/2; 1 + 2/2 + 30/4; 1 + 2/2 + 4/4 + 40/8."""
    assert q_targets.n_step(REWARDS, NONE, VALUES, ALL, 0.5, n).tolist() == want


def test_nothing_comes_after_a_cut() -> None:
    cut = torch.tensor([False, True, False, False])
    after = torch.tensor([10.0, 20.0, float("nan"), float("nan")])
    assert q_targets.n_step(REWARDS, cut, after, ALL, 0.5, 1)[:2].tolist() == [11, 2]
    assert q_targets.n_step(REWARDS, cut, after, ALL, 0.5, 4)[:2].tolist() == [2, 2]
    last = torch.tensor([False, False, False, True])
    assert q_targets.n_step(REWARDS, last, VALUES, ALL, 0.5, 4).tolist() == [4, 6, 8, 8]


def test_targets_stop_short_of_what_was_tried_at_random() -> None:
    greedy = torch.tensor([False, True, False, True])
    # 1 + 2/2 + 30/4 and 2 + 30/2: the third action is not what 30 is the value of. The first one's own is not asked.
    assert q_targets.n_step(REWARDS, NONE, VALUES, greedy, 0.5, 4).tolist() == [9.5, 17, 24, 40]


@st.composite
def trials(draw: st.DrawFn) -> tuple[list[float], list[bool], list[float], list[bool]]:
    length = draw(st.integers(1, 7))
    number, flag = st.integers(-9, 9), st.booleans()
    return tuple(draw(st.lists(kind, min_size=length, max_size=length)) for kind in (number, flag, number, flag))  # type: ignore[return-value]


@given(trials(), st.integers(1, 9))
def test_targets_are_their_definition(trial: tuple[list[float], list[bool], list[float], list[bool]], n: int) -> None:
    rewards, cut, values, greedy = trial
    want = []
    for t in range(len(rewards)):
        if t == len(rewards) - 1:
            want.append(rewards[t] if cut[t] else values[t])
            continue
        total, at = 0.0, t
        while True:
            total += 0.5 ** (at - t) * rewards[at]
            if cut[at]:
                break
            at += 1
            if at - t == n or (at == len(rewards) - 1 and not cut[at]) or not greedy[at]:
                total += 0.5 ** (at - t) * values[at]
                break
        want.append(total)
    r, v = (torch.tensor(part, dtype=torch.float64) for part in (rewards, values))
    got = q_targets.n_step(r[None], torch.tensor([cut]), v[None], torch.tensor([greedy]), 0.5, n)
    assert got[0].tolist() == pytest.approx(want)


Pull = tuple[int, int]
History = tuple[Pull, ...]


def chance(history: History, arm: int) -> Fraction:
    """That the arm pays, by Laplace: payoffs were uniform in [0, 1]."""
    paid = [won for pulled, won in history if pulled == arm]
    return Fraction(sum(paid) + 1, len(paid) + 2)


def optimal(history: History, arm: int, pulls: int) -> Fraction:
    """What pulling the arm is worth in a trial of so many pulls of two arms, by dynamic programming."""
    p = chance(history, arm)
    if len(history) + 1 == pulls:
        return p
    after = [max(optimal((*history, (arm, won)), a, pulls) for a in (0, 1)) for won in (0, 1)]
    return p * (1 + after[1]) + (1 - p) * after[0]


def test_the_dynamic_programme_by_hand() -> None:
    """Two pulls: 1/2, then 2/3 on an arm that paid, or 1/2 on the other. Three: 1/2, then, on an arm that paid, 2/3 and
    3/4 or 1/2 after it, or else on the other one 1/2 and 2/3 or 1/3 after it."""
    half, third = Fraction(1, 2), Fraction(1, 3)
    assert optimal((), 0, 2) == half + half * 2 * third + half * half
    won = 2 * third + 2 * third * Fraction(3, 4) + third * half
    lost = half + half * 2 * third + half * third
    assert optimal((), 0, 3) == half + half * won + half * lost == Fraction(5, 3)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_optimum_is_what_targets_come_to_whoever_plays(n: int) -> None:
    """Bellman's equation: averaged over all that may happen to whoever pulls arms at random, targets under the optimal
    values are the optimal values."""
    pulls = 3
    sums: dict[tuple[History, int], tuple[Fraction, float]] = {}
    for trial in itertools.product(itertools.product((0, 1), (0, 1)), repeat=pulls):
        before = [trial[:t] for t in range(pulls)]
        likely = Fraction(1)
        for history, (arm, won) in zip(before, trial, strict=True):
            p = chance(history, arm)
            likely *= (p if won else 1 - p) / 2
        q = [[optimal(history, arm, pulls) for arm in (0, 1)] for history in before]
        cut = torch.tensor([t == pulls - 1 for t in range(pulls)])
        targets = q_targets.n_step(
            torch.tensor([float(won) for _, won in trial], dtype=torch.float64),
            cut,
            torch.tensor([float(max(both)) for both in q], dtype=torch.float64),
            torch.tensor([both[arm] == max(both) for both, (arm, _) in zip(q, trial, strict=True)]),
            1.0,
            n,
        )
        for history, (arm, _), y in zip(before, trial, targets.tolist(), strict=True):
            weight, total = sums.get((history, arm), (Fraction(0), 0.0))
            sums[history, arm] = (weight + likely, total + float(likely) * y)
    assert len(sums) == 2 * (1 + 4 + 16)
    for (history, arm), (weight, total) in sums.items():
        assert total / float(weight) == pytest.approx(float(optimal(history, arm, pulls)), abs=1e-12)


def test_the_heads_and_the_loss_by_hand() -> None:
    q = q_targets.dueling(torch.tensor([10.0, 0.0]), torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
    assert q.tolist() == [[9, 11], [0, 0]]
    assert q_targets.double_values(q, torch.tensor([0, 1])).tolist() == [9, 0]
    assert q_targets.huber(torch.tensor([0.0, -0.5, 1.0, -3.0])).tolist() == [0, 0.125, 0.5, 2.5]


def test_exploring_by_hand() -> None:
    assert q_targets.ladder(3, 0.5, 2.0) == (0.5, 0.25, 0.125)
    assert q_targets.ladder(1, 0.5, 2.0) == (0.5,)
    values = torch.tensor([[0.0, 2.0, 1.0, 1.0], [3.0, 2.0, 1.0, 1.0]])
    chances = q_targets.epsilon_greedy(values, torch.tensor([0.0, 0.4]))
    torch.testing.assert_close(chances, torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.7, 0.1, 0.1, 0.1]]))

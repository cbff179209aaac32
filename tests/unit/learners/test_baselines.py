from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.domain import Experience, Features, LearnerSpec
from innerloop_server.learners import baselines

MakeSpec = Callable[..., LearnerSpec]
MakeExperience = Callable[..., Experience[torch.Tensor]]


def fitted(experience: Experience[torch.Tensor], kind: Features, discount: float, horizon: int) -> baselines.Values:
    return baselines.fit_values(
        kind, experience, experience.observations, experience.final_observations, horizon, discount
    )


def test_linear_features_by_hand() -> None:
    row = baselines.features(Features(), torch.tensor([2.0, -20.0]), torch.tensor(50), 200)
    assert row.tolist() == [2, -10, 4, 100, 0.5, 0.25, 0.125, 1]


def test_polynomial_features_by_hand() -> None:
    row = baselines.features(Features("polynomial", 2), torch.tensor([2.0, 3.0]), torch.tensor(50), 100)
    assert row.tolist() == [1, 2, 3, 4, 6, 9, 0.5, 0.25, 0.125]
    four = baselines.features(Features("polynomial", 4), torch.zeros(3), torch.tensor(0), 200)
    assert len(four) == 35 + 3


def test_time_is_held_at_the_horizon() -> None:
    late = baselines.features(Features(), torch.zeros(2, 1), torch.tensor([100, 10_000]), 100)
    assert torch.equal(late[0], late[1])


def test_unknown_features_are_refused() -> None:
    with pytest.raises(ValueError, match="fourier"):
        baselines.features(Features("fourier"), torch.zeros(1), torch.tensor(0), 10)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_ridge_recovers_an_exactly_linear_problem(seed: int, b: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(b, 40, 4, generator=generator, dtype=torch.float64)
    w = torch.randn(b, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(baselines.ridge(x, (x @ w[..., None])[..., 0]), w, rtol=1e-4, atol=1e-5)


def test_ridge_rises_until_the_solution_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []
    solve = torch.linalg.solve_ex

    def fails_three_times(a: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tried.append(a[1, 0, 0].item())
        solution, info = solve(a, y)
        if len(tried) <= 3:
            solution = solution.clone()
            solution[1] = torch.nan
        return solution, info

    monkeypatch.setattr(torch.linalg, "solve_ex", fails_three_times)
    w = baselines.ridge(torch.zeros(2, 3, 2, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64))
    assert tried == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])
    assert w.tolist() == [[0, 0], [0, 0]]


def test_a_hopeless_task_gets_zeros_and_harms_nobody() -> None:
    x = torch.randn(2, 10, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x.sum(-1)
    alone = baselines.ridge(x[:1], y[:1])
    x[1] = torch.inf
    both = baselines.ridge(x, y)
    assert torch.equal(both[0], alone[0])
    assert both[1].tolist() == [0, 0]


def test_fits_returns_that_are_linear_in_the_features(make_spec: MakeSpec, make_experience: MakeExperience) -> None:
    # Reward o_t - 0.5 o_{t+1} makes the return exactly o_t (nothing after the end).
    experience = make_experience(make_spec(), 2, 6, 5, lengths=torch.full((2, 6), 5))
    value = experience.observations[..., 0]
    following = torch.cat([value[..., 1:], torch.zeros(2, 6, 1)], -1)
    experience = dataclasses.replace(experience, rewards=value - 0.5 * following)
    values = fitted(experience, Features(), 0.5, 10)
    torch.testing.assert_close(values.v_t.float(), value, rtol=1e-3, atol=1e-3)
    assert not values.v_final.any()


def test_a_cut_episode_is_valued_from_its_final_observation(
    make_spec: MakeSpec, make_experience: MakeExperience
) -> None:
    # As above, but the last reward counts on a value behind the cut: V(o) = o must still come out, there too.
    experience = make_experience(make_spec(), 1, 8, 5, lengths=torch.full((1, 8), 5))
    final = torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(1))
    value = experience.observations[..., 0]
    following = torch.cat([value[..., 1:], final[..., :1]], -1)
    experience = dataclasses.replace(
        experience,
        rewards=value - 0.5 * following,
        bootstrap=torch.ones(1, 8, dtype=torch.bool),
        final_observations=final,
        time_offset=torch.full((1, 8), 3),
    )
    values = fitted(experience, Features(), 0.5, 10)
    torch.testing.assert_close(values.v_t.float(), value, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(values.v_final.float(), final[..., 0], rtol=1e-3, atol=1e-3)


def test_a_padded_episode_has_no_say(make_spec: MakeSpec, make_experience: MakeExperience) -> None:
    experience = make_experience(make_spec(), 1, 3, 5, lengths=torch.tensor([[5, 4, 0]]))
    two = make_experience(make_spec(), 1, 3, 5, lengths=torch.tensor([[5, 4, 0]]))
    two = dataclasses.replace(two, bootstrap=torch.tensor([[False, False, True]]))
    assert torch.equal(fitted(experience, Features(), 0.9, 10).v_t, fitted(two, Features(), 0.9, 10).v_t)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(1, 21), st.integers(1, 70), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_task_is_valued_to_the_same_bits_alone_and_in_company(
    make_spec: MakeSpec, make_experience: MakeExperience, b: int, n: int, t: int, polynomial: bool, seed: int
) -> None:
    kind = Features("polynomial", 4) if polynomial else Features()
    together = make_experience(make_spec(), b, n, t, seed=seed)
    values = fitted(together, kind, 0.9, t)
    for i in range(b):
        alone = dataclasses.replace(
            together, **{f.name: getattr(together, f.name)[i : i + 1].clone() for f in dataclasses.fields(together)}
        )
        assert torch.equal(fitted(alone, kind, 0.9, t).v_t[0], values.v_t[i])

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import DOES, SEES, Counting, CountingVector, Endless, Mode

from innerloop._core.environments import rows_of, spaces_of
from innerloop._core.episodes import check_local, chunks, collect
from innerloop.arrays import Box, Discrete
from innerloop.policy import (
    Header,
    Input,
    Policy,
    acted,
    forward_with_memory,
    log_prob,
    told,
    weight_shapes,
)


def rows(env, *, continuing=False, segment=200, seed=None, sees=SEES, does=DOES):
    return rows_of(env, sees, does, seed=seed, continuing=continuing, segment=segment)


def play(env, steps, **options):
    """All reports of so many steps with action 1 everywhere."""
    adapter = rows(env, **options)
    reports = [adapter.start()]
    for _ in range(steps):
        asked = reports[-1].rows
        reports.append(adapter.step(asked, np.ones(len(asked), np.int64)))
    return reports


def lives(reports):
    """For each row, its episodes as (steps, how it ended, final observation), pieced together from reports."""
    open_steps: dict[int, int] = {}
    told: dict[int, list[tuple[int, str, float]]] = {}
    for report in reports:
        for i, row in enumerate(report.rows.tolist()):
            if not report.acted:
                open_steps[row] = 0
                assert report.observations[i][0] == 0
                continue
            assert report.rewards[i] == 1
            open_steps[row] += 1
            if report.done[i]:
                end = "terminated" if report.terminated[i] else "truncated"
                told.setdefault(row, []).append((open_steps[row], end, float(report.final_observations[i][0])))
                open_steps[row] = 0
            else:
                assert not report.final_observations[i].any()
            assert report.observations[i][0] == open_steps[row], "the observation is not the row's next one"
    return told


def test_a_plain_environment_is_reset_when_its_episode_ends():
    env = Counting(length=2)
    reports = play(env, 5, seed=11)
    assert lives(reports) == {0: [(2, "terminated", 2.0), (2, "terminated", 2.0)]}
    assert env.resets == [11, None, None]
    assert env.actions == [1] * 5
    assert reports[0].observations.dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(
    mode=st.sampled_from(Mode), lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), steps=st.integers(1, 30)
)
def test_every_autoreset_mode_tells_the_same_lives(mode, lengths, steps):
    told = lives(play(CountingVector(lengths, mode), steps))
    for row, episodes in told.items():
        end = "truncated" if row % 2 else "terminated"
        assert set(episodes) == {(lengths[row], end, float(lengths[row]))}
    if steps >= 2 * (max(lengths) + 1):
        assert set(told) == set(range(len(lengths)))


def test_next_step_holds_a_row_back_until_its_next_observation_is_known():
    reports = play(CountingVector([2, 4], Mode.NEXT_STEP), 3)
    assert [r.rows.tolist() for r in reports] == [[0, 1], [0, 1], [1], [0, 1]]
    assert reports[3].terminated.tolist() == [True, False]
    assert reports[3].final_observations[:, 0].tolist() == [2, 0]
    assert reports[3].observations[:, 0].tolist() == [0, 3]


def test_a_single_row_that_is_held_back_is_stepped_through():
    env = CountingVector([1], Mode.NEXT_STEP)
    reports = play(env, 3)
    assert [r.done.tolist() for r in reports[1:]] == [[True]] * 3
    assert env.steps == 6


def test_same_step_without_final_observations_is_refused():
    env = CountingVector([1, 1], Mode.SAME_STEP)
    step = env.step
    env.step = lambda actions: (*step(actions)[:4], {})
    with pytest.raises(ValueError, match="final_obs"):
        play(env, 1)


def test_an_unknown_autoreset_mode_is_refused():
    env = CountingVector([1], Mode.SAME_STEP)
    env.metadata = {"autoreset_mode": "Sometimes"}
    with pytest.raises(ValueError, match="sometimes"):
        rows(env)


def test_a_robot_is_reset_once_and_cut_into_segments():
    env = Endless()
    reports = play(env, 7, continuing=True, segment=3)
    assert [r.truncated[0] for r in reports[1:]] == [False, False, True, False, False, True, False]
    assert [r.final_observations[0][0] for r in reports if r.truncated[0]] == [3.0, 6.0]
    assert [r.observations[0][0] for r in reports] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert env.resets == [None]
    with pytest.raises(ValueError, match="at least one"):
        rows(env, continuing=True, segment=0)


def test_a_fleet_of_robots_is_cut_into_segments():
    env = CountingVector([10**6] * 2, Mode.NEXT_STEP)
    reports = play(env, 4, continuing=True, segment=2)
    assert [r.truncated.tolist() for r in reports[1:]] == [[False] * 2, [True] * 2, [False] * 2, [True] * 2]


def test_terminated_wins_over_truncated():
    env = Counting(length=1)
    env.step = lambda action: (np.zeros(4), 1.0, True, True, {})
    report = play(env, 1)[1]
    assert (report.terminated[0], report.truncated[0]) == (True, False)


def test_actions_come_in_the_environments_own_numbers():
    class Own:
        n, start, dtype = 2, 5, np.dtype(np.int64)

    env = Counting()
    env.action_space = Own()
    play(env, 2)
    assert env.actions == [6, 6]
    assert spaces_of(env)[1] == Discrete(2)

    class Torque:
        low, high, shape, dtype = np.array([-2.0]), np.array([2.0]), (1,), np.dtype(np.float64)

    env.action_space = Torque()
    adapter = rows(env, does=Box.of(-2, 2, (1,)))
    adapter.start()
    adapter.step(np.array([0]), np.array([[0.5]], np.float32))
    assert env.actions[-1].dtype == np.float64
    assert env.actions[-1].tolist() == [0.5]


def test_spaces_of_environments():
    class Strange:
        def __str__(self) -> str:
            return "Dict(position: Box)"

    env = Counting(spaces=False)
    assert spaces_of(env) == (None, None)
    env.observation_space, env.action_space = Strange(), DOES
    assert spaces_of(env) == ("Dict(position: Box)", DOES)
    assert spaces_of(CountingVector([1], Mode.DISABLED)) == (SEES, DOES)


def test_gymnasium_is_understood():
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("CartPole-v1")
    sees, does = spaces_of(env)
    assert (sees.shape, does) == ((4,), Discrete(2))
    for mode in gymnasium.vector.AutoresetMode:
        envs = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})
        adapter = rows(envs, seed=3)
        report, ended = adapter.start(), 0
        for _ in range(60):
            report = adapter.step(report.rows, np.ones(len(report.rows), np.int64))
            ended += int(report.done.sum())
            assert np.abs(report.final_observations[report.done][:, 2]).min(initial=1) > 0.2, "not a fallen pole"
            assert np.abs(report.observations[report.done]).max(initial=0) < 0.06, "not a fresh start"
        assert ended >= 9
        envs.close()
    env.close()


def policy():
    header = Header(SEES, DOES, (3,), (0.0,) * 4, (1.0,) * 4)
    return Policy(header, {n: np.zeros(s, np.float32) for n, s in weight_shapes(header).items()})


def test_local_episodes_count_in_the_order_in_which_they_began():
    env = CountingVector([2, 9], Mode.NEXT_STEP)
    episodes = collect(rows(env), policy(), 3, np.random.default_rng(0))
    # row 1's long first episode is the second that began: it counts, however many short ones finish before it
    assert [len(e.rewards) for e in episodes] == [2, 9, 2]
    assert [e.terminated for e in episodes] == [True, False, True]
    assert episodes[1].final_observation[0] == 9
    assert episodes[1].observations[:, 0].tolist() == list(range(9))
    assert np.allclose(episodes[0].log_probs, np.log(0.5))


def test_experience_is_split_under_the_message_cap():
    episodes = collect(rows(CountingVector([2, 9], Mode.NEXT_STEP)), policy(), 6, np.random.default_rng(0))
    whole = list(chunks(episodes, 10**9))
    assert [len(c) for c in whole] == [6]
    heaviest = max(e.bytes for e in episodes)
    split = list(chunks(episodes, 2 * heaviest))
    assert [e for chunk in split for e in chunk] == episodes
    assert all(max(e.bytes for e in chunk) * len(chunk) <= 2 * heaviest for chunk in split)
    assert [len(c) for c in chunks(episodes, 1)] == [1] * 6


def test_a_policy_that_remembers_goes_on_where_its_session_is():
    """Acting locally: what each step brought is remembered within the episode, and the next begins with the memory that
    came with the policy.
    """
    header = Header(SEES, DOES, (), (0.0,) * 4, (1.0,) * 4, architecture="gru", memory_size=3, adapts=True)
    rng = np.random.default_rng(1)
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in weight_shapes(header).items()}
    memory = Policy(header, weights).begin()
    for number in range(2):
        start = {f"start.{name}": array[0] for name, array in memory.items()}
        (episode,) = collect(rows(Counting(4)), Policy(header, {**weights, **start}), 1, np.random.default_rng(number))
        assert len(episode.rewards) == 4
        for t in range(4):
            given = told(memory, Input(episode.observations[t : t + 1]))
            parameters, hidden = forward_with_memory(header, weights, memory, given)
            raw = episode.raw_actions[t : t + 1]
            assert episode.log_probs[t] == pytest.approx(log_prob(parameters, raw)[0], abs=1e-5)
            brought = {"last.reward": episode.rewards[t : t + 1], "last.terminated": np.array([t == 3])}
            memory = acted(hidden, raw) | brought
    assert memory["memory"].any()


def test_a_memory_is_for_one_environment():
    check_local(Counting(2))
    check_local(CountingVector([2], Mode.NEXT_STEP))
    with pytest.raises(ValueError, match="leave `local` out"):
        check_local(CountingVector([2, 9], Mode.NEXT_STEP))

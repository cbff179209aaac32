"""From reported rows to complete episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.adaptation import episodes
from innerloop_server.adaptation.episodes import Episode, EpisodeBook, stack
from innerloop_server.adaptation.messages import Observe, Trajectories
from innerloop_server.adaptation.orders import Acted
from innerloop_server.errors import Exhausted, InvalidField

HORIZON = 4


def observe(
    rows: Sequence[int],
    observations: Sequence[float],
    rewards: Sequence[float] = (),
    *,
    terminated: Sequence[int] = (),
    truncated: Sequence[int] = (),
    final: float = 0.0,
    report_only: bool = False,
) -> Observe:
    """``terminated`` and ``truncated`` name rows."""
    n = len(rows)
    return Observe(
        sequence=2,
        step=0,
        row_ids=tuple(rows),
        observations=np.array(observations, np.float32).reshape(n, 1),
        rewards=np.array(rewards if len(rewards) else [0.0] * n, np.float32),
        terminated=np.array([row in terminated for row in rows]),
        truncated=np.array([row in truncated for row in rows]),
        final_observations=np.full((n, 1), final, np.float32),
        report_only=report_only,
    )


def acted(message: Observe) -> Acted:
    """The action is ten times the observation, its log-probability minus that."""
    raw = 10 * message.observations
    return Acted(1, raw, raw, -raw[:, 0])


def tell(book: EpisodeBook, message: Observe) -> None:
    book.report(message)
    if not message.report_only:
        book.acted(message, acted(message))


def shown(episode: Episode) -> tuple[list[float], list[float], list[float], list[float], bool, float]:
    return (
        episode.observations[:, 0].tolist(),
        episode.actions[:, 0].tolist(),
        episode.rewards.tolist(),
        episode.log_probs.tolist(),
        episode.bootstrap,
        float(episode.final_observation[0]),
    )


def test_a_terminated_episode() -> None:
    book = EpisodeBook(HORIZON)
    tell(book, observe([3], [1]))
    tell(book, observe([3], [2], [0.5]))
    assert book.pending == 0
    tell(book, observe([3], [7], [0.25], terminated=[3], final=9))
    (episode,) = book.complete()
    assert shown(episode) == ([1, 2], [10, 20], [0.5, 0.25], [-10, -20], False, 9)
    tell(book, observe([3], [8], [2.0], terminated=[3]))  # the next episode began with observation 7
    assert shown(book.complete()[1]) == ([7], [70], [2.0], [-70], False, 0)


@pytest.mark.parametrize(
    ("steps", "terminated", "truncated", "bootstrap"),
    [
        (2, False, True, True),
        (HORIZON, False, True, False),  # the family's own horizon is an end
        (HORIZON + 1, False, True, True),
        (2, True, True, False),  # a terminal state has no value to go on from
        (2, True, False, False),
    ],
)
def test_what_a_cut_episode_goes_on_from(steps: int, terminated: bool, truncated: bool, bootstrap: bool) -> None:
    book = EpisodeBook(HORIZON)
    tell(book, observe([0], [1]))
    for _ in range(steps - 1):
        tell(book, observe([0], [1], [1.0]))
    tell(book, observe([0], [1], [1.0], terminated=[0] * terminated, truncated=[0] * truncated, final=5))
    (episode,) = book.complete()
    assert len(episode.rewards) == steps
    assert episode.bootstrap is bootstrap
    assert episode.final_observation == 5


def test_a_rows_first_message_rewards_nothing() -> None:
    book = EpisodeBook(HORIZON)
    tell(book, observe([0], [1], [99.0], terminated=[0]))
    assert book.pending == 0
    tell(book, observe([0], [1], [1.0], terminated=[0]))
    assert book.complete()[0].rewards.tolist() == [1.0]


def test_report_only_completes_and_drops_the_rest() -> None:
    book = EpisodeBook(HORIZON)
    tell(book, observe([0, 1], [1, 2]))
    tell(book, observe([0, 1], [0, 0], [3.0, 4.0], terminated=[0], report_only=True))
    assert [shown(episode)[2] for episode in book.complete()] == [[3.0]]
    tell(book, observe([0, 1], [0, 0], [5.0, 6.0], terminated=[0, 1], report_only=True))  # nothing is open
    assert book.pending == 1


def test_the_oldest_are_dropped_and_open_ones_stay() -> None:
    book = EpisodeBook(HORIZON)
    tell(book, observe([0, 1, 2], [1, 2, 3]))
    tell(book, observe([2, 0], [0, 0], [3.0, 1.0], terminated=[2, 0]))
    book.drop(1)
    assert [shown(episode)[2] for episode in book.complete()] == [[1.0]]
    tell(book, observe([1], [0], [2.0], terminated=[1]))
    assert [shown(episode)[2] for episode in book.complete()] == [[1.0], [2.0]]


def test_a_lost_stream_drops_the_open_ones() -> None:
    book = EpisodeBook(HORIZON)
    tell(book, observe([0, 1], [1, 2]))
    tell(book, observe([0], [0], [3.0], terminated=[0]))
    book.drop_open()
    tell(book, observe([0, 1], [1, 2], [9.0, 9.0], terminated=[0, 1]))
    assert [shown(episode)[2] for episode in book.complete()] == [[3.0]]


def trajectories(lengths: Sequence[int], t: int, log_probs: bool = True) -> Trajectories:
    n = len(lengths)
    return Trajectories(
        sequence=2,
        step=0,
        observations=np.ones((n, t, 1), np.float32),
        raw_actions=np.ones((n, t, 1), np.float32),
        rewards=np.arange(n * t, dtype=np.float32).reshape(n, t),
        lengths=np.array(lengths),
        truncated=np.ones(n, bool),
        final_observations=np.full((n, 1), 5, np.float32),
        log_probs=np.full((n, t), -1, np.float32) if log_probs else None,
    )


def test_whole_episodes_are_cut_to_their_lengths() -> None:
    book = EpisodeBook(HORIZON)
    book.add(trajectories([1, 4, 3], 4))
    assert [episode.rewards.tolist() for episode in book.complete()] == [[0], [4, 5, 6, 7], [8, 9, 10]]
    assert [episode.bootstrap for episode in book.complete()] == [True, False, True]
    book.add(trajectories([2], 2, log_probs=False))
    assert np.isnan(book.complete()[3].log_probs).all()


def test_only_so_much_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "MOST_PENDING_STEPS", 6)
    book = EpisodeBook(HORIZON)
    book.add(trajectories([3], 3))
    with pytest.raises(Exhausted) as caught:
        book.add(trajectories([1, 2], 2))  # three episodes, each padded to three steps
    assert caught.value.reason == "PENDING_EXPERIENCE"
    assert book.pending == 1
    book.add(trajectories([2], 2))
    book.drop(1)
    tell(book, observe([0], [1]))
    tell(book, observe([0], [1], [1.0]))
    with pytest.raises(Exhausted):
        tell(book, observe([0, 1, 2], [1, 1, 1], [1.0, 1.0, 1.0]))  # two open steps, and three more
    book.drop_open()
    book.add(trajectories([3], 3))
    assert [len(episode.rewards) for episode in book.complete()] == [2, 3]


def test_a_short_episode_does_not_keep_its_long_message() -> None:
    book = EpisodeBook(HORIZON)
    message = trajectories([1], 4)
    book.add(message)
    (episode,) = book.complete()
    assert not any(
        np.shares_memory(getattr(episode, name), getattr(message, name)) for name in ("observations", "rewards")
    )


def test_stacking_pads_with_zeros() -> None:
    book = EpisodeBook(HORIZON)
    book.add(trajectories([1, 3], 3))
    book.add(trajectories([4], 4))
    experience, returns = stack(book.complete())
    assert experience.rewards.tolist() == [[[0, 0, 0, 0], [3, 4, 5, 0], [0, 1, 2, 3]]]
    assert experience.observations[0, :, :, 0].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert experience.log_probs.tolist() == [[[-1, 0, 0, 0], [-1, -1, -1, 0], [-1, -1, -1, -1]]]
    assert experience.lengths.tolist() == [[1, 3, 4]]
    assert experience.bootstrap.tolist() == [[True, True, False]]
    assert experience.final_observations.tolist() == [[[5], [5], [0]]]  # zero where it is not read
    assert experience.time_offset.tolist() == [[0, 0, 0]]
    assert returns.tolist() == [0, 12, 6]
    assert returns.dtype == np.float64
    kinds = {name: value.dtype for name, value in vars(experience).items()}
    assert {kinds[name] for name in ("observations", "actions", "rewards", "log_probs", "final_observations")} == {
        np.dtype(np.float32)
    }
    assert {kinds[name] for name in ("lengths", "time_offset")} == {np.dtype(np.int64)}


def test_discrete_actions_stay_integers() -> None:
    episode = Episode(
        np.zeros((2, 1), np.float32),
        np.array([3, 1]),
        np.ones(2, np.float32),
        np.zeros(2),
        False,
        np.zeros(1),
        np.zeros((2, 0), np.float32),
    )
    experience, _ = stack([episode])
    assert experience.actions.dtype == np.int64
    assert experience.actions.tolist() == [[[3, 1]]]


def test_nothing_cannot_be_stacked() -> None:
    with pytest.raises(InvalidField):
        stack([])


lengths = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=4)


@given(lengths, st.data())
def test_rows_may_come_in_any_order_and_company(rows: list[list[int]], data: st.DataObject) -> None:
    """Each row plays its episodes; who speaks in which message is drawn. The episodes are the same."""
    book = EpisodeBook(HORIZON)
    todo = {
        row: [(e, t) for e, length in enumerate(lengths) for t in range(length)] for row, lengths in enumerate(rows)
    }
    last = dict.fromkeys(todo, (-1, -1))
    order: list[tuple[int, int]] = []
    while todo:
        speakers = data.draw(st.lists(st.sampled_from(sorted(todo)), min_size=1, unique=True))
        ended = []
        for row in speakers:
            e, _ = last[row]
            if e >= 0 and (not todo[row] or todo[row][0][1] == 0):
                ended.append(row)
                order.append((row, e))
        now = {row: todo[row].pop(0) if todo[row] else (-1, -1) for row in speakers}
        message = observe(
            speakers,
            [100 * row + 10 * now[row][0] + now[row][1] for row in speakers],
            [float(last[row][1]) for row in speakers],
            terminated=ended,
        )
        tell(book, message)
        last.update(now)
        for row in speakers:
            if now[row] == (-1, -1):
                del todo[row]
    expected = [
        ([100 * row + 10 * e + t for t in range(rows[row][e])], [float(t) for t in range(rows[row][e])])
        for row, e in order
    ]
    assert [(shown(episode)[0], shown(episode)[2]) for episode in book.complete()] == expected
    assert len(expected) == sum(map(len, rows))

"""Who is served next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.adaptation.orders import Priority
from innerloop_server.adaptation.scheduler import Ready, choose

ACT, STEP, BACKGROUND = Priority.ACT, Priority.STEP, Priority.BACKGROUND


def keys(*ready: Ready, limit: int = 100, batching: bool = True) -> list[int]:
    return [need.key for need in choose(ready, limit, batching)]


def test_nothing_waits() -> None:
    assert choose([], 10, True) == []


def test_the_urgent_lead_and_the_oldest_among_them() -> None:
    ready = [Ready(1, STEP, 1, "a", 1), Ready(2, ACT, 9, "b", 1), Ready(3, ACT, 5, "c", 1)]
    assert keys(*ready) == [3]


def test_the_group_rides_along_less_urgent_ones_last() -> None:
    ready = [
        Ready(1, BACKGROUND, 1, "a", 1),
        Ready(2, STEP, 2, "b", 1),
        Ready(3, STEP, 4, "a", 1),
        Ready(4, STEP, 3, "a", 1),
        Ready(5, ACT, 9, "a", 1),
    ]
    assert keys(*ready) == [5, 4, 3, 1]


def test_weights_bound_a_batch_but_never_its_leader() -> None:
    ready = [Ready(1, STEP, 1, "a", 60), Ready(2, STEP, 2, "a", 40), Ready(3, STEP, 3, "a", 1)]
    assert keys(*ready, limit=100) == [1, 2]
    assert keys(*ready, limit=59) == [1]


def test_nobody_overtakes_a_heavy_one_of_his_group() -> None:
    ready = [Ready(1, STEP, 1, "a", 10), Ready(2, STEP, 2, "a", 95), Ready(3, STEP, 3, "a", 1)]
    assert keys(*ready, limit=100) == [1]


def test_one_at_a_time_without_batching() -> None:
    ready = [Ready(1, STEP, 2, "a", 1), Ready(2, STEP, 1, "a", 1)]
    assert keys(*ready, batching=False) == [2]


needs = st.lists(
    st.tuples(st.sampled_from(Priority), st.sampled_from("abc"), st.integers(0, 50)), min_size=1, max_size=30
).map(lambda rows: [Ready(i, p, i, g, w) for i, (p, g, w) in enumerate(rows)])


@given(needs, st.integers(0, 200), st.randoms(use_true_random=False))
def test_a_batch_is_a_prefix_of_the_leaders_group_in_order(ready: list[Ready], limit: int, random: object) -> None:
    shuffled = list(ready)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    batch = choose(shuffled, limit, True)
    ordered = sorted(ready, key=lambda need: (need.priority, need.arrival))
    group = [need for need in ordered if need.group == ordered[0].group]
    assert batch == group[: len(batch)]
    total = sum(need.weight for need in batch)
    assert len(batch) == 1 or total <= limit
    if len(batch) < len(group):
        assert total + group[len(batch)].weight > limit


@given(needs, st.integers(0, 200))
def test_serving_again_and_again_serves_everybody_once(ready: list[Ready], limit: int) -> None:
    waiting, served = list(ready), []
    while waiting:
        batch = choose(waiting, limit, True)
        served += batch
        waiting = [need for need in waiting if need not in batch]
    assert sorted(need.key for need in served) == sorted(need.key for need in ready)

from __future__ import annotations

import itertools

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.families.digits import DIGITS, PIXELS, TURNS, Digits, scans
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters

FAMILY = Digits()
CPU = torch.device("cpu")


def parameters(*classes: int, turns: int = 0) -> dict[str, np.ndarray]:
    named = {f"class_{label}": np.array(one) for label, one in enumerate(classes)}
    return {**named, "quarter_turns": np.array(turns)}


def test_the_scans_are_scikit_learns() -> None:
    table, first, count = vars(scans()).values()
    images, labels = load_digits(return_X_y=True)
    assert table.shape == (TURNS * count.sum(), PIXELS)
    assert (count % 2 == 0).all()
    for digit in range(DIGITS):
        theirs = images[labels == digit] / 16
        assert len(theirs) - count[digit] in (0, 1)
        ours = table[first[0, digit] : first[0, digit] + count[digit]]
        np.testing.assert_array_equal(ours, theirs[: count[digit]].astype(np.float32))
        turned = table[first[1, digit]].reshape(8, 8)
        np.testing.assert_array_equal(turned, np.rot90(ours[0].reshape(8, 8)))


@pytest.mark.parametrize("turns", range(TURNS))
def test_both_faces_show_the_first_and_the_last_scan_of_each_half(turns: int) -> None:
    table, first, count = vars(scans()).values()
    task = custom_task(FAMILY, parameters(6, 2, turns=turns))
    batch = FAMILY.batch(stack_parameters([task]), CPU)
    picks = [0.0, 0.0, np.nextafter(0.5, 0), np.nextafter(0.5, 0), 0.5, 0.5, np.nextafter(1, 0), np.nextafter(1, 0)]
    state, seen = batch.reset(torch.tensor(picks, dtype=torch.float64)[None, :, None])
    ends = [(0, count[d] // 2 - 1, count[d] // 2, count[d] - 1) for d in (6, 2)]
    rows = [first[turns, d] + at for pair in zip(*ends, strict=True) for d, at in zip((6, 2), pair, strict=True)]
    np.testing.assert_array_equal(seen[0].numpy(), table[rows])
    np.testing.assert_array_equal(batch.feedback(state)[0, :, 0].numpy(), [0, 1] * 4)


@settings(max_examples=50, deadline=None)
@example(index=682, uniforms=[0.0, 0.9999999999999999])
@given(index=st.integers(0, 10_000), uniforms=st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=30))
def test_no_query_is_a_support_example(index: int, uniforms: list[float]) -> None:
    task = sample_task(FAMILY, 0, Split.TRAIN, index)
    batch = FAMILY.batch(stack_parameters([task]), CPU)
    drawn = torch.tensor(uniforms, dtype=torch.float64)[None, :, None]
    shown = [{tuple(image) for image in batch.reset((drawn + query) / 2)[1][0].tolist()} for query in (0, 1)]
    assert not shown[0] & shown[1]


def test_labels_mean_something_new_in_each_task_and_splits_share_no_digit() -> None:
    seen: dict[Split, set[int]] = {}
    for split in Split:
        tasks = [sample_task(FAMILY, 3, split, index).parameters for index in range(200)]
        pairs = {(int(p["class_0"]), int(p["class_1"])) for p in tasks}
        seen[split] = set(itertools.chain(*pairs))
        assert pairs == set(itertools.permutations(seen[split], 2))
        assert {int(p["quarter_turns"]) for p in tasks} == set(range(TURNS))
    assert sorted(itertools.chain(*seen.values())) == list(range(DIGITS))


def test_more_ways_are_another_family_and_too_many_are_refused() -> None:
    three = Digits(ways=3)
    assert three.name == "digits.ways-3"
    assert three.references[0].value == pytest.approx(1 / 3)
    assert set(three.parameter_space.spaces) == {"class_0", "class_1", "class_2", "quarter_turns"}
    for ways in (1, 4):
        with pytest.raises(InvalidField, match="give 2 to 3") as caught:
            Digits(ways=ways)
        assert caught.value.field == "options.ways"


def test_an_environment_counts_its_examples_and_shows_each_once() -> None:
    env = FAMILY.make(custom_task(FAMILY, parameters(6, 2)))

    def label(**options: object) -> float:
        env.reset(options=options)
        return float(env.step(0)[4]["feedback"][0])

    env.reset(seed=1)  # example 0
    assert [label(), label(), label()] == [1, 0, 1]
    assert [label(episode=7), label(), label()] == [1, 0, 1]
    env.reset(seed=1)
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated, info["feedback"]) == (1.0, True, False, [0])
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)


def test_two_labels_need_two_classes() -> None:
    with pytest.raises(InvalidField, match="the same as class_0") as caught:
        custom_task(FAMILY, parameters(4, 4), "task")
    assert caught.value.field == "task.class_1"

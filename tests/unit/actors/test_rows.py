import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from innerloop.arrays import Array
from innerloop_server.actors.rows import TIMED, join, share, undiscounted


def test_rows_go_where_most_is_free() -> None:
    assert share(10, [8, 8]) == [5, 5]
    assert share(3, [1, 4, 2]) == [0, 3, 0] or share(3, [1, 4, 2]) == [0, 2, 1]
    assert share(100, [3, 0, 2]) == [3, 0, 2]
    assert share(0, [3]) == [0]
    assert share(5, []) == []


@given(st.integers(0, 60), st.lists(st.integers(0, 20), max_size=5))
def test_shares_fit_and_leave_an_even_rest(rows: int, free: list[int]) -> None:
    counts = share(rows, free)
    left = [f - c for f, c in zip(free, counts, strict=True)]
    assert sum(counts) == min(rows, sum(free))
    assert all(c >= 0 for c in counts)
    assert all(rest >= 0 for rest in left)
    taken_from = [rest for rest, count in zip(left, counts, strict=True) if count]
    assert all(rest + 1 >= max(left) for rest in taken_from)


@given(st.integers(1, 12), st.data())
def test_joining_undoes_any_cut_whatever_comes_back_first(rows: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(rows)
    whole: dict[str, Array] = {
        "observations": rng.standard_normal((rows, 4, 3)).astype(np.float32),
        "actions": rng.integers(0, 5, (rows, 4)),
        "rewards": rng.standard_normal((rows, 4)).astype(np.float32),
        "log_probs": rng.standard_normal((rows, 4)).astype(np.float32),
        "lengths": rng.integers(1, 5, rows),
        "bootstrap": rng.random(rows) < 0.5,
        "final_observations": rng.standard_normal((rows, 3)).astype(np.float32),
        "time_offset": rng.integers(0, 5, rows),
        "feedback": rng.standard_normal((rows, 4, 1)).astype(np.float32),
        "success": rng.random(rows) < 0.5,
    }
    cuts = sorted({0, rows, *data.draw(st.lists(st.integers(1, rows), max_size=4))})
    spans = data.draw(st.permutations(list(itertools.pairwise(cuts))))
    for row, length in enumerate(whole["lengths"]):
        for name in TIMED:
            whole[name][row, length:] = 0
    pieces = {}
    for a, b in spans:  # each as short as its longest episode allows
        longest = whole["lengths"][a:b].max()
        pieces[a] = {k: v[a:b, :longest] if k in TIMED else v[a:b] for k, v in whole.items()}
    joined = join(pieces, horizon=4)
    for name, array in whole.items():
        got = getattr(joined, name)
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array[None])
    np.testing.assert_array_equal(undiscounted(joined), whole["rewards"].astype(np.float64).sum(-1))

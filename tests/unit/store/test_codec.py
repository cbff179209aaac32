import json
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from innerloop.arrays import DTYPES
from innerloop_server.domain import Budget, LearnerSpec, Reference, ReturnUnit, Split, Supervision, Task
from innerloop_server.store import codec


def through_text(value: object) -> object:
    return json.loads(json.dumps(value, allow_nan=False))


@given(hnp.arrays(st.sampled_from(list(DTYPES)), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
def test_arrays_come_back_bit_for_bit(array: np.ndarray) -> None:
    back = codec.array_from_json(through_text(codec.array_to_json(array)))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(st.sampled_from([None, *Split]), st.none() | st.integers(0, 2**63 - 1), st.none() | st.integers(0, 10**9))
def test_tasks_come_back(split: Split | None, seed: int | None, index: int | None) -> None:
    task = Task("f", {"x": np.array([np.nan, 1e-300]), "n": np.array(3)}, split, seed, index)
    back = codec.task_from_json(through_text(codec.task_to_json(task)))
    assert (back.family, back.split, back.seed, back.index) == ("f", split, seed, index)
    assert isinstance(back.split, Split | None)
    for name, value in task.parameters.items():
        np.testing.assert_array_equal(back.parameters[name], value)


@given(
    st.builds(
        Budget,
        steps=st.none() | st.integers(0),
        episodes=st.none() | st.integers(0),
        seconds=st.none() | st.floats(0, allow_infinity=False),
        target_return=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_budgets_come_back(budget: Budget) -> None:
    assert codec.budget_from_json(through_text(codec.budget_to_json(budget))) == budget


def test_specs_come_back(made) -> None:
    assert codec.spec_from_json(through_text(codec.spec_to_json(made.spec))) == made.spec


def test_tuples_in_settings_become_lists(made) -> None:
    spec = LearnerSpec(**{**vars(made.spec), "settings": {"hidden_sizes": (64, 64)}})
    assert codec.spec_to_json(spec)["settings"] == {"hidden_sizes": [64, 64]}


def test_references_come_back() -> None:
    reference = Reference("oracle", -0.51, "formula")
    assert codec.reference_from_json(through_text(codec.reference_to_json(reference))) == reference


def test_what_was_written_before_there_was_supervision_is_read(made) -> None:
    supervised = replace(made.spec, supervision=Supervision.REGRESSION)
    assert codec.spec_from_json(through_text(codec.spec_to_json(supervised))) == supervised
    old = through_text(codec.spec_to_json(made.spec))
    del old["supervision"]
    assert codec.spec_from_json(old) == made.spec


def test_what_was_written_before_there_were_trials_is_read() -> None:
    reference = Reference("oracle", 6.7, "formula", ReturnUnit.TRIAL)
    assert codec.reference_from_json(through_text(codec.reference_to_json(reference))) == reference
    old = {"name": "oracle", "value": 6.7, "source": "formula"}
    assert codec.reference_from_json(old) == replace(reference, unit=ReturnUnit.EPISODE)

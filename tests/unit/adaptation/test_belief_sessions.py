"""Sessions of a method that believes: the belief is part of the memory, whoever is at the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import drift
import numpy as np
import pytest
from drift import drain

from innerloop import policy as portable
from innerloop.policy import BELIEF_LOG_VARIANCE, BELIEF_MEAN, Policy
from innerloop_server.adaptation import memory
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.measures import UNCERTAINTY
from innerloop_server.adaptation.orders import Attached, RevisionRef, StepOrder, Stepped
from innerloop_server.domain import LearnerSpec
from innerloop_server.learners.registry import build

SETTINGS = {"encoder_sizes": [5], "memory_size": 6, "latent": 3, "hidden_sizes": [4], "last_layer_scale": 1.0}


def spec() -> LearnerSpec:
    return replace(drift.spec("drift-varibad"), method="varibad", settings=SETTINGS)


@pytest.fixture
def ref(tmp_path: Path) -> RevisionRef:
    return drift.revision(tmp_path, spec())


def seat(core: EngineCore, key: int, ref: RevisionRef, **options: object) -> None:
    core.submit(drift.attach(key, ref, drift.task(0.1 * key), seed=key, **options))
    (answer,) = drain(core)
    assert isinstance(answer, Attached), answer


def step(core: EngineCore, key: int, number: int) -> Stepped:
    core.submit(StepOrder(key, number, policy=True))
    (answer,) = drain(core)
    assert isinstance(answer, Stepped), answer
    return answer


def shown(taken: Stepped) -> tuple[object, ...]:
    return taken.state_hash, taken.pre_return, taken.metrics[UNCERTAINTY]


def test_what_a_memory_is_made_of() -> None:
    learner = build(spec())
    meta = learner.initial_meta(0)
    state = memory.begin(learner, meta)
    blank = portable.begin(learner.export(meta, memory.own(state))[0], 1)
    assert blank.keys() == state.keys() >= {BELIEF_MEAN, BELIEF_LOG_VARIANCE}
    for name, array in blank.items():
        np.testing.assert_array_equal(array, state[name][0].numpy(), err_msg=name)


def test_a_step_says_how_unsure_the_belief_is(ref: RevisionRef) -> None:
    core = drift.core()
    seat(core, 1, ref)
    steps = [step(core, 1, number) for number in (1, 2, 3)]
    assert len({taken.metrics[UNCERTAINTY] for taken in steps}) == 3
    for taken in steps:
        log_variance = Policy.from_bytes(taken.policy).begin()[BELIEF_LOG_VARIANCE]
        want = 0.5 * (np.log(2 * np.pi * np.e) + log_variance).sum()
        assert taken.metrics[UNCERTAINTY] == pytest.approx(want, rel=1e-6)


def test_company_and_restarts_change_no_bit(ref: RevisionRef) -> None:
    together = drift.core()
    for key in range(1, 6):
        seat(together, key, ref)
    crowd: dict[int, list[tuple[object, ...]]] = {key: [] for key in range(1, 6)}
    for number in (1, 2):
        for key in crowd:
            together.submit(StepOrder(key, number))
        for answer in drain(together):
            assert isinstance(answer, Stepped)
            crowd[answer.key].append(shown(answer))
    for key, seen in crowd.items():
        alone = drift.core()
        seat(alone, key, ref)
        first = step(alone, key, 1)
        restarted = drift.core()
        seat(restarted, key, ref, snapshot=first.snapshot, number=1)
        assert [shown(first), shown(step(restarted, key, 2))] == seen

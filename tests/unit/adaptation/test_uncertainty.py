"""What a method believes about the task is told with each step, by one name, where there is a belief."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import drift
import pytest
import torch
from drift import drain

from innerloop_server.adaptation.measures import UNCERTAINTY
from innerloop_server.adaptation.orders import StepOrder, Stepped
from innerloop_server.domain import LearnerSpec
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.maml import Maml


def step(folder: Path, of: LearnerSpec | None = None, *, snapshot: bool = True) -> Stepped:
    core = drift.core()
    core.submit(drift.attach(1, drift.revision(folder, of), drift.task()))
    core.submit(StepOrder(1, 1, snapshot=snapshot))
    _, stepped = drain(core)
    assert isinstance(stepped, Stepped)
    return stepped


def test_methods_without_a_belief_say_nothing(tmp_path: Path) -> None:
    assert UNCERTAINTY not in step(tmp_path).metrics


def test_a_belief_says_its_entropy(tmp_path: Path) -> None:
    told = step(tmp_path, replace(drift.spec("drift-pearl"), method="pearl", settings={"latent": 2}))
    prior = 2 * 0.5 * math.log(2 * math.pi * math.e)
    assert told.metrics[UNCERTAINTY] < prior, "three episodes say something"
    assert told.metrics[UNCERTAINTY] == pytest.approx(told.metrics["entropy"])  # which there is the belief's too


def test_it_is_the_mean_over_rows_of_the_state_after_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensors] = []

    def uncertainty(self: Maml, meta: Tensors, state: Tensors) -> torch.Tensor:
        seen.append(state)
        return torch.tensor([[0.5 * math.log(2 * math.pi * math.e), 0.25]])

    monkeypatch.setattr(Maml, "uncertainty", uncertainty)
    told = step(tmp_path)
    assert told.metrics[UNCERTAINTY] == pytest.approx((1.4189385 + 0.25) / 2)
    (state,) = seen
    assert all(value.shape[0] == 1 for value in state.values())
    assert UNCERTAINTY not in step(tmp_path, snapshot=False).metrics, "evaluations have no use for it"

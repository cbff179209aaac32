"""A value that is told the task in training, and a policy that is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from innerloop.arrays import Box, Discrete
from innerloop_server.domain import LearnerSpec
from innerloop_server.learners import recurrent
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.rl2 import Rl2
from innerloop_server.learners.trial_ppo import TrialLearner
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.learners.varibad import Varibad

MakeSpec = Callable[..., LearnerSpec]
SMALL = {
    "encoder_sizes": [3],
    "memory_size": 4,
    "hidden_sizes": [5],
    "last_layer_scale": 1.0,
    "told": True,
    "task_size": 2,
}


METHODS = {"rl2": Rl2, "varibad": Varibad}
each_method = pytest.mark.parametrize("method", METHODS)


def told(make_spec: MakeSpec, method: str, **settings: object) -> tuple[TrialLearner, Tensors]:
    spec = make_spec(Box.of(-1, 1, (1,)), Discrete(2))
    learner = METHODS[method](dataclasses.replace(spec, method=method, settings={**SMALL, **settings}))
    return learner, {name: value.double() for name, value in learner.initial_meta(0).items()}


def trials(task: list[list[float]]) -> TrialRecord:
    steps, rows = 4, len(task)
    zeros, no = torch.zeros(steps, rows, dtype=torch.float64), torch.zeros(steps, rows, dtype=torch.bool)
    seen = torch.randn(steps, 1, 1, generator=torch.Generator().manual_seed(0)).expand(steps, rows, 1)
    return TrialRecord(
        seen, seen, zeros.long(), zeros, zeros, no, no, no, no, zeros.long(), ~no, torch.tensor(task).double()[None]
    )


@each_method
def test_the_value_reads_the_task_and_the_policy_does_not(make_spec: MakeSpec, method: str) -> None:
    learner, meta = told(make_spec, method)
    policy, value = learner.read(meta, learner.inputs(meta, trials([[0.0, 0.0], [1.0, -2.0]])))
    of_policy = policy.log_prob(torch.zeros(1, 8, dtype=torch.int64)).reshape(4, 2)
    assert torch.equal(of_policy[:, 0], of_policy[:, 1])
    of_value = value.reshape(4, 2)
    assert float((of_value[:, 0] - of_value[:, 1]).abs().min()) > 1e-3
    # Being told is a shift of what the first layer adds up.
    shift = torch.tensor([1.0, -2.0]).double() @ meta[recurrent.TOLD]
    moved = {**meta, "value.layers.0.bias": meta["value.layers.0.bias"] + shift}
    _, want = learner.read(moved, learner.inputs(meta, trials([[0.0, 0.0]])))
    torch.testing.assert_close(of_value[:, 1], want[0])


@each_method
def test_it_serves_training_alone(make_spec: MakeSpec, method: str) -> None:
    learner, meta = told(make_spec, method)
    header, weights = learner.export(meta, learner.begin(meta, 1))
    assert not [name for name in weights[0] if name.startswith(("value.", "decoder."))]
    plain = METHODS[method](dataclasses.replace(learner.spec, settings={**SMALL, "told": False}))
    assert plain.header == header
    # The numbers of the network that acts are drawn first: being told changes none of them.
    unchanged = plain.initial_meta(0)
    assert set(learner.initial_meta(0)) - set(unchanged) == {recurrent.TOLD}
    assert all(torch.equal(value, learner.initial_meta(0)[name]) for name, value in unchanged.items())
    single = learner.initial_meta(0)
    learner.act(single, learner.begin(single, 1, 2), Input(torch.zeros(1, 2, 1)))


@each_method
@pytest.mark.parametrize("hidden", [[], [5], [5, 3]])
def test_the_gradient_reaches_how_it_is_told(make_spec: MakeSpec, method: str, hidden: list[int]) -> None:
    learner, meta = told(make_spec, method, hidden_sizes=hidden)
    samples = learner.prepare(meta, trials([[0.5, 0.0], [1.0, -2.0]]))
    leaves = {name: value.requires_grad_() for name, value in meta.items()}
    (gradient,) = torch.autograd.grad(learner.loss(leaves, samples, 0.0), [leaves[recurrent.TOLD]])
    index, step = (1, 0), 1e-6
    bumped = []
    for sign in (1, -1):
        shifted = meta[recurrent.TOLD].detach().clone()
        shifted[index] += sign * step
        with torch.no_grad():
            bumped.append(float(learner.loss({**meta, recurrent.TOLD: shifted}, samples, 0.0)))
    assert float(gradient[index]) == pytest.approx((bumped[0] - bumped[1]) / (2 * step), rel=1e-5, abs=1e-9)

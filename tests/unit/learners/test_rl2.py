from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # portable_twin
from portable_twin import assert_same_trial

from innerloop.arrays import Box, Discrete, Space
from innerloop.policy import HIDDEN, Policy
from innerloop_server.domain import Adaptation, LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.rl2 import Rl2
from innerloop_server.learners.rl2_settings import OUTER, WIDEST_SPAN, Rl2Settings, span_of
from innerloop_server.learners.trial_record import TrialRecord

MakeSpec = Callable[..., LearnerSpec]
GRU: dict[str, object] = {"memory": "gru"}
TRANSFORMER: dict[str, object] = {"memory": "transformer", "memory_heads": 2, "memory_span": 3}
"""Attends to fewer steps than there are in the trials below."""
SMALL = {"encoder_sizes": [3], "memory_size": 4, "hidden_sizes": [3], "last_layer_scale": 1.0}


def learner(make_spec: MakeSpec, action: Space | None = None, **settings: object) -> Rl2:
    spec = make_spec(Box.of(-1, 1, (1,)), action or Discrete(2))
    return Rl2(dataclasses.replace(spec, method="rl2", settings={**SMALL, **settings}))


def record(rewards: list[list[float]], ends: list[list[int]], actions: list[list[int]] | None = None) -> TrialRecord:
    """Trials row by row; ``ends`` says after which steps an episode ends, the last of them being the trial's."""
    steps, rows = max(len(row) for row in rewards), len(rewards)
    r = torch.zeros(steps, rows)
    terminated, trial_end, real = (torch.zeros(steps, rows, dtype=torch.bool) for _ in range(3))
    episode = torch.zeros(steps, rows, dtype=torch.int64)
    for row, values in enumerate(rewards):
        r[: len(values), row] = torch.tensor(values)
        real[: len(values), row] = True
        terminated[ends[row], row] = True
        trial_end[ends[row][-1], row] = True
        for end in ends[row]:
            episode[end + 1 :, row] += 1
    done = torch.zeros(steps, rows, dtype=torch.int64) if actions is None else torch.tensor(actions).T
    return TrialRecord(
        observations=torch.zeros(steps, rows, 1),
        outcomes=torch.zeros(steps, rows, 1),
        actions=done,
        log_probs=torch.zeros(steps, rows),
        rewards=r,
        terminated=terminated,
        truncated=torch.zeros_like(real),
        trial_end=trial_end,
        success=torch.zeros_like(real),
        episode=episode,
        real=real,
    )


def with_value(meta: Tensors, value: float) -> Tensors:
    """The same policy with a constant value."""
    changed = {name: torch.zeros_like(v) if name.startswith("value.") else v for name, v in meta.items()}
    changed["value.layers.1.bias"] = torch.full_like(meta["value.layers.1.bias"], value)
    return changed


def test_advantages_run_through_the_ends_of_episodes_and_stop_at_the_trials(make_spec: MakeSpec) -> None:
    rl2 = learner(make_spec, discount=0.5, trace=0.5, value_unit=2.0)
    meta = with_value(rl2.initial_meta(0), 1.0)
    # Two episodes of two steps; and a trial that is over after two steps, being two episodes of one.
    samples = rl2.prepare(meta, record([[2.0, 0.0, 4.0, 8.0], [2.0, 6.0]], [[1, 3], [0, 1]]))
    # In units of 2, value 1 everywhere, delta = r + v'/2 - 1, A = delta + A'/4.
    #   first row, from its end: 4 + 0 - 1 = 3; 2 + 1/2 - 1 + 3/4 = 2.25; 0 - 1/2 + 2.25/4 = .0625; 1/2 + .0625/4
    #   second row: 3 - 1 = 2; 1 + 1/2 - 1 + 2/4 = 1
    raw = torch.tensor([[0.515625, 1.0], [0.0625, 2.0], [2.25, 0.0], [3.0, 0.0]])
    real = torch.tensor([[True, True], [True, True], [True, False], [True, False]])
    torch.testing.assert_close(samples.value_targets[real], raw[real] + 1)
    mean, deviation = raw[real].mean(), raw[real].std(correction=0)
    torch.testing.assert_close(samples.advantages[real], ((raw - mean) / deviation)[real])
    assert not samples.advantages[~real].any()
    assert torch.equal(samples.real, real)


def test_without_discount_a_step_is_worth_all_that_is_left_of_the_trial(make_spec: MakeSpec) -> None:
    rl2 = learner(make_spec, discount=1.0, trace=1.0)
    meta = with_value(rl2.initial_meta(0), 5.0)
    samples = rl2.prepare(meta, record([[1.0, 2.0, 3.0]], [[0, 1, 2]]))
    torch.testing.assert_close(samples.value_targets[:, 0], torch.tensor([6.0, 5.0, 3.0]))


def test_where_a_limit_ends_nothing_the_last_step_only_says_what_followed(make_spec: MakeSpec) -> None:
    rl2 = learner(make_spec, discount=0.5, trace=0.5, value_unit=2.0, limit_ends=False)
    meta = with_value(rl2.initial_meta(0), 1.0)
    trials = record([[2.0, 4.0, 100.0], [2.0, 4.0, 6.0]], [[2], [2]])
    trials.terminated[2, 0], trials.truncated[2, 0] = False, True  # time was up for the first, the second terminated
    samples = rl2.prepare(meta, trials)
    # In units of 2, value 1 everywhere. First row, two steps: 2 + 1/2 - 1 = 1.5; 1 + 1/2 - 1 + 1.5/4 = .875.
    # Second row, three: 3 - 1 = 2; 2 + 1/2 - 1 + 2/4 = 2; 1 + 1/2 - 1 + 2/4 = 1.
    raw = torch.tensor([[0.875, 1.0], [1.5, 2.0], [0.0, 2.0]])
    real = torch.tensor([[True, True], [True, True], [False, True]])
    assert torch.equal(samples.real, real)
    torch.testing.assert_close(samples.value_targets[real], raw[real] + 1)
    mean, deviation = raw[real].mean(), raw[real].std(correction=0)
    torch.testing.assert_close(samples.advantages, torch.where(real, (raw - mean) / deviation, 0.0))


def test_the_loss_by_hand(make_spec: MakeSpec) -> None:
    rl2 = learner(make_spec, value_weight=0.5, clip=0.2)
    meta = with_value(rl2.initial_meta(0), 1.0)
    for name in ("policy.layers.1.weight", "policy.layers.1.bias"):
        meta[name] = torch.zeros_like(meta[name])
    samples = rl2.prepare(meta, record([[0.0, 0.0], [0.0]], [[1], [0]]))
    half = float(np.log(0.5))
    samples = dataclasses.replace(
        samples,
        # Both actions have probability 1/2: ratios 1, 2 and 1/2, of which 2 is cut to 1.2.
        log_probs=torch.tensor([[half, half + float(np.log(2.0))], [half - float(np.log(2.0)), 9.0]]),
        advantages=torch.tensor([[3.0, -2.0], [1.0, 0.0]]),
        value_targets=torch.tensor([[2.0, 1.0], [-1.0, 7.0]]),
    )
    surrogate = (1 * 3.0 + 0.8 * -2.0 + 1.2 * 1.0) / 3  # min(.5 * -2, .8 * -2) and min(2, 1.2)
    error = (1.0 + 0.0 + 4.0) / 3
    want = -surrogate + 0.5 * error - 0.1 * float(np.log(2))
    assert float(rl2.loss(meta, samples, 0.1)) == pytest.approx(want, abs=1e-6)


def test_what_comes_after_a_trial_does_not_count(make_spec: MakeSpec) -> None:
    rl2 = learner(make_spec)
    meta = rl2.initial_meta(0)
    trials = record([[1.0, 0.0, 2.0, 0.5], [0.3, 1.0]], [[1, 3], [0, 1]])
    samples = rl2.prepare(meta, trials)
    past = ~samples.real
    seen, done = samples.x.clone(), samples.actions.clone()
    seen[past], done[past] = 5.0, 1
    parts = {name: torch.where(past, 7.0, getattr(samples, name)) for name in ("log_probs", "advantages")}
    spoilt = dataclasses.replace(
        samples, x=seen, actions=done, value_targets=torch.where(past, 9.0, samples.value_targets), **parts
    )
    assert float(rl2.loss(meta, spoilt, 0.1)) == float(rl2.loss(meta, samples, 0.1))


@pytest.mark.parametrize("memory", [GRU, TRANSFORMER])
def test_the_gradient_is_that_of_the_expected_return_by_enumeration(
    make_spec: MakeSpec, memory: dict[str, object]
) -> None:
    """Trials of two one-step episodes and two arms, whose payoffs depend on both pulls: all four trials, each weighted
    with its probability, give the exact gradient of the expected return of the trial."""
    rl2 = learner(make_spec, discount=1.0, trace=1.0, value_weight=0.0, **memory)
    meta = {name: value.double() for name, value in with_value(rl2.initial_meta(3), 0.0).items()}
    pay = {(0, 0): (1.0, -2.0), (0, 1): (1.0, 3.0), (1, 0): (0.5, 2.0), (1, 1): (0.5, -1.0)}
    pulls = list(itertools.product((0, 1), (0, 1)))
    trials = record([list(pay[pull]) for pull in pulls], [[0, 1]] * 4, [list(pull) for pull in pulls])
    trials = dataclasses.replace(trials, rewards=trials.rewards.double())
    samples = rl2.prepare(meta, trials)
    everything = dataclasses.replace(samples, log_probs=torch.zeros(2, 4, dtype=torch.float64))

    def log_probs(weights: Tensors) -> torch.Tensor:
        """[2, 4], one step after another."""
        state, seen, steps = rl2.begin(weights, 1, 4), Input(torch.zeros(1, 4, 1)), []
        for t in range(2):
            distribution, state = rl2.act(weights, state, seen)
            steps.append(distribution.log_prob(trials.actions[t : t + 1])[0])
            no = torch.zeros(1, 4, dtype=torch.bool)
            seen = Input(torch.zeros(1, 4, 1), trials.actions[t : t + 1], trials.rewards[t : t + 1], ~no, no, no)
        return torch.stack(steps)

    leaves = {n: v.detach().requires_grad_() for n, v in meta.items() if not n.startswith("value.")}
    chances = torch.exp(log_probs(leaves).sum(0))
    assert float(chances.detach().sum()) == pytest.approx(1)
    expected = (chances * trials.rewards.sum(0)).sum()
    wanted = dict(zip(leaves, torch.autograd.grad(expected, list(leaves.values())), strict=True))

    weighted = dataclasses.replace(
        everything,
        log_probs=log_probs(meta).detach(),
        # The mean over 2 x 4 steps undone, each trial weighted with its probability.
        advantages=samples.value_targets * chances.detach() * 8,
    )
    inputs = {name: value.detach().requires_grad_() for name, value in meta.items()}
    loss = rl2.loss(inputs, weighted, 0.0)
    got = dict(zip(inputs, torch.autograd.grad(loss, list(inputs.values()), allow_unused=True), strict=True))
    scale = max(float(g.abs().max()) for g in wanted.values())
    assert scale > 0.01
    for name, gradient in wanted.items():
        assert got[name] is not None
        torch.testing.assert_close(-got[name], gradient, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("memory", [GRU, TRANSFORMER])
@pytest.mark.parametrize("action", [Discrete(2), Box.of(-1, 1, (2,))])
def test_the_gradient_agrees_with_finite_differences(
    make_spec: MakeSpec, action: Space, memory: dict[str, object]
) -> None:
    rl2 = learner(make_spec, action, clip=10.0, **memory)
    meta = {name: value.double() for name, value in rl2.initial_meta(0).items()}
    rng = torch.Generator().manual_seed(0)
    trials = record([[1.0, 0.0, 2.0, 0.5], [0.3, 1.0]], [[1, 3], [0, 1]])
    drawn = torch.randn(4, 2, 2, generator=rng) if isinstance(action, Box) else trials.actions
    trials = dataclasses.replace(trials, actions=drawn, observations=torch.randn(4, 2, 1, generator=rng))
    samples = rl2.prepare(meta, dataclasses.replace(trials, rewards=trials.rewards.double()))
    leaves = {name: value.requires_grad_() for name, value in meta.items()}
    gradients = torch.autograd.grad(rl2.loss(leaves, samples, 0.1), list(leaves.values()))
    step = 1e-6
    with torch.no_grad():
        for (name, value), gradient in zip(meta.items(), gradients, strict=True):
            for index in range(0, value.numel(), 7):
                shift = torch.zeros(value.numel(), dtype=torch.float64)
                shift[index] = step
                shift = shift.reshape(value.shape)
                up, down = (rl2.loss({**meta, name: value + sign * shift}, samples, 0.1) for sign in (1, -1))
                numeric = float(up - down) / (2 * step)
                assert float(gradient.flatten()[index]) == pytest.approx(numeric, rel=1e-4, abs=1e-8), name


def test_acting_remembers_until_the_trial_ends(make_spec: MakeSpec) -> None:
    rl2 = learner(make_spec)
    assert rl2.adaptation is Adaptation.MEMORY
    meta = rl2.initial_meta(0)
    start = rl2.begin(meta, 2, 3)
    assert start[HIDDEN].shape == (2, 3, 4)
    observation, no = torch.zeros(2, 3, 1), torch.zeros(2, 3, dtype=torch.bool)
    first, once = rl2.act(meta, start, Input(observation))
    action, reward = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3)
    second, twice = rl2.act(meta, once, Input(observation, action, reward, no, ~no, no))
    again, afresh = rl2.act(meta, twice, Input(observation, action, reward, no, ~no, ~no))
    assert not torch.equal(twice[HIDDEN], once[HIDDEN])
    assert torch.equal(afresh[HIDDEN], once[HIDDEN])
    assert float(first.kl(again).abs().max()) == 0
    assert float(first.kl(second).min()) > 0


def test_a_task_acts_the_same_alone(make_spec: MakeSpec) -> None:
    rl2 = learner(make_spec, Box.of(-1, 1, (1,)), memory_size=33, encoder_sizes=[20])
    meta = rl2.initial_meta(0)
    memory = torch.randn(6, 2, 33)
    observation = torch.randn(6, 2, 1)
    together, after = rl2.act(meta, {HIDDEN: memory}, Input(observation))
    for i in range(6):
        alone, own = rl2.act(meta, {HIDDEN: memory[i : i + 1]}, Input(observation[i : i + 1]))
        assert torch.equal(alone.sample(None), together.sample(None)[i : i + 1])
        assert torch.equal(own[HIDDEN], after[HIDDEN][i : i + 1])


@pytest.mark.parametrize("memory", [GRU, TRANSFORMER])
@pytest.mark.parametrize("action", [Discrete(3), Box.of(-1, 1, (2,))])
def test_a_portable_policy_goes_through_a_trial_as_the_learner_does(
    make_spec: MakeSpec, action: Space, memory: dict[str, object]
) -> None:
    rl2 = learner(make_spec, action, **memory)
    meta = rl2.initial_meta(0)
    header, weights = rl2.export(meta, rl2.begin(meta, 2))
    assert (header.architecture, header.adapts, len(weights)) == (rl2.settings.memory, True, 2)
    assert not [name for name in weights[0] if name.startswith("value.")]
    portable = Policy.from_bytes(Policy(header, weights[1]).to_bytes())
    assert_same_trial(portable, rl2, meta)


def test_settings_are_checked() -> None:
    assert Rl2Settings.from_json({"learning_rate": 1, "hidden_sizes": [4]}).hidden_sizes == (4,)
    assert Rl2Settings.from_json(Rl2Settings().to_json()) == Rl2Settings()
    assert Rl2Settings(episodes_per_trial=4).inner_steps == 3
    assert span_of(Rl2Settings(episodes_per_trial=4), 15) == 60
    assert span_of(Rl2Settings(episodes_per_trial=4), 500) == WIDEST_SPAN
    assert span_of(Rl2Settings(episodes_per_trial=4, memory_span=7), 15) == 7
    with pytest.raises(InvalidField, match="multiple of twice memory_heads"):
        Rl2Settings(memory="transformer", memory_size=4)
    assert Rl2Settings().to_json().keys() >= OUTER
    wrong = {"memory": 3, "memory_size": 0, "discount": 1.5, "encoder_sizes": [0], "entropy": -1, "tasks_per_update": 3}
    wrong |= {"initial_log_std": 88, "last_layer_scale": 1e300}
    for name, value in wrong.items():
        with pytest.raises(InvalidField) as raised:
            Rl2Settings.from_json({name: value})
        assert raised.value.field == f"settings.{name}"


def test_what_a_transformer_keeps_for_a_row_is_bounded(make_spec: MakeSpec) -> None:
    sizes: dict[str, object] = {"memory": "transformer", "memory_size": 512, "memory_layers": 4}
    assert learner(make_spec, memory_span=128, **sizes).header.memory_span == 128
    with pytest.raises(InvalidField, match="give at most 128") as raised:
        learner(make_spec, memory_span=129, **sizes)
    assert raised.value.field == "settings.memory_span"

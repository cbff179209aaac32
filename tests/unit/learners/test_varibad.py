"""VariBAD: beliefs, their bound, and the policy that sees them."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli

sys.path.insert(0, str(Path(__file__).parent))  # portable_twin
from portable_twin import assert_same_trial

from innerloop import policy
from innerloop.arrays import Box, Discrete, Space
from innerloop.policy import BELIEF_LOG_VARIANCE, BELIEF_MEAN, HIDDEN, Policy
from innerloop_server.domain import Adaptation, LearnerSpec, Supervision
from innerloop_server.errors import InvalidField
from innerloop_server.learners import varibad_networks as nets
from innerloop_server.learners import varibad_settings
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.learners.varibad import Draws, Varibad, exported, of_belief, of_policy
from innerloop_server.learners.varibad_settings import OUTER, VaribadSettings

MakeSpec = Callable[..., LearnerSpec]
SMALL = {"encoder_sizes": [5], "memory_size": 6, "latent": 2, "hidden_sizes": [4], "decoder_sizes": [3]}
GRID = Box.of(0, 2, (2,))


def learner(
    make_spec: MakeSpec, observation: Space | None = None, action: Space | None = None, **settings: object
) -> Varibad:
    spec = make_spec(observation or GRID, action or Discrete(3), horizon=4)
    return Varibad(dataclasses.replace(spec, method="varibad", settings={**SMALL, **settings}))


def record(space: Space, action: Space, lengths: list[int], seed: int = 0) -> TrialRecord:
    """Random trials of one episode."""
    rng = np.random.default_rng(seed)
    steps, rows = max(lengths), len(lengths)

    def seen() -> torch.Tensor:
        if isinstance(space, Discrete):
            return torch.from_numpy(rng.integers(0, space.n, (steps, rows)))
        return torch.from_numpy(rng.integers(0, 3, (steps, rows, *space.shape))).float()

    if isinstance(action, Discrete):
        done = torch.from_numpy(rng.integers(0, action.n, (steps, rows)))
    else:
        done = torch.from_numpy(rng.standard_normal((steps, rows, action.size))).float()
    length = torch.tensor(lengths)
    real = torch.arange(steps).unsqueeze(-1) < length
    last = torch.arange(steps).unsqueeze(-1) == length - 1
    return TrialRecord(
        observations=seen(),
        outcomes=seen(),
        actions=done,
        log_probs=torch.zeros(steps, rows),
        rewards=torch.from_numpy(rng.standard_normal((steps, rows))).float() * real,
        terminated=last,
        truncated=torch.zeros_like(real),
        trial_end=last,
        success=torch.zeros_like(real),
        episode=(~real).long(),
        real=real,
    )


def draws(trials: TrialRecord, dtype: torch.dtype = torch.float64) -> Draws:
    """Each of four beliefs, each asked for each of four steps; the latent has two dimensions."""
    rng = torch.Generator().manual_seed(0)
    rows = trials.real.shape[1]
    terms, steps = (torch.rand(4, rows, generator=rng, dtype=torch.float64) for _ in range(2))
    return Draws(terms, torch.randn(4, rows, 2, generator=rng, dtype=dtype), steps)


def double(meta: Tensors) -> Tensors:
    return {name: value.double() for name, value in meta.items()}


def played(varibad: Varibad, meta: Tensors, trials: TrialRecord) -> list[Tensors]:
    """The states of acting through recorded trials, one a step."""
    rows = trials.real.shape[1]
    state, seen, states = varibad.begin(meta, 1, rows), Input(trials.observations[:1]), []
    no = torch.zeros(1, rows, dtype=torch.bool)
    for t in range(len(trials.real)):
        _, state = varibad.act(meta, state, seen)
        states.append(state)
        if t + 1 < len(trials.real):
            parts = (trials.actions, trials.rewards, trials.terminated, trials.truncated)
            seen = Input(trials.observations[t + 1 : t + 2], *(part[t : t + 1] for part in parts), no)
    return states


def entropy(log_variance: torch.Tensor) -> torch.Tensor:
    return 0.5 * (math.log(2 * math.pi * math.e) + log_variance).sum(-1)


def test_what_is_acted_on_is_what_the_bound_learns_of(make_spec: MakeSpec) -> None:
    varibad = learner(make_spec)
    meta = varibad.initial_meta(0)
    trials = record(GRID, Discrete(3), [4, 4, 4])
    beliefs = varibad.beliefs(meta, trials)
    for t, state in enumerate(played(varibad, meta, trials)):
        torch.testing.assert_close(state[BELIEF_MEAN][0], beliefs.mean[t], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state[BELIEF_LOG_VARIANCE][0], beliefs.log_variance[t], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(varibad.uncertainty(meta, state), entropy(state[BELIEF_LOG_VARIANCE]))


def test_nobody_knows_anything_before_the_first_step(make_spec: MakeSpec) -> None:
    varibad = learner(make_spec)
    assert varibad.adaptation is Adaptation.MEMORY
    meta = varibad.initial_meta(0)
    state = varibad.begin(meta, 2, 3)
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        HIDDEN: (2, 3, 6),
        BELIEF_MEAN: (2, 3, 2),
        BELIEF_LOG_VARIANCE: (2, 3, 2),
    }
    # N(0, I) of two dimensions.
    assert varibad.uncertainty(meta, state)[0, 0].item() == pytest.approx(math.log(2 * math.pi * math.e))


def test_ppo_sees_what_acting_saw(make_spec: MakeSpec) -> None:
    varibad = learner(make_spec, last_layer_scale=1.0)
    meta = varibad.initial_meta(0)
    meta[nets.SHIFT], meta[nets.SCALE] = torch.randn(4), torch.rand(4) + 0.5
    trials = record(GRID, Discrete(3), [4, 4])
    x = varibad.inputs(meta, trials)
    distribution, value = varibad.read(meta, x)
    assert value.shape == (1, 8)
    log_prob = distribution.log_prob(trials.actions.flatten()[None]).reshape(4, 2)
    state, seen = varibad.begin(meta, 1, 2), Input(trials.observations[:1])
    no = torch.zeros(1, 2, dtype=torch.bool)
    for t in range(4):
        acting, state = varibad.act(meta, state, seen)
        torch.testing.assert_close(acting.log_prob(trials.actions[t][None])[0], log_prob[t], atol=1e-5, rtol=1e-5)
        if t < 3:
            seen = Input(trials.observations[t + 1][None], trials.actions[t][None], trials.rewards[t][None], no, no, no)


def test_the_bound_of_states_by_hand(make_spec: MakeSpec) -> None:
    """Every belief is asked once: the bound is the sum over them, each explaining the whole trial."""
    varibad = learner(make_spec, decoder="states", kl_weight=0.3)
    meta = double(varibad.initial_meta(0))
    trials = record(GRID, Discrete(3), [4, 4])
    given = draws(trials)
    loss, parts = varibad.bound_loss(meta, trials, given)
    beliefs = varibad.beliefs(meta, trials)
    total = 0.0
    for row in range(2):
        before_mean, before = torch.zeros(2).double(), torch.zeros(2).double()
        for t in range(4):
            mean, log_variance = beliefs.mean[t, row], beliefs.log_variance[t, row]
            latent = mean + torch.exp(log_variance / 2) * given.noise[t, row]
            logits = nets.decode(meta, latent)
            for i in range(4):  # future steps as much as past ones
                x, y = (int(n) for n in trials.outcomes[i, row])
                paid = float(trials.rewards[i, row] > 0)
                total -= float(Bernoulli(logits=logits[3 * x + y]).log_prob(torch.tensor(paid)))
            gap = log_variance - before
            kl = 0.5 * (gap.exp() + (mean - before_mean) ** 2 / before.exp() - 1 - gap).sum()
            total += 0.3 * float(kl)
            before_mean, before = mean, log_variance
    assert float(loss) == pytest.approx(total / 2 / 4, rel=1e-6)
    assert float(loss) == pytest.approx(float(parts["unexplained"] + 0.3 * parts["belief_kl"]), rel=1e-6)
    assert float(parts["belief_entropy"]) == pytest.approx(float(entropy(beliefs.log_variance[-1]).mean()), rel=1e-6)


def test_the_bound_of_transitions_by_hand(make_spec: MakeSpec) -> None:
    space, action = Box.of(-9, 9, (1,)), Box.of(-1, 1, (2,))
    varibad = learner(make_spec, space, action, kl_weight=0.0)
    meta = double(varibad.initial_meta(0))
    meta[nets.TARGET_SCALE] = torch.tensor([2.0, 0.5]).double()
    trials = record(space, action, [4, 4])
    given = draws(trials)
    loss, _ = varibad.bound_loss(meta, trials, given)
    beliefs = varibad.beliefs(meta, trials)
    total = 0.0
    for row in range(2):
        for t in range(4):
            latent = beliefs.mean[t, row] + torch.exp(beliefs.log_variance[t, row] / 2) * given.noise[t, row]
            for i in range(4):
                seen = trials.observations[i, row].double()  # shift 0 and scale 1
                told = nets.decode(meta, torch.cat([seen, trials.actions[i, row].double(), latent]))
                change = (trials.outcomes[i, row] - trials.observations[i, row]).double()
                total += 0.5 * float((trials.rewards[i, row] / 2 - told[0]) ** 2 + (change[0] / 0.5 - told[1]) ** 2)
    assert float(loss) == pytest.approx(total / 2 / 4, rel=1e-6)


@pytest.mark.parametrize("decoder", ["states", "transitions"])
def test_few_terms_stand_for_all(make_spec: MakeSpec, decoder: str) -> None:
    """The mean over one belief (or step) at a time is the bound with all of them. Trials of 4, 3 and 1 steps, so that
    twelve parts hold each step of each of them equally often."""
    varibad = learner(make_spec, decoder=decoder)
    meta = double(varibad.initial_meta(0))
    trials = record(GRID, Discrete(3), [4, 3, 1])
    still, anywhere = torch.zeros(12, 3, 2).double(), torch.rand(12, 3).double()
    parts = [torch.full((1, 3), (k + 0.5) / 12).double() for k in range(12)]

    def unexplained(terms: torch.Tensor, steps: torch.Tensor) -> float:
        loss = varibad.bound_loss(meta, trials, Draws(terms, still[: len(terms)], steps))
        return float(loss[1]["unexplained"])

    want = unexplained(anywhere, anywhere)
    assert np.mean([unexplained(part, anywhere) for part in parts]) == pytest.approx(want, rel=1e-9)
    assert np.mean([unexplained(anywhere, part) for part in parts]) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("decoder", ["states", "transitions"])
def test_what_comes_after_a_trial_does_not_count(make_spec: MakeSpec, decoder: str) -> None:
    varibad = learner(make_spec, decoder=decoder)
    meta = varibad.initial_meta(0)
    trials = record(GRID, Discrete(3), [4, 2])
    given = draws(trials, torch.float32)
    past = ~trials.real
    spoilt = dataclasses.replace(
        trials,
        **{
            name: torch.where(past.reshape(*past.shape, *(1,) * (value.dim() - 2)), torch.ones_like(value), value)
            for name in ("observations", "outcomes", "actions", "rewards", "terminated", "truncated")
            for value in [getattr(trials, name)]
        },
    )
    assert not torch.equal(spoilt.rewards, trials.rewards)
    assert torch.equal(varibad.bound_loss(meta, spoilt, given)[0], varibad.bound_loss(meta, trials, given)[0])
    before, after = (varibad.with_statistics(meta, one, 0.5) for one in (trials, spoilt))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_policys_gradient_does_not_reach_the_belief(make_spec: MakeSpec) -> None:
    varibad = learner(make_spec)
    leaves = {name: value.requires_grad_() for name, value in varibad.initial_meta(0).items()}
    trials = record(GRID, Discrete(3), [4, 3])
    assert not varibad.inputs(leaves, trials).requires_grad
    samples = varibad.prepare(leaves, trials)
    acting = torch.autograd.grad(varibad.loss(leaves, samples, 0.1), list(leaves.values()), allow_unused=True)
    assert {name for name, g in zip(leaves, acting, strict=True) if g is not None} == of_policy(leaves).keys()
    bound, _ = varibad.bound_loss(leaves, trials, draws(trials, torch.float32))
    believing = torch.autograd.grad(bound, list(leaves.values()), allow_unused=True)
    assert {name for name, g in zip(leaves, believing, strict=True) if g is not None} - {nets.TARGET_SCALE} == (
        of_belief(leaves).keys()
    )
    assert of_policy(leaves).keys().isdisjoint(of_belief(leaves))
    assert leaves.keys() - of_policy(leaves).keys() - of_belief(leaves).keys() == {
        nets.SHIFT,
        nets.SCALE,
        nets.TARGET_SCALE,
    }


@pytest.mark.parametrize("settings", [{"decoder": "states"}, {"decoder": "transitions"}, {"dynamics": False}])
def test_the_gradient_of_the_bound_agrees_with_finite_differences(make_spec: MakeSpec, settings: Tensors) -> None:
    varibad = learner(make_spec, **settings)
    meta = double(varibad.initial_meta(0))
    trials = record(GRID, Discrete(3), [4, 3])
    given = draws(trials)
    leaves = {name: value.requires_grad_() for name, value in of_belief(meta).items()}
    loss, _ = varibad.bound_loss({**meta, **leaves}, trials, given)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    step = 1e-6
    with torch.no_grad():
        for (name, value), gradient in zip(leaves.items(), gradients, strict=True):
            for index in range(0, value.numel(), 5):
                shift = torch.zeros(value.numel(), dtype=torch.float64)
                shift[index] = step
                both = (value + sign * shift.reshape(value.shape) for sign in (1, -1))
                up, down = (varibad.bound_loss({**meta, name: moved}, trials, given)[0] for moved in both)
                numeric = float(up - down) / (2 * step)
                assert float(gradient.flatten()[index]) == pytest.approx(numeric, rel=1e-4, abs=1e-7), name


def test_running_statistics_by_hand(make_spec: MakeSpec) -> None:
    varibad = learner(make_spec)
    meta = varibad.initial_meta(0)
    trials = record(GRID, Discrete(3), [4, 2])
    beliefs = varibad.beliefs(meta, trials)
    seen = torch.cat([beliefs.mean, beliefs.log_variance], -1)[trials.real].numpy()
    after = varibad.with_statistics(meta, trials, 0.25)
    np.testing.assert_allclose(after[nets.SHIFT], 0.25 * seen.mean(0), atol=1e-6)
    want = np.sqrt(0.75 + 0.25 * seen.var(0)).clip(nets.LEAST_SCALE)
    np.testing.assert_allclose(after[nets.SCALE], want, atol=1e-6)
    rewards = trials.rewards[trials.real].numpy()
    assert float(after[nets.TARGET_SCALE][0]) == pytest.approx(np.sqrt(0.75 + 0.25 * (rewards**2).mean()), rel=1e-6)
    assert after.keys() == meta.keys()
    still = varibad.with_statistics(meta, trials, 1.0)
    assert (still[nets.SCALE] >= nets.LEAST_SCALE).all()


def test_states_are_told_apart(make_spec: MakeSpec) -> None:
    box = learner(make_spec, Box.of(-1, 1, (2,)))
    observations = torch.tensor([[-1.0, -1.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 1.0]])
    assert nets.state_index(box.header, observations).tolist() == [0, 1, 3, 8]
    assert varibad_settings.states(box.header.observation_space) == 9
    discrete = learner(make_spec, Discrete(4))
    assert nets.state_index(discrete.header, torch.tensor([3, 0])).tolist() == [3, 0]
    assert varibad_settings.states(Discrete(4)) == 4
    assert varibad_settings.states(Box.of(-0.5, 1, (1,))) == 0
    assert varibad_settings.states(Box.of(-np.inf, np.inf, (1,))) == 0


def test_a_row_acts_the_same_alone(make_spec: MakeSpec) -> None:
    varibad = learner(make_spec, action=Box.of(-1, 1, (1,)), memory_size=33, encoder_sizes=[20], latent=3)
    meta = varibad.initial_meta(0)
    start = varibad.begin(meta, 6, 2)
    state = {name: torch.randn_like(value) for name, value in start.items()}
    observation = torch.randn(6, 2, 2)
    no = torch.zeros(6, 2, dtype=torch.bool)
    rest = (torch.randn(6, 2, 1), torch.randn(6, 2), no, no, no)
    together, after = varibad.act(meta, state, Input(observation, *rest))
    for i in range(6):
        own = {name: value[i : i + 1] for name, value in state.items()}
        alone, kept = varibad.act(meta, own, Input(observation[i : i + 1], *(part[i : i + 1] for part in rest)))
        assert torch.equal(alone.sample(None), together.sample(None)[i : i + 1])
        for name, value in kept.items():
            assert torch.equal(value, after[name][i : i + 1]), name


@pytest.mark.parametrize("observation", [Discrete(5), GRID])
@pytest.mark.parametrize("action", [Discrete(3), Box.of(-1, 1, (2,))])
def test_a_portable_policy_goes_through_a_trial_as_the_learner_does(
    make_spec: MakeSpec, observation: Space, action: Space
) -> None:
    varibad = learner(make_spec, observation, action, last_layer_scale=1.0)
    meta = varibad.initial_meta(0)
    meta[nets.SHIFT], meta[nets.SCALE] = torch.randn(4), torch.rand(4) + 0.5
    header, weights = varibad.export(meta, varibad.begin(meta, 2))
    assert (header.architecture, header.adapts, header.latent_size, len(weights)) == ("belief", True, 2, 2)
    assert weights[0].keys() == policy.weight_shapes(header).keys() == exported(meta).keys()
    portable = Policy.from_bytes(Policy(header, weights[1]).to_bytes())
    assert portable.header == dataclasses.replace(header, hash=portable.header.hash)
    assert_same_trial(portable, varibad, meta)


def test_settings_are_checked(make_spec: MakeSpec) -> None:
    assert VaribadSettings.from_json({"learning_rate": 1, "hidden_sizes": [4]}).hidden_sizes == (4,)
    assert VaribadSettings.from_json(VaribadSettings().to_json()) == VaribadSettings()
    assert VaribadSettings(episodes_per_trial=4).inner_steps == 3
    assert VaribadSettings().to_json().keys() >= OUTER
    wrong = {
        "latent": 0,
        "memory_size": 0,
        "discount": 1.5,
        "encoder_sizes": [0],
        "kl_weight": -1,
        "tasks_per_update": 3,
    }
    for name, value in (wrong | {"decoder": "rewards", "belief_steps": -1, "buffer_trials": 511}).items():
        with pytest.raises(InvalidField) as raised:
            VaribadSettings.from_json({name: value})
        assert raised.value.field == f"settings.{name}"
    with pytest.raises(InvalidField, match="does not show which of finitely many states"):
        learner(make_spec, Box.of(-9.5, 9, (2,)), decoder="states")
    for name in ("buffer_trials", "belief_batch"):
        with pytest.raises(InvalidField, match=f"{name}: give at most 5000000: trials are long"):
            learner(make_spec, **{name: 5_000_001})
    with pytest.raises(InvalidField, match="gives the right answers"):
        Varibad(dataclasses.replace(learner(make_spec).spec, supervision=Supervision.CLASSIFICATION))

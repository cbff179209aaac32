from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # portable_twin
from portable_twin import assert_same_trial

from innerloop.arrays import Box, Discrete, Space
from innerloop.policy import Policy
from innerloop_server.domain import Adaptation, LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners import recurrent
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.meta_dqn import MEMORY, TARGET, MetaDqn, Stretches, policy_part, target_part, value_part
from innerloop_server.learners.meta_dqn_settings import OUTER, MetaDqnSettings

MakeSpec = Callable[..., LearnerSpec]
SMALL = {"encoder_sizes": [3], "memory_size": 4, "hidden_sizes": [3]}


def learner(make_spec: MakeSpec, action: Space | None = None, **settings: object) -> MetaDqn:
    spec = make_spec(Box.of(-1, 1, (1,)), action or Discrete(2))
    return MetaDqn(dataclasses.replace(spec, method="meta-dqn", settings={**SMALL, **settings}))


def random_meta(dqn: MetaDqn, seed: int = 0) -> Tensors:
    """Weights large enough that every action is worth something else, and a target that is another network."""
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(w.shape, generator=rng) / 2 for name, w in dqn.initial_meta(0).items()}


def constant(dqn: MetaDqn, value: float, advantages: list[float], target: tuple[float, list[float]]) -> Tensors:
    """Networks that say the same of everything."""
    meta = {name: torch.zeros_like(w) for name, w in dqn.initial_meta(0).items()}
    for prefix, v, a in (("", value, advantages), (TARGET, *target)):
        meta[prefix + "value.layers.1.bias"] = torch.tensor([v])
        meta[prefix + "policy.layers.1.bias"] = torch.tensor(a)
    return meta


def stretches(dqn: MetaDqn, s: int, length: int, seed: int = 0) -> Stretches:
    """Random ones; nothing follows the last step of the last of them, and all that something follows teaches."""
    rng = torch.Generator().manual_seed(seed)
    size = recurrent.input_size(dqn.header)
    cut = torch.zeros(s, length, dtype=torch.bool)
    cut[-1, -1] = True
    teaches = torch.ones(s, length, dtype=torch.bool)
    teaches[:-1, -1] = False
    return Stretches(
        x=torch.randn(s, length, size, generator=rng),
        actions=torch.randint(0, dqn.header.action_size, (s, length), generator=rng),
        rewards=torch.randn(s, length, generator=rng),
        cut=cut,
        teaches=teaches,
        memory=torch.randn(s, dqn.header.memory_size, generator=rng),
    )


def test_the_loss_by_hand(make_spec: MakeSpec) -> None:
    """In units of 2: the network says 1.5 of action 0 and 0.5 of action 1, the target 5 and 7. Action 0 is chosen by
    the one and valued by the other."""
    dqn = learner(make_spec, discount=0.5, lookahead=2, value_unit=2.0)
    meta = constant(dqn, 1.0, [0.5, -0.5], (6.0, [-1.0, 1.0]))
    given = stretches(dqn, 1, 4)
    given = dataclasses.replace(
        given,
        rewards=torch.tensor([[2.0, 4.0, 8.0, 2.0]]),
        actions=torch.tensor([[0, 0, 1, 0]]),
        cut=torch.tensor([[False, False, False, True]]),
        teaches=torch.tensor([[True, True, True, True]]),
    )
    # From the end: 1, with nothing after; 4 + 1/2; 2 + 5/2, as what was done next is not greedy; 1 + 2/2 + 5/4.
    errors = torch.tensor([1.5 - 3.25, 1.5 - 4.5, 0.5 - 4.5, 1.5 - 1.0])
    loss, watched = dqn.loss(meta, given)
    assert float(loss) == pytest.approx(float(1.25 + 2.5 + 3.5 + 0.125) / 4)
    assert float(loss) == pytest.approx(float(torch.nn.functional.huber_loss(errors, torch.zeros(4))))
    assert float(watched["action_value"]) == pytest.approx(2 * (1.5 + 1.5 + 0.5 + 1.5) / 4)


def test_what_does_not_teach_does_not_count(make_spec: MakeSpec) -> None:
    dqn = learner(make_spec)
    meta, given = random_meta(dqn), stretches(dqn, 3, 6)
    teaches = given.teaches.clone()
    teaches[1, :2] = False  # a burn-in
    given = dataclasses.replace(given, teaches=teaches)
    other = given.rewards.clone()
    other[1, :2] = 99.0
    other[:-1, -1] = -99.0
    want = dqn.loss(meta, given)[0]
    assert float(dqn.loss(meta, dataclasses.replace(given, rewards=other))[0]) == float(want)
    other[-1, -1] = 5.0
    assert float(dqn.loss(meta, dataclasses.replace(given, rewards=other))[0]) != float(want)


def test_the_gradient_is_that_of_the_values_with_fixed_targets(make_spec: MakeSpec) -> None:
    """Finite differences of the values, times the slope of the loss at each step; none reaches the target network."""
    dqn = learner(make_spec, lookahead=1)
    meta = {name: w.double() for name, w in random_meta(dqn).items()}
    given = stretches(dqn, 3, 6)
    given = dataclasses.replace(given, x=given.x.double(), rewards=given.rewards.double(), memory=given.memory.double())
    leaves = {name: w.requires_grad_() for name, w in meta.items() if not name.startswith(TARGET)}
    targets = {name: w for name, w in meta.items() if name.startswith(TARGET)}
    for w in targets.values():
        w.requires_grad_()
    loss = dqn.loss({**leaves, **targets}, given)[0]
    assert torch.autograd.grad(loss, list(targets.values()), allow_unused=True, retain_graph=True) == (None,) * len(
        targets
    )
    gradients = torch.autograd.grad(loss, list(leaves.values()))

    def taken(weights: Tensors) -> torch.Tensor:
        q = dqn.action_values(policy_part(weights) | value_part(weights), given.x, given.memory)
        return q.gather(-1, given.actions[..., None])[..., 0][given.teaches]

    # d huber(q - y) = clip(q - y) dq: the slope at each step, from the loss of that step alone.
    with torch.no_grad():
        q = taken(meta)
        slopes = []
        for at in given.teaches.nonzero().tolist():
            only = torch.zeros_like(given.teaches)
            only[tuple(at)] = True
            alone = dataclasses.replace(given, teaches=only)
            bias = leaves["value.layers.1.bias"].detach()
            up, down = (float(dqn.loss({**meta, "value.layers.1.bias": bias + e}, alone)[0]) for e in (1e-6, -1e-6))
            slopes.append((up - down) / 2e-6)
        step = 1e-6
        for (name, w), gradient in zip(leaves.items(), gradients, strict=True):
            for index in range(0, w.numel(), 5):
                shift = torch.zeros(w.numel(), dtype=torch.float64)
                shift[index] = step
                moved = (taken({**meta, name: w + shift.reshape(w.shape)}) - q) / step
                numeric = float((torch.tensor(slopes) * moved).mean())
                assert float(gradient.flatten()[index]) == pytest.approx(numeric, rel=1e-4, abs=1e-6), name


def test_a_stretch_goes_on_from_its_memory(make_spec: MakeSpec) -> None:
    dqn = learner(make_spec, Discrete(3))
    meta = random_meta(dqn)
    x = torch.randn(9, 2, recurrent.input_size(dqn.header))
    weights = policy_part(meta) | value_part(meta)
    memories = dqn.memories(meta, x)
    rows = x.transpose(0, 1)
    whole = dqn.action_values(weights, rows, torch.zeros(2, 4))
    assert whole.shape == (2, 9, 3)
    rest = dqn.action_values(weights, rows[:, 4:], memories[3])
    torch.testing.assert_close(rest, whole[:, 4:])


def test_a_new_learner_is_its_own_target(make_spec: MakeSpec) -> None:
    dqn = learner(make_spec)
    meta = dqn.initial_meta(3)
    network = policy_part(meta) | value_part(meta)
    assert target_part(meta).keys() == network.keys()
    assert all(torch.equal(w, network[name]) for name, w in target_part(meta).items())
    assert {name for name in network if name.startswith("value.")} == value_part(meta).keys() != set()
    assert not torch.equal(meta["gru.hidden.weight"], dqn.initial_meta(4)["gru.hidden.weight"])


def test_it_does_what_is_worth_most(make_spec: MakeSpec) -> None:
    dqn = learner(make_spec, Discrete(3), temperature=0.25)
    meta = random_meta(dqn)
    rows = 7
    observation = torch.randn(1, rows, 1)
    distribution, _ = dqn.act(meta, dqn.begin(meta, 1, rows), Input(observation))
    x, _ = recurrent.features(dqn.header, Input(observation), torch.float32)
    q = dqn.action_values(policy_part(meta) | value_part(meta), x.transpose(0, 1), torch.zeros(rows, 4))[:, 0]
    assert torch.equal(distribution.sample(None)[0], q.argmax(-1))
    wanted = torch.log_softmax(q / 0.25, -1)
    for action in range(3):
        got = distribution.log_prob(torch.full((1, rows), action))[0]
        torch.testing.assert_close(got, wanted[:, action], atol=1e-5, rtol=1e-5)


def test_acting_remembers_until_the_trial_ends(make_spec: MakeSpec) -> None:
    dqn = learner(make_spec)
    assert dqn.adaptation is Adaptation.MEMORY
    meta = random_meta(dqn)
    observation, no = torch.zeros(2, 3, 1), torch.zeros(2, 3, dtype=torch.bool)
    _, once = dqn.act(meta, dqn.begin(meta, 2, 3), Input(observation))
    action, reward = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3)
    _, twice = dqn.act(meta, once, Input(observation, action, reward, no, ~no, no))
    _, afresh = dqn.act(meta, twice, Input(observation, action, reward, no, ~no, ~no))
    assert not torch.equal(twice[MEMORY], once[MEMORY])
    assert torch.equal(afresh[MEMORY], once[MEMORY])


def test_a_task_acts_the_same_alone(make_spec: MakeSpec) -> None:
    dqn = learner(make_spec, Discrete(5), memory_size=33, encoder_sizes=[20])
    meta = random_meta(dqn)
    memory, observation = torch.randn(6, 2, 33), torch.randn(6, 2, 1)
    together, after = dqn.act(meta, {MEMORY: memory}, Input(observation))
    actions = torch.randint(0, 5, (6, 2))
    for i in range(6):
        alone, own = dqn.act(meta, {MEMORY: memory[i : i + 1]}, Input(observation[i : i + 1]))
        assert torch.equal(alone.log_prob(actions[i : i + 1]), together.log_prob(actions)[i : i + 1])
        assert torch.equal(own[MEMORY], after[MEMORY][i : i + 1])


def test_a_portable_policy_goes_through_a_trial_as_the_learner_does(make_spec: MakeSpec) -> None:
    dqn = learner(make_spec, Discrete(3), temperature=0.1)
    meta = random_meta(dqn)
    header, weights = dqn.export(meta, dqn.begin(meta, 2))
    assert (header.architecture, header.adapts, len(weights)) == ("gru", True, 2)
    assert not [name for name in weights[0] if name.startswith(("value.", TARGET))]
    portable = Policy.from_bytes(Policy(header, weights[1]).to_bytes())
    assert_same_trial(portable, dqn, meta, rtol=1e-5)


def test_actions_that_cannot_be_counted_are_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(InvalidField, match="cannot be counted") as raised:
        learner(make_spec, Box.of(-1, 1, (2,)))
    assert raised.value.field == "method"


def test_settings_are_checked() -> None:
    assert MetaDqnSettings.from_json({"learning_rate": 1, "hidden_sizes": [4]}).hidden_sizes == (4,)
    assert MetaDqnSettings.from_json(MetaDqnSettings().to_json()) == MetaDqnSettings()
    assert MetaDqnSettings(episodes_per_trial=4).inner_steps == 3
    assert MetaDqnSettings().to_json().keys() >= OUTER
    wrong = {"memory": 3, "memory_size": 0, "discount": 1.5, "encoder_sizes": [0], "temperature": 0, "lookahead": 0}
    wrong |= {
        "batch": 10**6,
        "updates": 2,
        "burn_in": -1,
        "replay": 10**7,
        "window": 10**5,
        "exploration": 1.1,
        "target_rate": -0.1,
    }
    for name, value in wrong.items():
        with pytest.raises(InvalidField) as raised:
            MetaDqnSettings.from_json({name: value})
        assert raised.value.field == f"settings.{name}"

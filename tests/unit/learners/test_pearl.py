import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.arrays import Box, Discrete, Space
from innerloop.policy import forward
from innerloop_server.domain import LearnerSpec, Supervision
from innerloop_server.errors import InvalidField
from innerloop_server.learners import pearl_networks as nets
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.pearl import COUNT, CRITIC, DEPTH, ENCODER, POLICY, TARGET, Lesson, Pearl, Z
from innerloop_server.learners.pearl_networks import Belief
from innerloop_server.learners.pearl_settings import PearlSettings
from innerloop_server.learners.transitions import Transitions, transitions_of

BOX, CHOICE = Box.of(-0.5, 0.5, (2,)), Discrete(3)
SMALL = {"hidden_sizes": [8], "critic_sizes": [8], "encoder_sizes": [8], "latent": 3}


def learner(action: Space = BOX, observation: Space | None = None, **changes) -> Pearl:
    observation = observation or Box.of(-np.inf, np.inf, (4,))
    box, seen = isinstance(action, Box), not isinstance(observation, Discrete)
    return Pearl(
        LearnerSpec(
            name="toy-pearl",
            method="pearl",
            family="toy",
            observation_space=observation,
            action_space=action,
            observation_shift=(0.1,) * 4 if seen else (),
            observation_scale=(1.5,) * 4 if seen else (),
            action_shift=(0.0,) * action.size if box else (),
            action_scale=(0.5,) * action.size if box else (),
            horizon=6,
            baseline=None,
            settings={**SMALL, **changes},
        )
    )


def gaussians(seed: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(1, m, 2))), torch.from_numpy(rng.uniform(0.1, 9.0, (1, m, 2)))


def start() -> Belief:
    return Belief(torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64))


ONE = torch.ones(1, dtype=torch.float64)


def test_the_belief_is_the_posterior_of_a_linear_gaussian_model() -> None:
    """z ~ N(0, 1), x_i = z + noise of variance v_i: the posterior in closed form, by the joint covariance."""
    means, precisions = gaussians(0, 5)
    belief = nets.updated(start(), means, precisions, torch.ones(1, 5, dtype=torch.bool), ONE)
    for d in range(2):
        x, v = means[0, :, d].numpy(), 1 / precisions[0, :, d].numpy()
        gain = np.linalg.solve(np.ones((5, 5)) + np.diag(v), np.ones(5))
        assert belief.mean[0, d].item() == pytest.approx(float(gain @ x), abs=1e-12)
        assert 1 / belief.precision[0, d].item() == pytest.approx(1 - float(gain.sum()), abs=1e-12)


@given(seed=st.integers(0, 10_000), m=st.integers(1, 12), split=st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_order_and_grouping_mean_nothing(seed: int, m: int, split: int) -> None:
    means, precisions = gaussians(seed, m)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(m))
    real = torch.ones(1, m, dtype=torch.bool)
    whole = nets.updated(start(), means, precisions, real, ONE)
    shuffled = nets.updated(start(), means[:, order], precisions[:, order], real, ONE)
    first = torch.arange(m)[None] < split
    halves = nets.updated(nets.updated(start(), means, precisions, first, ONE), means, precisions, ~first, ONE)
    for other in (shuffled, halves):
        torch.testing.assert_close(other.precision, whole.precision, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(other.mean, whole.mean, atol=1e-12, rtol=1e-12)


def test_evidence_of_weight_zero_is_none_and_of_two_is_twice() -> None:
    means, precisions = gaussians(1, 4)
    real = torch.ones(1, 4, dtype=torch.bool)
    none = nets.updated(start(), means, precisions, real, 0 * ONE)
    assert torch.equal(none.precision, start().precision)
    once = nets.updated(start(), means, precisions, real, ONE)
    twice = nets.updated(once, means, precisions, real, ONE)
    torch.testing.assert_close(nets.updated(start(), means, precisions, real, 2 * ONE).mean, twice.mean)


def test_kl_and_entropy_by_torch() -> None:
    belief = Belief(torch.tensor([[4.0, 0.5]]), torch.tensor([[2.0, -1.0]]))
    own = torch.distributions.Normal(belief.mean, belief.precision.rsqrt())
    standard = torch.distributions.Normal(torch.zeros(1, 2), torch.ones(1, 2))
    torch.testing.assert_close(belief.kl_to_prior(), torch.distributions.kl_divergence(own, standard).sum(-1))
    torch.testing.assert_close(belief.entropy(), own.entropy().sum(-1))


def test_spread_noise_is_standard_normal_and_covers_evenly() -> None:
    noise = np.array(nets.spread_noise(400, 2))
    assert np.abs(noise.mean(0)).max() < 0.02
    assert np.abs(noise.std(0) - 1).max() < 0.03
    # Each of the four quadrants gets its share of the first dozen: chance would leave one short one time in five.
    quadrants = (noise[:12] > 0) @ np.array([1, 2])
    assert np.bincount(quadrants, minlength=4).min() >= 2


@pytest.mark.parametrize("action", [BOX, CHOICE])
def test_adapt_takes_in_transitions_in_any_order(action: Space, make_experience) -> None:
    pearl = learner(action)
    meta = pearl.initial_meta(0)
    experience = make_experience(pearl.spec, 2, 3, 6)
    order = [2, 0, 1]
    shuffled = dataclasses.replace(
        experience, **{f.name: getattr(experience, f.name)[:, order] for f in dataclasses.fields(experience)}
    )
    states = [pearl.adapt(meta, pearl.begin(meta, 2), e, torch.ones(2))[0] for e in (experience, shuffled)]
    torch.testing.assert_close(states[0][Z], states[1][Z])
    assert states[0][DEPTH].tolist() == [1, 1]
    assert torch.equal(states[0][COUNT], experience.lengths.sum(-1))


@pytest.mark.parametrize("action", [BOX, CHOICE])
def test_steps_add_up(action: Space, make_experience) -> None:
    """Three episodes at once are three episodes one by one."""
    pearl = learner(action)
    meta = pearl.initial_meta(0)
    experience = make_experience(pearl.spec, 2, 3, 6)
    whole, _ = pearl.adapt(meta, pearl.begin(meta, 2), experience, torch.ones(2))
    state = pearl.begin(meta, 2)
    for i in range(3):
        part = {f.name: getattr(experience, f.name)[:, i : i + 1] for f in dataclasses.fields(experience)}
        state, metrics = pearl.adapt(meta, state, dataclasses.replace(experience, **part), torch.ones(2))
    torch.testing.assert_close(state[Z], whole[Z])
    assert all(torch.isfinite(value).all() and value.shape == (2,) for value in metrics.values())
    assert set(metrics) >= {"loss", "kl", "entropy"}


@pytest.mark.parametrize("action", [BOX, CHOICE])
def test_company_changes_no_bit(action: Space, make_experience) -> None:
    pearl = learner(action, sampled_steps=1)
    meta = pearl.initial_meta(0)
    experience = make_experience(pearl.spec, 5, 2, 6)
    state, metrics = pearl.adapt(meta, pearl.begin(meta, 5), experience, torch.ones(5))
    policy, _ = pearl.act(meta, state, Input(experience.observations[:, :, 0]))
    for b in range(5):
        row = {f.name: getattr(experience, f.name)[b : b + 1] for f in dataclasses.fields(experience)}
        alone, measured = pearl.adapt(meta, pearl.begin(meta, 1), dataclasses.replace(experience, **row), torch.ones(1))
        for name, value in alone.items():
            assert torch.equal(value[0], state[name][b]), name
        for name, value in measured.items():
            assert torch.equal(value[0], metrics[name][b]), name
        own, _ = pearl.act(meta, alone, Input(experience.observations[b : b + 1, :, 0]))
        assert torch.equal(own.sample(None)[0], policy.sample(None)[b])


@pytest.mark.parametrize("observation", [Box.of(-np.inf, np.inf, (4,)), Discrete(5)])
@pytest.mark.parametrize("action", [BOX, CHOICE])
@pytest.mark.parametrize("sizes", [[], [8, 8]])
def test_the_portable_policy_is_the_policy(
    action: Space, observation: Space, sizes: list[int], make_experience
) -> None:
    pearl = learner(action, observation, hidden_sizes=sizes)
    meta = pearl.initial_meta(0)
    experience = make_experience(pearl.spec, 3, 2, 6)
    state, _ = pearl.adapt(meta, pearl.begin(meta, 3), experience, torch.ones(3))
    assert (state[Z][0] - state[Z][1]).abs().max() > 1e-3
    seen = experience.observations[:, 0]
    policy, _ = pearl.act(meta, state, Input(seen))
    header, weights = pearl.export(meta, state)
    for b in range(3):
        parameters = forward(header, weights[b], seen[b].numpy())
        ours = policy.logits if action is CHOICE else policy.mean
        theirs = parameters["logits"] if action is CHOICE else parameters["mean"]
        np.testing.assert_allclose(theirs, ours[b].numpy(), atol=1e-5)


def test_a_folded_policy_is_the_network_on_observation_and_z() -> None:
    pearl = learner()
    weights = {name.removeprefix(POLICY): w for name, w in pearl.initial_meta(0).items() if name.startswith(POLICY)}
    rng = np.random.default_rng(0)
    z, seen = (torch.from_numpy(rng.normal(size=shape)).float() for shape in ((3, 3), (3, 5, 4)))
    policy, _ = pearl.act(pearl.initial_meta(0), {**pearl.begin(pearl.initial_meta(0), 3), Z: z}, Input(seen))
    x = torch.cat(((seen - 0.1) / 1.5, z[:, None].expand(3, 5, 3)), -1)
    kernel = torch.cat((weights["layers.0.weight"], weights["latent.weight"]))
    hidden = torch.tanh(x @ kernel + weights["layers.0.bias"])
    torch.testing.assert_close(policy.mean, hidden @ weights["layers.1.weight"] + weights["layers.1.bias"])


def test_z_reaches_the_policy() -> None:
    pearl = learner()
    meta = pearl.initial_meta(0)
    state = pearl.begin(meta, 2)
    assert torch.equal(state[Z], torch.zeros(2, 3))
    drawn = pearl.redrawn(state, torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]))
    policy, _ = pearl.act(meta, drawn, Input(torch.zeros(2, 1, 4)))
    assert not torch.equal(policy.mean[0], policy.mean[1])


def test_a_session_explores_as_long_as_it_is_told_to(make_experience) -> None:
    pearl = learner(sampled_steps=2)
    meta = pearl.initial_meta(0)
    noise = torch.tensor(nets.spread_noise(2, 3))
    state = pearl.begin(meta, 1)
    for depth in range(4):
        belief = Belief(state["precision"], state["weighted"])
        expected = belief.sample(noise[depth]) if depth < 2 else belief.mean
        torch.testing.assert_close(state[Z], expected)
        experience = make_experience(pearl.spec, 1, 1, 6, seed=depth)
        state, _ = pearl.adapt(meta, state, experience, torch.ones(1))


def lesson_of(pearl: Pearl, seed: int = 0) -> tuple[Tensors, Lesson]:
    """Float64 meta-parameters and a random lesson of two tasks."""
    rng = np.random.default_rng(seed)
    meta = {name: w.double() for name, w in pearl.initial_meta(0).items()}
    # Targets that are not the critics, so that a mixed-up name shows.
    meta |= {name: w + 0.1 for name, w in meta.items() if name.startswith(TARGET)}

    def transitions(m: int) -> Transitions:
        discrete = isinstance(pearl.spec.action_space, Discrete)
        seen = torch.from_numpy(rng.random((2, m)) < 0.7)
        return Transitions(
            observations=torch.from_numpy(rng.normal(size=(2, m, 4))),
            actions=torch.from_numpy(rng.integers(0, 3, (2, m)) if discrete else rng.normal(size=(2, m, 2))),
            rewards=torch.from_numpy(rng.normal(size=(2, m))),
            next_observations=torch.from_numpy(rng.normal(size=(2, m, 4))),
            terminated=~seen & torch.from_numpy(rng.random((2, m)) < 0.5),
            seen=seen,
            real=torch.from_numpy(rng.random((2, m)) < 0.8),
        )

    width = pearl.header.action_size
    noise = [torch.from_numpy(rng.normal(size=shape)) for shape in ((2, 3), (2, 6, width), (2, 6, width))]
    return meta, Lesson(transitions(5), transitions(6), *noise)


def part_of_loss(pearl: Pearl, meta: Tensors, lesson: Lesson, prefix: str) -> float:
    """What of the loss a parameter with this prefix is meant to follow."""
    s = pearl.settings
    _, parts = pearl.loss(meta, lesson, 0.2)
    if prefix == POLICY:
        return float(parts["actor_loss"])
    critic = float(parts["critic_loss"])
    if prefix == CRITIC:
        return critic
    return critic + s.kl_weight * float(parts["belief_kl"]) + s.model_weight * float(parts["model_loss"])


@pytest.mark.parametrize("action", [BOX, CHOICE])
@pytest.mark.parametrize("prefix", [POLICY, CRITIC, ENCODER])
def test_each_network_follows_its_own_loss(action: Space, prefix: str) -> None:
    """The gradient against finite differences of just that part. The targets and what the policy is compared with stay
    put in the differences too: z of the encoder's reaches them, so it is taken where they do not depend on it.
    """
    pearl = learner(action, kl_weight=0.3, model_weight=0.7, discount=0.0 if prefix == ENCODER else 0.9)
    meta, lesson = lesson_of(pearl)
    leaves = {name: w.clone().requires_grad_() for name, w in meta.items() if not name.startswith(TARGET)}
    total, _ = pearl.loss({**meta, **leaves}, lesson, 0.2)
    gradients = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
    rng = np.random.default_rng(1)
    for name in (name for name in leaves if name.startswith(prefix)):
        for _ in range(3):
            at = tuple(int(rng.integers(n)) for n in meta[name].shape)
            sides = []
            for h in (1e-6, -1e-6):
                moved = meta[name].clone()
                moved[at] += h
                sides.append(part_of_loss(pearl, {**meta, name: moved}, lesson, prefix))
            difference = (sides[0] - sides[1]) / 2e-6
            assert gradients[name][at].item() == pytest.approx(difference, abs=1e-5), (name, at)


def test_without_a_model_there_is_none() -> None:
    assert not any(name.startswith("model.") for name in learner(model_weight=0.0).initial_meta(0))


def test_a_step_that_the_clock_cut_has_no_target(make_experience) -> None:
    """The critics' loss ignores it; what it cost is evidence all the same."""
    pearl = learner(CHOICE)
    experience = make_experience(pearl.spec, 1, 1, 6, lengths=torch.tensor([[6]]))
    steps = transitions_of(experience, 6)
    meta, lesson = lesson_of(pearl)
    lesson = dataclasses.replace(lesson, steps=steps.to(torch.float64))
    worse = steps.rewards.clone()
    worse[0, 5] = -1e6
    two = [
        dataclasses.replace(lesson, steps=dataclasses.replace(lesson.steps, rewards=r.double()))
        for r in (worse, steps.rewards)
    ]
    lessons = [dataclasses.replace(x, context=take_one(x.context), belief_noise=x.belief_noise[:1]) for x in two]
    losses = [pearl.loss(meta, x, 0.2)[1]["critic_loss"].item() for x in lessons]
    assert losses[0] == losses[1]
    features = [
        nets.evidence(pearl.header, dataclasses.replace(steps, rewards=r), 1.0, torch.float32)
        for r in (worse, steps.rewards)
    ]
    assert not torch.equal(*features)


def take_one(steps: Transitions) -> Transitions:
    return Transitions(**{f.name: getattr(steps, f.name)[:1] for f in dataclasses.fields(steps)})


def test_supervised_families_are_refused() -> None:
    with pytest.raises(InvalidField, match="labelled"):
        Pearl(dataclasses.replace(learner().spec, supervision=Supervision.REGRESSION))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent", 0),
        ("latent", 65),
        ("discount", 1.5),
        ("kl_weight", -1.0),
        ("temperature", 0.0),
        ("replay_tasks", 3),
        ("hidden_sizes", [0]),
        ("batch", 0),
        ("sampled_steps", -1),
        ("nonsense", 1),
        ("learning_rate", "fast"),
        ("learning_rate", math.inf),
    ],
)
def test_settings_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(InvalidField) as caught:
        PearlSettings.from_json({name: value})
    assert caught.value.field == f"settings.{name}"


def test_settings_survive_json() -> None:
    changed = PearlSettings(latent=7, hidden_sizes=(3, 4), kl_weight=0.5)
    assert PearlSettings.from_json(changed.to_json()) == changed

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


def measured(seed: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three measurements of each of ``m`` transitions of one task, of a z of four numbers."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(1, m, 3, 4))), torch.from_numpy(rng.normal(size=(1, m, 3)))


def start(tasks: int = 1) -> Belief:
    return nets.prior(tasks, 4, torch.zeros((), dtype=torch.float64))


ONE = torch.ones(1, dtype=torch.float64)


def test_the_belief_is_the_posterior_of_a_linear_gaussian_model() -> None:
    """z ~ N(0, I), y = U z + standard normal noise: the posterior by conditioning the joint Gaussian of z and y."""
    directions, values = measured(0, 5)
    belief = nets.updated(start(), directions, values, torch.ones(1, 5, dtype=torch.bool), ONE)
    u, y = directions.numpy().reshape(15, 4), values.numpy().reshape(15)
    gain = u.T @ np.linalg.inv(u @ u.T + np.eye(15))
    covariance = np.eye(4) - gain @ u
    np.testing.assert_allclose(belief.mean[0].numpy(), gain @ y, atol=1e-12)
    np.testing.assert_allclose(np.linalg.inv(belief.precision[0].numpy()), covariance, atol=1e-12)
    # Samples are mean + A noise for some A with A A^T = covariance.
    noise = torch.cat((torch.zeros(1, 4), torch.eye(4))).double()
    samples = Belief(belief.precision.expand(5, 4, 4), belief.weighted.expand(5, 4)).sample(noise).numpy()
    spread = (samples[1:] - samples[0]).T
    np.testing.assert_allclose(spread @ spread.T, covariance, atol=1e-12)


@given(seed=st.integers(0, 10_000), m=st.integers(1, 12), split=st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_order_and_grouping_mean_nothing(seed: int, m: int, split: int) -> None:
    directions, values = measured(seed, m)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(m))
    real = torch.ones(1, m, dtype=torch.bool)
    whole = nets.updated(start(), directions, values, real, ONE)
    shuffled = nets.updated(start(), directions[:, order], values[:, order], real, ONE)
    first = torch.arange(m)[None] < split
    halves = nets.updated(nets.updated(start(), directions, values, first, ONE), directions, values, ~first, ONE)
    for other in (shuffled, halves):
        torch.testing.assert_close(other.precision, whole.precision, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(other.mean, whole.mean, atol=1e-10, rtol=1e-10)


def test_evidence_of_weight_zero_is_none_and_of_two_is_twice() -> None:
    directions, values = measured(1, 4)
    real = torch.ones(1, 4, dtype=torch.bool)
    none = nets.updated(start(), directions, values, real, 0 * ONE)
    assert torch.equal(none.precision, start().precision)
    assert torch.equal(none.mean, torch.zeros(1, 4).double())
    once = nets.updated(start(), directions, values, real, ONE)
    twice = nets.updated(once, directions, values, real, ONE)
    torch.testing.assert_close(nets.updated(start(), directions, values, real, 2 * ONE).mean, twice.mean)


def test_kl_and_entropy_by_torch() -> None:
    belief = nets.updated(start(2), *(x.repeat(2, *(1,) * (x.dim() - 1)) for x in measured(2, 3)), TWO_OF_THREE, ONE)
    own = torch.distributions.MultivariateNormal(belief.mean, precision_matrix=belief.precision)
    standard = torch.distributions.MultivariateNormal(torch.zeros(2, 4).double(), torch.eye(4).double())
    torch.testing.assert_close(belief.kl_to_prior(), torch.distributions.kl_divergence(own, standard))
    torch.testing.assert_close(belief.entropy(), own.entropy())
    assert belief.entropy()[0] > belief.entropy()[1], "who saw less is less sure"


TWO_OF_THREE = torch.tensor([[True, False, True], [True, True, True]])


def test_a_belief_sharper_than_float32_stays_finite() -> None:
    """Ten thousand sharp measurements along nearly the same direction: without a floor, pivots round below zero."""
    noise = np.random.default_rng(0).normal(size=(1, 10_000, 1, 4))
    directions = 30 * (1 + 1e-4 * torch.from_numpy(noise).float())
    belief = nets.updated(
        nets.prior(1, 4, directions),
        directions,
        directions.sum(-1),
        torch.ones(1, 10_000, dtype=torch.bool),
        ONE.float(),
    )
    for value in (belief.mean, belief.sample(torch.ones(1, 4)), belief.kl_to_prior(), belief.entropy()):
        assert torch.isfinite(value).all()
    torch.testing.assert_close(belief.mean.sum(), torch.tensor(4.0), atol=1e-2, rtol=0.0)


@pytest.mark.parametrize("latent", [1, 2, 5, 8])
def test_a_belief_depends_on_no_bit_of_its_company(latent: int) -> None:
    """Forty transitions: enough for a matrix product to choose its kernel by size or alignment."""
    rng = np.random.default_rng(0)
    directions = torch.from_numpy(rng.normal(size=(6, 40, 1, latent))).float()
    values = torch.from_numpy(rng.normal(size=(6, 40, 1))).float()
    real = torch.from_numpy(rng.random((6, 40)) < 0.9)
    weight = torch.ones(6)
    together = nets.updated(nets.prior(6, latent, weight), directions, values, real, weight)
    for b in range(6):
        own = (x[b : b + 1] for x in (directions, values, real, weight))
        alone = nets.updated(nets.prior(1, latent, weight), *own)
        assert torch.equal(alone.precision[0], together.precision[b])
        assert torch.equal(alone.mean[0], together.mean[b])
        assert torch.equal(alone.kl_to_prior()[0], together.kl_to_prior()[b])


def test_ranges_tell_a_place_exactly() -> None:
    """What full covariances are for: |s - g|^2 = |s|^2 - 2 s.g + |g|^2 is linear in z = (g, |g|^2). Each range alone
    allows a circle; from four the belief has the goal to the noise of a range.
    """
    goal = torch.tensor([0.3, -0.6]).double()
    places = torch.tensor([[0.9, 0.1], [-0.5, -0.2], [0.2, 0.8], [0.0, -0.1]]).double()
    squares = (places * places).sum(-1)
    ranges = (places - goal).norm(dim=-1)
    sharpness = 1e4
    directions = sharpness * torch.cat((-2 * places, torch.ones(4, 1)), -1).reshape(1, 4, 1, 3)
    values = sharpness * (ranges * ranges - squares).reshape(1, 4, 1)
    prior = nets.prior(1, 3, goal)
    belief = nets.updated(prior, directions, values, torch.ones(1, 4, dtype=torch.bool), ONE)
    torch.testing.assert_close(belief.mean[0, :2], goal, atol=1e-6, rtol=0.0)


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


@pytest.mark.parametrize("latent", [1, 3, 5, 8])
@pytest.mark.parametrize("action", [BOX, CHOICE])
def test_company_changes_no_bit(action: Space, latent: int, make_experience) -> None:
    pearl = learner(action, sampled_steps=1, latent=latent)
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


@pytest.mark.parametrize("observation", [Box.of(-np.inf, np.inf, (4,)), Discrete(5)])
@pytest.mark.parametrize("action", [BOX, CHOICE])
@pytest.mark.parametrize("squares", [False, True])
def test_what_is_trained_is_what_is_served(action: Space, observation: Space, squares: bool, make_experience) -> None:
    """Training infers and acts with shared matrix products, serving with one a task."""
    pearl = learner(action, observation, squares=squares)
    meta = pearl.initial_meta(0)
    experience = make_experience(pearl.spec, 3, 2, 6)
    steps = transitions_of(experience, pearl.spec.horizon)
    state, _ = pearl.adapt(meta, pearl.begin(meta, 3), experience, torch.ones(3))
    torch.testing.assert_close(pearl._infer(meta, steps, torch.float32).mean, state[Z], atol=1e-5, rtol=1e-4)
    served, _ = pearl.act(meta, state, Input(steps.observations))
    trained = pearl._looking(meta, nets.situation(pearl.header, steps.observations, state[Z]))
    for ours, theirs in zip(trained.parameters(), served.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_evidence_by_hand() -> None:
    pearl = learner(squares=True)
    steps = Transitions(
        observations=torch.full((1, 1, 4), 0.1),
        actions=torch.tensor([[[0.25, 3.0]]]),  # raw; the environment clips at one unit
        rewards=torch.tensor([[-2.0]]),
        next_observations=torch.full((1, 1, 4), 3.1),
        terminated=torch.zeros(1, 1, dtype=torch.bool),
        seen=torch.ones(1, 1, dtype=torch.bool),
        real=torch.ones(1, 1, dtype=torch.bool),
    )
    plain = [0.0] * 4 + [0.25, 1.0] + [2.0] * 4 + [-1.0, 1.0]
    for squares, expected in ((False, plain), (True, [*plain, *[4.0] * 4, 1.0])):
        features = nets.evidence(pearl.header, steps, 0.5, torch.float32, squares=squares)
        torch.testing.assert_close(features[0, 0], torch.tensor(expected))
        assert nets.evidence_size(pearl.header, squares=squares) == len(expected)


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
        ("batch", 10**7),
        ("context", 10**7),
        ("measurements", 33),
        ("updates", 2),
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

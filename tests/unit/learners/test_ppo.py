import math

import numpy as np
import pytest
import torch

from innerloop.arrays import Box, Discrete, Space
from innerloop.policy import Policy, forward
from innerloop_server.domain import Experience, Features, LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners.learner import Input
from innerloop_server.learners.ppo import POLICY, VALUE, Ppo, Steps
from innerloop_server.learners.ppo_settings import PpoSettings

HORIZON = 3


def learner(action: Space | None = None, **settings) -> Ppo:
    action = action or Discrete(2)
    box = isinstance(action, Box)
    return Ppo(
        LearnerSpec(
            name="ppo",
            method="ppo",
            family="any",
            observation_space=Box.of(-np.inf, np.inf, (2,)),
            action_space=action,
            observation_shift=(0.0, 0.0),
            observation_scale=(1.0, 1.0),
            action_shift=(0.0,) * action.size if box else (),
            action_scale=(1.0,) * action.size if box else (),
            horizon=HORIZON,
            baseline=Features(),
            settings={"hidden_sizes": [4], "discount": 0.5, "trace": 1.0, **settings},
        )
    )


def episodes(rewards: list[list[float]], lengths: list[int]) -> Experience[torch.Tensor]:
    """[1, N, T] episodes whose observations are (row, step)."""
    r = torch.tensor([rewards])
    n = len(lengths)
    rows, steps = torch.meshgrid(torch.arange(n), torch.arange(HORIZON), indexing="ij")
    return Experience(
        observations=torch.stack((rows, steps), -1)[None].float(),
        actions=torch.zeros(1, n, HORIZON, dtype=torch.int64),
        rewards=r,
        log_probs=torch.full((1, n, HORIZON), -math.log(2)),
        lengths=torch.tensor([lengths]),
        bootstrap=torch.zeros(1, n, dtype=torch.bool),
        final_observations=torch.zeros(1, n, 2),
        time_offset=torch.zeros(1, n, dtype=torch.int64),
        feedback=torch.zeros(1, n, HORIZON, 0),
        success=torch.zeros(1, n, dtype=torch.bool),
    )


def with_value(meta: dict[str, torch.Tensor], value: float) -> dict[str, torch.Tensor]:
    """The same policy with a constant value."""
    changed = {name: torch.zeros_like(v) if name.startswith(VALUE) else v for name, v in meta.items()}
    changed[f"{VALUE}layers.1.bias"] = torch.tensor([value])
    return changed


def test_targets_and_advantages_by_hand() -> None:
    ppo = learner(value_unit=2.0)
    meta = with_value(ppo.initial_meta(0), 1.0)
    steps = ppo.prepare(meta, episodes([[2.0, 4.0, 0.0], [2.0, 2.0, 2.0]], [2, 3]))
    # In units of 2 and with discount 1/2. The first episode ended by itself after two steps: 1 + 2/2, 2.
    # The second ran to the horizon, so that the last value, 1, goes on: from the end 1 + 1/2, 1 + 1.5/2, 1 + 1.75/2.
    targets = torch.tensor([2.0, 2.0, 1.875, 1.75, 1.5])
    torch.testing.assert_close(steps.value_targets, targets)
    raw = targets - 1
    torch.testing.assert_close(steps.advantages, (raw - raw.mean()) / raw.std(correction=0), atol=1e-5, rtol=0)
    assert len(steps) == 5
    torch.testing.assert_close(steps.observations[:, 1], torch.tensor([0.0, 1.0, 0.0, 1.0, 2.0]))


def test_the_loss_by_hand() -> None:
    ppo = learner(clip=0.2, value_weight=0.5, entropy=0.1)
    meta = {
        name: torch.zeros_like(value) for name, value in ppo.initial_meta(0).items()
    }  # both actions at 1/2, value 0
    steps = Steps(
        observations=torch.zeros(2, 2),
        actions=torch.tensor([0, 1]),
        log_probs=torch.log(torch.tensor([0.25, 0.5])),
        advantages=torch.tensor([1.0, -3.0]),
        value_targets=torch.tensor([2.0, 0.0]),
    )
    # Ratios 2 (clipped to 1.2) and 1: surrogate (1.2 - 3) / 2; squared error 4 / 2; entropy log 2.
    assert float(ppo.loss(meta, steps)) == pytest.approx(0.9 + 0.5 * 2 - 0.1 * math.log(2), rel=1e-6)


def test_a_clipped_step_pulls_no_further() -> None:
    ppo = learner(value_weight=0.0)
    meta = {name: value.requires_grad_() for name, value in ppo.initial_meta(0).items()}
    one = {"observations": torch.ones(1, 2), "actions": torch.tensor([0]), "value_targets": torch.zeros(1)}

    def pull(old: float, advantage: float) -> float:
        steps = Steps(log_probs=torch.log(torch.tensor([old])), advantages=torch.tensor([advantage]), **one)
        (gradient,) = torch.autograd.grad(ppo.loss(meta, steps), [meta[f"{POLICY}layers.1.bias"]])
        return float(gradient.abs().sum())

    assert pull(old=0.25, advantage=1.0) == 0.0
    assert pull(old=0.25, advantage=-1.0) > 0.0
    assert pull(old=0.5, advantage=1.0) > 0.0


@pytest.mark.parametrize("action", [Discrete(3), Box.of(-1.0, 1.0, (2,))])
def test_the_exported_policy_is_the_one_that_acts(action: Space) -> None:
    ppo = learner(action, last_layer_scale=1.0)
    meta = ppo.initial_meta(3)
    state = ppo.begin(meta, 2)
    observation = np.random.default_rng(0).standard_normal((2, 5, 2), np.float32)
    distribution, after = ppo.act(meta, state, Input(torch.from_numpy(observation)))
    assert after is state
    header, weights = ppo.export(meta, state)
    parameters = forward(header, weights[1], observation[1])
    ours = distribution.logits[1] if isinstance(action, Discrete) else distribution.mean[1]
    np.testing.assert_allclose(ours, parameters.get("logits", parameters.get("mean")), atol=1e-5)
    Policy(header, weights[0])


def test_an_adaptation_step_changes_nothing() -> None:
    ppo = learner()
    meta = ppo.initial_meta(0)
    state = ppo.begin(meta, 1)
    after, metrics = ppo.adapt(meta, state, episodes([[1.0, 1.0, 1.0]], [3]), torch.ones(1))
    assert after is state
    assert {name: value.tolist() for name, value in metrics.items()} == {"loss": [0.0], "kl": [0.0], "entropy": [0.0]}
    assert (ppo.inner_steps, ppo.episodes_per_step) == (1, 1)


def test_seeds_make_the_networks() -> None:
    first, same, other = (learner().initial_meta(seed) for seed in (0, 0, 1))
    kernel = f"{POLICY}layers.0.weight"
    assert torch.equal(first[kernel], same[kernel])
    assert not torch.equal(first[kernel], other[kernel])
    assert not torch.equal(first[kernel], first[f"{VALUE}layers.0.weight"])


@pytest.mark.parametrize(("name", "value"), [("speed", 1.0), ("clip", "0.2"), ("clip", True)])
def test_a_setting_that_cannot_be_is_named(name: str, value: object) -> None:
    with pytest.raises(InvalidField) as caught:
        learner(**{name: value})
    assert caught.value.field == f"settings.{name}"


def test_settings_survive_json() -> None:
    settings = PpoSettings(hidden_sizes=(3, 2), clip=0.1)
    assert PpoSettings.from_json(settings.to_json()) == settings

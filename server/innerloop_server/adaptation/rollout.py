"""Whole episodes of many tasks as one batch of tensors, on the learner's device.

Randomness is drawn on the host from one stream a task and handed in, and every array has the family's full horizon
as capacity, so what a task experiences does not depend on its company, its device, or when the batch stopped.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from innerloop.arrays import Array, Box
from innerloop.policy import draw_noise
from innerloop_server.actors.rows import TIMED
from innerloop_server.adaptation import memory
from innerloop_server.domain import Experience, LearnerSpec, Supervision
from innerloop_server.learners.learner import Input, Learner, Tensors
from innerloop_server.learners.networks import constant
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.batch import TaskBatch

SMALLEST_CAPACITY = 64
"""Smallest capacity that :func:`bucket` gives."""
_STOP_CHECK_STEPS = 16
"""How often a rollout asks whether every episode is over: asking waits for the device."""


@dataclass(frozen=True)
class Noise:
    """All the randomness of B tasks' episodes."""

    resets: Array
    """[B, N, reset_uniforms] float64 in [0, 1)."""
    actions: Array
    """[B, N, T, d] float32, as ``innerloop.policy.draw_noise`` gives it."""
    steps: Array
    """[B, N, T, step_uniforms] float64 in [0, 1)."""


@dataclass(frozen=True)
class Rollout:
    """Episodes and what they scored."""

    experience: Experience[torch.Tensor]
    returns: torch.Tensor
    """[B, N] float32, undiscounted."""
    state: Tensors | None = None
    """Of a method that remembers: [B, N, ...] each, what every row ended with."""
    entropies: torch.Tensor | None = None
    """Of a method that remembers: [B, N] float32, the mean entropy of the policy over each episode, in nats; ``None``
    where the simulator does not say."""


def draw(
    spec: LearnerSpec,
    seeds: Sequence[int],
    *counters: int,
    episodes: int,
    reset_uniforms: int,
    step_uniforms: int = 0,
    evaluation: bool = False,
    query: bool = False,
) -> Noise:
    """The randomness of one rollout.

    Args:
        spec: names the action space and the horizon.
        seeds: one a task.
        counters: tell this rollout from others under the same seeds (step, phase).
        episodes: N.
        reset_uniforms: as the family's batch face says.
        step_uniforms: as the family's batch face says.
        evaluation: draw from the evaluation's streams, which adaptation never touches.
        query: of a supervised family: examples to be tested on, which no support holds.
    """
    reset, action, dynamics = _EVALUATION if evaluation else _ADAPTATION
    resets = np.stack([stream(seed, reset, *counters).random((episodes, reset_uniforms)) for seed in seeds])
    if spec.supervision is not None and reset_uniforms:
        resets[..., 0] = (resets[..., 0] + query) / 2
    actions = [
        draw_noise(spec.action_space, stream(seed, action, *counters), (episodes, spec.horizon)) for seed in seeds
    ]
    steps = [stream(seed, dynamics, *counters).random((episodes, spec.horizon, step_uniforms)) for seed in seeds]
    return Noise(resets, np.stack(actions), np.stack(steps))


_ADAPTATION = (Purpose.RESET, Purpose.ACTION, Purpose.DYNAMICS)
_EVALUATION = (Purpose.EVALUATION_RESET, Purpose.EVALUATION_ACTION, Purpose.EVALUATION_DYNAMICS)


def environment_action(spec: LearnerSpec, raw: torch.Tensor) -> torch.Tensor:
    """The torch twin of ``innerloop.policy.to_environment``: clip and scale a Box action.

    Args:
        spec: names the action space, shift and scale.
        raw: [..., A], or [...] int64 for Discrete (returned as it is).

    Returns:
        [..., *action_shape] float32.
    """
    space = spec.action_space
    if not isinstance(space, Box):
        return raw
    shift, scale = (constant(v, raw.dtype, raw.device) for v in (spec.action_shift, spec.action_scale))
    shaped = (shift + scale * raw).reshape(*raw.shape[:-1], *space.shape)
    return torch.clamp(shaped, *_bounds(space, raw.device))


@functools.lru_cache(maxsize=1024)
def _bounds(space: Box, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """``low`` and ``high``, in the space's shape."""
    low, high = (constant(tuple(side.ravel().tolist()), torch.float32, device) for side in (space.low, space.high))
    return low.reshape(space.shape), high.reshape(space.shape)


@torch.no_grad()
def rollout(
    learner: Learner, meta: Tensors, state: Tensors, batch: TaskBatch, noise: Noise, *, greedy: bool = False
) -> Rollout:
    """Run whole episodes.

    Args:
        learner: the method; its spec gives the horizon.
        meta: meta-parameters.
        state: [B, ...] adaptation states; of a method that remembers [B, N, ...], one for each episode.
        batch: the B tasks.
        noise: from :func:`draw`; on the host.
        greedy: take the modes of the policies instead of samples. Predictions of a supervised family always are.

    Returns:
        Episodes with capacity T = horizon, whatever their lengths; ``bootstrap`` is False throughout.
    """
    spec = learner.spec
    device = next(iter(state.values())).device
    resets = torch.from_numpy(noise.resets).to(device)
    # Time first: a step then reads and writes contiguous memory.
    drawn = torch.from_numpy(np.ascontiguousarray(np.moveaxis(noise.actions, 2, 0))).to(device)
    chances = torch.from_numpy(np.ascontiguousarray(np.moveaxis(noise.steps, 2, 0))).to(device)
    horizon, b, n = drawn.shape[:3]
    greedy = greedy or spec.supervision is not None
    simulation, observation = batch.reset(resets)
    observations = observation.new_zeros(horizon, *observation.shape)
    rewards = drawn.new_zeros(horizon, b, n)
    log_probs = drawn.new_zeros(horizon, b, n)
    answer = batch.feedback(simulation)
    feedback = answer.new_zeros(horizon, *answer.shape)
    success = torch.zeros(b, n, dtype=torch.bool, device=device)
    actions: torch.Tensor | None = None
    alive = torch.ones(b, n, dtype=torch.bool, device=device)
    lengths = torch.zeros(b, n, dtype=torch.int64, device=device)
    remembers = memory.remembers(learner)
    entropies = drawn.new_zeros(b, n)
    for t in range(horizon):
        seen = memory.whole_input(state, observation) if remembers else Input(observation)
        distribution, kept = learner.act(meta, memory.own(state) if remembers else state, seen)
        raw = distribution.sample(None if greedy else drawn[t])
        observations[t] = observation
        if spec.supervision is not None:
            feedback[t] = batch.feedback(simulation)
        judged = feedback[t, ..., 0].long() if spec.supervision is Supervision.CLASSIFICATION else raw
        log_probs[t] = distribution.log_prob(judged)
        if actions is None:
            actions = raw.new_zeros(horizon, *raw.shape)
        actions[t] = raw
        simulation, observation, rewards[t], terminated = batch.step(
            simulation, environment_action(spec, raw), chances[t] if batch.step_uniforms else None
        )
        if batch.knows_success:
            success = success | (alive & batch.success(simulation))
        lengths += alive
        if remembers:  # a row that is over keeps what it ended with
            entropies = entropies + torch.where(alive, distribution.entropy(), 0.0)
            cut = torch.full_like(terminated, t == horizon - 1) & ~terminated
            state = memory.where(alive, memory.after(kept, raw, rewards[t], terminated, cut), state)
        alive = alive & ~terminated
        if t % _STOP_CHECK_STEPS == _STOP_CHECK_STEPS - 1 and not bool(alive.any()):
            break
    assert actions is not None  # a family's horizon is at least 1
    experience = Experience(
        observations=_episode_first(observations, lengths),
        actions=_episode_first(actions, lengths),
        rewards=_episode_first(rewards, lengths),
        log_probs=_episode_first(log_probs, lengths),
        lengths=lengths,
        bootstrap=torch.zeros_like(alive),
        final_observations=torch.zeros_like(observation),
        time_offset=torch.zeros_like(lengths),
        feedback=_episode_first(feedback, lengths),
        success=success,
    )
    returns = experience.rewards.sum(-1)
    return Rollout(experience, returns, state, entropies / lengths) if remembers else Rollout(experience, returns)


def _episode_first(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """[T, B, N, ...] -> contiguous [B, N, T, ...] with zeros at or past each episode's length."""
    real = torch.arange(x.shape[0], device=x.device)[:, None, None] < lengths
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    kept = torch.where(real.reshape(*real.shape, *(1,) * (x.dim() - 3)), x, zero)
    return kept.permute(1, 2, 0, *range(3, x.dim())).contiguous()


def bucket(longest: int, horizon: int) -> int:
    """The capacity for a task whose longest episode has ``longest`` steps: 64, 128, 256, ... capped at ``horizon``.

    A function of that task alone, so trimming to it cannot make a task's sums depend on its company; and few
    different values, so that tasks still share a batch.
    """
    capacity = SMALLEST_CAPACITY
    while capacity < longest:
        capacity *= 2
    return min(capacity, horizon)


def trim(experience: Experience[torch.Tensor], capacity: int) -> Experience[torch.Tensor]:
    """The same episodes with T = ``capacity``, contiguous.

    Raises:
        ValueError: an episode is longer than that.
    """
    longest = int(experience.lengths.max()) if experience.lengths.numel() else 0
    if longest > capacity:
        raise ValueError(f"an episode of {longest} steps does not fit a capacity of {capacity}")
    timed = {name: vars(experience)[name][:, :, :capacity].contiguous() for name in TIMED}
    return dataclasses.replace(experience, **timed)

"""The computing: needs of one kind and one shape, served as one batch of tensors.

Every function takes needs that :func:`group_key` finds alike. Randomness comes from each session's own streams, arrays
are padded by each session's own lengths, and the batched kernels compute a task's rows as if it were alone; so on the
CPU with one thread what a session gets does not depend on its company.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch

from innerloop.arrays import Array
from innerloop.policy import draw_noise
from innerloop_server.adaptation import memory, states
from innerloop_server.adaptation.inner_loop import (
    ActNeed,
    AdaptNeed,
    LoadedRevision,
    Need,
    ReplayNeed,
    Resident,
    RolloutNeed,
    Updated,
)
from innerloop_server.adaptation.orders import Acted, AdaptOrder
from innerloop_server.adaptation.rollout import Noise, Rollout, bucket, draw, environment_action, rollout, trim
from innerloop_server.domain import Experience, Supervision, Task
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.supervised import squared_error
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import stack_parameters

STEPS_IN_A_BATCH = 131_072
"""Environment steps (B x N x T) that one batch computes at most: past it stacking only costs cache."""


def group_key(need: Need) -> Hashable:
    """Needs with equal keys can be served as one batch: same revision, phase and shapes."""
    revision = need.resident.revision.ref.key
    if isinstance(need, RolloutNeed):
        task, simulator = need.resident.task, need.resident.simulator
        return ("rollout", revision, simulator, task and task.family, need.episodes, need.greedy, need.evaluation)
    if isinstance(need, ReplayNeed):
        return ("replay", revision, need.experience.rewards.shape[1:])
    if isinstance(need, AdaptNeed):
        return ("adapt", revision, need.experience.rewards.shape[1], _capacity(need))
    return ("act", revision, need.observations.shape)


def weight(need: Need) -> int:
    """Environment steps that a need adds to a batch."""
    if isinstance(need, RolloutNeed):
        return need.episodes * need.resident.revision.learner.spec.horizon
    if isinstance(need, ReplayNeed):
        return int(need.experience.rewards.numel())
    if isinstance(need, AdaptNeed):
        return int(need.experience.rewards.shape[1]) * _capacity(need)
    return len(need.observations)


def roll_out(needs: Sequence[RolloutNeed], family: Family, device: torch.device) -> list[Rollout]:
    """Whole episodes on the family's tensor-native face, one rollout a need."""
    revision = needs[0].resident.revision
    tasks = [_task(need) for need in needs]
    batch = family.batch(stack_parameters(tasks), device)
    noises = [
        draw(
            revision.learner.spec,
            [need.resident.seed],
            *need.counters,
            episodes=need.episodes,
            reset_uniforms=batch.reset_uniforms,
            step_uniforms=batch.step_uniforms,
            evaluation=need.evaluation,
            query=need.evaluation,
        )
        for need in needs
    ]
    noise = Noise(*(_concatenate([getattr(n, part) for n in noises]) for part in ("resets", "actions", "steps")))
    state = states.stack([need.state for need in needs])
    if memory.remembers(revision.learner):
        state = memory.spread(state, needs[0].episodes)
    whole = rollout(revision.learner, revision.meta, state, batch, noise, greedy=needs[0].greedy)
    after = [None] * len(needs) if whole.state is None else states.split(whole.state, len(needs))
    entropies = [None] * len(needs) if whole.entropies is None else whole.entropies.chunk(len(needs))
    experience, returns = _split_experience(whole.experience, len(needs)), whole.returns.chunk(len(needs))
    return [Rollout(*parts) for parts in zip(experience, returns, after, entropies, strict=True)]


def adapt(needs: Sequence[AdaptNeed]) -> list[Updated]:
    """One inner update, one outcome a need."""
    revision = needs[0].resident.revision
    capacity = _capacity(needs[0])
    experience = stack_experience([trim(need.experience, capacity) for need in needs])
    state = states.stack([need.state for need in needs])
    device = experience.rewards.device
    scale = torch.tensor([need.rate_scale for need in needs], dtype=torch.float32, device=device)
    after, metrics = revision.learner.adapt(revision.meta, state, experience, scale)
    host = {name: value.detach().cpu().tolist() for name, value in metrics.items()}
    return [
        Updated(part, {name: float(values[i]) for name, values in host.items()})
        for i, part in enumerate(states.split(after, len(needs)))
    ]


@torch.no_grad()
def act(needs: Sequence[ActNeed], keys: Sequence[int]) -> list[Acted]:
    """Actions for the rows of each need; of a supervised learner the predictions, not samples around them."""
    revision = needs[0].resident.revision
    learner, spec = revision.learner, revision.learner.spec
    device = next(iter(needs[0].resident.state.values())).device
    observations = torch.from_numpy(np.stack([need.observations for need in needs])).to(device)
    rows = needs[0].observations.shape[0]
    noise: torch.Tensor | None = None
    if spec.supervision is None:
        drawn = [
            draw_noise(spec.action_space, stream(need.resident.seed, Purpose.OBSERVE, *need.counters), (rows,))
            for need in needs
        ]
        noise = torch.from_numpy(np.stack(drawn)).to(device)
    if memory.remembers(learner):
        state = states.stack([memory.rows_to_device(need.memory, device) for need in needs])
        distribution, hidden = learner.act(revision.meta, memory.own(state), memory.whole_input(state, observations))
    else:
        state = states.stack([need.resident.state for need in needs])
        distribution, _ = learner.act(revision.meta, state, Input(observations))
    raw = distribution.sample(noise)
    log_probs = distribution.log_prob(raw).cpu().numpy()
    actions = environment_action(spec, raw).cpu().numpy()
    host = raw.cpu().numpy()
    after: dict[str, Array] = {}
    entropies: Array | None = None
    if memory.remembers(learner):
        after = {name: value.cpu().numpy() for name, value in memory.acted(hidden, raw).items()}
        entropies = distribution.entropy().cpu().numpy()
    return [
        Acted(
            key,
            actions[i],
            host[i],
            log_probs[i],
            {name: array[i] for name, array in after.items()},
            None if entropies is None else entropies[i],
        )
        for i, key in enumerate(keys)
    ]


def upload(experience: Experience[Array], device: torch.device) -> Experience[torch.Tensor]:
    """The same episodes as tensors on ``device``."""
    return Experience(
        **{name: torch.from_numpy(np.ascontiguousarray(value)).to(device) for name, value in vars(experience).items()}
    )


def to_device(
    experience: Experience[Array], revision: LoadedRevision, state: Tensors, device: torch.device
) -> Experience[torch.Tensor]:
    """A client's episodes on the device, with log-probabilities filled in where the client sent none (NaN)."""
    tensors = upload(experience, device)
    unknown = torch.isnan(tensors.log_probs)
    if not bool(unknown.any()):
        return tensors
    b, n, t = tensors.rewards.shape
    flat = tensors.observations.reshape(b, n * t, *tensors.observations.shape[3:])
    with torch.no_grad():
        distribution, _ = revision.learner.act(revision.meta, state, Input(flat))
        computed = distribution.log_prob(tensors.actions.reshape(b, n * t, *tensors.actions.shape[3:])).reshape(b, n, t)
    real = torch.arange(t, device=device) < tensors.lengths[..., None]
    known = torch.where(unknown, computed, tensors.log_probs)
    return replace(tensors, log_probs=torch.where(real, known, torch.zeros_like(known)))


def reported(order: AdaptOrder, resident: Resident, device: torch.device) -> tuple[Experience[torch.Tensor], Array]:
    """A client's episodes on the device and their returns [N], with what the client left to the server filled in."""
    if resident.revision.learner.spec.supervision is None:
        return to_device(order.experience, resident.revision, resident.state, device), order.returns
    return predict(order.experience, resident.revision, resident.state, device)


@torch.no_grad()
def predict(
    experience: Experience[Array], revision: LoadedRevision, state: Tensors, device: torch.device
) -> tuple[Experience[torch.Tensor], Array]:
    """A client's labelled examples on the device, with what the present state predicts for them.

    Args:
        experience: B = 1 and T = 1; observations, feedback and lengths are read.
        revision: of a supervised learner.
        state: that predicts.
        device: where to.

    Returns:
        (the examples with actions, rewards and log-probabilities filled in, [N] float64 rewards).
    """
    learner, spec = revision.learner, revision.learner.spec
    tensors = upload(experience, device)
    distribution, _ = learner.act(revision.meta, state, Input(tensors.observations[:, :, 0]))
    raw = distribution.sample(None)
    answers = tensors.feedback[:, :, 0]
    if spec.supervision is Supervision.CLASSIFICATION:
        labels = answers[..., 0].long()
        rewards, log_probs = (raw == labels).float(), distribution.log_prob(labels)
    else:
        predictions = environment_action(spec, raw).reshape(answers.shape)
        rewards, log_probs = -squared_error(predictions, answers), distribution.log_prob(raw)
    filled = replace(
        tensors,
        actions=raw.unsqueeze(2),
        rewards=rewards.unsqueeze(-1),
        log_probs=log_probs.unsqueeze(-1),
    )
    return filled, rewards[0].cpu().numpy().astype(np.float64)


def to_host(experience: Experience[torch.Tensor]) -> Experience[Array]:
    """The same episodes in numpy."""
    return _map(experience, lambda x: x.detach().cpu().numpy())


def _capacity(need: AdaptNeed) -> int:
    horizon = int(need.experience.rewards.shape[2])
    longest = int(need.experience.lengths.max()) if need.experience.lengths.numel() else 0
    return bucket(longest, horizon)


def _task(need: RolloutNeed) -> Task:
    task = need.resident.task
    assert task is not None  # a client-owned session never asks for a rollout
    return task


def _concatenate(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _split_experience(experience: Experience[torch.Tensor], n: int) -> list[Experience[torch.Tensor]]:
    if n == 1:
        return [experience]
    parts = {name: value.chunk(n) for name, value in vars(experience).items()}
    return [Experience(**{name: part[i] for name, part in parts.items()}) for i in range(n)]


def stack_experience(parts: Sequence[Experience[torch.Tensor]]) -> Experience[torch.Tensor]:
    """Episodes of several tasks as one batch; of equal shapes."""
    if len(parts) == 1:
        return parts[0]
    return Experience(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def _map(experience: Experience[torch.Tensor], function: Callable[[torch.Tensor], Array]) -> Experience[Array]:
    return Experience(**{name: function(value) for name, value in vars(experience).items()})

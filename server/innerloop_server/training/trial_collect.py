"""Whole trials of many tasks as one batch of tensors: what methods with memory are trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from innerloop.policy import draw_noise
from innerloop_server.adaptation.rollout import environment_action
from innerloop_server.domain import Task
from innerloop_server.learners.learner import Input, Learner, Tensors
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import stack_parameters
from innerloop_server.tasks.trials import Trials, TrialStep
from innerloop_server.training.batches import MergedBatch

CollectTrials = Callable[[Tensors, Sequence[Task], int], TrialRecord]
"""(meta, tasks, seed) -> one trial of each task; the seed names every start, action and chance."""
_STOP_CHECK_STEPS = 16
"""How often a rollout asks whether every trial is over: asking waits for the device."""


def batch_collector(family: Family, learner: Learner, device: torch.device, *, greedy: bool = False) -> CollectTrials:
    """Trials from the family's tensor-native face, of as many episodes as the method is made for.

    All rows act with one set of weights, as if they were one task's: one matrix product a layer and step.

    Raises:
        InvalidField: (when called) the family has no such face.
    """

    @torch.no_grad()
    def collect(meta: Tensors, tasks: Sequence[Task], seed: int) -> TrialRecord:
        merged = MergedBatch(family.batch(stack_parameters(tasks), device), len(tasks))
        trials = Trials(merged, family.horizon, learner.inner_steps + 1)
        return run_trials(learner, meta, trials, len(tasks), seed, greedy=greedy)

    return collect


@torch.no_grad()
def run_trials(
    learner: Learner, meta: Tensors, trials: Trials, rows: int, seed: int, *, greedy: bool = False
) -> TrialRecord:
    """Run R trials from beginning to end.

    Args:
        learner: a method with memory.
        meta: its meta-parameters.
        trials: of one (merged) task with R rows.
        rows: R.
        seed: names three streams: of starts, of actions and of the environment's chances.
        greedy: take the modes of the policy instead of samples.
    """
    device = next(iter(meta.values())).device
    batch, length = trials.batch, trials.steps
    starts = _uniforms(seed, Purpose.RESET, (length + 1, rows, batch.reset_uniforms), device)
    chances = _uniforms(seed, Purpose.DYNAMICS, (length, rows, batch.step_uniforms), device)
    noise = draw_noise(learner.spec.action_space, stream(seed, Purpose.ACTION), (length, rows))
    drawn = torch.from_numpy(noise).to(device).unsqueeze(1)
    memory = learner.begin(meta, 1, rows)
    state, observation = trials.begin(starts[0])
    action: torch.Tensor | None = None
    step: TrialStep | None = None
    seen, done, log_probs, steps, episodes = [], [], [], [], []
    for t in range(length):
        distribution, memory = learner.act(meta, memory, _input(observation, action, step))
        action = distribution.sample(None if greedy else drawn[t])
        seen.append(observation)
        done.append(action)
        log_probs.append(distribution.log_prob(action))
        episodes.append(state.episode)
        state, step = trials.step(state, environment_action(learner.spec, action), chances[t], starts[t + 1])
        steps.append(step)
        observation = step.observation
        if t % _STOP_CHECK_STEPS == _STOP_CHECK_STEPS - 1 and not bool((state.episode < trials.episodes).any()):
            break

    def stacked(name: str) -> torch.Tensor:
        return torch.cat([getattr(one, name) for one in steps])

    return TrialRecord(
        observations=torch.cat(seen),
        outcomes=stacked("final_observation"),
        actions=torch.cat(done),
        log_probs=torch.cat(log_probs),
        rewards=stacked("reward"),
        terminated=stacked("terminated"),
        truncated=stacked("truncated"),
        trial_end=stacked("trial_end"),
        success=stacked("success"),
        episode=torch.cat(episodes),
        real=stacked("real"),
    )


def _input(observation: torch.Tensor, action: torch.Tensor | None, step: TrialStep | None) -> Input:
    """What the policy may look at; at the start of the trials, the observation alone."""
    if step is None:
        return Input(observation)
    return Input(
        observation=observation,
        previous_action=action,
        reward=step.reward,
        terminated=step.terminated,
        truncated=step.truncated,
        trial_end=step.trial_end,
    )


def _uniforms(seed: int, purpose: Purpose, shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """[T, 1, R, U] float64 in [0, 1)."""
    return torch.from_numpy(stream(seed, purpose).random(shape)).to(device).unsqueeze(1)

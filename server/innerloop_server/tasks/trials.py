"""Whole trials: all the episodes of a task's lifetime, one after another, with the flags that memory methods live by.

An episode ends by ``terminated`` or, at the horizon, by ``truncated`` (never both); then the next one starts at once,
until the last one ends the trial (``trial_end``). There are two faces of the same thing: :class:`Trials` steps a
:class:`~innerloop_server.tasks.batch.TaskBatch`, :class:`TrialEnv` wraps an environment. Imports no torch.

What a trial looks like to whoever trains through it::

    trials = Trials.of(family, parameters, device)
    state, observation = trials.begin(resets[0])                        # [B, N, ...]
    for t in range(trials.steps):
        action = ...                                                    # from observation and the step before
        state, step = trials.step(state, action, dynamics[t], resets[t + 1])
        observation = step.observation
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from innerloop.arrays import Arrays
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family

if TYPE_CHECKING:
    import torch

ObservationT = TypeVar("ObservationT")
ActionT = TypeVar("ActionT")


@dataclass(frozen=True)
class TrialState:
    """Where B x N trials are."""

    simulation: torch.Tensor
    """[B, N, S] float64: the state of the open episode, as the batch keeps it."""
    observation: torch.Tensor
    """[B, N, *O]: what it shows."""
    elapsed: torch.Tensor
    """[B, N] int64: steps taken in the open episode."""
    episode: torch.Tensor
    """[B, N] int64: episodes that are over; ``episodes`` where the trial is."""


@dataclass(frozen=True)
class TrialStep:
    """What one step of B x N trials brought. A row whose trial was over before it shows what it showed, and is zero and
    False in all else.
    """

    observation: torch.Tensor
    """[B, N, *O]: what to act on next: where an episode ended and another follows, the first of that other."""
    final_observation: torch.Tensor
    """[B, N, *O]: what the action led to. Where an episode ended this is its true last observation, from which a
    truncated one's value goes on; elsewhere it is ``observation``."""
    reward: torch.Tensor
    """[B, N] float32."""
    terminated: torch.Tensor
    """[B, N] bool: the episode ended by itself."""
    truncated: torch.Tensor
    """[B, N] bool: the episode ended by its horizon, and not by itself."""
    trial_end: torch.Tensor
    """[B, N] bool: that was the last episode. Memory is reset by this alone."""
    success: torch.Tensor
    """[B, N] bool: the environment called the step a success; False where it knows none."""
    real: torch.Tensor
    """[B, N] bool: the trial was still on when the action was taken."""


class Trials:
    """B tasks, N parallel trials each, of a fixed number of episodes. Pure, as the batch is: states in, states out.

    Episodes may end at different times in different rows. A row whose trial is over stays as it is and says nothing
    more (``TrialStep.real``).
    """

    def __init__(self, batch: TaskBatch, horizon: int, episodes: int) -> None:
        """Trials of these tasks.

        Args:
            batch: the B tasks.
            horizon: steps after which an episode is truncated.
            episodes: in a trial.

        Raises:
            ValueError: there is no step or no episode.
        """
        if horizon < 1 or episodes < 1:
            raise ValueError(f"a trial of {episodes} episodes of {horizon} steps has no step")
        self.batch = batch
        self.horizon = horizon
        self.episodes = episodes

    @classmethod
    def of(cls, family: Family, parameters: Arrays, device: torch.device) -> Trials:
        """Trials as the family defines them.

        Args:
            family: gives horizon and episodes.
            parameters: name -> [B, *shape] stacked over tasks.
            device: where to step.

        Raises:
            InvalidField: the family has no batch face.
        """
        return cls(family.batch(parameters, device), family.horizon, family.episodes_per_trial)

    @property
    def steps(self) -> int:
        """Steps after which every trial is over, whatever happens in it."""
        return self.horizon * self.episodes

    def begin(self, uniforms: torch.Tensor) -> tuple[TrialState, torch.Tensor]:
        """Start all trials.

        Args:
            uniforms: [B, N, batch.reset_uniforms] float64 in [0, 1).

        Returns:
            (state, observation [B, N, *O]).
        """
        simulation, observation = self.batch.reset(uniforms)
        none = simulation.new_zeros(simulation.shape[:2]).long()
        return TrialState(simulation, observation, none, none), observation

    def step(
        self,
        state: TrialState,
        action: torch.Tensor,
        uniforms: torch.Tensor | None = None,
        resets: torch.Tensor | None = None,
    ) -> tuple[TrialState, TrialStep]:
        """One step of every trial; where it ends an episode that is not the last, the next one starts.

        Args:
            state: from ``begin`` or ``step``; left as it is.
            action: [B, N, *A] float32 as an environment takes it, or [B, N] int64.
            uniforms: [B, N, batch.step_uniforms] float64 in [0, 1); may be left out where that is 0.
            resets: [B, N, batch.reset_uniforms] float64 in [0, 1), for the rows whose next episode starts; may be left
                out where that is 0.
        """
        real = state.episode < self.episodes
        simulation, reached, reward, terminated = self.batch.step(state.simulation, action, uniforms)
        success = self.batch.success(simulation) & real
        elapsed = state.elapsed + real.long()
        terminated = terminated & real
        truncated = (elapsed >= self.horizon) & real & ~terminated
        ended = terminated | truncated
        episode = state.episode + ended.long()
        trial_end = ended & (episode >= self.episodes)
        simulation = _where(real, simulation, state.simulation)
        reached = _where(real, reached, state.observation)
        observation = reached
        # On a device, asking whether any row restarts would cost more than restarting none.
        restart = ended & ~trial_end
        if restart.is_cuda or bool(restart.any()):
            if resets is None:
                resets = state.simulation.new_zeros((*restart.shape, 0))
            fresh, first = self.batch.reset(resets)
            simulation = _where(restart, fresh, simulation)
            observation = _where(restart, first, reached)
        after = TrialState(simulation, observation, elapsed * (~restart).long(), episode)
        return after, TrialStep(
            observation,
            reached,
            _where(real, reward, reward.new_zeros(())),
            terminated,
            truncated,
            trial_end,
            success,
            real,
        )


def _where(rows: torch.Tensor, yes: torch.Tensor, no: torch.Tensor) -> torch.Tensor:
    """``yes`` [B, N, ...] in the rows [B, N] that say so, else ``no`` (of the same shape, or a scalar)."""
    return yes.where(rows.reshape(*rows.shape, *(1,) * (yes.dim() - 2)), no)


class TrialEnv(gymnasium.Wrapper[ObservationT, ActionT, ObservationT, ActionT], RecordConstructorArgs):
    """A trial as one long episode, which terminates where the trial ends.

    ``info`` of each step holds ``terminated``, ``truncated`` and ``trial_end`` as :class:`TrialStep` does, and
    ``final_observation`` where an episode ended; the rest of it is the environment's own for that step.
    """

    def __init__(self, env: gymnasium.Env[ObservationT, ActionT], episodes: int) -> None:
        """Args:
            env: a task, time limit included.
            episodes: in a trial.

        Raises:
            ValueError: there is no episode.
        """
        if episodes < 1:
            raise ValueError(f"a trial of {episodes} episodes has no step")
        RecordConstructorArgs.__init__(self, episodes=episodes)
        super().__init__(env)
        self.episodes = episodes
        self.episode: int | None = None
        """Episodes that are over; ``None`` between trials."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObservationT, dict[str, Any]]:
        """Start a trial. Its later episodes go on drawing from the same stream."""
        self.episode = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: ActionT) -> tuple[ObservationT, float, bool, bool, dict[str, Any]]:
        """One step; where it ends an episode that is not the last, the next one starts.

        Raises:
            gymnasium.error.ResetNeeded: the trial is over, or never began.
        """
        if self.episode is None:
            raise gymnasium.error.ResetNeeded("the trial is over, or never began: call reset()")
        observation, reward, terminated, cut, info = self.env.step(action)
        truncated = cut and not terminated
        trial_end = False
        info = {**info, "terminated": terminated, "truncated": truncated}
        if terminated or truncated:
            info["final_observation"] = observation
            self.episode += 1
            trial_end = self.episode == self.episodes
            if trial_end:
                self.episode = None
            else:
                observation, _ = self.env.reset()
        info["trial_end"] = trial_end
        return observation, float(reward), trial_end, False, info

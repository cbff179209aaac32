"""Environments for the adapters: plain, vector in each autoreset mode, and one that cannot reset. No gymnasium.

Each counts: the observation of a row is its step in the episode (in every dimension), the reward is 1, and an episode
of row r ends after ``lengths[r]`` steps.
"""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

from innerloop.arrays import Box, Discrete

SEES = Box.of(-np.inf, np.inf, (4,))
DOES = Discrete(2)


class Counting:
    """A plain environment."""

    def __init__(self, length: int = 3, *, truncates: bool = False, spaces: bool = True) -> None:
        self.length = length
        self.truncates = truncates
        self.resets: list[int | None] = []
        self.actions: list[Any] = []
        self.t = 0
        if spaces:
            self.observation_space, self.action_space = SEES, DOES

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.resets.append(seed)
        self.t = 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self.t += 1
        done = self.t == self.length
        return self._see(), 1.0, done and not self.truncates, done and self.truncates, {}

    def _see(self) -> np.ndarray:
        return np.full(4, self.t, np.float64)


class Endless(Counting):
    """A robot: it cannot be reset twice."""

    def __init__(self) -> None:
        super().__init__(length=10**9)

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        assert not self.resets, "a robot cannot be reset"
        return super().reset(seed=seed)


class Mode(enum.Enum):
    """As in gymnasium 1.x."""

    NEXT_STEP = "NextStep"
    SAME_STEP = "SameStep"
    DISABLED = "Disabled"


class CountingVector:
    """A vector environment; row r's episodes have ``lengths[r]`` steps and end by truncation where r is odd."""

    def __init__(self, lengths: list[int], mode: Mode) -> None:
        self.num_envs = len(lengths)
        self.lengths = np.array(lengths)
        self.metadata = {"autoreset_mode": mode}
        self.mode = mode
        self.single_observation_space, self.single_action_space = SEES, DOES
        self.t = np.zeros(self.num_envs, int)
        self.ended = np.zeros(self.num_envs, bool)
        self.steps = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        mask = options["reset_mask"] if options else np.ones(self.num_envs, bool)
        self.t[mask] = 0
        self.ended[mask] = False
        return self._see(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        assert actions.shape == (self.num_envs,)
        self.steps += 1
        infos: dict[str, Any] = {}
        rewards = np.ones(self.num_envs)
        if self.mode is Mode.DISABLED:
            assert not self.ended.any(), "a row that has ended was stepped"
        resetting = self.ended & (self.mode is Mode.NEXT_STEP)
        self.t = np.where(resetting, 0, self.t + 1)
        rewards[resetting] = 0
        done = (self.t == self.lengths) & ~resetting
        self.ended = done.copy()
        odd = np.arange(self.num_envs) % 2 == 1
        observations = self._see()
        if self.mode is Mode.SAME_STEP and done.any():
            final = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(done):
                final[row] = observations[row].copy()
            infos = {"final_obs": final, "_final_obs": done.copy()}
            self.t[done] = 0
            self.ended[:] = False
            observations = self._see()
        return observations, rewards, done & ~odd, done & odd, infos

    def _see(self) -> np.ndarray:
        return np.repeat(self.t[:, None], 4, axis=1).astype(np.float32)

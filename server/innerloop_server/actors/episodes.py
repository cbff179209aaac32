"""Rows of one run, in progress: their environments, where each stands, and the trajectories so far."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from innerloop import policy
from innerloop.arrays import Array, Arrays, Discrete
from innerloop_server.actors.acting import Decision, log_probs_of
from innerloop_server.actors.environments import Environment, EnvironmentCache, parameters_hash
from innerloop_server.actors.messages import Run
from innerloop_server.domain import Supervision
from innerloop_server.streams import Purpose, derive, stream

MESSAGE_CHARACTERS = 500
"""A foreign exception's text is cut here."""


class RowsError(Exception):
    """These rows cannot go on. Its text is for a person and names the family."""


class Episodes:
    """n rows that start together, step together and end one by one. Answers once, as a whole.

    Raises:
        RowsError: from every method that touches an environment; the rows are then only good for ``discard``.
    """

    def __init__(self, run: Run, cache: EnvironmentCache) -> None:
        """Args:
            run: which rows of which order.
            cache: where environments come from and go back to.

        Raises:
            RowsError: weights or memory are not those that the header calls for.
        """
        order, header = run.order, run.order.header
        try:
            checked = policy.Policy(header, order.weights).weights
            start = {name: np.repeat(np.asarray(array)[None], run.rows, 0) for name, array in order.memory.items()}
            self.memory = policy.checked(header, start, run.rows)
            """[rows, ...] each: what each row remembers, and how its last step ended; empty without a memory."""
        except ValueError as error:  # a PolicyFormatError is one
            raise RowsError(f"family {order.family}: {error}") from None
        self.run = run
        self.weights: Arrays = {name: np.asarray(array, np.float32) for name, array in checked.items()}
        """float32 whatever was sent: a stray float64 would widen everything it is stacked with."""
        self.live: Array = np.arange(run.rows)
        """Rows that have not ended."""
        self.time = 0
        self._cache = cache
        self._digest = parameters_hash(order.parameters)
        self._environments: list[Environment] = []
        self._noise: list[Array] = []
        n, t = run.rows, order.horizon
        seen = np.int64 if isinstance(header.observation_space, Discrete) else np.float32
        discrete = isinstance(header.action_space, Discrete)
        self._current = np.zeros((n, *header.observation_space.shape), seen)
        self._observations = np.zeros((n, t, *header.observation_space.shape), seen)
        self._actions = np.zeros((n, t), np.int64) if discrete else np.zeros((n, t, header.action_size), np.float32)
        self._greedy = order.greedy or order.supervision is not None
        size = 0 if order.supervision is None else 1 if discrete else header.action_size
        self._feedback = np.zeros((n, t, size), np.float32)
        self._success = np.zeros(n, np.bool_)
        self._rewards = np.zeros((n, t), np.float32)
        self._log_probs = np.zeros((n, t), np.float32)
        self._lengths = np.zeros(n, np.int64)

    @property
    def started(self) -> bool:
        """Every row has been reset."""
        return len(self._environments) == self.run.rows

    @property
    def finished(self) -> bool:
        """Every row has ended."""
        return len(self.live) == 0

    @property
    def observation(self) -> Array:
        """[live, *O]: what the policy sees now."""
        return self._current[self.live]

    @property
    def remembered(self) -> Arrays:
        """[live, ...] each: the memory of the rows that have not ended."""
        return {name: array[self.live] for name, array in self.memory.items()}

    @property
    def noise(self) -> Array | None:
        """[live, d] for this step, as ``policy.draw_noise`` gives it; ``None`` when greedy."""
        return None if self._greedy else np.stack([self._noise[row][self.time] for row in self.live])

    def start_row(self) -> None:
        """Get the next row its environment and reset it."""
        order, row = self.run.order, len(self._environments)
        episode = self.run.start + row
        reset, action = Purpose.RESET, Purpose.ACTION
        if order.evaluation:
            reset, action = Purpose.EVALUATION_RESET, Purpose.EVALUATION_ACTION
        try:
            self._environments.append(self._cache.take(order.family, order.parameters, self._digest))
            seed = derive(order.seed, reset, order.step, order.phase, episode)
            options = None if order.supervision is None else {"episode": episode, "query": order.query}
            observation, _ = self._environments[row].reset(seed=seed, options=options)
            self._see(row, observation)
        except Exception as error:  # foreign code may raise anything
            raise self._trouble(f"at the reset of episode {episode}", error) from None
        self._require_finite("observation", self._current[row : row + 1])
        if not self._greedy:
            rng = stream(order.seed, action, order.step, order.phase, episode)
            self._noise.append(policy.draw_noise(order.header.action_space, rng, (order.horizon,)))

    def step(self, decision: Decision) -> None:
        """Step every live row with its action."""
        live, t = self.live, self.time
        self._require_finite("log-probability of the policy", decision.log_prob)
        self._observations[live, t] = self._current[live]
        self._actions[live, t] = decision.raw
        self._log_probs[live, t] = decision.log_prob
        actions = decision.environment.tolist() if decision.raw.ndim == 1 else decision.environment
        ends: list[tuple[bool, bool]] = []
        for index, row in enumerate(live.tolist()):
            try:
                observation, reward, terminated, truncated, info = self._environments[row].step(actions[index])
                self._see(row, observation)
                self._rewards[row, t] = reward
                self._success[row] |= bool(info.get("success", False))
                if self._feedback.shape[-1]:
                    self._feedback[row, t] = info["feedback"]
            except Exception as error:  # foreign code may raise anything
                raise self._trouble(f"at step {t} of episode {self.run.start + row}", error) from None
            ends.append((bool(terminated), bool(truncated) or t + 1 == self.run.order.horizon))
        self._require_finite("reward", self._rewards[live, t])
        self._require_finite("feedback", self._feedback[live, t])
        if self.run.order.supervision is Supervision.CLASSIFICATION:
            labels = self._feedback[live, t, 0].astype(np.int64)
            if (labels < 0).any() or (labels >= self.run.order.header.action_size).any():
                raise RowsError(f"family {self.run.order.family}: its feedback is no label at step {t}")
            seen = self._observations[live, t]
            self._log_probs[live, t] = log_probs_of(self.run.order.header, self.weights, seen, labels)
        self._require_finite("observation", self._current[live])
        self._lengths[live] = self.time = t + 1
        ended, cut = np.array(ends, np.bool_).T
        if self.memory:
            for name, array in decision.memory.items():
                self.memory[name][live] = array
            self.memory[policy.LAST_REWARD][live] = self._rewards[live, t]
            self.memory[policy.LAST_TERMINATED][live] = ended
            self.memory[policy.LAST_TRUNCATED][live] = cut & ~ended
        self.live = live[~(ended | cut)]

    def arrays(self) -> Arrays:
        """Fields of ``Experience`` for these rows, [n, ...], time cut where the last of them ended (what follows is
        zero, and would only cost the way home). No episode here is cut before its end.
        """
        n, t = self.run.rows, self.time
        return {
            "observations": self._observations[:, :t],
            "actions": self._actions[:, :t],
            "rewards": self._rewards[:, :t],
            "log_probs": self._log_probs[:, :t],
            "lengths": self._lengths,
            "bootstrap": np.zeros(n, np.bool_),
            "final_observations": self._current,
            "time_offset": np.zeros(n, np.int64),
            "feedback": self._feedback[:, :t],
            "success": self._success,
        }

    def release(self) -> None:
        """Give the environments back for others: the rows ended, or were dropped between two steps."""
        for environment in self._environments:
            self._cache.put(self.run.order.family, self._digest, environment)
        self._environments = []

    def discard(self) -> None:
        """Close the environments: one of them raised, and they may share what it broke."""
        for environment in self._environments:
            with contextlib.suppress(Exception):  # it is broken already, and that has been reported
                environment.close()
        self._environments = []

    def _see(self, row: int, observation: Any) -> None:
        shape = self.run.order.header.observation_space.shape
        if np.shape(observation) != shape:
            raise ValueError(f"an observation of shape {np.shape(observation)}, the policy takes {shape}")
        self._current[row] = observation

    def _require_finite(self, what: str, values: Array) -> None:
        if not np.isfinite(values).all():
            raise RowsError(f"family {self.run.order.family}: the {what} is not finite at step {self.time}")

    def _trouble(self, where: str, error: Exception) -> RowsError:
        text = f"{type(error).__name__}: {error}"[:MESSAGE_CHARACTERS]
        return RowsError(f"family {self.run.order.family}: its environment failed {where}: {text}")

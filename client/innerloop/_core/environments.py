"""Environments that the caller owns, all seen as rows that never stop: plain ones, vector ones in each autoreset
mode, and robots that cannot reset.

Nothing here imports gymnasium. An environment is anything with ``reset() -> (observation, info)`` and
``step(action) -> (observation, reward, terminated, truncated, info)``; a vector environment also has ``num_envs``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from innerloop.arrays import Array, Box, Discrete, Space


@dataclass(frozen=True)
class Report:
    """What R rows did since the last report. Where an episode ended, ``observations`` is the first of the next."""

    rows: Array
    """[R] int64 ids."""
    observations: Array
    """[R, *O]."""
    rewards: Array
    """[R] float32."""
    terminated: Array
    truncated: Array
    """[R] bool."""
    final_observations: Array
    """[R, *O] what was seen after the last step of an episode; zero elsewhere."""
    acted: bool = True
    """False for the first report after a start: there were no actions, so there are no rewards."""

    @property
    def done(self) -> Array:
        """[R] bool: the episode ended."""
        ended: Array = self.terminated | self.truncated
        return ended


class Rows(Protocol):
    """Environments as rows."""

    def start(self) -> Report:
        """Begin (again), with an observation of every row. Episodes that were open are dropped."""
        ...

    def step(self, rows: Array, actions: Array) -> Report:
        """Act in the rows of the last report.

        Args:
            rows: [R] ids, as in that report.
            actions: [R, *action_shape].
        """
        ...


def rows_of(
    env: Any, observation_space: Space, action_space: Space, *, seed: int | None, continuing: bool, segment: int
) -> Rows:
    """The caller's environment as rows.

    Args:
        env: the environment, or vector of environments.
        observation_space: what it shows.
        action_space: what it takes.
        seed: passed to the first ``reset``; ``None``: nothing is passed.
        continuing: it cannot reset: ``reset`` is called once, for the first observation, and its one endless episode
            is cut into segments.
        segment: steps of a segment.

    Raises:
        ValueError: ``segment`` below 1, or an autoreset mode that nobody knows.
    """
    face = _Face(env, observation_space, action_space, seed)
    rows: Rows
    if hasattr(env, "num_envs"):
        rows = _vector_rows(face, int(env.num_envs), resets=not continuing)
    else:
        rows = PlainRows(face, resets=not continuing)
    if continuing:
        if segment < 1:
            raise ValueError(f"segment is {segment}; a segment has at least one step")
        return SegmentedRows(rows, segment)
    return rows


def check_environment(env: Any, learner: Any) -> None:
    """Refuse what cannot be stepped, while it is still plain what the caller meant.

    Raises:
        TypeError: ``env`` has no ``reset`` and ``step``.
    """
    if callable(getattr(env, "reset", None)) and callable(getattr(env, "step", None)):
        return
    if not isinstance(learner, str):
        raise TypeError(
            f"env is {env!r} and learner {type(learner).__name__}: they are swapped; adapt_env(env, learner)"
        )
    if isinstance(env, str):
        raise TypeError(f"env is the text {env!r}; pass the environment itself, such as gymnasium.make({env!r})")
    raise TypeError(f"env is {type(env).__name__}, which has no reset() and step()")


def spaces_of(env: Any) -> tuple[Space | str | None, Space | str | None]:
    """The environment's observation and action space: a :data:`Space`, ``None`` where it has none, or its text where
    it is of a kind that no learner takes.
    """
    single = hasattr(env, "num_envs")
    return tuple(  # type: ignore[return-value]
        _space(getattr(env, f"single_{kind}_space" if single else f"{kind}_space", None))
        for kind in ("observation", "action")
    )


def _space(space: Any) -> Space | str | None:
    if space is None or isinstance(space, Box | Discrete):
        return space
    if all(hasattr(space, name) for name in ("low", "high", "shape")):
        return Box.of(np.asarray(space.low), np.asarray(space.high), tuple(space.shape))
    if hasattr(space, "n") and not getattr(space, "shape", ()):
        return Discrete(int(space.n))
    return str(space)


class _Face:
    """One way to talk to an environment: observations in the policy's dtype, actions in the environment's."""

    def __init__(self, env: Any, observation_space: Space, action_space: Space, seed: int | None) -> None:
        self.env = env
        self.shape = observation_space.shape
        self._observation_dtype = np.int64 if isinstance(observation_space, Discrete) else np.float32
        self._discrete = isinstance(action_space, Discrete)
        self.action_shape = action_space.shape
        vector = hasattr(env, "num_envs")
        own_actions = getattr(env, "single_action_space" if vector else "action_space", None)
        own_observations = getattr(env, "single_observation_space" if vector else "observation_space", None)
        self._action_dtype = getattr(own_actions, "dtype", None) or (np.int64 if self._discrete else np.float32)
        # gymnasium's Discrete may begin elsewhere than at 0; learners count from 0
        self._action_start = int(getattr(own_actions, "start", 0)) if self._discrete else 0
        discrete = isinstance(observation_space, Discrete)
        self._observation_start = int(getattr(own_observations, "start", 0)) if discrete else 0
        self._seed = seed

    def reset(self) -> Any:
        seed, self._seed = self._seed, None
        observation, _ = self.env.reset() if seed is None else self.env.reset(seed=seed)
        return self.observation(observation)

    def observation(self, value: Any) -> Array:
        array = np.asarray(value) - self._observation_start if self._observation_start else np.asarray(value)
        return array.astype(self._observation_dtype)

    def actions(self, actions: Array) -> Array:
        return (actions + self._action_start if self._discrete else actions).astype(self._action_dtype)

    def action(self, actions: Array) -> Any:
        one = self.actions(actions)[0]
        return int(one) if self._discrete else one


class PlainRows:
    """One environment: one row."""

    def __init__(self, face: _Face, *, resets: bool) -> None:
        self._face = face
        self._resets = resets
        self._current: Array | None = None

    def start(self) -> Report:
        """As in :class:`Rows`. One that cannot reset goes on from where it is."""
        if self._current is None or self._resets:
            self._current = self._face.reset()
        return _first(self._current[None])

    def step(self, rows: Array, actions: Array) -> Report:
        """As in :class:`Rows`."""
        observation, reward, terminated, truncated, _ = self._face.env.step(self._face.action(actions))
        final = self._face.observation(observation)
        ended = bool(terminated) or bool(truncated)
        self._current = self._face.reset() if ended and self._resets else final
        return Report(
            rows=rows,
            observations=self._current[None],
            rewards=np.array([reward], np.float32),
            terminated=np.array([bool(terminated)]),
            truncated=np.array([bool(truncated) and not bool(terminated)]),
            final_observations=(final if ended else np.zeros_like(final))[None],
        )


class VectorRows:
    """A vector environment that gives the next first observation in the step that ends an episode."""

    def __init__(self, face: _Face, count: int, finish: Callable[[Array, Array, Any], tuple[Array, Array]]) -> None:
        """Args:
        face: the environment.
        count: its rows.
        finish: (observations, done, infos) -> (observations to go on from, final observations).
        """
        self._face = face
        self._count = count
        self._finish = finish
        self._current: Array | None = None

    def start(self) -> Report:
        """As in :class:`Rows`."""
        self._current = self._face.reset()
        return _first(self._current)

    def step(self, rows: Array, actions: Array) -> Report:
        """As in :class:`Rows`."""
        observed, rewards, terminated, truncated, infos = self._face.env.step(self._face.actions(actions))
        terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)
        observations, final = self._finish(self._face.observation(observed), terminated | truncated, infos)
        return Report(
            rows=rows,
            observations=observations,
            rewards=np.asarray(rewards, np.float32),
            terminated=terminated,
            truncated=truncated & ~terminated,
            final_observations=final,
        )


class NextStepRows:
    """A vector environment that resets in the step after the one that ended an episode (gymnasium's default).

    What such a row did is held back until its next first observation is known: a report needs both.
    """

    def __init__(self, face: _Face, count: int) -> None:
        self._face = face
        self._count = count
        self._held: Report | None = None
        self._filler = np.zeros((count, *face.action_shape), np.int64 if face._discrete else np.float32)

    def start(self) -> Report:
        """As in :class:`Rows`."""
        self._held = None
        return _first(self._face.reset())

    def step(self, rows: Array, actions: Array) -> Report:
        """As in :class:`Rows`."""
        full = self._filler.copy()
        full[rows] = actions
        while True:
            report = self._once(full)
            if len(report.rows):
                return report

    def _once(self, actions: Array) -> Report:
        observed, rewards, terminated, truncated, _ = self._face.env.step(self._face.actions(actions))
        observations = self._face.observation(observed)
        terminated = np.asarray(terminated, bool)
        truncated = np.asarray(truncated, bool) & ~terminated
        now = Report(
            rows=np.arange(self._count),
            observations=observations,
            rewards=np.array(rewards, np.float32),
            terminated=terminated.copy(),
            truncated=truncated.copy(),
            final_observations=_where(terminated | truncated, observations),
        )
        ended = now.done
        if self._held is not None:  # these rows were reset just now: the end of their episode can be told
            for i, row in enumerate(self._held.rows):
                now.rewards[row] = self._held.rewards[i]
                now.terminated[row] = self._held.terminated[i]
                now.truncated[row] = self._held.truncated[i]
                now.final_observations[row] = self._held.final_observations[i]
        self._held = _take(now, ended) if ended.any() else None
        return _take(now, ~ended)


class SegmentedRows:
    """Rows of one endless episode each, cut into segments: a cut is a truncation, and the next segment begins where
    the last one stopped.
    """

    def __init__(self, rows: Rows, segment: int) -> None:
        self._rows = rows
        self._segment = segment
        self._age: dict[int, int] = {}

    def start(self) -> Report:
        """As in :class:`Rows`."""
        self._age = {}
        return self._rows.start()

    def step(self, rows: Array, actions: Array) -> Report:
        """As in :class:`Rows`."""
        report = self._rows.step(rows, actions)
        cut = np.zeros(len(report.rows), bool)
        for i, row in enumerate(report.rows.tolist()):
            age = self._age.get(row, 0) + 1
            cut[i] = age >= self._segment and not report.done[i]
            self._age[row] = 0 if cut[i] or report.done[i] else age
        final = report.final_observations.copy()
        final[cut] = report.observations[cut]
        return replace(report, truncated=report.truncated | cut, final_observations=final)


def _vector_rows(face: _Face, count: int, *, resets: bool) -> Rows:
    mode = _autoreset_mode(face.env)
    if not resets:
        return _ContinuingVector(face, count, lambda observations, done, _: (observations, _where(done, observations)))
    if mode == "nextstep":
        return NextStepRows(face, count)
    if mode == "samestep":

        def same_step(observations: Array, done: Array, infos: Any) -> tuple[Array, Array]:
            return observations, _final_from_infos(face, observations, done, infos)

        return VectorRows(face, count, same_step)
    if mode == "disabled":

        def reset_by_mask(observations: Array, done: Array, _: Any) -> tuple[Array, Array]:
            final = _where(done, observations)
            if not done.any():
                return observations, final
            again, _info = face.env.reset(options={"reset_mask": done})
            return face.observation(again), final

        return VectorRows(face, count, reset_by_mask)
    raise ValueError(f"autoreset mode {mode!r} is unknown; use NEXT_STEP, SAME_STEP or DISABLED")


class _ContinuingVector(VectorRows):
    """A fleet of robots that cannot reset: after a lost stream they go on from where they are."""

    def start(self) -> Report:
        """As in :class:`Rows`."""
        return super().start() if self._current is None else _first(self._current)

    def step(self, rows: Array, actions: Array) -> Report:
        """As in :class:`Rows`."""
        report = super().step(rows, actions)
        self._current = report.observations
        return report


def _autoreset_mode(env: Any) -> str:
    mode = (getattr(env, "metadata", None) or {}).get("autoreset_mode", "next_step")
    return str(getattr(mode, "name", mode)).replace("_", "").lower()


def _final_from_infos(face: _Face, observations: Array, done: Array, infos: Any) -> Array:
    """Same-step autoreset puts the last observations into ``infos["final_obs"]``: an array of objects, ``None`` for
    the rows that go on.
    """
    final = np.zeros_like(observations)
    if not done.any():
        return final
    told = infos.get("final_obs", infos.get("final_observation"))
    if told is None:
        raise ValueError(
            "the vector environment resets in the same step but its infos hold no 'final_obs': the value of a "
            "truncated episode cannot be known"
        )
    for row in np.flatnonzero(done):
        final[row] = face.observation(told[row])
    return final


def _where(mask: Array, observations: Array) -> Array:
    final = np.zeros_like(observations)
    final[mask] = observations[mask]
    return final


def _first(observations: Array) -> Report:
    count = len(observations)
    return Report(
        rows=np.arange(count),
        observations=observations,
        rewards=np.zeros(count, np.float32),
        terminated=np.zeros(count, bool),
        truncated=np.zeros(count, bool),
        final_observations=np.zeros_like(observations),
        acted=False,
    )


def _take(report: Report, mask: Array) -> Report:
    return Report(
        rows=report.rows[mask],
        observations=report.observations[mask],
        rewards=report.rewards[mask],
        terminated=report.terminated[mask],
        truncated=report.truncated[mask],
        final_observations=report.final_observations[mask],
    )

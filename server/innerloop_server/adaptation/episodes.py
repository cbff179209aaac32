"""From the rows that a client reports to complete episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from innerloop.arrays import Array
from innerloop_server.adaptation.messages import Observe, Trajectories
from innerloop_server.adaptation.orders import Acted
from innerloop_server.domain import Experience
from innerloop_server.errors import Exhausted, InvalidField

MOST_PENDING_STEPS = 1_000_000
"""Environment steps that may wait for an adaptation step, per session: those of open episodes, and of complete ones
padded to the longest, since that is what the step allocates."""


@dataclass(frozen=True)
class Episode:
    """One complete episode of T steps."""

    observations: Array
    """[T, *O] float32."""
    actions: Array
    """[T, A] float32 or [T] int64, raw."""
    rewards: Array
    """[T] float32."""
    log_probs: Array
    """[T] float32; NaN where unknown."""
    bootstrap: bool
    """It was cut before its end, and goes on from ``final_observation``."""
    final_observation: Array
    """[*O] float32."""
    feedback: Array
    """[T, F] float32."""
    entropy: float = 0.0
    """Of the policy that played it, in nats, mean over its steps; where a method remembers, else not looked at."""

    @property
    def total_reward(self) -> float:
        """Undiscounted, summed in float64."""
        return float(self.rewards.sum(dtype=np.float64))


@dataclass
class _OpenEpisode:
    observations: list[Array] = field(default_factory=list)
    actions: list[Array] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)


class EpisodeBook:
    """The episodes of one client-owned session: open ones by row, complete ones in order. Owned by the session."""

    def __init__(self, horizon: int, *, supervised: bool = False) -> None:
        """Args:
        horizon: of the learner's family; an episode cut exactly there ends there, with nothing to bootstrap from.
        supervised: an example is complete when its answer comes, and forgotten when something else comes.
        """
        self._horizon = horizon
        self._supervised = supervised
        self._open: dict[int, _OpenEpisode] = {}
        self._complete: list[Episode] = []
        self._longest = 0
        """Of the complete episodes."""
        self._open_steps = 0

    @property
    def pending(self) -> int:
        """Complete episodes that wait for the next step."""
        return len(self._complete)

    def report(self, message: Observe) -> None:
        """Take in what the rows did since their last actions.

        Raises:
            Exhausted: too much waits for a step.
        """
        self._check_room((), len(message.row_ids))
        for i, row in enumerate(message.row_ids):
            episode = self._open.get(row)
            if episode is None:
                continue  # the row's first message: there was no action to reward
            episode.rewards.append(float(message.rewards[i]))
            terminated, truncated = bool(message.terminated[i]), bool(message.truncated[i])
            if terminated or truncated:
                self._drop_row(row)
                feedback = None if message.feedback is None else message.feedback[i : i + 1]
                self._close(episode, truncated and not terminated, message.final_observations[i], feedback)
            elif message.report_only or self._supervised:
                self._drop_row(row)

    def acted(self, message: Observe, acted: Acted) -> None:
        """Take in the actions that the rows were given."""
        for i, row in enumerate(message.row_ids):
            episode = self._open.setdefault(row, _OpenEpisode())
            episode.observations.append(message.observations[i])
            episode.actions.append(acted.raw_actions[i])
            episode.log_probs.append(float(acted.log_probs[i]))
            if acted.entropies is not None:
                episode.entropies.append(float(acted.entropies[i]))
            self._open_steps += 1

    def add(self, message: Trajectories) -> None:
        """Take in whole episodes.

        Raises:
            Exhausted: too much waits for a step.
        """
        lengths: list[int] = message.lengths.tolist()
        self._check_room(lengths, 0)
        for i, length in enumerate(lengths):
            if message.log_probs is None:
                log_probs = np.full(length, np.nan, np.float32)
            else:
                log_probs = message.log_probs[i, :length].copy()
            self._append(
                Episode(  # copies: a slice would keep the whole message alive
                    observations=message.observations[i, :length].copy(),
                    actions=message.raw_actions[i, :length].copy(),
                    rewards=message.rewards[i, :length].copy(),
                    log_probs=log_probs,
                    bootstrap=bool(message.truncated[i]) and length != self._horizon,
                    final_observation=message.final_observations[i].copy(),
                    feedback=(
                        np.zeros((length, 0), np.float32)
                        if message.feedback is None
                        else message.feedback[i, :length].copy()
                    ),
                )
            )

    def note_entropies(self, entropies: Array) -> None:
        """Note the policy's entropy [N] in the N newest complete episodes."""
        first = len(self._complete) - len(entropies)
        for i, entropy in enumerate(entropies.tolist()):
            self._complete[first + i] = replace(self._complete[first + i], entropy=entropy)

    def complete(self) -> tuple[Episode, ...]:
        """The complete episodes, oldest first."""
        return tuple(self._complete)

    def drop(self, n: int) -> None:
        """Forget the ``n`` oldest complete episodes: a durable step has learned from them."""
        del self._complete[:n]
        self._measure()

    def keep(self, n: int) -> None:
        """Forget all complete episodes but the ``n`` oldest."""
        del self._complete[n:]
        self._measure()

    def drop_open(self) -> None:
        """Forget the open episodes: after a lost stream the client restarts them."""
        self._open.clear()
        self._open_steps = 0

    def _close(self, episode: _OpenEpisode, truncated: bool, final_observation: Array, feedback: Array | None) -> None:
        length = len(episode.rewards)
        self._check_room([length], 0)
        self._append(
            Episode(
                observations=np.stack(episode.observations),
                actions=np.stack(episode.actions),
                rewards=np.asarray(episode.rewards, np.float32),
                log_probs=np.asarray(episode.log_probs, np.float32),
                bootstrap=truncated and length != self._horizon,
                final_observation=final_observation.copy(),
                feedback=np.zeros((length, 0), np.float32) if feedback is None else feedback.copy(),
                entropy=float(np.mean(episode.entropies)) if episode.entropies else 0.0,
            )
        )

    def _append(self, episode: Episode) -> None:
        self._complete.append(episode)
        self._longest = max(self._longest, len(episode.rewards))

    def _measure(self) -> None:
        self._longest = max((len(episode.rewards) for episode in self._complete), default=0)

    def _drop_row(self, row: int) -> None:
        self._open_steps -= len(self._open.pop(row).observations)

    def _check_room(self, lengths: Sequence[int], opening: int) -> None:
        """Refuse what would take too much: ``lengths`` more complete episodes, ``opening`` more open steps."""
        padded = (len(self._complete) + len(lengths)) * max(self._longest, *lengths, 0)
        if padded + self._open_steps + opening > MOST_PENDING_STEPS:
            raise Exhausted(
                f"with these, {padded + self._open_steps + opening} environment steps (episodes padded to the longest) "
                f"would wait for an adaptation step, {MOST_PENDING_STEPS} may; send advance",
                reason="PENDING_EXPERIENCE",
                retry_after_seconds=None,
            )


def stack(episodes: Sequence[Episode]) -> tuple[Experience[Array], Array]:
    """Complete episodes as one padded batch of one task.

    Returns:
        (experience with B = 1 and T the longest episode, [N] undiscounted returns in float64).

    Raises:
        InvalidField: there are none.
    """
    if not episodes:
        raise InvalidField("experience", "there is no episode to stack")
    longest = max(len(episode.rewards) for episode in episodes)

    def padded(arrays: Sequence[Array]) -> Array:
        out = np.zeros((1, len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
        for i, array in enumerate(arrays):
            out[0, i, : len(array)] = array
        return out

    bootstrap = np.array([[episode.bootstrap for episode in episodes]])
    final = np.stack([episode.final_observation for episode in episodes])[None]
    experience = Experience(
        observations=padded([episode.observations for episode in episodes]),
        actions=padded([episode.actions for episode in episodes]),
        rewards=padded([episode.rewards for episode in episodes]),
        log_probs=padded([episode.log_probs for episode in episodes]),
        lengths=np.array([[len(episode.rewards) for episode in episodes]], np.int64),
        bootstrap=bootstrap,
        final_observations=np.where(bootstrap.reshape(1, -1, *(1,) * (final.ndim - 2)), final, 0).astype(np.float32),
        time_offset=np.zeros((1, len(episodes)), np.int64),
        feedback=padded([episode.feedback for episode in episodes]),
        success=np.zeros((1, len(episodes)), np.bool_),
    )
    returns = np.array([episode.total_reward for episode in episodes])
    return experience, returns

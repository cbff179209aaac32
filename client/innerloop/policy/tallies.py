"""What a policy counts: how often each action was taken in each state of its trial, and what it was paid.

Of families whose states and actions are numbers. They are part of the memory, and of the input: of the present state,
for each action, the posterior mean of its reward and ``1 / sqrt(count + 1)``. The reward is taken as normal, of known
variance, around a mean that is itself normal around ``tally_mean``, as if ``tally_strength`` rewards had been seen
before: after n that sum to s its posterior mean is ``(tally_strength * tally_mean + s) / (tally_strength + n)``.
"""

from __future__ import annotations

import numpy as np

from innerloop.arrays import Array, Arrays, Discrete
from innerloop.policy.header import Header

COUNT = "tally.count"
"""[R, S, A] float32: how often."""
PAID = "tally.paid"
"""[R, S, A] float32: the sum of rewards."""
STATE = "tally.state"
"""[R] int64: the state that the last action was taken in."""


def empty_tallies(header: Header, rows: int) -> dict[str, Array]:
    """Nothing counted."""
    table = np.zeros((rows, header.observation_size, header.action_size), np.float32)
    return {COUNT: table, PAID: table.copy(), STATE: np.zeros(rows, np.int64)}


def tallied(memory: Arrays, state: Array, action: Array, reward: Array, first: Array) -> dict[str, Array]:
    """The tallies with the step before counted in.

    Args:
        memory: holds the tallies, [..., R, S, A] and [..., R].
        state: [..., R] int64: the present one.
        action: [..., R] int64: of the step before.
        reward: [..., R] that it brought.
        first: [..., R] bool: rows at their trial's first step. Nothing is counted yet, and what was is forgotten.
    """
    count, paid, before = memory[COUNT], memory[PAID], memory[STATE]
    states, actions = count.shape[-2:]
    in_state, by_action = np.eye(states, dtype=np.float32)[before], np.eye(actions, dtype=np.float32)[action]
    there: Array = in_state[..., None] * by_action[..., None, :]
    new, zero = first[..., None, None], np.float32(0)
    return {
        COUNT: np.where(new, zero, count + there),
        PAID: np.where(new, zero, paid + there * reward[..., None, None].astype(np.float32)),
        STATE: state.astype(np.int64),
    }


def seen_tallies(header: Header, tallies: Arrays) -> Array:
    """What the network reads of them, [..., R, 2 * A]: of the present state, by how much each action's posterior mean
    exceeds ``tally_mean``, and ``1 / sqrt(count + 1)``.
    """
    here = tallies[STATE][..., None, None]
    count, paid = (np.take_along_axis(tallies[name], here, -2)[..., 0, :] for name in (COUNT, PAID))
    mean, strength = np.float32(header.tally_mean), np.float32(header.tally_strength)
    gain: Array = (paid - count * mean) / (strength + count)
    return np.concatenate([gain, 1 / np.sqrt(count + np.float32(1))], -1)


def tally_size(header: Header) -> int:
    """Width of :func:`seen_tallies`; 0 where nothing is counted."""
    return 2 * header.action_size if header.tallies else 0


def can_tally(header: Header) -> bool:
    """States and actions are numbers."""
    return isinstance(header.observation_space, Discrete) and isinstance(header.action_space, Discrete)

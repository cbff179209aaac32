"""Finite-horizon planning in many tabular MDPs at once. Pure numpy.

M MDPs, S states, A actions, H steps.
"""

from __future__ import annotations

import numpy as np

from innerloop.arrays import Array


def plan(transitions: Array, rewards: Array, horizon: int) -> tuple[Array, Array]:
    """Value iteration backwards from the last step (Puterman 1994, section 4.5).

    Args:
        transitions: [M, S, A, S] probabilities of the next state.
        rewards: [M, S, A] expected rewards.
        horizon: H, at least 1.

    Returns:
        (actions [M, H, S] int64: the best in each state at each step, ties to the lowest number; values [M, S]: the
        expected sum of H rewards from each state).
    """
    m, s, a, _ = transitions.shape
    rows = transitions.reshape(m, s * a, s)
    actions = np.empty((m, horizon, s), np.int64)
    values = np.zeros((m, s))
    for t in reversed(range(horizon)):
        gains = rewards + (rows @ values[..., None]).reshape(m, s, a)
        actions[:, t] = gains.argmax(-1)
        values = gains.max(-1)
    return actions, values


def evaluate(transitions: Array, rewards: Array, actions: Array) -> Array:
    """The expected sum of rewards of a policy that looks at state and time.

    Args:
        transitions: [M, S, A, S].
        rewards: [M, S, A].
        actions: [M, H, S], as :func:`plan` gives them.

    Returns:
        [M, S]: from each state.
    """
    mdps, states = np.ogrid[: len(actions), : actions.shape[2]]
    values = np.zeros(rewards.shape[:2])
    for t in reversed(range(actions.shape[1])):
        chosen = actions[:, t]
        values = rewards[mdps, states, chosen] + (transitions[mdps, states, chosen] * values[:, None]).sum(-1)
    return values

"""The client's own environment: a point in a current, with the spaces of navigation-2d and physics of its own.

Where an episode starts is a function of (adaptation step, episode), so that a client which runs an episode again after
a fault runs the same one.
"""

from __future__ import annotations

import numpy as np

from innerloop.arrays import Array, Box

OBSERVATIONS = Box.of(-10.0, 10.0, (2,))
ACTIONS = Box.of(-0.1, 0.1, (2,))
LENGTH = 6
"""Steps of every episode; then it terminates."""
CURRENT = np.array([0.02, -0.01])
GOAL = np.array([0.3, 0.2])


class Drift:
    """R episodes side by side."""

    def __init__(self, step: int, episodes: tuple[int, ...]) -> None:
        starts = [np.random.default_rng((step, episode)).uniform(-0.2, 0.2, 2) for episode in episodes]
        self._position = np.stack(starts)
        self._left = LENGTH

    @property
    def observations(self) -> Array:
        """[R, 2] float32."""
        return self._position.astype(np.float32)

    def move(self, actions: Array) -> tuple[Array, bool]:
        """Drift and move.

        Returns:
            ([R] float32 rewards, whether all episodes have ended).
        """
        self._position = self._position + CURRENT + np.clip(actions, -0.1, 0.1)
        self._left -= 1
        return -np.linalg.norm(self._position - GOAL, axis=-1).astype(np.float32), self._left == 0

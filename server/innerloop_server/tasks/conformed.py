"""Foreign environments in the numbers of a policy: float32 observations, actions of the environment's dtype."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from innerloop.arrays import Space
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.family import space_of

_BOX = gymnasium.spaces.Box
_WRAP = "wrap the environment so that it is a Box or a Discrete from 0 (gymnasium.wrappers.FlattenObservation, ...)"


def carried(space: gymnasium.Space[Any], field: str) -> Space:
    """A Gymnasium space in our words.

    Args:
        space: of an environment.
        field: ``observation_space`` or ``action_space``, for errors.

    Raises:
        InvalidField: neither Box nor Discrete from 0, or a Box without dimensions.
    """
    if isinstance(space, _BOX) and (space.shape == () or 0 in space.shape):
        raise InvalidField(field, f"{space} has no dimensions; {_WRAP}")
    try:
        return space_of(space)
    except InvalidField as error:
        raise InvalidField(field, f"{space} cannot be carried; {_WRAP}") from error


class Conformed(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Casts between an environment's numbers and float32. Build it by :meth:`around`."""

    @classmethod
    def around(cls, environment: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        """``environment``, wrapped where one of its Boxes is not float32."""
        boxes = [s for s in (environment.observation_space, environment.action_space) if isinstance(s, _BOX)]
        return environment if all(box.dtype == np.float32 for box in boxes) else cls(environment)

    def __init__(self, environment: gymnasium.Env[Any, Any]) -> None:
        """Args:
            environment: any.

        Raises:
            InvalidField: its actions are a Box of whole numbers, which a policy does not give.
        """
        super().__init__(environment)
        action = environment.action_space
        self._taken = action if isinstance(action, _BOX) else None
        if self._taken is not None and self._taken.dtype.kind != "f":
            raise InvalidField("action_space", f"{action} takes whole numbers, which a policy does not give; {_WRAP}")
        self.observation_space = _float32(environment.observation_space)
        self.action_space = _float32(action)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's, the observation cast."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._cast(observation), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, action and observation cast."""
        if self._taken is not None:  # a bound rounded to float32 may lie outside the environment's own
            action = np.clip(np.asarray(action, self._taken.dtype), self._taken.low, self._taken.high)
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._cast(observation), reward, terminated, truncated, info

    def _cast(self, observation: Any) -> Any:
        return np.asarray(observation, np.float32) if isinstance(self.observation_space, _BOX) else observation


def _float32(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    if not isinstance(space, _BOX) or space.dtype == np.float32:
        return space
    with np.errstate(over="ignore"):  # a bound past float32 is no bound
        return _BOX(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)

"""A task's parameters as numbers, for a value that is told them in training. Without torch: planning asks how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from innerloop.arrays import Array
from innerloop_server.domain import Task
from innerloop_server.tasks import visible
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import stack_parameters

MOST_NUMBERS = 1_024
"""A task that takes more to tell is not told."""


def size(family: Family) -> int:
    """P, the numbers that tell a task of this family: 0 where that would be none, too many, or not only numbers."""
    parts = family.parameter_space.spaces
    if not all(isinstance(part, gymnasium.spaces.Box | gymnasium.spaces.Discrete) for part in parts.values()):
        return 0
    if sum(_most(part) for part in parts.values()) > MOST_NUMBERS:
        return 0
    blank = {name: np.zeros((1, *(part.shape or ()))) for name, part in parts.items()}
    return int(_numbers(family.parameter_space, blank).shape[1])


def of(family: Family, tasks: Sequence[Task]) -> Array:
    """What tells each task.

    Args:
        family: theirs; ``size(family)`` is not 0.
        tasks: R of them.

    Returns:
        [R, P] float32: parameters as an oracle sees them (:mod:`innerloop_server.tasks.visible`), those without bounds
        as they are.
    """
    return _numbers(family.parameter_space, stack_parameters(tasks))


def _numbers(space: gymnasium.spaces.Dict, parameters: Mapping[str, Array]) -> Array:
    columns = [np.zeros((len(next(iter(parameters.values()), np.zeros(1))), 0), np.float32)]
    for name, part in space.spaces.items():
        value = np.asarray(parameters[name])
        if isinstance(part, gymnasium.spaces.Box) and not part.is_bounded():
            columns.append(value.reshape(len(value), -1).astype(np.float32))
        else:
            columns.append(visible.normalise(gymnasium.spaces.Dict({name: part}), {name: value}))
    return np.concatenate(columns, 1)


def _most(part: gymnasium.Space[Any]) -> int:
    return int(part.n) if isinstance(part, gymnasium.spaces.Discrete) else int(np.prod(part.shape or ()))

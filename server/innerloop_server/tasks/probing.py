"""A look at somebody's environment, in a process of its own: one that crashes or hangs takes nobody along.

``python -m innerloop_server.tasks.probing`` reads a definition as JSON, makes its environment at both ends of its
parameters and between, takes a step in each, and writes what the spaces are, or what went wrong, as the last line of
its output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
import textwrap
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np

from innerloop.arrays import Discrete, Space, space_from_json, space_to_json
from innerloop_server.domain import Task
from innerloop_server.errors import InnerloopError, InvalidField
from innerloop_server.tasks.conformed import carried
from innerloop_server.tasks.definition import DefinedFamily, FamilyDefinition
from innerloop_server.tasks.gymnasium_family import Apply, Environment, plain

MODULE = "innerloop_server.tasks.probing"
TIMEOUT_SECONDS = 60.0
_LONGEST = 500
"""Characters of somebody's error that are passed on."""
_BOX = gymnasium.spaces.Box


async def probed(definition: FamilyDefinition, timeout_seconds: float = TIMEOUT_SECONDS) -> FamilyDefinition:
    """``definition`` with the spaces that its environment has.

    Raises:
        InvalidField: it cannot be made, reset and stepped, takes longer than the timeout, ends its process, has a
            space that cannot be carried or another for other parameters, or does not keep its parameters.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", MODULE),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            said, _ = await process.communicate(json.dumps(definition.to_json()).encode())
    except TimeoutError:
        raise InvalidField(
            "env_id", f"{definition.env_id} was not made, reset and stepped within {timeout_seconds:g} s"
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0 or not said.strip():
        raise InvalidField("env_id", f"{definition.env_id} ended its process with status {process.returncode}")
    answer = json.loads(said.splitlines()[-1])
    if "error" in answer:
        raise InvalidField(answer["field"], answer["error"][:_LONGEST])
    observation, action = map(space_from_json, answer["spaces"])
    return replace(definition, spaces=(observation, action))


def look(definition: FamilyDefinition) -> dict[str, Any]:
    """What :func:`probed` is told: ``spaces``, or ``error`` and its ``field``."""
    which = "any"
    try:
        family = DefinedFamily(replace(definition, spaces=None))
        spaces: list[Any] | None = None
        for which, parameters in _extremes(family).items():
            seen = _look_at(family, parameters, which)
            if spaces is not None and seen != spaces:
                raise InvalidField("parameters", f"change the spaces of {definition.env_id}; all tasks must share one")
            spaces = seen
    except InvalidField as error:
        if error.field.partition(".")[0] in ("env_id", "parameters"):
            return {"field": error.field, "error": error.advice}
        return {"field": "env_id", "error": error.message}
    except InnerloopError as error:
        return {"field": "env_id", "error": error.message}
    except Exception as error:  # foreign code may raise anything
        told = f"{type(error).__name__}: {error}"
        return {"field": "env_id", "error": f"{definition.env_id} cannot be used with {which} parameters: {told}"}
    return {"spaces": spaces}


def _extremes(family: DefinedFamily) -> dict[str, dict[str, Any]]:
    """The tasks that are looked at: both ends of every parameter, and one from between."""
    parts = family.parameter_space.spaces.items()
    drawn = family.sample(np.random.default_rng(0))
    lowest = {name: part.low if isinstance(part, _BOX) else np.asarray(0) for name, part in parts}
    highest = {
        name: part.high if isinstance(part, _BOX) else np.asarray(part.n - 1)  # type: ignore[attr-defined]
        for name, part in parts
    }
    return {"drawn": drawn, "its lowest": lowest, "its highest": highest}


def _look_at(family: DefinedFamily, parameters: dict[str, Any], which: str) -> list[Any]:
    """Make one task's environment, reset and step it.

    Returns:
        Its spaces, of observations and actions, as JSON values.

    Raises:
        InvalidField: it shows or rewards what its spaces do not hold, or does not keep its parameters.
        Exception: whatever the environment raises.
    """
    task = Task(family.name, family.check(parameters))
    environment = family.make(task)
    try:
        sees, does = (
            carried(environment.observation_space, "observation_space"),
            carried(environment.action_space, "action_space"),
        )
        environment.action_space.seed(0)
        observation, _ = environment.reset(seed=0)
        if family.apply is Apply.ATTRIBUTES:
            _check_kept(environment, task, "reset")
        _check_observation(observation, sees, f"{family.env_id} shows, reset with {which} parameters,")
        observation, reward, terminated, truncated, _ = environment.step(environment.action_space.sample())
        if family.apply is Apply.ATTRIBUTES:
            _check_kept(environment, task, "step")
        _check_observation(observation, sees, f"{family.env_id} shows, stepped with {which} parameters,")
        if np.shape(np.asarray(reward)) != () or not math.isfinite(float(reward)):
            told = textwrap.shorten(str(reward), 80)
            raise InvalidField("env_id", f"{family.env_id} gives, with {which} parameters, {told} for a reward")
        if np.ndim(terminated) != 0 or np.ndim(truncated) != 0:
            raise InvalidField("env_id", f"{family.env_id} does not say in a word whether an episode ended")
        return [space_to_json(sees), space_to_json(does)]
    finally:
        environment.close()


def _check_observation(observation: Any, space: Space, who: str) -> None:
    """Shape and numbers; bounds are no more than what to expect, and many environments stray a little.

    Raises:
        InvalidField: none of the space.
    """
    array = np.asarray(observation)
    if array.shape != space.shape:
        raise InvalidField("env_id", f"{who} an observation of shape {list(array.shape)}, its space is {space}")
    if array.dtype.kind not in "biuf" or not np.all(np.isfinite(array)):
        raise InvalidField("env_id", f"{who} numbers that are not finite")
    if isinstance(space, Discrete) and (array.dtype.kind == "f" or not 0 <= array < space.n):
        raise InvalidField("env_id", f"{who} {array}, its space is {space}")


def _check_kept(environment: Environment, task: Task, after: str) -> None:
    """Raises:
    InvalidField: an attribute is no longer what it was set to, so that no task would have its parameters.
    """
    for name, value in plain(task.parameters).items():
        there = getattr(environment.unwrapped, name)
        try:
            kept = np.shape(there) == np.shape(value) and np.allclose(np.asarray(there, np.float64), value, atol=0.0)
        except (TypeError, ValueError):
            kept = False
        if not kept:
            told = f"is set by {type(environment.unwrapped).__name__} itself: after a {after} it is another"
            raise InvalidField(f"parameters.{name}", f"{told}; use one that stays as it was set")


if __name__ == "__main__":
    answer = look(FamilyDefinition.from_json(json.load(sys.stdin)))
    sys.stdout.write(f"\n{json.dumps(answer)}\n")

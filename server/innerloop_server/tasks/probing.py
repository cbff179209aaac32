"""A look at somebody's environment, in a process of its own: one that crashes or hangs takes nobody along.

``python -m innerloop_server.tasks.probing`` reads a definition as JSON, makes its environment, takes a step, and writes
what its spaces are, or what went wrong, as the last line of its output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from innerloop.arrays import space_from_json, space_to_json
from innerloop_server.domain import Task
from innerloop_server.errors import InnerloopError, InvalidField
from innerloop_server.tasks.definition import DefinedFamily, FamilyDefinition

MODULE = "innerloop_server.tasks.probing"
TIMEOUT_SECONDS = 60.0
_LONGEST = 500
"""Characters of somebody's error that are passed on."""


async def probed(definition: FamilyDefinition, timeout_seconds: float = TIMEOUT_SECONDS) -> FamilyDefinition:
    """``definition`` with the spaces that its environment has.

    Raises:
        InvalidField: it cannot be made, reset and stepped, takes longer than the timeout, ends its process, or has a
            space that cannot be carried.
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
    try:
        family = DefinedFamily(replace(definition, spaces=None))
        drawn = family.sample(np.random.default_rng(0))
        environment = family.make(Task(family.name, family.check(drawn)))
        try:
            spaces = [space_to_json(family.observation_space), space_to_json(family.action_space)]
            environment.action_space.seed(0)
            for observation in (environment.reset(seed=0)[0], environment.step(environment.action_space.sample())[0]):
                if not np.all(np.isfinite(observation)):
                    raise InvalidField("env_id", f"{definition.env_id} shows numbers that are not finite")
        finally:
            environment.close()
    except InvalidField as error:
        if error.field.partition(".")[0] in ("env_id", "parameters"):
            return {"field": error.field, "error": error.advice}
        return {"field": "env_id", "error": error.message}
    except InnerloopError as error:
        return {"field": "env_id", "error": error.message}
    except Exception as error:  # foreign code may raise anything
        return {"field": "env_id", "error": f"{definition.env_id} cannot be used: {type(error).__name__}: {error}"}
    return {"spaces": spaces}


if __name__ == "__main__":
    answer = look(FamilyDefinition.from_json(json.load(sys.stdin)))
    sys.stdout.write(f"\n{json.dumps(answer)}\n")

"""Steps a second of other people's simulators, on request: runs in the peers' own virtual environment.

One JSON object a line on standard input, such as
``{"peer": "gymnax", "environment": "CartPole-v1", "rows": 1024, "seconds": 1}``; one a line on standard output,
``{"rate": ...}`` in environment steps a second, or ``{"error": ...}``. What is asked for again is compiled and warm.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
CHUNK = 100
"""Steps of every row between two looks at the clock."""


@functools.cache
def gymnax_chunk(name: str, rows: int) -> Callable[[], None]:
    """``CHUNK`` steps of ``rows`` environments under random actions, with automatic resets, as one compiled scan."""
    import gymnax
    import jax

    env, params = gymnax.make(name)
    draw_action = jax.vmap(env.action_space(params).sample)
    step = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def one(carry: Any, _: Any) -> Any:
        key, state = carry
        key, key_action, key_step = jax.random.split(key, 3)
        action = draw_action(jax.random.split(key_action, rows))
        observation, state, reward, *_ = step(jax.random.split(key_step, rows), state, action, params)
        return (key, state), (observation.sum(), reward.sum())

    run = jax.jit(lambda carry: jax.lax.scan(one, carry, None, CHUNK))
    key = jax.random.PRNGKey(0)
    _, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(key, rows), params)
    carry = [(key, state)]

    def chunk() -> None:
        carry[0], out = run(carry[0])
        jax.block_until_ready(out)

    chunk()
    return chunk


@functools.cache
def envpool_chunk(name: str, rows: int, threads: int) -> Callable[[], None]:
    """``CHUNK`` steps of ``rows`` environments under random actions drawn beforehand."""
    import envpool
    import numpy as np

    env = envpool.make(name, env_type="gymnasium", num_envs=rows, num_threads=threads)
    env.reset()
    actions = [np.stack([env.action_space.sample() for _ in range(rows)]) for _ in range(20)]
    if np.issubdtype(actions[0].dtype, np.integer):
        actions = [action.astype(np.int32) for action in actions]

    def chunk() -> None:
        for i in range(CHUNK):
            env.step(actions[i % len(actions)])

    chunk()
    return chunk


def rate(chunk: Callable[[], None], rows: int, seconds: float) -> float:
    """Environment steps a second."""
    steps, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        chunk()
        steps += CHUNK * rows
    return steps / passed


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked["peer"] == "gymnax":
                chunk = gymnax_chunk(asked["environment"], asked["rows"])
            else:
                chunk = envpool_chunk(asked["environment"], asked["rows"], asked["threads"])
            answer: dict[str, Any] = {"rate": rate(chunk, asked["rows"], asked["seconds"])}
        except Exception as error:  # whatever a peer raises is a line of the table
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

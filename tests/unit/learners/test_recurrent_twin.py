"""The recurrent network in torch and the one that a policy file is run by are the same, step after step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from innerloop import policy as portable
from innerloop.arrays import Box, Discrete, Space
from innerloop.policy import Header, Policy
from innerloop_server.learners import recurrent
from innerloop_server.learners.learner import Input

Sizes = tuple[tuple[int, ...], int, tuple[int, ...]]
"""Of the encoder, of the memory, of the policy."""
CASES: list[tuple[Space, Space, Sizes]] = [
    (Discrete(5), Discrete(3), ((), 8, (6,))),
    (Box.of(-9, 9, (2, 2)), Discrete(4), ((7, 5), 16, ())),
    (Box.of(-9, 9, (3,)), Box.of(-1, 1, (2,)), ((4,), 6, (5, 5))),
]


@pytest.mark.parametrize(("observation", "action", "sizes"), CASES)
def test_the_twins_agree(observation: Space, action: Space, sizes: Sizes) -> None:
    encoder_sizes, memory_size, hidden_sizes = sizes
    size = 0 if isinstance(observation, Discrete) else observation.size
    box = 0 if isinstance(action, Discrete) else action.size
    header = Header(
        observation,
        action,
        hidden_sizes,
        (0.5,) * size,
        (2.0,) * size,
        (0.0,) * box,
        (1.0,) * box,
        architecture="gru",
        adapts=True,
        encoder_sizes=encoder_sizes,
        memory_size=memory_size,
    )
    rng = np.random.default_rng(0)
    weights = {n: (rng.standard_normal(s) / 2).astype(np.float32) for n, s in portable.weight_shapes(header).items()}
    ours = Policy(header, weights)
    theirs = {name: torch.from_numpy(array)[None] for name, array in weights.items()}
    rows, memory = 5, ours.begin(5)
    hidden = torch.zeros(1, rows, memory_size)
    for t in range(12):
        if isinstance(observation, Discrete):
            seen = rng.integers(0, observation.n, rows)
        else:
            seen = rng.standard_normal((rows, *observation.shape)).astype(np.float32)
        reward = rng.standard_normal(rows).astype(np.float32)
        terminated, truncated, end = (rng.random(rows) < 0.2 for _ in range(3))
        if t == 0:
            end[:] = True
        given = portable.told(memory, portable.Input(seen, None, reward, terminated, truncated, end))
        parameters, after = portable.forward_with_memory(header, weights, memory, given)
        x, first = recurrent.features(
            header,
            Input(
                *(
                    torch.from_numpy(np.array(part))[None]
                    for part in (seen, given.previous_action, reward, terminated, truncated, end)
                )
            ),
            torch.float32,
        )
        y, hidden = recurrent.look(theirs, hidden, x, first)
        distribution = recurrent.policy(header, theirs, y)
        np.testing.assert_allclose(after["memory"], hidden[0].numpy(), atol=1e-5)
        raw, log_prob = portable.sample(parameters, portable.draw_noise(action, rng, (rows,)))
        torch_log_prob = distribution.log_prob(torch.from_numpy(raw)[None])
        np.testing.assert_allclose(log_prob, torch_log_prob[0].numpy(), atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(
            portable.sample(parameters, None)[0], distribution.sample(None)[0].numpy(), atol=1e-5
        )
        memory = portable.acted(after, raw)

"""No row of a stacked evaluation can tell who else is in it, to the last bit."""

from dataclasses import replace

import numpy as np
import pytest
import toy_families as toy

from innerloop import policy
from innerloop.arrays import Array, Box, Discrete, Space
from innerloop.policy import Header
from innerloop_server.actors.acting import Decision, decide, shape_key, stack

SHAPES: list[tuple[Space, tuple[int, ...], Space]] = [
    (Box.of(-9, 9, (4,)), (32, 32), Discrete(2)),
    (Box.of(-9, 9, (17,)), (64, 64), Box.of(-1, 1, (6,))),
    (Box.of(-9, 9, (2, 3)), (100,), Box.of(-1, 1, (2, 2))),
    (Discrete(5), (), Discrete(19)),
]


def _header(observation: Space, hidden: tuple[int, ...], action: Space) -> Header:
    size = observation.n if isinstance(observation, Discrete) else observation.size
    box = 0 if isinstance(action, Discrete) else action.size
    return Header(observation, action, hidden, (0.5,) * size, (2.0,) * size, (0.0,) * box, (1.0,) * box)


def _observations(space: Space, rng: np.random.Generator, n: int) -> Array:
    if isinstance(space, Discrete):
        return rng.integers(0, space.n, n)
    return rng.standard_normal((n, *space.shape)).astype(np.float32)


def _same(a: Decision, b: Decision, rows: Array) -> bool:
    return all(np.array_equal(getattr(a, name)[rows], getattr(b, name)) for name in ("raw", "log_prob", "environment"))


@pytest.mark.parametrize(("observation", "hidden", "action"), SHAPES)
@pytest.mark.parametrize("greedy", [False, True])
def test_company_changes_no_bit(observation: Space, hidden: tuple[int, ...], action: Space, greedy: bool) -> None:
    header = _header(observation, hidden, action)
    rng = np.random.default_rng(0)
    weights = [
        {k: (rng.standard_normal(s) / 2).astype(np.float32) for k, s in policy.weight_shapes(header).items()}
        for _ in range(4)
    ]
    seen = [_observations(observation, rng, 23) for _ in weights]
    noise = [policy.draw_noise(action, rng, (23,)) for _ in weights]
    everybody = decide(header, stack(weights), seen, None if greedy else noise)
    for _ in range(60):
        tasks = rng.permutation(4)[: rng.integers(1, 5)]
        rows = [rng.permutation(23)[: rng.integers(1, 24)] for _ in tasks]
        some = decide(
            header,
            stack([weights[b] for b in tasks]),
            [seen[b][r] for b, r in zip(tasks, rows, strict=True)],
            None if greedy else [noise[b][r] for b, r in zip(tasks, rows, strict=True)],
        )
        assert all(_same(everybody[b], few, r) for b, few, r in zip(tasks, some, rows, strict=True))


@pytest.mark.parametrize(("observation", "hidden", "action"), SHAPES)
def test_agrees_with_the_policy_a_client_runs(observation: Space, hidden: tuple[int, ...], action: Space) -> None:
    header = _header(observation, hidden, action)
    rng = np.random.default_rng(1)
    weights = {k: (rng.standard_normal(s) / 2).astype(np.float32) for k, s in policy.weight_shapes(header).items()}
    seen = _observations(observation, rng, 9)
    (ours,) = decide(header, stack([weights]), [seen], None)
    theirs = policy.Policy(header, weights).decide(seen, greedy=True)
    np.testing.assert_allclose(ours.environment, theirs.environment, atol=1e-5)
    np.testing.assert_allclose(ours.log_prob, theirs.log_prob, atol=1e-5)


def test_only_what_the_maths_reads_keeps_policies_apart() -> None:
    header = toy.header()
    named = replace(header, family="other", learner="l", revision="r", steps=3, hash="h", extra={"a": "b"})
    assert shape_key(named) == shape_key(header)
    assert shape_key(replace(header, observation_scale=(1.0,) * 3)) != shape_key(header)
    assert shape_key(replace(header, hidden_sizes=(16,))) != shape_key(header)

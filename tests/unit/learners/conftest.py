from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from innerloop.arrays import Box, Discrete, Space
from innerloop_server.domain import Experience, Features, LearnerSpec


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


MakeSpec = Callable[..., LearnerSpec]


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    def make(
        observation: Space | None = None,
        action: Space | None = None,
        *,
        horizon: int = 10,
        baseline: Features | None = None,
        **settings: Any,
    ) -> LearnerSpec:
        observation = observation or Box.of(-np.inf, np.inf, (3,))
        action = action or Box.of(-1.0, 1.0, (2,))
        seen = observation.n if isinstance(observation, Discrete) else observation.size
        done = 0 if isinstance(action, Discrete) else action.size
        return LearnerSpec(
            name="toy-maml",
            method="maml",
            family="toy",
            observation_space=observation,
            action_space=action,
            observation_shift=tuple(0.1 * i for i in range(seen)),
            observation_scale=tuple(1.0 + 0.5 * i for i in range(seen)),
            action_shift=(0.0,) * done,
            action_scale=(1.0,) * done,
            horizon=horizon,
            baseline=baseline or Features(),
            settings={"hidden_sizes": [8], "inner_steps": 2, **settings},
        )

    return make


MakeExperience = Callable[..., "Experience[torch.Tensor]"]


@pytest.fixture(scope="session")
def make_experience() -> MakeExperience:
    def make(
        spec: LearnerSpec, b: int, n: int, t: int, *, seed: int = 0, lengths: torch.Tensor | None = None
    ) -> Experience[torch.Tensor]:
        """Random episodes whose contents have nothing to do with any policy; padded with zeros."""
        rng = np.random.default_rng(seed)
        if lengths is None:
            lengths = torch.from_numpy(rng.integers(1, t + 1, (b, n)))
        real = torch.arange(t) < lengths[..., None]

        def padded(x: np.ndarray, kind: torch.dtype = torch.float32) -> torch.Tensor:
            value = torch.from_numpy(x).to(kind)
            return value * real.reshape(*real.shape, *(1,) * (value.dim() - 3)).to(kind)

        if isinstance(spec.observation_space, Discrete):
            observations = padded(rng.integers(0, spec.observation_space.n, (b, n, t)), torch.int64)
        else:
            observations = padded(rng.normal(size=(b, n, t, *spec.observation_space.shape)))
        if isinstance(spec.action_space, Discrete):
            actions = padded(rng.integers(0, spec.action_space.n, (b, n, t)), torch.int64)
        else:
            actions = padded(rng.normal(size=(b, n, t, spec.action_space.size)))
        return Experience(
            observations=observations,
            actions=actions,
            rewards=padded(rng.normal(size=(b, n, t))),
            log_probs=padded(rng.normal(size=(b, n, t)) * 0.1 - 2),
            lengths=lengths,
            bootstrap=torch.zeros(b, n, dtype=torch.bool),
            final_observations=torch.zeros_like(observations[:, :, 0]),
            time_offset=torch.zeros(b, n, dtype=torch.int64),
            feedback=torch.zeros(b, n, t, 0),
            success=torch.zeros(b, n, dtype=torch.bool),
        )

    return make

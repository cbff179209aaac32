"""PEARL learns to infer: a minute's training beats whatever cannot."""

from collections.abc import Iterator

import pytest
import torch

from innerloop_server.domain import Split
from innerloop_server.learners.pearl import Pearl
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import generators, outer_loop, specs
from innerloop_server.training.collect import batch_collector
from innerloop_server.training.pearl_student import PearlStudent

STAYING_IN_THE_MIDDLE = -15.89
"""Return on ``point-robot-dense`` of going to the middle of the square and staying there (400,000 episodes)."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_two_episodes_tell_where_the_goal_is() -> None:
    family = load_registry().get("point-robot-dense")
    settings = {"latent": 10, "encoder_sizes": [64, 64], "gradient_steps": 100, "updates": 12, "sampled_steps": 2}
    learner = Pearl(specs.spec_for(family, "pearl", settings=settings))
    student = PearlStudent(learner, batch_collector(family, learner, torch.device("cpu")))
    generator = generators.build("uniform", family, 0)
    state = outer_loop.start(student, generator, 0)
    for _ in range(learner.updates):
        state, _ = outer_loop.teach(student, generator, state, 0)
    tasks = [sample_task(family, 1, Split.VALIDATION, i) for i in range(400)]
    metrics = student.play(state.meta, tasks, list(range(400))).metrics
    assert metrics["return_0"] < STAYING_IN_THE_MIDDLE, "the first episode only explores"
    assert metrics["return_2"] > STAYING_IN_THE_MIDDLE + 2.4, metrics

"""Meta-DQN learns what a bandit's arms are worth: the Bayes-adaptive optimum, at every history."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch

from innerloop_server.learners import recurrent
from innerloop_server.learners.learner import Input
from innerloop_server.learners.meta_dqn import MetaDqn, policy_part, value_part
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.training import generators, outer_loop, specs
from innerloop_server.training.meta_dqn_student import Exploring, MetaDqnStudent
from innerloop_server.training.trial_collect import batch_collector

PULLS = 3
SETTINGS = {
    "encoder_sizes": [16],
    "memory_size": 16,
    "hidden_sizes": [16],
    "value_unit": 1.0,
    "updates": 30,
    "tasks_per_update": 2_048,
    "gradient_steps": 40,
    "batch": 256,
    "window": PULLS,
    "burn_in": 0,
    "lookahead": PULLS,
    "replay": 60_000,
    "learning_rate": 1e-2,
    "final_learning_rate": 1e-4,
    "target_rate": 2e-2,
    # Whatever is played, what is learned is the greedy policy's: here arms are pulled at random.
    "exploration": 1.0,
}
Pull = tuple[int, int]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def optimal(history: tuple[Pull, ...], arm: int) -> Fraction:
    """What the arm is worth, by dynamic programming: payoffs were uniform in [0, 1]."""
    paid = [won for pulled, won in history if pulled == arm]
    p = Fraction(sum(paid) + 1, len(paid) + 2)
    if len(history) + 1 == PULLS:
        return p
    after = [max(optimal((*history, (arm, won)), a) for a in (0, 1)) for won in (0, 1)]
    return p * (1 + after[1]) + (1 - p) * after[0]


def learned(learner: MetaDqn, meta: dict[str, torch.Tensor], histories: list[tuple[Pull, ...]]) -> torch.Tensor:
    """[H, PULLS, 2] action values before each pull of these histories of PULLS - 1 pulls."""
    pulls = torch.tensor(histories).transpose(0, 1)
    none = torch.zeros(pulls.shape[:2], dtype=torch.bool)
    shown = torch.zeros(PULLS, len(histories), *learner.spec.observation_space.shape)
    start, _ = recurrent.features(learner.header, Input(shown[:1]), torch.float32)
    seen = Input(shown[1:], pulls[..., 0], pulls[..., 1].float(), none, ~none, none)
    then, _ = recurrent.features(learner.header, seen, torch.float32)
    x = torch.cat([start, then]).transpose(0, 1)
    memory = torch.zeros(len(histories), learner.settings.memory_size)
    return learner.action_values(policy_part(meta) | value_part(meta), x, memory)


@pytest.mark.slow
def test_it_learns_the_bayes_optimal_values_of_a_bandit() -> None:
    family = BernoulliBandit(arms=2, pulls=PULLS)
    learner = MetaDqn(specs.spec_for(family, "meta-dqn", settings=SETTINGS))
    student = MetaDqnStudent(learner, batch_collector(family, Exploring(learner.spec), torch.device("cpu")))
    generator = generators.build("uniform", family, 0)
    state = outer_loop.start(student, generator, 0)
    for _ in range(learner.updates):
        state, _ = outer_loop.teach(student, generator, state, 0)
    histories = list(itertools.product(itertools.product((0, 1), (0, 1)), repeat=PULLS - 1))
    got = learned(learner, state.meta, histories)
    want = torch.tensor([[[float(optimal(h[:t], a)) for a in (0, 1)] for t in range(PULLS)] for h in histories])
    errors = (got - want).abs()
    assert float(errors.mean()) < 0.03
    assert float(errors.max()) < 0.1
    # After every history the arm that is taken is one that is worth most.
    chosen = want.gather(-1, got.argmax(-1, keepdim=True))[..., 0]
    assert float((want.amax(-1) - chosen).max()) < 1e-6
